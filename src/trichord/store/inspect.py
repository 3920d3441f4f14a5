"""The content of a store and a check for damage: `trichord store info` and `trichord store verify`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.files.locks import is_locked
from trichord.files.reading import file_sha256, read_text
from trichord.logs import get_logger
from trichord.store.cache import cache_bytes
from trichord.store.columns import extent
from trichord.store.content import falling_offsets, shard_problem, spellings
from trichord.store.ledger import LEDGER, entry_of
from trichord.store.location import Location, location
from trichord.store.manifest import Manifest, check_size, part_paths, read_manifest
from trichord.store.mirror import RemoteStore
from trichord.store.overlap import same_content
from trichord.store.rules import outdated
from trichord.store.shards import advice_for, map_shard, unreadable_part
from trichord.store.store import Store
from trichord.store.writer import leftovers

logger = get_logger(__name__)

_BLOCK_ROWS = 4096

FROZEN = "frozen"  # folder of embeddings computed by frozen encoders (`data.frozen`)


@dataclass(frozen=True)
class StreamSummary:
    """A summary of one stream.

    Attributes:
        dim: The width of its rows.
        dtype: The dtype of its rows.
        num_items: The number of items that have the stream.
        num_rows: The number of rows of all items.
        letter: The letter of the modality that the stream declares, or ''.
    """

    dim: int
    dtype: str
    num_items: int
    num_rows: int
    letter: str = ""


@dataclass(frozen=True)
class StoreInfo:
    """The content of `trichord store info`: a store, and counts that require reading it."""

    store: Store
    num_parts: int
    num_bytes: int
    streams: dict[str, StreamSummary]
    num_captions: int
    num_words: int
    num_frozen: int
    frozen_bytes: int
    num_outdated: int
    overlaps: int

    def __str__(self) -> str:
        store, hours = self.store, sum(map(self.store.duration_s, range(len(self.store)))) / 3600
        num_skipped = len(store.skipped())
        lines = [
            f"store        {store.path}",
            f"items        {len(store):,} in {_counted(self.num_parts, 'part')}, "
            f"{self.num_bytes / 1e6:,.1f} MB, {hours:,.2f} hours",
        ]
        if store.num_superseded:
            lines.append(
                f"superseded   {_counted(store.num_superseded, 'earlier version')} of items, still in the parts"
            )
        for (collection, split), count in store.collections().items():
            lines.append(f"  {f'{collection} {split}'.strip():<20} {count:,}")
        for name, stream in self.streams.items():
            lines.append(
                f"stream       {name:<12} {stream.dim} x {stream.dtype}, {_counted(stream.num_rows, 'row')} "
                f"of {_counted(stream.num_items, 'item')}" + (f", modality {stream.letter}" if stream.letter else "")
            )
        lines += [
            f"captions     {self.num_captions:,}",
            f"words        {self.num_words:,} of {store.word_source}"
            + (f", split as {store.word_splitting}" if store.word_splitting != "published" else ""),
            f"skipped      {num_skipped:,}" + (f" (see {store.path}/{LEDGER})" if num_skipped else ""),
            f"fingerprint  {store.fingerprint}",
        ]
        if self.overlaps:
            lines.append(
                f"overlap      {_counted(self.overlaps, 'video')} of other splits with the content of a training video; a run that "
                "evaluates on the former and trains on the latter is refused"
            )
        if self.num_outdated:
            lines.append(
                f"older rules  {_counted(self.num_outdated, 'item')} extracted by older rules for time stamps or captions; run the "
                "same `trichord extract` again, which updates those whose result differs"
            )
        if self.num_frozen:
            lines.append(
                f"frozen       {_counted(self.num_frozen, 'encoder')} computed for every clip, {self.frozen_bytes / 1e6:,.1f} MB "
                f"in {store.folder}/{FROZEN} (safe to delete; computed again when needed)"
            )
        if store.remote is not None:
            lines.append(f"copies       in {store.folder}, at most {cache_bytes() / 1e9:,.3g} GB of parts")
            if self.num_bytes > cache_bytes():
                lines.append(
                    "             less than the size of the store, so each epoch downloads parts again; increase TRICHORD_CACHE_GB"
                )
        return "\n".join(lines)


def store_info(store: Location) -> StoreInfo:
    """Count the content of a store.

    Args:
        store: The folder or URL of the store.
    """
    opened = Store(store)
    paths = part_paths(opened.folder)
    frozen = [p for p in (opened.folder / FROZEN).glob("*-*") if p.is_dir()]
    items = range(len(opened))
    streams = {}
    for name, info in opened.streams.items():
        num_rows = sum(opened.num_rows(name, i) for i in items)
        letter = opened.modalities.get(name, "")
        streams[name] = StreamSummary(info.dim, info.dtype, int(opened.has(name).sum()), num_rows, letter)
    return StoreInfo(
        opened,
        num_parts=len(paths),
        num_bytes=sum(p.stat().st_size for p in paths) + opened.shard_bytes,
        streams=streams,
        num_captions=sum(opened.num_captions(i) for i in items),
        num_words=sum(map(bool, opened.words)),
        num_frozen=len(frozen),
        frozen_bytes=sum(p.stat().st_size for folder in frozen for p in folder.iterdir()),
        num_outdated=len(outdated(opened)),
        overlaps=len(same_content(opened, opened.select(split="train"), _held_out(opened))),
    )


def _held_out(store: Store) -> np.ndarray:
    """Return the numbers of the items that no recipe trains on by default."""
    return np.setdiff1d(np.arange(len(store)), store.select(split="train"))


def verify(store: Location) -> list[str]:
    """Read a complete store and describe each problem in one line. An empty list means that the store is intact.

    The check covers sizes, checksums, offsets, word ids, finite values, repeated items, the consistency of parts with each
    other, the ledger, and files that a killed writer left. All parts of a remote store are downloaded, whether cached or not.

    Args:
        store: The folder or URL of the store.

    Raises:
        TrichordError: The store does not exist.
    """
    place = location(store)
    remote = RemoteStore(place) if isinstance(place, str) else None
    folder = remote.folder if remote else Path(place)
    if not folder.exists():
        Store(place)  # raises an error that says what to do
    paths = part_paths(folder)
    problems: list[str] = []
    if unfinished := leftovers(folder):
        if is_locked(folder / "lock"):
            logger.info(f"{folder}: a writer is active; its unfinished files are not checked")
        else:
            problem = "was left by a writer that did not finish; it is ignored, and removed the next time the store is written"
            problems = [f"{file}: {problem}" for file in leftovers(folder) if file in unfinished]
    seen: dict[tuple[str, str], Path] = {}
    words: dict[int, str] = {}
    part_problems: list[str] = []
    for path in paths:
        logger.debug("checking %s", path)
        try:
            for problem in _part_problems(read_manifest(path), seen, words, remote):
                part_problems.append(problem)
        except TrichordError as error:
            part_problems.append(str(error))
        except OSError as error:
            part_problems.append(str(unreadable_part(path.with_suffix(".safetensors"), error)))
    if not part_problems:  # each part is intact, so check that they are consistent
        try:
            _ = Store(place).words
        except TrichordError as error:
            part_problems.append(str(error))
    all_problems = [*problems, *part_problems, *_ledger_problems(folder)]
    return all_problems if remote is None else [remote.with_url(problem) for problem in all_problems]


def _part_problems(
    manifest: Manifest, seen: dict[tuple[str, str], Path], words: dict[int, str], remote: RemoteStore | None
) -> Iterator[str]:
    info, path = manifest.info, manifest.shard_path
    advice = advice_for(path)
    if not manifest.is_as_written():
        yield f"{manifest.path}: its rows were changed after they were written; {advice}"
    repeated = []
    for key in zip(*(manifest.texts[name].to_pylist() for name in ("collection", "video_id")), strict=True):
        if key in seen and (seen[key] == manifest.path or not info.supersedes):
            yield one_line(f"{manifest.path}: repeats {'/'.join(key)}, which {seen[key].name} contains; {advice}")
        elif key in seen:
            repeated.append("/".join(key))
        seen[key] = manifest.path
    if len(repeated) > info.supersedes > 0:
        problem = f"supersedes {len(repeated)} items but records {info.supersedes}"
        yield one_line(f"{manifest.path}: {problem} (the last is {repeated[-1]}); {advice}")
    if remote is None:
        check_size(manifest)
        if file_sha256(path) != info.sha256:
            yield f"{path}: its content does not match its checksum; {advice}"
        shard = map_shard(path)
    else:
        remote.check_size(info)
        remote.shard(info, again=True)  # verifies the checksum
        shard = remote.mapped(info)
    rows, captions = extent(manifest)
    if problem := shard_problem(shard, info.streams, rows, captions, (info.num_words, info.word_dim)):
        yield f"{path}: {problem}; {advice}"
        return
    for problem in _content_problems(shard, manifest, words):
        yield f"{path}: {problem}; {advice}"


def _content_problems(shard: dict[str, np.ndarray], manifest: Manifest, words: dict[int, str]) -> Iterator[str]:
    info = manifest.info
    for name in (*info.streams, "word_vectors", "caption_start_s", "caption_end_s"):
        tensor = shard[name]
        blocks = (tensor[at : at + _BLOCK_ROWS] for at in range(0, len(tensor), _BLOCK_ROWS))
        if not all(np.isfinite(block).all() for block in blocks):
            yield f"{name} contains NaN or infinity"
    if offsets := falling_offsets(shard):
        yield f"{offsets} decrease"
        return
    if not _is_utf8(shard["caption_text"]) or not _is_utf8(shard["word_spelling"]):
        yield "its text is not UTF-8"
    ids = shard["word_table_ids"]
    if not np.array_equal(ids[: info.num_new_words], info.first_word + np.arange(info.num_new_words)):
        yield "its new words are not numbered consecutively"
    if not np.isin(shard["word_ids"], ids).all():
        yield "its captions use word ids that it does not list"
    for word, spelling in zip(ids.tolist(), spellings(shard, len(ids)), strict=True):
        if words.setdefault(word, spelling) != spelling:
            yield one_line(f"word {word} is '{spelling}' here and '{words[word]}' in an earlier part")
            return


def _is_utf8(text: np.ndarray) -> bool:
    try:
        text.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return True


def _ledger_problems(store: Path) -> Iterator[str]:
    path = store / LEDGER
    if not path.exists():
        return
    for number, line in enumerate(read_text(path, errors="replace").splitlines(), 1):
        if entry_of(line) is None:
            yield f"{path}: line {number} is not a valid entry and is ignored; delete the line"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
