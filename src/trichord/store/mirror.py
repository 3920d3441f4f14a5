"""A store behind a URL, as the reader needs it: its small files copied to a folder, its shards through a bounded cache.

`CACHE/stores/KEY/` holds the copies (KEY follows from the URL): the parts' Parquet files, `encoders.json`, the ledger, the
words of the parts, and what frozen encoders gave. A copy is renewed when the file's size, ETag or time has changed.
`CACHE/shards/` holds shards of all stores under their checksums, fetched whole: only a whole shard can be compared with the
checksum that the store keeps of it. What is larger than the cache is fetched again and again when clips are drawn at random.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from trichord.errors import TrichordError
from trichord.files.folders import make_folder
from trichord.files.locks import FileLock
from trichord.files.reading import file_sha256, read_json_value
from trichord.files.writing import replacing_file, write_json
from trichord.store.cache import ShardCache, cache_bytes, shard_cache, writing_to_cache
from trichord.store.content import word_table_problem
from trichord.store.ledger import LEDGER
from trichord.store.location import cache_folder
from trichord.store.manifest import PartInfo
from trichord.store.names import ANNOTATIONS, ENCODERS, SETTLED
from trichord.store.remote import RemoteFile, RemoteFiles
from trichord.store.shards import MAX_HEADER_BYTES, damaged, map_shard, parse_header, write_shard
from trichord.threads import in_order

SMALL_FILES = (ENCODERS, ANNOTATIONS, LEDGER, SETTLED)
MAX_SMALL_BYTES = 1 << 30  # of one small file; bounds what a strange server can make us copy
BLOCK_BYTES, BLOCKS_AHEAD = 8 << 20, 4
SHARDS_AT_ONCE, SMALL_AT_ONCE = 4, 16
WORD_TENSORS = ("word_table_ids", "word_vectors", "word_spelling", "word_spelling_offsets")
_MANIFEST, _SHARD = re.compile(r"[0-9]+\.parquet"), re.compile(r"[0-9]+\.safetensors")
_COPIED = "copied.json"
Shard = dict[str, np.ndarray]


class RemoteStore:
    """The copy of a remote store in `folder`, and its shards.

    Raises TrichordError when there is nothing at the URL, it cannot be read, or the cache cannot be written.
    """

    def __init__(self, url: str, cache_gb: float | None = None) -> None:
        self.url = url
        root = cache_folder()
        self.cache: ShardCache = shard_cache(root / "shards", cache_bytes(cache_gb))
        self.folder = root / "stores" / hashlib.sha256(url.encode()).hexdigest()[:32]
        self._files = RemoteFiles(url)
        self._downloads = ThreadPoolExecutor(SHARDS_AT_ONCE * BLOCKS_AHEAD, thread_name_prefix="download")
        self._shards = ThreadPoolExecutor(SHARDS_AT_ONCE, thread_name_prefix="shard")
        self._ahead: Future[Path] | None = None
        with writing_to_cache(self.folder):
            for name in ("parts", "words"):
                make_folder(root, "stores", self.folder.name, name)
            with FileLock(self.folder / "lock", wait_s=None):
                self.shards = self._copy()

    def told(self, text: object) -> str:
        """A message about the copy as one about the store."""
        return str(text).replace(str(self.folder), self.url)

    def check_size(self, info: PartInfo) -> None:
        """Raise TrichordError unless the part's shard was there with the recorded size when the store was opened."""
        where = f"{self.url}/parts/{info.shard}"
        if info.shard not in self.shards:
            raise TrichordError(f"{where}: is missing; copy the store anew, shards before their Parquet files")
        if (size := self.shards[info.shard].size) != info.num_bytes:
            raise TrichordError(f"{where}: has {size} bytes where {info.num_bytes} were written; copy the store anew")

    def shard(self, info: PartInfo, *, again: bool = False, wait: bool = True) -> Path:
        """A checked copy of the part's shard, which may be deleted when others need the space.

        Args:
            info: The part.
            again: Fetch it even if there is a copy.
            wait: Wait for another thread or process that fetches it.
        """
        where = f"{self.url}/parts/{info.shard}"
        return self.cache.path(
            info.sha256, info.num_bytes, where, lambda file: self._download(info, file), again=again, wait=wait
        )

    def mapped(self, info: PartInfo) -> Shard:
        """The part's tensors, mapped."""
        if self._ahead is not None:
            self._ahead.cancel()  # if it has not begun, this part may have been read by the time it would
        again = False
        while True:
            path = self.shard(info, again=again)
            try:
                return map_shard(path)
            except TrichordError as error:
                if again and path.exists():
                    raise TrichordError(
                        f"{self.url}/parts/{info.shard}: cannot be used ({error}); copy the store anew"
                    ) from None
                again = path.exists()  # the disk damaged it; else it was deleted for others in between

    def bring(self, infos: Sequence[PartInfo]) -> None:
        """Fetch the shards of several parts at once, as many as half the cache holds; the rest comes when it is used."""
        room = self.cache.max_bytes // 2
        fitting = [
            info for info, total in zip(infos, np.cumsum([i.num_bytes for i in infos]), strict=True) if total <= room
        ]
        if len(fitting) > 1:
            for _ in self._shards.map(self.shard, fitting):
                pass

    def read_ahead(self, info: PartInfo, beside: PartInfo) -> None:
        """Fetch a part's shard in the background if the cache can hold it beside the one in use.

        Errors are raised when the part is used.
        """
        if info.num_bytes + beside.num_bytes <= self.cache.max_bytes:
            self._ahead = self._shards.submit(self.shard, info, wait=False)

    def words(self, infos: Sequence[PartInfo]) -> list[Shard]:
        """The word tensors of parts, read by themselves: a vocabulary does not cost a copy of the store."""
        with ThreadPoolExecutor(SMALL_AT_ONCE, thread_name_prefix="words") as pool:
            return list(pool.map(self._words_of, infos))

    def _copy(self) -> dict[str, RemoteFile]:
        """Bring the copies of the small files up to date. Returns the shards that there are."""
        top, parts = self._files.listed(), self._files.listed("parts")
        small = {name: top[name] for name in SMALL_FILES if name in top}
        small |= {f"parts/{name}": file for name, file in parts.items() if _MANIFEST.fullmatch(name)}
        if not small:
            raise TrichordError(
                f"{self.url}: no such store; check the bucket and the path (a store has a folder `parts`)"
            )
        had = self._copied()
        digests = {name: entry[1] for name, entry in had.items()}
        wanted = [name for name, file in small.items() if not file.token or had.get(name, ("",))[0] != file.token
                  or _sha256(self.folder / name) != digests[name]]  # fmt: skip
        with ThreadPoolExecutor(SMALL_AT_ONCE, thread_name_prefix="copy") as pool:
            digests |= zip(wanted, pool.map(lambda name: self._copy_one(name, small[name].size), wanted), strict=True)
        parts_here = [path for path in (self.folder / "parts").iterdir() if _MANIFEST.fullmatch(path.name)]
        for path in [*parts_here, *(self.folder / name for name in SMALL_FILES)]:
            if path.relative_to(self.folder).as_posix() not in small:
                path.unlink(missing_ok=True)
        if wanted or had.keys() != small.keys():
            copied = {name: [file.token, digests[name]] for name, file in small.items()}
            write_json(self.folder / _COPIED, {"url": self.url, "copied": copied})
        return {name: file for name, file in parts.items() if _SHARD.fullmatch(name)}

    def _copied(self) -> dict[str, tuple[str, str]]:
        """The token and the SHA-256 of each small file that was copied."""
        try:
            copied = read_json_value(self.folder / _COPIED)["copied"]
            return {str(name): (str(token), str(digest)) for name, (token, digest) in copied.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _copy_one(self, name: str, size: int) -> str:
        """Copy a small file. Returns its SHA-256."""
        if size > MAX_SMALL_BYTES:
            raise TrichordError(f"{self.url}/{name}: refused: has {size:,} bytes; copy the store anew")
        data = b"".join(self._files.read(name, begin, end) for begin, end in _blocks(size))
        with replacing_file(self.folder / name) as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def _download(self, info: PartInfo, descriptor: int) -> str:
        """Write the shard into the file, several blocks ahead. Returns the SHA-256 of what came."""
        digest = hashlib.sha256()
        name, begin = f"parts/{info.shard}", 0
        spans = _blocks(info.num_bytes)
        for _, block in in_order(self._downloads, lambda span: self._files.read(name, *span), spans, BLOCKS_AHEAD):
            digest.update(block)
            begin += os.pwrite(descriptor, block, begin)
        if begin != info.num_bytes:
            raise OSError(f"wrote {begin:,} of {info.num_bytes:,} bytes")
        return digest.hexdigest()

    def _words_of(self, info: PartInfo) -> Shard:
        folder = self.folder / "words"
        for path in folder.glob(f"{info.sha256}.*.safetensors"):
            if _sha256(path) == path.name.split(".")[1]:
                return map_shard(path)
            path.unlink(missing_ok=True)  # the disk has damaged it
        name, where = f"parts/{info.shard}", self.folder / "parts" / info.shard
        length = int.from_bytes(self._files.read(name, 0, min(8, info.num_bytes)), "little")
        if length > min(MAX_HEADER_BYTES, info.num_bytes - 8):
            raise damaged(where, "not a safetensors file or cut short")
        header = parse_header(where, self._files.read(name, 8, 8 + length), info.num_bytes)
        tensors = {}
        for key in WORD_TENSORS:
            if key not in header:
                raise damaged(where, f"its tensor {key} is missing")
            dtype, shape, begin = header[key]
            data = self._files.read(name, begin, begin + dtype.itemsize * int(np.prod(shape)))
            tensors[key] = np.frombuffer(data, dtype).reshape(shape)
        if problem := word_table_problem(tensors, (info.num_words, info.word_dim)):
            raise damaged(where, problem)
        unnamed = folder / f".{info.sha256}.{os.getpid()}.new"
        _, digest = write_shard(unnamed, {key: [tensor] for key, tensor in tensors.items()})
        os.replace(unnamed, folder / f"{info.sha256}.{digest}.safetensors")
        return tensors


class MappedShards:
    """The mapped shards of a remote store by the number of their part, as a list of them: None where it is not mapped.

    Reading one tells the cache that it is in use; a shard that the cache deletes is let go of.
    """

    def __init__(self, infos: Sequence[PartInfo], cache: ShardCache) -> None:
        self._checksums = [info.sha256 for info in infos]
        self._of = {info.sha256: part for part, info in enumerate(infos)}
        self._shards: list[Shard | None] = [None] * len(infos)
        self._cache = cache
        cache.watch(self)

    def __getitem__(self, part: int) -> Shard | None:
        shard = self._shards[part]
        if shard is not None:
            self._cache.used(self._checksums[part])
        return shard

    def __setitem__(self, part: int, shard: Shard | None) -> None:
        self._shards[part] = shard

    def drop(self, checksum: str) -> None:
        if checksum in self._of:
            self._shards[self._of[checksum]] = None


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, size, BLOCK_BYTES):
        yield begin, min(begin + BLOCK_BYTES, size)


def _sha256(path: Path) -> str:
    """The SHA-256 of a file; '' where there is none."""
    try:
        return file_sha256(path)
    except OSError:
        return ""
