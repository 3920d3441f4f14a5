"""Convert items of an MTEB data set to inputs of `Embedder.encode_video` and `encode_audio`.

| column | item |
|---|---|
| video, audio | a path; `{"path", "bytes"}` as in the media features of `datasets`, with `start_s` and `end_s` for a part of it |
| video | frames (T, H, W, 3) or (T, 3, H, W) uint8, also as `{"array", "frame_rate_hz"}` |
| audio | `{"array", "sampling_rate"}`: samples (N,) or, with several channels, (C, N) |

`datasets` decodes media with torchcodec when a row is read; `with_files` keeps the encoded files instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trichord.embedder.inputs import array_of
from trichord.errors import TrichordError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Item:
    """An input of the embedder.

    Attributes:
        value: A path, frames or samples.
        rate_hz: Rate of frames or samples.
        start_s: Start of the part to embed in seconds.
        end_s: End of the part to embed in seconds.

    Example:
        >>> Item(Path("a.mp4"), start_s=1.0, end_s=2.0).end_s
        2.0
    """

    value: Any
    rate_hz: float | None = None
    start_s: float | None = None
    end_s: float | None = None


def with_files(inputs: DataLoader[Any]) -> Iterable[Mapping[str, Any]]:
    """Return the batches of a loader; media of a `datasets.Dataset` are returned as `{"path", "bytes"}` without decoding.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from datasets import Dataset
        >>> loader = DataLoader(Dataset.from_dict({"text": ["stir the soup", "cut the bread"]}), batch_size=2)
        >>> [batch["text"] for batch in with_files(loader)]
        [['stir the soup', 'cut the bread']]
    """
    from datasets import Audio, Dataset, Video
    from torch.utils.data import DataLoader

    data: Any = inputs.dataset
    if not isinstance(data, Dataset):
        return inputs
    media = {name: feature for name, feature in data.features.items() if isinstance(feature, Audio | Video)}
    for name, feature in media.items():
        if feature.decode:
            data = data.cast_column(name, type(feature)(decode=False))
    return DataLoader(
        data, batch_size=inputs.batch_size, collate_fn=inputs.collate_fn, num_workers=inputs.num_workers, shuffle=False
    )


def video_of(value: Any, frame_rate_hz: float | None, folder: Path) -> Item:
    """Convert an item of a column `video`; bytes are written to a file in `folder`.

    Raises:
        TrichordError: The form of the item is unknown.

    Example:
        >>> video_of({"path": "a.mp4", "start_s": 1.0, "end_s": 2.0}, None, Path(".")).start_s
        1.0
        >>> item = video_of({"array": np.zeros((8, 3, 72, 96), np.uint8), "frame_rate_hz": 4.0}, None, Path("."))
        >>> item.value.shape, item.rate_hz
        ((8, 72, 96, 3), 4.0)
    """
    if (item := _file_of(value, folder)) is not None:
        return item
    if isinstance(value, Mapping) and value.get("array") is not None:
        value, frame_rate_hz = value["array"], value.get("frame_rate_hz", frame_rate_hz)
    if value is None or isinstance(value, Mapping):
        raise _unknown_form("video", value)
    frames = array_of(value)
    if frames.ndim == 4 and frames.shape[-1] != 3 and frames.shape[1] == 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype.kind not in "iu" or frames.min(initial=0) < 0:
        raise TrichordError(
            f"the frames of a video must be (T, H, W, 3) uint8, not {frames.dtype} of shape {frames.shape}; convert them"
        )
    if frames.max(initial=0) > 255:
        raise TrichordError("the frames of a video contain numbers above 255; convert them to uint8")
    return Item(np.ascontiguousarray(frames, np.uint8), frame_rate_hz)


def sound_of(value: Any, folder: Path) -> Item:
    """Convert an item of a column `audio`; bytes are written to a file in `folder`.

    Raises:
        TrichordError: The form of the item is unknown.

    Example:
        >>> item = sound_of({"array": np.zeros((2, 16_000), np.float32), "sampling_rate": 16_000}, Path("."))
        >>> item.value.shape, item.rate_hz
        ((16000,), 16000.0)
    """
    if (item := _file_of(value, folder)) is not None:
        return item
    if not isinstance(value, Mapping) or value.get("array") is None or value.get("sampling_rate") is None:
        raise _unknown_form("audio", value)
    samples = array_of(value["array"])
    if samples.ndim == 2:  # channels
        samples = samples.mean(axis=int(samples.shape[1] < samples.shape[0]), dtype=np.float32)
    return Item(samples, float(value["sampling_rate"]))


def _file_of(value: Any, folder: Path) -> Item | None:
    value = getattr(value, "_hf_encoded", value)  # a decoder of `datasets` keeps its encoded file
    if isinstance(value, str | Path):
        return Item(Path(value))
    if not isinstance(value, Mapping) or not (value.get("bytes") or value.get("path")):
        return None
    start_s, end_s = value.get("start_s"), value.get("end_s")
    path = Path(value.get("path") or "")
    if value.get("bytes"):
        suffix = path.suffix if path.suffix[1:].isalnum() and len(path.suffix) < 8 else ""
        path = folder / f"{len(list(folder.iterdir()))}{suffix}"
        path.write_bytes(value["bytes"])
    return Item(path, None, start_s, end_s)


def _unknown_form(column: str, value: Any) -> TrichordError:
    if value is None:
        return TrichordError(f"an item has no {column}; remove the item")
    actual = f"a mapping of {', '.join(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
    decoded = "frames" if column == "video" else "{array, sampling_rate}"
    return TrichordError(f"an item of {column} is {actual}; give a path, {{path, bytes}}, or {decoded}")
