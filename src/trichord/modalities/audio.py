"""Audio: spectrograms, or embeddings of sound that another network made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trichord.errors import TrichordError
from trichord.modalities.base import AudioInput, Axis, Modality, Pooling, ReadingSettings, has_rows
from trichord.modalities.gather import Memory, clip_rows, spectrogram_slices, write_spectrograms

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trichord.store import Store
    from trichord.store.clips import Clips

SPECTROGRAM_STREAM, EMBEDDING_STREAM = "spectrogram", "audio"


def _pooled_dim(arguments: Mapping[str, Any]) -> int | None:
    return int(arguments["audio_channels"][-1]) if arguments["audio_dim"] is None else None


def _pool(encoder: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    return cast("Tensor", encoder.pool(inputs["audio"], inputs["audio_frames"]))  # type: ignore[operator]


class Audio(Modality):
    """Spectrograms `audio` (B, 40, T), log-mel in dB, with the frames of a clip one after the other in memory; `audio_frames` (B,)
    counts them before the padding. In their place `audio_pooled` (B, C): the mean over time of audio embeddings, of length one,
    or what a frozen DAVEnet gave."""

    name, letter, colour = "audio", "a", "#e69f00"
    pooling = Pooling("audio_pooled", _pooled_dim, _pool)

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("audio", "audio_frames", "audio_pooled")

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        return (SPECTROGRAM_STREAM if settings.audio == "spectrogram" else EMBEDDING_STREAM,)

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        return None if settings.audio == "spectrogram" else super().width(store, settings)

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        return cast(int | None, arguments["audio_dim"])

    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read clips. With `pin`, spectrograms keep the type of the store, which may be float16."""
        import torch

        if settings.audio == "embeddings":
            return _mean_pooled(store, clips)
        slices = spectrogram_slices(store, SPECTROGRAM_STREAM, clips, settings.audio_frames)
        info, pad = store.streams[SPECTROGRAM_STREAM], settings.audio_pad_db
        as_stored = pin and info.dtype == "float16" and float(np.float16(pad)) == pad
        dtype = np.float16 if as_stored else np.float32
        tensor = memory.tensor("audio", (len(clips), settings.audio_frames, info.dim), dtype, pin)
        write_spectrograms(store, SPECTROGRAM_STREAM, slices, tensor, pad)
        frames = torch.from_numpy(slices[2] - slices[1])
        return {"audio": tensor.transpose(1, 2), "audio_frames": frames}, frames > 0

    def network_inputs(self, tensors: Mapping[str, Tensor], word_vectors: Tensor) -> dict[str, Tensor]:
        return {name: tensor.float() if name == "audio" else tensor for name, tensor in tensors.items()}  # exact

    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        from trichord.layers.encoders import AudioEmbeddingEncoder, AudioEncoder

        if arguments["audio_dim"] is not None:
            return AudioEmbeddingEncoder(arguments["audio_dim"], arguments["embed_dim"])
        return AudioEncoder(
            arguments["mel_bins"], arguments["audio_channels"], arguments["embed_dim"], arguments["mask_padding"]
        )

    def target_dim(self, arguments: Mapping[str, Any]) -> int:
        return int(arguments["audio_channels"][-1] if arguments["audio_dim"] is None else arguments["audio_dim"])

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        return arguments["reconstruction_relu"] and arguments["audio_dim"] is None  # embeddings have both signs

    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        pooled = Axis(2, -1, self.target_dim(arguments))
        return {"audio": Axis(3, 1, arguments["mel_bins"]), "audio_pooled": pooled}

    def check(self, arguments: Mapping[str, Any], given: Mapping[str, Tensor]) -> None:
        if "audio" in given and "audio_pooled" in given:
            raise TrichordError("both audio and audio_pooled are given; give one of them")
        if "audio" in given and arguments["audio_dim"] is not None:
            raise TrichordError("this network reads audio embeddings, not spectrograms; give audio_pooled")
        super().check(arguments, given)


def _mean_pooled(store: Store, clips: Clips) -> tuple[dict[str, Tensor], Tensor]:
    import torch

    out = np.zeros((len(clips), store.streams[EMBEDDING_STREAM].dim), np.float32)
    valid = np.zeros(len(clips), bool)
    for row in range(len(clips)):
        embeddings = clip_rows(store, EMBEDDING_STREAM, clips, row)
        if len(embeddings):
            mean = embeddings.mean(axis=0, dtype=np.float32)
            out[row], valid[row] = mean / max(float(np.linalg.norm(mean)), 1e-12), True
    return {"audio_pooled": torch.from_numpy(out)}, torch.from_numpy(valid)


def audio_input_of(store: Store, choice: str = "auto") -> AudioInput:
    """Return what the audio encoder reads, by the recipe's `model.audio` (`auto`, `spectrogram`, `embeddings`)."""
    if choice == "embeddings" and not has_rows(store, EMBEDDING_STREAM):
        raise TrichordError(
            f"{store.path}: model.audio is embeddings, but the store has no audio embeddings; extract them, or use auto"
        )
    auto = not has_rows(store, SPECTROGRAM_STREAM) and has_rows(store, EMBEDDING_STREAM)
    return "embeddings" if choice == "embeddings" or (choice == "auto" and auto) else "spectrogram"
