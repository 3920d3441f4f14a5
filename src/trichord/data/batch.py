"""What is read for training and scoring: spans of videos, and the tensors made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass
class Clips:
    """Spans of videos, each with the captions that it says. All arrays have B entries.

    Attributes:
        item: (B,) index of the video in the store.
        start_s: (B,) start in seconds.
        end_s: (B,) end in seconds.
        captions: B arrays of caption indices, in the order in which their words are read.
        caption: (B,) the caption that each clip was grown from; None where nobody drew them.
    """

    item: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    captions: list[np.ndarray]
    caption: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: np.ndarray) -> Clips:
        caption = None if self.caption is None else self.caption[rows]
        return Clips(self.item[rows], self.start_s[rows], self.end_s[rows], [self.captions[r] for r in rows], caption)


@dataclass
class Batch:
    """Tensors of B clips. A modality that was not asked for is None; a clip that lacks one has zeros and `valid` False.

    Attributes:
        video: (B, F) max-pooled over time, each stream of length one, streams side by side.
        audio: (B, 40, T) log-mel in dB, a clip's frames one after the other in memory, as the store has them and the first
            layer takes them; float32, or float16 (`ClipReader.read`).
        audio_frames: (B,) frames before the padding.
        audio_pooled: (B, C) in place of `audio`: mean over time of audio embeddings, of length one, or what a frozen
            DAVEnet gave.
        word_ids: (B, L) rows of the store's word table, -1 where padded.
        text: (B, L, F) embeddings of the clip's captions, zeros where padded; in place of `word_ids`.
        text_mask: (B, L) True at captions.
        valid: Per modality (B,) bool.
        embeddings: Per frozen modality (B, D), computed before (`data.frozen`); in place of its inputs.
        positives: (B', B') bool over the batch of all processes, or None: texts that count as true (MIL-NCE).
        first_half: (B',) bool over the batch of all processes, or None: the first half of each video's clips.
        step_clips: B', clips of the batch of all processes; 0 where nobody counted.
        clips: What was read, for messages; None where nobody noted it.
    """

    video: Tensor | None = None
    audio: Tensor | None = None
    audio_frames: Tensor | None = None
    audio_pooled: Tensor | None = None
    word_ids: Tensor | None = None
    text: Tensor | None = None
    text_mask: Tensor | None = None
    valid: dict[str, Tensor] = field(default_factory=dict)
    positives: Tensor | None = None
    first_half: Tensor | None = None
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    step_clips: int = 0
    clips: Clips | None = None

    def to(self, device: torch.device) -> Batch:
        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=device.type == "cuda")

        return Batch(
            move(self.video),
            move(self.audio),
            move(self.audio_frames),
            move(self.audio_pooled),
            move(self.word_ids),
            move(self.text),
            move(self.text_mask),
            {name: mask.to(device) for name, mask in self.valid.items()},
            move(self.positives),
            move(self.first_half),
            {name: tensor.to(device, non_blocking=device.type == "cuda") for name, tensor in self.embeddings.items()},
            self.step_clips,
            self.clips,
        )

    def model_inputs(self, word_vectors: Tensor) -> dict[str, Tensor]:
        """Keyword arguments of `MCN.forward` and `MCN.embed` for the modalities that the batch holds.

        Args:
            word_vectors: (V, W) the store's word table, on the device of the batch.
        """
        inputs: dict[str, Tensor] = {}
        if self.video is not None:
            inputs["video"] = self.video
        if self.audio is not None and self.audio_frames is not None:
            inputs |= {"audio": self.audio.float(), "audio_frames": self.audio_frames}  # exact, and laid out as before
        if self.audio_pooled is not None:
            inputs["audio_pooled"] = self.audio_pooled
        if self.text is not None and self.text_mask is not None:
            inputs |= {"text": self.text, "text_mask": self.text_mask}
        if self.word_ids is not None:
            mask = self.word_ids >= 0
            inputs |= {"text": word_vectors[self.word_ids.clamp(min=0)] * mask[..., None], "text_mask": mask}
        return inputs
