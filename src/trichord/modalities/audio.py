"""Audio: spectrograms, or audio embeddings that another network computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trichord.errors import TrichordError
from trichord.modalities.base import AudioInput, Axis, Draw, Modality, Noise, Pooling, ReadingSettings, has_rows
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
    """The modality audio.

    Its tensors are spectrograms `audio` (B, 40, T), log-mel in dB, and their numbers of frames without padding `audio_frames` (B,).
    The frames of a clip are contiguous in memory. Alternatively, `audio_pooled` (B, C) holds the mean over time of audio
    embeddings, scaled to unit length, or the pooled output of a frozen DAVEnet.
    """

    name, letter, colour = "audio", "a", "#e69f00"
    pooling = Pooling("audio_pooled", _pooled_dim, _pool)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs of the network."""
        return ("audio", "audio_frames", "audio_pooled")

    def streams(self, settings: ReadingSettings) -> tuple[str, ...]:
        """Return the stream of spectrograms or that of audio embeddings."""
        return (SPECTROGRAM_STREAM if settings.audio == "spectrogram" else EMBEDDING_STREAM,)

    def width(self, store: Store, settings: ReadingSettings) -> int | None:
        """Return the width of the audio embeddings in a store, or None for spectrograms."""
        return None if settings.audio == "spectrogram" else super().width(store, settings)

    def width_in(self, arguments: Mapping[str, Any]) -> int | None:
        """Return the width of the audio embeddings that a network reads, or None for spectrograms."""
        return cast(int | None, arguments["audio_dim"])

    def read(
        self, store: Store, clips: Clips, settings: ReadingSettings, memory: Memory, pin: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Read clips. With `pin`, spectrograms keep the data type of the store, which may be float16."""
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
        """Convert spectrograms to float32."""
        return {name: tensor.float() if name == "audio" else tensor for name, tensor in tensors.items()}  # exact

    @property
    def target_input(self) -> str:
        """Return the name of the audio embeddings, which are their own target. A batch of spectrograms does not contain them."""
        return "audio_pooled"

    def with_noise(self, tensors: Mapping[str, Tensor], noise: Noise, draw: Draw) -> dict[str, Tensor]:
        """Mask frames and mel bins of spectrograms, or drop features of audio embeddings.

        Two masks in time and two in frequency replace their part of a spectrogram by the mean of the clip (SpecAugment: Park et
        al., Interspeech 2019, section 2, without time warping).
        """
        if "audio" not in tensors:
            return super().with_noise(tensors, noise, draw)
        frames = tensors["audio_frames"].to(tensors["audio"].device)
        return {**tensors, "audio": _masked(tensors["audio"], frames, noise, draw)}

    def encoder(self, arguments: Mapping[str, Any]) -> nn.Module:
        """Return an `AudioEncoder`, or an `AudioEmbeddingEncoder` for a network of audio embeddings."""
        from trichord.layers.encoders import AudioEmbeddingEncoder, AudioEncoder

        if arguments["audio_dim"] is not None:
            return AudioEmbeddingEncoder(arguments["audio_dim"], arguments["embed_dim"])
        return AudioEncoder(
            arguments["mel_bins"], arguments["audio_channels"], arguments["embed_dim"], arguments["mask_padding"]
        )

    def target_dim(self, arguments: Mapping[str, Any]) -> int:
        """Return the width of the pooled audio, C."""
        return int(arguments["audio_channels"][-1] if arguments["audio_dim"] is None else arguments["audio_dim"])

    def head_has_relu(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the reconstruction head ends with a relu. It does not for audio embeddings, which can be negative."""
        return arguments["reconstruction_relu"] and arguments["audio_dim"] is None

    def axes(self, arguments: Mapping[str, Any]) -> dict[str, Axis]:
        """Return the expected mel bins of `audio` and the expected width of `audio_pooled`."""
        pooled = Axis(2, -1, self.target_dim(arguments))
        return {"audio": Axis(3, 1, arguments["mel_bins"]), "audio_pooled": pooled}

    def check(self, arguments: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> None:
        """Raise TrichordError for inputs that the network cannot read, or if both `audio` and `audio_pooled` are given."""
        if "audio" in inputs and "audio_pooled" in inputs:
            raise TrichordError("both audio and audio_pooled are given; give only one of them")
        if "audio" in inputs and arguments["audio_dim"] is not None:
            raise TrichordError("this network reads audio embeddings, not spectrograms; give audio_pooled")
        super().check(arguments, inputs)


def _masked(audio: Tensor, frames: Tensor, noise: Noise, draw: Draw) -> Tensor:
    """Return spectrograms (B, M, T) with random frames and bins set to the mean of the clip. Padding is not changed."""
    import torch

    if not (noise.time_mask or noise.frequency_mask):
        return audio
    num_bins, num_frames = audio.shape[1:]
    positions = torch.arange(num_frames, device=audio.device)
    numbers = draw((2, 4))
    frames = frames.to(numbers.dtype)
    bins = torch.full_like(frames, num_bins)
    in_time = _intervals(numbers[:, :, :2], frames, (frames // 4).clamp(max=noise.time_mask), num_frames)
    in_frequency = _intervals(numbers[:, :, 2:], bins, (bins // 3).clamp(max=noise.frequency_mask), num_bins)
    valid = positions < frames[:, None]
    mean = (audio.float() * valid[:, None]).sum((1, 2)) / (frames * num_bins).clamp(min=1)
    masked = (in_time[:, None, :] | in_frequency[:, :, None]) & valid[:, None]
    return torch.where(masked, mean[:, None, None].to(audio.dtype), audio)


def _intervals(numbers: Tensor, lengths: Tensor, widest: Tensor, size: int) -> Tensor:
    """Return a mask of shape (B, size) of two random intervals per clip.

    Args:
        numbers: Uniform numbers of shape (B, 2, 2), which select the width and the position of each interval.
        lengths: Number of positions of each clip, of shape (B,).
        widest: Largest width of an interval of each clip, of shape (B,).
        size: Number of positions.
    """
    import torch

    widths = (numbers[:, :, 0] * (widest + 1)[:, None]).floor()
    begins = (numbers[:, :, 1] * (lengths[:, None] - widths + 1)).floor()
    positions = torch.arange(size, device=numbers.device)
    inside = (positions >= begins[..., None]) & (positions < (begins + widths)[..., None])
    return inside.any(dim=1)


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
    """Return the kind of input that the audio encoder reads from a store.

    Args:
        store: Store of the features.
        choice: Setting `model.audio` of the recipe: "auto", "spectrogram" or "embeddings". "auto" selects embeddings if the store
            has audio embeddings and no spectrograms.

    Returns:
        "spectrogram" or "embeddings".

    Raises:
        TrichordError: If `choice` is "embeddings" and the store has no audio embeddings.
    """
    if choice == "embeddings" and not has_rows(store, EMBEDDING_STREAM):
        raise TrichordError(
            f"{store.path}: model.audio is embeddings, but the store has no audio embeddings; extract them, or set model.audio "
            "to auto"
        )
    auto = not has_rows(store, SPECTROGRAM_STREAM) and has_rows(store, EMBEDDING_STREAM)
    return "embeddings" if choice == "embeddings" or (choice == "auto" and auto) else "spectrogram"
