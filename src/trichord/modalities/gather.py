"""Reading of many slices of a store at once.

The positions of all slices are computed together, and each slice is then read by one short NumPy call. The results are bit-equal to
those of reading clip by clip, except for the sign of zeros, which depends on the order in which a maximum is taken.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from trichord.audio_frames import HOP, SAMPLE_RATE_HZ, WINDOW
from trichord.store.items import PER_CAPTION

if TYPE_CHECKING:
    from torch import Tensor

    from trichord.store import Store
    from trichord.store.clips import Clips

_BLOCK = 64  # number of clips whose pooled rows stay in the processor cache while they are converted and normalized
_KEPT = 4  # number of free buffers that are kept per name
_SIGN, _INFINITY = 0x8000, 0x7C00  # bits of a float16
_SMALL = 1 << 20  # tensors of fewer bytes are allocated each time


class Memory:
    """A pool that lends uninitialized tensors. The memory of a large tensor is lent again once no tensor uses it.

    Reusing memory avoids page faults, which take longer than reading the data.
    """

    def __init__(self) -> None:
        self._free: dict[str, deque[np.ndarray]] = {}

    def tensor(self, name: str, shape: tuple[int, ...], dtype: type, pin: bool = False) -> Tensor:
        """Lend an uninitialized tensor.

        Args:
            name: Name under which free memory is kept.
            shape: Shape of the tensor.
            dtype: NumPy data type of the tensor.
            pin: Whether to use page-locked memory. It comes from torch's own pool, which keeps track of pending copies.

        Returns:
            The tensor.
        """
        import torch

        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if pin:
            return torch.empty(shape, dtype=getattr(torch, np.dtype(dtype).name), pin_memory=True)
        if num_bytes < _SMALL:
            return torch.from_numpy(np.empty(shape, dtype))
        free = self._free.setdefault(name, deque(maxlen=_KEPT))
        try:
            buffer = free.pop()
        except IndexError:
            buffer = np.empty(0, np.uint8)
        if not num_bytes <= buffer.nbytes <= 2 * num_bytes:
            buffer = np.empty(num_bytes, np.uint8)
        lent: np.ndarray = buffer[:num_bytes].view(dtype).reshape(shape)
        weakref.finalize(lent, free.append, buffer).atexit = False
        return torch.from_numpy(lent)


def stream_slices(store: Store, stream: str, clips: Clips) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Locate the rows of each clip in a stream that is pooled over time.

    These are the rows from int(start * rate) to int(end * rate), both included. A pooled stream has a single row, and an item
    without the stream has none.

    Args:
        store: Store of the features.
        stream: Name of the stream.
        clips: Clips to locate.

    Returns:
        The part of the store, the first row and the end of the rows (exclusive), each of shape (B,).
    """
    part, begin, end, rate_hz = store.located(stream, clips.item)
    timed = (rate_hz != 0.0) & (end > begin)
    rate_hz = np.where(timed, rate_hz, 0.0)
    first = np.where(timed, begin + np.maximum((clips.start_s * rate_hz).astype(np.int64), 0), begin)
    stop = np.where(timed, np.minimum(end, begin + (clips.end_s * rate_hz).astype(np.int64) + 1), end)
    return part, first, stop


def clip_rows(store: Store, stream: str, clips: Clips, row: int) -> np.ndarray:
    """Return the rows of one clip.

    Args:
        store: Store of the features.
        stream: Name of the stream.
        clips: Clips.
        row: Index of the clip.

    Returns:
        The rows that `stream_slices` selects. For a stream with one row per caption, the rows of the captions of the clip.
    """
    item = int(clips.item[row])
    rate_hz = store.rate_hz(stream, item)
    if rate_hz == 0.0 or store.num_rows(stream, item) == 0:
        return store.rows(stream, item)
    if rate_hz == PER_CAPTION:
        return store.rows(stream, item)[clips.captions[row]]
    begin, end = int(clips.start_s[row] * rate_hz), int(clips.end_s[row] * rate_hz) + 1
    return store.rows(stream, item, max(0, begin), end)


