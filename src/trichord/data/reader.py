"""From clips to tensors: slices of the store, pooled, padded and masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from trichord.audio_frames import time_to_frame
from trichord.data.batch import Batch, Clips
from trichord.data.gather import (
    Memory,
    per_caption,
    spectrogram_slices,
    word_ids,
    write_pooled,
    write_spectrograms,
)
from trichord.errors import TrichordError
from trichord.store.items import PER_CAPTION

if TYPE_CHECKING:
    from torch import Tensor

    from trichord.data.frozen_rows import FrozenRows
    from trichord.store import Store

VISUAL_STREAMS = ("visual_2d", "visual_3d")
AUDIO_STREAM = "spectrogram"
EMBEDDING_STREAMS = {"audio": "audio", "text": "text"}  # modality -> stream of embeddings that stand in its place

AudioInput = Literal["spectrogram", "embeddings"]
TextInput = Literal["words", "embeddings"]


class ClipReader:
    """Reads clips of a store.

    Args:
        store: Where the features lie.
        modalities: Which of video, audio, text to read.
        visual_streams: Streams that make the video features, e.g. ("visual_2d",); each is pooled and normalised alone.
        audio_frames: Most spectrogram frames of a clip; a batch is padded to this length, or to its longest clip
            when `pad_to_longest`.
        audio_pad_db: Value of padded frames.
        max_words: Words of a clip; of embeddings, captions.
        audio: `spectrogram`, or the `embeddings` of stream audio.
        text: `words`, or the `embeddings` of stream text.
        pad_to_longest: Pad audio to the longest clip of the batch instead.
        fast: Find and read the slices of all clips together; False reads clip by clip, to the same bits.

    `frozen` holds, by modality, what a frozen encoder gave for every clip: it is read in place of the modality's features.
    """

    def __init__(
        self,
        store: Store,
        modalities: tuple[str, ...],
        *,
        visual_streams: tuple[str, ...],
        audio_frames: int = 1000,
        audio_pad_db: float = -80.0,
        max_words: int = 20,
        audio: AudioInput = "spectrogram",
        text: TextInput = "words",
        pad_to_longest: bool = False,
        fast: bool = True,
    ) -> None:
        self.store, self.modalities, self.visual_streams = store, modalities, visual_streams
        self.audio_frames, self.audio_pad_db = audio_frames, audio_pad_db
        self.max_words, self.pad_to_longest = max_words, pad_to_longest
        self.audio, self.text, self.fast = audio, text, fast
        self.frozen: dict[str, FrozenRows] = {}
        self._memory = Memory()

    @property
    def video_dim(self) -> int:
        return sum(self.store.streams[name].dim for name in self.visual_streams)

    def read(self, clips: Clips, *, pin: bool = False) -> Batch:
        """The clips' tensors.

        Args:
            clips: What to read.
            pin: For a batch that moves to a GPU: features in page-locked memory, and spectrograms as they are stored
                (float16 where the store has no other), which `Batch.model_inputs` widens on the device.
        """
        import torch

        batch = Batch()
        self.store.bring(clips.item)
        self._read_frozen(batch, clips, pin)
        if "video" in self.modalities and "video" not in self.frozen:
            batch.video, valid = self._video(clips, pin)
            batch.valid["video"] = torch.from_numpy(valid)
        if "audio" in self.modalities and "audio" in self.frozen:
            pass
        elif "audio" in self.modalities and self.audio == "embeddings":
            pooled, valid = self._audio_pooled(clips)
            batch.audio_pooled, batch.valid["audio"] = torch.from_numpy(pooled), torch.from_numpy(valid)
        elif "audio" in self.modalities:
            batch.audio, frames = self._audio(clips, pin)
            batch.audio_frames = torch.from_numpy(frames)
            batch.valid["audio"] = batch.audio_frames > 0
        if "text" in self.modalities and "text" in self.frozen:
            pass
        elif "text" in self.modalities and self.text == "embeddings":
            text, mask = self._text(clips)
            batch.text, batch.text_mask = torch.from_numpy(text), torch.from_numpy(mask)
            batch.valid["text"] = batch.text_mask.any(dim=1)
        elif "text" in self.modalities:
            ids = word_ids(self.store, clips, self.max_words) if self.fast else self._word_ids(clips)
            batch.word_ids = torch.from_numpy(ids)
            batch.valid["text"] = (batch.word_ids >= 0).any(dim=1)
        return batch

    def _read_frozen(self, batch: Batch, clips: Clips, pin: bool) -> None:
        import torch

        for modality, rows in self.frozen.items():
            values, valid = rows.read(clips)
            tensor = torch.from_numpy(values)
            tensor = tensor.pin_memory() if pin else tensor
            batch.valid[modality] = torch.from_numpy(valid)
            if rows.kind == "pooled":
                batch.audio_pooled = tensor
            else:
                batch.embeddings[modality] = tensor

    def _video(self, clips: Clips, pin: bool) -> tuple[Tensor, np.ndarray]:
        tensor = self._memory.tensor("video", (len(clips), self.video_dim), np.float32, pin)
        out = tensor.numpy()
        valid = np.ones(len(clips), bool)
        offset = 0
        for stream in self.visual_streams:
            part = out[:, offset : offset + self.store.streams[stream].dim]
            if self.fast and not per_caption(self.store, stream, clips):
                valid &= write_pooled(self.store, stream, clips, part)
            else:
                valid &= self._write_pooled(stream, clips, part)
            offset += part.shape[1]
        out[~valid] = 0.0
        return tensor, valid

    def _write_pooled(self, stream: str, clips: Clips, out: np.ndarray) -> np.ndarray:
        """As `write_pooled`, clip by clip."""
        valid = np.ones(len(clips), bool)
        for row in range(len(clips)):
            features = self._stream_rows(stream, clips, row)
            if len(features) == 0:
                valid[row] = False
                continue
            pooled = features.max(axis=0).astype(np.float32)
            out[row] = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
        return valid

    def _stream_rows(self, stream: str, clips: Clips, row: int) -> np.ndarray:
        """Rows int(start * rate) to int(end * rate), both included; the one row of a pooled stream; those of the clip's
        captions where there is one per caption; none where the item lacks the stream."""
        item = int(clips.item[row])
        rate_hz = self.store.rate_hz(stream, item)
        if rate_hz == 0.0 or self.store.num_rows(stream, item) == 0:
            return self.store.rows(stream, item)
        if rate_hz == PER_CAPTION:
            return self.store.rows(stream, item)[clips.captions[row]]
        begin, end = int(clips.start_s[row] * rate_hz), int(clips.end_s[row] * rate_hz) + 1
        return self.store.rows(stream, item, max(0, begin), end)

    def _audio_pooled(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        stream = EMBEDDING_STREAMS["audio"]
        out = np.zeros((len(clips), self.store.streams[stream].dim), np.float32)
        valid = np.zeros(len(clips), bool)
        for row in range(len(clips)):
            embeddings = self._stream_rows(stream, clips, row)
            if len(embeddings):
                mean = embeddings.mean(axis=0, dtype=np.float32)
                out[row], valid[row] = mean / max(float(np.linalg.norm(mean)), 1e-12), True
        return out, valid

    def _text(self, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
        stream = EMBEDDING_STREAMS["text"]
        slices = [self._stream_rows(stream, clips, row)[: self.max_words] for row in range(len(clips))]
        longest = max([1, *map(len, slices)])
        out = np.zeros((len(clips), longest, self.store.streams[stream].dim), np.float32)
        mask = np.zeros((len(clips), longest), bool)
        for row, embeddings in enumerate(slices):
            out[row, : len(embeddings)], mask[row, : len(embeddings)] = embeddings, True
        return out, mask

    def _audio(self, clips: Clips, pin: bool) -> tuple[Tensor, np.ndarray]:
        if not self.fast:
            return self._audio_plain(clips, pin)
        slices = spectrogram_slices(self.store, AUDIO_STREAM, clips, self.audio_frames)
        frames = slices[2] - slices[1]
        info, length, pad = self.store.streams[AUDIO_STREAM], self._audio_length(frames), self.audio_pad_db
        as_stored = pin and info.dtype == "float16" and float(np.float16(pad)) == pad
        dtype = np.float16 if as_stored else np.float32
        tensor = self._memory.tensor("audio", (len(clips), length, info.dim), dtype, pin)
        write_spectrograms(self.store, AUDIO_STREAM, slices, tensor, pad)
        return tensor.transpose(1, 2), frames

    def _audio_plain(self, clips: Clips, pin: bool) -> tuple[Tensor, np.ndarray]:
        slices = [self._audio_rows(clips, row) for row in range(len(clips))]
        frames = np.array([len(s) for s in slices], np.int64)
        shape = (len(clips), self._audio_length(frames), self.store.streams[AUDIO_STREAM].dim)
        tensor = self._memory.tensor("audio", shape, np.float32, pin).fill_(self.audio_pad_db)
        out = tensor.numpy()
        for row, frames_bt in enumerate(slices):
            out[row, : len(frames_bt)] = frames_bt
        return tensor.transpose(1, 2), frames

    def _audio_length(self, frames: np.ndarray) -> int:
        return max(1, int(frames.max(initial=0))) if self.pad_to_longest else self.audio_frames

    def _audio_rows(self, clips: Clips, row: int) -> np.ndarray:
        """The clip's spectrogram (frames, 40), cut to `audio_frames`; all of it where the clip is the whole item."""
        item = int(clips.item[row])
        if clips.start_s[row] <= 0 and clips.end_s[row] >= self.store.duration_s(item):
            return self.store.rows(AUDIO_STREAM, item, 0, self.audio_frames)
        begin, end = time_to_frame(clips.start_s[row]), time_to_frame(clips.end_s[row])
        return self.store.rows(AUDIO_STREAM, item, begin, min(max(end, begin), begin + self.audio_frames))

    def _word_ids(self, clips: Clips) -> np.ndarray:
        out = np.full((len(clips), self.max_words), -1, np.int64)
        for row in range(len(clips)):
            filled = 0
            for caption in clips.captions[row]:
                ids = self.store.word_ids(int(clips.item[row]), int(caption))[: self.max_words - filled]
                out[row, filled : filled + len(ids)] = ids
                filled += len(ids)
                if filled == self.max_words:
                    break
        return out


