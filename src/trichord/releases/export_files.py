"""Exports with one file per item and stream: the layouts of the HowTo100M releases (.npz), and .npy files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trichord.files.folders import hidden_beside
from trichord.files.writing import new_file, replacing_file
from trichord.releases import plain_pickle
from trichord.releases.common import RATES_HZ
from trichord.releases.export_job import Job, split_name
from trichord.releases.pieces import MEL_BINS
from trichord.releases.records import INDEX, component, record_of, streams_of

NPY_INDEX = "index.csv"
NPY_COLUMNS = ["video_id", "path", "collection", "split", "duration_s", "source"]
CAPTION_FOLDER = "captions"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears completely or not at all, except after a power failure: millions of files are not synced."""
    temporary = hidden_beside(path, ".partial")
    try:
        new_file(temporary)
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# ---- howto100m


def write_howto100m(job: Job) -> dict[str, int]:
    """Write `COLLECTION/video_X/ID/ID_{2d,3d,spec}.npz`, path lists per split, caption tables, and the index.

    ID is the video id as a file name (`component`): a YouTube id is unchanged, and the `/` of `train/egg/a` becomes %2F. If several
    collections are exported, the ids of all but the first one are COLLECTION+ID, because captions are identified by the id only. A
    path list contains the items that published loaders can use: those with captions and every stream that others have.
    """
    store = job.store
    first = store.collection(job.items[0])
    needed = [name for name in RATES_HZ if name in store.streams and store.has(name)[job.items].any()]
    lists: dict[str, BinaryIO] = {}
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        index = stack.enter_context(replacing_file(job.out / INDEX))
        tables = _CaptionTables(job, stack)
        for i in job.each():
            record = record_of(store, i)
            collection, name = record["collection"], component(record["id"])
            name = name if collection == first else f"{component(collection)}+{name}"
            folder = component(collection)
            folder = f"{folder[:-1]}%65" if folder.endswith("None") else folder  # loaders remove "None/"
            letter = record["id"][0].lower()
            path = f"{folder}/video_{letter if letter.isascii() and letter.isalnum() else '_'}/{name}"
            record["path"] = path
            record["files"] = _write_arrays(job, i, record, job.out / path, name)
            record["dtypes"] = {stream: str(store.rows(stream, i, 0, 1).dtype) for stream in streams_of(store, i)}
            index.write(json.dumps(record).encode() + b"\n")
            tables.add(name, record["captions"])
            if not record["captions"]["text"] or not set(needed) <= set(record["rates_hz"]):
                job.odd["items are in no path list, because they lack captions or a stream that others have"] += 1
                continue
            listed = "videopaths" + ("" if record["split"] in ("", "train") else f"_{split_name(record['split'])}")
            if listed not in lists:
                lists[listed] = stack.enter_context(replacing_file(job.out / f"{listed}.txt"))
                lists[listed].write(b"path\n")
            lists[listed].write(f"{path}\n".encode())
            counts[f"{listed}.txt"] = counts.get(f"{listed}.txt", 0) + 1
        if "videopaths" not in lists:
            stack.enter_context(replacing_file(job.out / "videopaths.txt")).write(b"path\n")
        tables.end()
    return counts | {INDEX: len(job.items)}


def _write_arrays(job: Job, i: int, record: dict[str, Any], folder: Path, name: str) -> dict[str, str]:
    """Write the streams of an item; return the file name (relative to `out`) of the exact values of each."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    for stream, rate_hz in record["rates_hz"].items():
        rows = job.store.rows(stream, i)
        if rate_hz != RATES_HZ.get(stream, rate_hz):
            job.odd[f"items have {stream} at another rate than the {RATES_HZ[stream]:g}/s of the releases"] += 1
        if stream in ("visual_2d", "visual_3d"):
            files[stream] = _save(job, folder / f"{name}_{stream[-2:]}.npz", features=rows)
            continue
        exact = False
        if stream == "spectrogram" and rows.shape[1] == MEL_BINS:
            largest = np.finfo(np.float16).max
            half = np.clip(rows, -largest, largest).astype(np.float16)
            spec = _save(job, folder / f"{name}_spec.npz", arr_0=np.ascontiguousarray(half.T))
            exact = half.astype(rows.dtype).tobytes() == rows.tobytes()
            if exact:
                files[stream] = spec
            else:
                job.odd["spectrograms are rounded to float16 in _spec.npz; the exact ones are next to them"] += 1
        if not exact:
            files[stream] = _save(job, folder / f"{name}_x_{stream}.npz", features=rows)
            if stream != "spectrogram" or rows.shape[1] != MEL_BINS:
                job.odd[f"items have {stream}, which published readers do not support"] += 1
    return files


def _save(job: Job, path: Path, **arrays: np.ndarray) -> str:
    with whole_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        job.summary.num_bytes += file.tell()
    return path.relative_to(job.out).as_posix()


class _CaptionTables:
    """Writes caption.pickle and caption.json, {id: {start, end, text}}, item by item."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        self._pickle = self._json = None
        if job.captions in ("both", "pickle"):
            self._pickle = stack.enter_context(replacing_file(job.out / "caption.pickle"))
            self._pickle.write(plain_pickle.START + plain_pickle.EMPTY_DICT)
        if job.captions in ("both", "json"):
            self._json = stack.enter_context(replacing_file(job.out / "caption.json"))
            self._json.write(b"{")
        self._comma = b"\n"

    def add(self, name: str, captions: dict[str, list]) -> None:
        if self._pickle:
            self._pickle.write(plain_pickle.encoded(name) + plain_pickle.encoded(captions) + plain_pickle.SET_ITEM)
        if self._json:
            self._json.write(self._comma + f"{json.dumps(name)}: {json.dumps(captions)}".encode())
            self._comma = b",\n"

    def end(self) -> None:
        if self._pickle:
            self._pickle.write(plain_pickle.STOP)
        if self._json:
            self._json.write(b"\n}\n")


# ---- npy


def write_npy(job: Job) -> dict[str, int]:
    """Write `STREAM/PATH.npy` with the same PATH for every stream, `captions/PATH.json`, and index.csv.

    PATH is COLLECTION/ID as file names (`component`). The index contains it with `.npy`, like the original release, and a column
    STREAM_rate_hz per stream, which is empty if the item lacks the stream.
    """
    names = sorted(job.store.streams)
    text = io.StringIO(newline="")
    rows = csv.writer(text)  # lines end in \r\n, so that a \r in an id is quoted
    with replacing_file(job.out / NPY_INDEX) as index:
        known = any(job.store.media(i) or job.store.rules(i) for i in job.items.tolist())
        columns = [*NPY_COLUMNS, *(("media", "rules") if known else ())]
        rows.writerow([*columns, *(f"{name}_rate_hz" for name in names)])
        for i in job.each():
            record = record_of(job.store, i)
            path = f"{component(record['collection'])}/{component(record['id'])}"
            for name in record["rates_hz"]:
                with _file(job.out / component(name) / f"{path}.npy") as file:
                    np.save(file, job.store.rows(name, i))
                    job.summary.num_bytes += file.tell()
            with _file(job.out / CAPTION_FOLDER / f"{path}.json") as file:
                file.write(json.dumps(record["captions"]).encode() + b"\n")
            head = [record["id"], f"{path}.npy", *(record.get(name, "") for name in columns[2:])]
            rows.writerow([*head, *(record["rates_hz"].get(name, "") for name in names)])
            index.write(text.getvalue().encode())
            text.seek(0)
            text.truncate()
    return {NPY_INDEX: len(job.items)}


@contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        yield file
