"""Exports with many items per file: pickles in the layout of YouCook2, and tar shards for WebDataset."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any, BinaryIO

import numpy as np

from trichord.errors import TrichordError
from trichord.files.writing import replacing_file
from trichord.releases import plain_pickle
from trichord.releases.common import RATES_HZ
from trichord.releases.export_job import Job
from trichord.releases.pieces import MEL_BINS
from trichord.releases.records import component, record_of, streams_of

KEY = "trichord"  # key in an entry of a YouCook2 pickle for its record and other data without a place in the layout


# ---- youcook2


def write_youcook2(job: Job) -> dict[str, int]:
    """Write `youcook_SPLIT_audio.pkl`: a list of dicts, one per item, with the keys of the releases and `trichord`."""
    counts: dict[str, int] = {}
    for split, items in job.by_split().items():
        name = f"youcook_{split}_audio.pkl"
        with replacing_file(job.out / name) as file:
            file.write(plain_pickle.START + plain_pickle.EMPTY_LIST)
            for i in job.each(items):
                file.write(plain_pickle.encoded(youcook2_entry(job, i)) + plain_pickle.APPEND)
            file.write(plain_pickle.STOP)
            job.summary.num_bytes += file.tell()
        counts[name] = len(items)
    return counts


def youcook2_entry(job: Job, i: int) -> dict[str, Any]:
    """Return one entry. A missing stream is all zeros, as in the releases, and is mentioned in a note.

    `2d` and `3d` are the maximum over time, and `2d_full` and `3d_full` all rows if they are not pooled. `audio` is a (40, frames)
    tensor. `caption` is the only caption of the clip, the first of several that each describe the whole clip, or the concatenation
    of timed ones (a narration).
    """
    store, record = job.store, record_of(job.store, i)
    rates, extra = record["rates_hz"], {}
    entry: dict[str, Any] = {"id": record["id"]}
    for stream, key in (("visual_2d", "2d"), ("visual_3d", "3d")):
        if stream not in store.streams:
            continue
        if stream in rates:
            rows = store.rows(stream, i)
            entry[key] = rows.max(axis=0)
            if rates[stream] != 0:
                entry[f"{key}_full"] = rows
        else:
            entry[key] = np.zeros(store.streams[stream].dim, np.float32)
            job.odd[f"items lack {stream}, so readers of the published layout get zeros"] += 1
    entry["caption"] = _one_caption(job, record)
    audio = store.rows("spectrogram", i) if "spectrogram" in rates else np.zeros((0, MEL_BINS), np.float32)
    has_audio = len(audio) > 0 and audio.shape[1] == MEL_BINS
    entry["audio"] = plain_pickle.Tensor(audio.T if has_audio else np.zeros((MEL_BINS, 1), np.float32))
    entry["has_audio"] = has_audio
    if not has_audio:
        job.odd["items have no spectrogram of 40 bins, so readers of the published layout get zeros"] += 1
    entry |= {"start": 0.0, "end": record["duration_s"]}
    for stream, rate_hz in rates.items():
        known = stream in ("visual_2d", "visual_3d") or (stream == "spectrogram" and has_audio)
        if not known:
            extra[stream] = store.rows(stream, i)
            job.odd[f"items have {stream}, which published readers do not support"] += 1
        elif rate_hz not in (RATES_HZ[stream], 0.0):
            job.odd[f"items have {stream} at another rate than the {RATES_HZ[stream]:g}/s of the releases"] += 1
    entry[KEY] = record | {"streams": extra}
    return entry


def _one_caption(job: Job, record: dict[str, Any]) -> str:
    captions = record["captions"]
    texts, duration_s = captions["text"], record["duration_s"]
    if len(texts) == 1:
        return texts[0]
    if not texts:
        job.odd["items have no caption, so readers of the published layout get an empty one"] += 1
        return ""
    if all(s <= 0 and e >= duration_s for s, e in zip(captions["start"], captions["end"], strict=True)):
        job.odd["items have several captions of the whole clip, so readers of the published layout get the first"] += 1
        return texts[0]
    job.odd["items have several timed captions, so readers of the published layout get their concatenation"] += 1
    return " ".join(texts)


# ---- webdataset


def write_webdataset(job: Job) -> dict[str, int]:
    """Write `SPLIT-000000.tar`, ...: for each item `KEY.json` (its record) and `KEY.STREAM.npy` (rows, width).

    KEY is COLLECTION/ID as file names without dots, because readers of WebDataset end the key at the first dot.
    """
    names = sorted(job.store.streams)
    if len({name.lower() for name in names}) < len(names):
        raise TrichordError(
            f"{job.store.path}: has streams whose names differ only in case, which readers of shards cannot tell "
            "apart; export it with --layout npy"
        )
    counts: dict[str, int] = {}
    for prefix, items in job.by_split().items():
        source, number = job.each(items), 0
        i = next(source, None)
        while i is not None:
            name = f"{prefix}-{number:06d}.tar"
            counts[name] = 0
            with (
                replacing_file(job.out / name) as file,
                tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
            ):
                while i is not None and not _full(job, counts[name], file.tell()):
                    _add_item(job, tar, i)
                    counts[name] += 1
                    i = next(source, None)
                tar.close()
                job.summary.num_bytes += file.tell()
            number += 1
    return counts


def _full(job: Job, num_items: int, num_bytes: int) -> bool:
    return num_items >= job.shard_items or (num_items > 0 and num_bytes >= job.shard_bytes)


def _add_item(job: Job, tar: tarfile.TarFile, i: int) -> None:
    record = record_of(job.store, i)
    key = f"{component(record['collection'], dots=False)}/{component(record['id'], dots=False)}"
    _add(tar, f"{key}.json", io.BytesIO(json.dumps(record).encode()))
    for name in streams_of(job.store, i):
        data = io.BytesIO()
        np.save(data, job.store.rows(name, i))
        _add(tar, f"{key}.{name}.npy", data)


def _add(tar: tarfile.TarFile, name: str, data: BinaryIO) -> None:
    info = tarfile.TarInfo(name)
    info.size = data.seek(0, io.SEEK_END)
    info.mode = 0o644
    data.seek(0)
    tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps a record of every file
    tar.addfile(info, data)