def visual_streams_of(store: Store, visual_3d: str) -> tuple[str, ...]:
    """Streams that make the video features, by the recipe's `model.visual_3d` (`auto`, `yes`, `no`)."""
    has_3d = "visual_3d" in store.streams
    if visual_3d == "yes" and not has_3d:
        raise TrichordError(
            f"{store.path}: model.visual_3d is yes, but the store has no 3-D features; import them, or use auto"
        )
    return VISUAL_STREAMS if has_3d and visual_3d != "no" else VISUAL_STREAMS[:1]


def audio_input_of(store: Store, choice: str = "auto") -> AudioInput:
    """What the audio encoder reads, by the recipe's `model.audio` (`auto`, `spectrogram`, `embeddings`)."""
    if choice == "embeddings" and not _has(store, EMBEDDING_STREAMS["audio"]):
        raise TrichordError(
            f"{store.path}: model.audio is embeddings, but the store has no audio embeddings; extract them, or use auto"
        )
    auto = not _has(store, AUDIO_STREAM) and _has(store, EMBEDDING_STREAMS["audio"])
    return "embeddings" if choice == "embeddings" or (choice == "auto" and auto) else "spectrogram"


def text_input_of(store: Store, choice: str = "auto") -> TextInput:
    """What the text encoder reads, by the recipe's `model.text` (`auto`, `words`, `embeddings`)."""
    if choice == "embeddings" and not _has(store, EMBEDDING_STREAMS["text"]):
        raise TrichordError(
            f"{store.path}: model.text is embeddings, but the store has no text embeddings; extract them, or use auto"
        )
    auto = not store.words and _has(store, EMBEDDING_STREAMS["text"])
    return "embeddings" if choice == "embeddings" or (choice == "auto" and auto) else "words"


def _has(store: Store, stream: str) -> bool:
    return stream in store.streams and bool(store.has(stream).any())


def require_modalities(
    store: Store,
    modalities: tuple[str, ...],
    purpose: str,
    *,
    audio: AudioInput = "spectrogram",
    text: TextInput = "words",
) -> None:
    """Refuse with one line when the store lacks a modality that `purpose` (an order, a direction) needs.

    `audio` and `text` say what stands for these two, as for `ClipReader`.
    """
    have = {
        "video": _has(store, VISUAL_STREAMS[0]),
        "audio": _has(store, AUDIO_STREAM if audio == "spectrogram" else EMBEDDING_STREAMS["audio"]),
        "text": len(store.words) > 0 if text == "words" else _has(store, EMBEDDING_STREAMS["text"]),
    }
    if lacking := [m for m in modalities if not have[m]]:
        raise TrichordError(
            f"{store.path}: {purpose} needs {' and '.join(lacking)}, which the store lacks; "
            f"it has {', '.join(m for m in have if have[m]) or 'nothing'}: import or extract what is missing, or choose others"
        )
