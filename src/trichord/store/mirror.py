"""Local access to a remote store: copies of its small files, and its shards through a cache of limited size.

`CACHE/stores/KEY/` holds the copies, where KEY follows from the URL: the Parquet files of the parts, `encoders.json`, the
ledger, the word tensors of the parts, and the embeddings that frozen encoders computed. A copy is renewed when the size, ETag or
time of the file has changed. `CACHE/shards/` holds shards of all stores, named after their checksums. Shards are always downloaded
completely, because only a complete shard can be compared with its checksum. If the shards are larger than the cache, drawing
clips at random downloads them again and again.
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
MAX_SMALL_BYTES = 1 << 30  # of one small file; limits what a faulty server can send
BLOCK_BYTES, BLOCKS_AHEAD = 8 << 20, 4
SHARDS_AT_ONCE, SMALL_AT_ONCE = 4, 16
WORD_TENSORS = ("word_table_ids", "word_vectors", "word_spelling", "word_spelling_offsets")
_MANIFEST, _SHARD = re.compile(r"[0-9]+\.parquet"), re.compile(r"[0-9]+\.safetensors")
_COPIED = "copied.json"
Shard = dict[str, np.ndarray]


class RemoteStore:
    """A remote store: a folder with copies of its small files, and access to its shards.

    Args:
        url: The URL of the store.
        cache_gb: The size limit of the cache in gigabytes, see `cache_bytes`.

    Attributes:
        folder: The folder that holds the copies.
        shards: The size and token of each shard when the store was opened, by file name.

    Raises:
        TrichordError: There is no store at the URL, it cannot be read, or the cache is not writable.
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

    def with_url(self, text: object) -> str:
        """Return a message about the local copy with the URL of the store in place of the folder."""
        return str(text).replace(str(self.folder), self.url)

    def check_size(self, info: PartInfo) -> None:
        """Check that the shard of a part existed with the recorded size when the store was opened.

        Raises:
            TrichordError: The shard is missing or has another size.
        """
        where = f"{self.url}/parts/{info.shard}"
        if info.shard not in self.shards:
            raise TrichordError(f"{where}: is missing; copy the store again, shards before their Parquet files")
        if (size := self.shards[info.shard].size) != info.num_bytes:
            raise TrichordError(f"{where}: has {size} bytes, but {info.num_bytes} were written; copy the store again")

    def shard(self, info: PartInfo, *, again: bool = False, wait: bool = True) -> Path:
        """Return the path of a verified local copy of the shard. The cache may delete the copy later to make room.

        Args:
            info: The part.
            again: Whether to download the shard even if there is a copy.
            wait: Whether to wait for another thread or process that is downloading it.
        """
        where = f"{self.url}/parts/{info.shard}"
        return self.cache.path(
            info.sha256, info.num_bytes, where, lambda file: self._download(info, file), again=again, wait=wait
        )

    def mapped(self, info: PartInfo) -> Shard:
        """Return the memory-mapped tensors of a part."""
        if self._ahead is not None:
            self._ahead.cancel()  # a download that has not begun may come too late to be of use
        again = False
        while True:
            path = self.shard(info, again=again)
            try:
                return map_shard(path)
            except TrichordError as error:
                if again and path.exists():
                    raise TrichordError(
                        f"{self.url}/parts/{info.shard}: cannot be used ({error}); copy the store again"
                    ) from None
                again = (
                    path.exists()
                )  # a file that exists was damaged by the disk; otherwise it was deleted to make room

    def bring(self, infos: Sequence[PartInfo]) -> None:
        """Download the shards of several parts in parallel, up to half the size of the cache; others are downloaded when used."""
        room = self.cache.max_bytes // 2
        fitting = [
            info for info, total in zip(infos, np.cumsum([i.num_bytes for i in infos]), strict=True) if total <= room
        ]
        if len(fitting) > 1:
            for _ in self._shards.map(self.shard, fitting):
                pass

    def read_ahead(self, info: PartInfo, beside: PartInfo) -> None:
        """Download the shard of a part in the background if it fits into the cache together with the part in use.

        Errors are raised when the part is used.
        """
        if info.num_bytes + beside.num_bytes <= self.cache.max_bytes:
            self._ahead = self._shards.submit(self.shard, info, wait=False)

    def words(self, infos: Sequence[PartInfo]) -> list[Shard]:
        """Return the word tensors of parts. Only these are downloaded, so that a vocabulary does not require all shards."""
        with ThreadPoolExecutor(SMALL_AT_ONCE, thread_name_prefix="words") as pool:
            return list(pool.map(self._words_of, infos))

    def _copy(self) -> dict[str, RemoteFile]:
        """Update the copies of the small files and return the shards that exist."""
        top, parts = self._files.listed(), self._files.listed("parts")
        small = {name: top[name] for name in SMALL_FILES if name in top}
        small |= {f"parts/{name}": file for name, file in parts.items() if _MANIFEST.fullmatch(name)}
        if not small:
            raise TrichordError(
                f"{self.url}: contains no store; check the bucket and the path (a store has a folder `parts`)"
            )
        copied_before = self._copied()
        digests = {name: entry[1] for name, entry in copied_before.items()}
        changed = [name for name, file in small.items() if not file.token or copied_before.get(name, ("",))[0] != file.token
                  or _sha256(self.folder / name) != digests[name]]  # fmt: skip
        with ThreadPoolExecutor(SMALL_AT_ONCE, thread_name_prefix="copy") as pool:
            digests |= zip(changed, pool.map(lambda name: self._copy_one(name, small[name].size), changed), strict=True)
        parts_here = [path for path in (self.folder / "parts").iterdir() if _MANIFEST.fullmatch(path.name)]
        for path in [*parts_here, *(self.folder / name for name in SMALL_FILES)]:
            if path.relative_to(self.folder).as_posix() not in small:
                path.unlink(missing_ok=True)
        if changed or copied_before.keys() != small.keys():
            copied = {name: [file.token, digests[name]] for name, file in small.items()}
            write_json(self.folder / _COPIED, {"url": self.url, "copied": copied})
        return {name: file for name, file in parts.items() if _SHARD.fullmatch(name)}

    def _copied(self) -> dict[str, tuple[str, str]]:
        """Return the token and the SHA-256 of each small file that was copied."""
        try:
            copied = read_json_value(self.folder / _COPIED)["copied"]
            return {str(name): (str(token), str(digest)) for name, (token, digest) in copied.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _copy_one(self, name: str, size: int) -> str:
        """Copy a small file and return its SHA-256."""
        if size > MAX_SMALL_BYTES:
            raise TrichordError(
                f"{self.url}/{name}: refused: has {size:,} bytes, more than such a file can have; copy the store again"
            )
        data = b"".join(self._files.read(name, begin, end) for begin, end in _blocks(size))
        with replacing_file(self.folder / name) as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def _download(self, info: PartInfo, descriptor: int) -> str:
        """Write a shard to the file, downloading several blocks ahead, and return the SHA-256 of the data."""
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
            path.unlink(missing_ok=True)  # damaged by the disk
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
    """The mapped shards of a remote store as a list indexed by part number; None for a shard that is not mapped.

    Accessing a shard tells the cache that it is in use. A shard that the cache deletes is dropped.

    Args:
        infos: The descriptions of the parts.
        cache: The cache that holds the shards.
    """

    def __init__(self, infos: Sequence[PartInfo], cache: ShardCache) -> None:
        self._checksums = [info.sha256 for info in infos]
        self._parts = {info.sha256: part for part, info in enumerate(infos)}
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
        """Drop the mapping of the shard with this checksum."""
        if checksum in self._parts:
            self._shards[self._parts[checksum]] = None


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, size, BLOCK_BYTES):
        yield begin, min(begin + BLOCK_BYTES, size)


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; '' if it cannot be read."""
    try:
        return file_sha256(path)
    except OSError:
        return ""