def write_max_pooled(store: Store, stream: str, clips: Clips, out: np.ndarray) -> np.ndarray:
    """Write the maximum over the rows of each clip, scaled to unit length.

    Args:
        store: Store of the features.
        stream: Name of the stream.
        clips: Clips to read.
        out: Array of shape (B, dim), float32, that is written. The rows of clips without rows in the stream are not written.

    Returns:
        Mask of shape (B,) of the clips that have rows.
    """
    if not (store.located(stream, clips.item)[3] == PER_CAPTION).any():
        return write_pooled(store, stream, clips, out)
    valid = np.ones(len(clips), bool)
    for row in range(len(clips)):
        features = clip_rows(store, stream, clips, row)
        if len(features) == 0:
            valid[row] = False
            continue
        pooled = features.max(axis=0).astype(np.float32)
        out[row] = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
    return valid


def spectrogram_slices(
    store: Store, stream: str, clips: Clips, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Locate the spectrogram frames of each clip.

    Args:
        store: Store of the features.
        stream: Name of the stream.
        clips: Clips to locate. A clip that spans its whole item has all frames of the item.
        longest: Maximum number of frames of a clip.

    Returns:
        The part of the store, the first frame and the end of the frames (exclusive), each of shape (B,).
    """
    store.reading.begin(stream, clips.item)
    part, begin, end, _ = store.located(stream, clips.item)
    low, high = (
        np.maximum(((t * SAMPLE_RATE_HZ).astype(np.int64) - WINDOW // 2) // HOP, 0)
        for t in (clips.start_s, clips.end_s)
    )
    whole = (clips.start_s <= 0) & (clips.end_s >= store.durations_s(clips.item))
    low = np.where(whole, 0, low)
    high = np.where(whole, longest, np.minimum(np.maximum(high, low), low + longest))
    first, stop = begin + low, np.minimum(end, begin + high)
    return part, first, np.maximum(stop, first)


def write_pooled(store: Store, stream: str, clips: Clips, out: np.ndarray) -> np.ndarray:
    """Write the maximum over time of the rows of each clip, scaled to unit length. The arguments are those of `write_max_pooled`.

    The maximum of float16 numbers is computed from their bits, which have the same order as the numbers if no number is negative.

    Args:
        store: Store of the features.
        stream: Name of a stream without rows per caption.
        clips: Clips to read.
        out: Array of shape (B, dim), float32, that is written. The rows of clips without rows in the stream are not written.

    Returns:
        Mask of shape (B,) of the clips that have rows.
    """
    import torch

    part, first, stop = stream_slices(store, stream, clips)
    tensors = {p: store.part_tensor(p, stream) for p in np.unique(part[stop > first]).tolist()}
    parts, firsts, stops = part.tolist(), first.tolist(), stop.tolist()
    halves = all(tensor.dtype == np.float16 for tensor in tensors.values())
    bits = {p: tensor.view(np.uint16) for p, tensor in tensors.items()} if halves else tensors
    filled = np.flatnonzero(stop > first)
    pooled = np.empty((_BLOCK, out.shape[1]), np.uint16 if halves else np.float32)
    reduce, reading = np.maximum.reduce, store.reading
    reading.begin(stream, clips.item)
    for begin in range(0, len(filled), _BLOCK):
        rows = filled[begin : begin + _BLOCK]
        block = pooled[: len(rows)]
        for k, row in enumerate(rows.tolist()):
            reading.row = row
            reduce(bits[parts[row]][firsts[row] : stops[row]], axis=0, out=block[k])
        if halves:
            for k in np.flatnonzero(block.max(axis=1) >= _SIGN).tolist():
                row = int(rows[k])
                block[k] = _signed_max(bits[parts[row]][firsts[row] : stops[row]])
            block = torch.from_numpy(block.view(np.float16)).float().numpy()  # exact, and faster than NumPy
        with np.errstate(all="ignore"):  # values that are not finite are kept, and training reports the clips concerned
            lengths = np.sqrt(np.array([row.dot(row) for row in block], np.float32))
            block /= np.maximum(lengths, np.float32(1e-12))[:, None]
        out[rows] = block
    return stop > first


def _signed_max(bits: np.ndarray) -> np.ndarray:
    """Return the bits (D,) of the maximum over rows of float16 numbers (n, D), which are given by their bits.

    A NaN is the maximum of its column. Of positive and negative zeros, the positive zero is the maximum.
    """
    if ((bits & 0x7FFF) > _INFINITY).any():
        return bits.view(np.float16).max(axis=0).view(np.uint16)
    signed = bits.view(np.int16)
    keys = (signed ^ ((signed >> 15) & 0x7FFF)).max(axis=0)
    return (keys ^ ((keys >> 15) & 0x7FFF)).view(np.uint16)


def write_spectrograms(
    store: Store, stream: str, slices: tuple[np.ndarray, np.ndarray, np.ndarray], out: Tensor, pad: float
) -> None:
    """Write the spectrogram frames of each clip, followed by padding.

    Args:
        store: Store of the features.
        stream: Name of the stream.
        slices: Positions of the frames, as `spectrogram_slices` returns them.
        out: Tensor of shape (B, T, mel) that is written: float32, or float16 if the store holds float16.
        pad: Value of the padding.
    """
    import torch

    part, first, stop = slices
    tensors = {p: store.part_tensor(p, stream) for p in np.unique(part[stop > first]).tolist()}
    target = out.numpy()
    frames = np.empty(target.shape[1:], np.float16)
    frames_tensor = torch.from_numpy(frames)
    reading = store.reading
    for row, (p, begin, end) in enumerate(zip(part.tolist(), first.tolist(), stop.tolist(), strict=True)):
        count = end - begin
        reading.row = row
        target[row, count:] = pad
        if not count:
            continue
        if target.dtype == np.float32 and tensors[p].dtype == np.float16:
            frames[:count] = tensors[p][begin:end]
            # The conversion by torch is faster than that by NumPy. It needs a copy because the arrays of the store are read-only.
            out[row, :count].copy_(frames_tensor[:count])
        else:
            target[row, :count] = tensors[p][begin:end]


def word_ids(store: Store, clips: Clips, max_words: int) -> np.ndarray:
    """Return the first words of the captions of each clip.

    Args:
        store: Store of the captions.
        clips: Clips to read.
        max_words: Maximum number of words of a clip.

    Returns:
        Rows of the word table, of shape (B, max_words), int64. The captions follow one another, and the padding is -1.

    Raises:
        IndexError: If a clip refers to a caption that its item does not have.
    """
    out = np.full((len(clips), max_words), -1, np.int64)
    counts = np.array([len(c) for c in clips.captions], np.int64)
    if not counts.sum():
        return out
    caption = np.concatenate(clips.captions).astype(np.int64)
    clip = np.repeat(np.arange(len(clips)), counts)
    part, begin, end, _ = store.located("caption", clips.item)
    wrong = (caption < 0) | (caption >= (end - begin)[clip])
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        item, has = int(clips.item[clip[at]]), int((end - begin)[clip[at]])
        raise IndexError(f"a clip of item {item} refers to caption {caption[at]}, but the item has {has} captions")
    position, part = begin[clip] + caption, part[clip]
    first, num_words = np.empty_like(position), np.empty_like(position)
    for p in np.unique(part).tolist():
        mine, offsets = part == p, store.part_tensor(p, "word_offsets")
        first[mine] = offsets[position[mine]]
        num_words[mine] = offsets[position[mine] + 1] - first[mine]
    before = np.cumsum(num_words) - num_words
    before -= np.repeat(before[(np.cumsum(counts) - counts)[counts > 0]], counts[counts > 0])
    kept = np.clip(max_words - before, 0, num_words)
    within = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    source, target = np.repeat(first, kept) + within, np.repeat(clip * max_words + before, kept) + within
    word_part = np.repeat(part, kept)
    for p in np.unique(word_part).tolist():
        mine = word_part == p
        out.ravel()[target[mine]] = store.part_tensor(p, "word_ids")[source[mine]]
    return out
