"""Audio embeddings from pretrained models of the transformers library: stream `audio`, L2-normalized float16 rows.

The fingerprint's parameters record how each family computes its rows:

| family | model types | input | rows |
|---|---|---|---|
| clap | clap | 48 kHz, windows of 10 s | projected audio embedding of a window, one row every 5 s (`hop`) |
| ast | audio-spectrogram-transformer | 16 kHz, windows of 10.24 s | pooled output of a window, one row every 5 s (`hop`) |
| pe | pe_audio, pe_audio_video | 48 kHz, windows of 10 s | audio embedding of a window, one row every 5 s (`hop`) |
| whisper | whisper | 16 kHz, pieces of 30 s | last hidden states of the encoder, averaged over each second |
| frames | wav2vec2, hubert, wavlm and all others | model's rate, pieces of 10 s | last hidden states, averaged over each second |

A window is centered on the time span of its row. At both ends of the audio it is shifted inside, so that it is always complete.
Pieces are consecutive, and the last one is as short as the rest of the audio. (A Whisper piece is padded with silence to 30 s,
but only the states of real audio are averaged.) `hf:MODEL@hop=2` sets another hop in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError
from trichord.features import model_files
from trichord.features.audio_windows import centred_windows, pieces
from trichord.features.encoders import Fingerprint, Sound

STREAM = "audio"
VERSION = "1"
KNOWN_FORM = "hf:MODEL (a folder or OWNER/NAME), optionally with @hop=SECONDS after it"
EXAMPLES = ("hf:laion/clap-htsat-unfused", "hf:MIT/ast-finetuned-audioset-10-10-0.4593", "hf:openai/whisper-base")
DEFAULT_HOP_S = 5.0
_FRAMES_PIECE_S = 10.0
_FAMILIES = {
    "clap": "clap",
    "audio-spectrogram-transformer": "ast",
    "pe_audio": "pe",
    "pe_audio_video": "pe",
    "whisper": "whisper",
}
_FEWEST_SAMPLES = 400  # the first frame of these models at 16 kHz; shorter audio is padded with zeros
_MAX_PENDING_S = 120.0  # the longest audio in one batch on an accelerator


@dataclass(frozen=True)
class AudioPlan:
    """How a model processes audio.

    Attributes:
        family: The family of the model, see the table above.
        sample_rate_hz: The sample rate of the input.
        window: The length of a window or piece in samples.
        hop: The number of samples per row.
    """

    family: str
    sample_rate_hz: int
    window: int
    hop: int

    @property
    def windowed(self) -> bool:
        """Whether there is one row per window (clap, ast, pe) instead of one row per second of frames."""
        return self.family in ("clap", "ast", "pe")

    @property
    def rate_hz(self) -> float:
        """Rows per second."""
        return self.sample_rate_hz / self.hop

    def cut(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Split audio into the arrays (n,) that the model receives."""
        return centred_windows(blocks, self.window, self.hop) if self.windowed else pieces(blocks, self.window)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the fingerprint."""
        values: dict[str, Any] = {
            "family": self.family,
            "sample_rate_hz": self.sample_rate_hz,
            "window_s": round(self.window / self.sample_rate_hz, 6),
            "hop_s": round(self.hop / self.sample_rate_hz, 6),
            "pooling": "model" if self.windowed else "mean of the last hidden states",
            "normalised": "L2",
        }
        if self.family == "ast":  # transformers uses whichever is installed
            from importlib.util import find_spec

            values["filter_bank"] = "torchaudio" if find_spec("torchaudio") else "numpy"
        return values


def plan_of(folder: Path, hop_s: float | None = None) -> AudioPlan:
    """Return how the model in `folder` processes audio, according to its settings.

    Args:
        folder: The folder of the model.
        hop_s: The time between rows in seconds; None uses the default.

    Raises:
        TrichordError: The folder does not contain an audio model, or the hop is not valid for it.
    """
    model_type = str(model_files.read_settings(folder).get("model_type", ""))
    family = _FAMILIES.get(model_type, "frames")
    settings = model_files.read_settings(folder, "preprocessor_config.json")
    settings = settings or model_files.read_settings(folder, "processor_config.json").get("feature_extractor", {})
    if "sampling_rate" not in settings:
        problem = f"the settings of this {model_type or 'unknown'} model have no sampling rate"
        raise TrichordError(f"{folder}: {problem}; choose an audio model with a complete preprocessor_config.json")
    rate_hz = int(settings["sampling_rate"])
    if rate_hz < 1:
        raise TrichordError(
            f"{folder}: its sampling rate is {rate_hz} Hz; download the model again, or choose another one"
        )
    if family == "ast":
        window = int(settings.get("max_length", 1024)) * rate_hz // 100  # frames of 10 ms
    elif family == "whisper":
        window = int(settings.get("chunk_length", 30)) * rate_hz
    elif family == "clap":
        window = int(settings.get("max_length_s", 10)) * rate_hz
    else:
        window = int(_FRAMES_PIECE_S * rate_hz)
    if family in ("whisper", "frames"):
        if hop_s is not None:
            raise TrichordError(f"{folder}: a {model_type} model has one row per second; leave out @hop")
        return AudioPlan(family, rate_hz, window, rate_hz)
    hop = min(round(DEFAULT_HOP_S * rate_hz), window) if hop_s is None else round(hop_s * rate_hz)
    if not 0 < hop <= window:
        raise TrichordError(
            f"{folder}: hop {hop_s:g} s is out of range; it must be above 0 and at most {window / rate_hz:g} s"
        )
    return AudioPlan(family, rate_hz, window, hop)


@dataclass
class AudioModel:
    """An `AudioEncoder` that runs a transformers model. On a CPU, windows are processed one at a time."""

    fingerprint: Fingerprint
    plan: AudioPlan
    dim: int
    extractor: Any = field(repr=False)
    model: Any = field(repr=False)
    device: str = "cpu"
    stream: str = STREAM

    @property
    def sample_rate_hz(self) -> int:
        """The sample rate of the input."""
        return self.plan.sample_rate_hz

    @property
    def rate_hz(self) -> float:
        """Rows per second."""
        return self.plan.rate_hz

    def encode(self, sound: Sound) -> Iterator[np.ndarray]:
        """Yield blocks of rows (n, F) float16, ceil(duration * rate_hz) rows in total.

        The rows do not depend on the block sizes of `sound`, because the windows that are processed together do not.
        """
        on_cpu = self.device.startswith("cpu")
        most = 1 if on_cpu else max(int(_MAX_PENDING_S * self.sample_rate_hz) // self.plan.window, 1)
        pending: list[np.ndarray] = []
        for samples in self.plan.cut(sound()):
            if pending and pending[0].size != samples.size:
                yield self._rows(pending)
                pending = []
            pending.append(samples)
            if len(pending) == most:
                yield self._rows(pending)
                pending = []
        if pending:
            yield self._rows(pending)

    def _rows(self, windows: list[np.ndarray]) -> np.ndarray:
        """Return the rows of windows of the same length, in order."""
        import torch

        length = windows[0].size
        if length < _FEWEST_SAMPLES:
            windows = [np.pad(samples, (0, _FEWEST_SAMPLES - length)) for samples in windows]
        with torch.inference_mode():
            outputs = self._outputs(windows).float()
            if not self.plan.windowed:
                padded = self.plan.window if self.plan.family == "whisper" else windows[0].size
                outputs = torch.cat([mean_per_hop(states, padded, length, self.plan.hop) for states in outputs])
            rows = torch.nn.functional.normalize(outputs, dim=1).half().cpu().numpy()
        if rows.shape[1] != self.dim:
            raise ValueError(f"rows of width {rows.shape[1]}, expected {self.dim}")
        return rows

    def _outputs(self, windows: list[np.ndarray]) -> Any:
        """Return (N, F) if the plan is windowed, hidden states (N, K, F) otherwise."""
        import torch

        inputs = self.extractor(windows, sampling_rate=self.sample_rate_hz, return_tensors="pt").to(self.device)
        if (
            self.plan.family == "clap"
        ):  # otherwise the extractor would randomly mark one as "longer than 10 s" for fusion
            inputs["is_longer"] = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
            features = self.model.get_audio_features(**inputs)
            return features if isinstance(features, torch.Tensor) else features.pooler_output
        if self.plan.family == "pe":
            return self.model.get_audio_embeds(**inputs)
        if self.plan.family == "whisper":
            return self.model(inputs["input_features"]).last_hidden_state
        outputs = self.model(**inputs)
        return outputs.pooler_output if self.plan.family == "ast" else outputs.last_hidden_state


def mean_per_hop(states: Any, padded: int, length: int, hop: int) -> Any:
    """Average hidden states over each hop.

    State k is at sample k * padded / K. Row r is the mean of the states in [r * hop, (r + 1) * hop) before `length`, or the last
    state before that span if there is none.

    Args:
        states: (K, F), the hidden states.
        padded: The number of samples that the states cover, including padding.
        length: The number of samples without padding.
        hop: The number of samples per row.

    Returns:
        (ceil(length / hop), F).
    """
    import torch

    num_states = len(states)
    row_of = np.array([k * padded // (num_states * hop) for k in range(num_states) if k * padded < length * num_states])
    bounds = np.searchsorted(row_of, np.arange(math.ceil(length / hop) + 1))
    pairs = zip(bounds[:-1], bounds[1:], strict=True)
    rows = [states[begin:end].mean(0) if end > begin else states[max(begin - 1, 0)] for begin, end in pairs]
    return torch.stack(rows)


def _resolve(name: str) -> tuple[Path, AudioPlan, Fingerprint]:
    model, options = model_files.split_name(name, "hf", KNOWN_FORM)
    hop_s = None
    if options:
        try:
            hop_s = float(options["hop"])
        except (KeyError, ValueError):
            raise TrichordError(f"unknown option in '{name}'; expected {KNOWN_FORM}") from None
    folder = model_files.find_model(model, extra="hf")
    with model_files.reading_settings(folder):
        plan = plan_of(folder, hop_s)
    parameters = {**plan.parameters(), "settings": model_files.settings_digest(folder)}
    full_name = f"hf:{model_files.own_name(model, folder)}" + (f"@hop={options['hop']}" if options else "")
    return folder, plan, Fingerprint(full_name, VERSION, parameters, model_files.weights_digest(folder))


def audio_encoder_info(name: str) -> tuple[str, Fingerprint]:
    """Return the stream and fingerprint of the encoder `name` (`hf:MODEL`). Hashes files, but builds no network.

    Raises:
        TrichordError: The name is unknown, or the model is missing.
    """
    return STREAM, _resolve(name)[2]


def list_audio_encoders() -> list[str]:
    """Return the supported forms of names with examples. `log-mel` needs no model."""
    return ["log-mel", KNOWN_FORM, *EXAMPLES]


def load_audio_encoder(name: str, device: str = "cpu") -> AudioModel:
    """Load the encoder `name`.

    Raises:
        TrichordError: The name is unknown, or the model is missing or incomplete.
    """
    folder, plan, fingerprint = _resolve(name)
    transformers = model_files.import_transformers(name)
    model_files.check_device(device)
    with model_files.loading(folder):
        extractor = transformers.AutoFeatureExtractor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    model = model_files.load_network(transformers, folder, device)
    return AudioModel(fingerprint, plan, _width(model.config, plan), extractor, model, device)


def _width(config: Any, plan: AudioPlan) -> int:
    if plan.family == "clap":
        return int(config.projection_dim)
    if plan.family == "pe":
        return int(config.text_config.hidden_size)
    for key in ("d_model", "hidden_size") if plan.family == "whisper" else ("output_hidden_size", "hidden_size"):
        if isinstance(getattr(config, key, None), int):
            return int(getattr(config, key))
    raise TrichordError(
        f"the configuration of this {config.model_type} model does not state the width of its hidden states; choose another model"
    )
