"""Sound embeddings from pretrained models of the transformers library: stream `audio`, L2-normalised float16 rows.

How each family makes its rows (all of it is in the fingerprint's parameters):

| family | model types | input | rows |
|---|---|---|---|
| clap | clap | 48 kHz, windows of 10 s | projected audio embedding of a window, one row each 5 s (`hop`) |
| ast | audio-spectrogram-transformer | 16 kHz, windows of 10.24 s | pooled output of a window, one row each 5 s (`hop`) |
| pe | pe_audio, pe_audio_video | 48 kHz, windows of 10 s | audio embedding of a window, one row each 5 s (`hop`) |
| whisper | whisper | 16 kHz, pieces of 30 s | encoder's last hidden states, averaged over each second |
| frames | wav2vec2, hubert, wavlm and all others | its own rate, pieces of 10 s | last hidden states, averaged over each second |

A window is centred on the time that its row stands for and shifted inside the sound at both ends, so that it is whole;
pieces follow one another and the last one is as short as what is left (of a Whisper piece, which is filled with silence
up to 30 s, only the states of real sound are averaged). `hf:MODEL@hop=2` sets another hop in seconds.
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
_FEWEST_SAMPLES = 400  # of all these models' first frame at 16 kHz; shorter sound is filled up with zeros
_MAX_PENDING_S = 120.0  # of sound in one batch on an accelerator


@dataclass(frozen=True)
class AudioPlan:
    """How the model of a folder is used. Lengths in samples at `sample_rate_hz`."""

    family: str
    sample_rate_hz: int
    window: int
    hop: int  # per row

    @property
    def windowed(self) -> bool:
        """One row per window (clap, ast, pe), in place of one row per second of frames."""
        return self.family in ("clap", "ast", "pe")

    @property
    def rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop

    def cut(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The arrays that the model is given."""
        return centred_windows(blocks, self.window, self.hop) if self.windowed else pieces(blocks, self.window)

    def parameters(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "family": self.family,
            "sample_rate_hz": self.sample_rate_hz,
            "window_s": round(self.window / self.sample_rate_hz, 6),
            "hop_s": round(self.hop / self.sample_rate_hz, 6),
            "pooling": "model" if self.windowed else "mean of the last hidden states",
            "normalised": "L2",
        }
        if self.family == "ast":  # transformers computes the filter bank by whichever is there
            from importlib.util import find_spec

            values["filter_bank"] = "torchaudio" if find_spec("torchaudio") else "numpy"
        return values


def plan_of(folder: Path, hop_s: float | None = None) -> AudioPlan:
    """How the model in `folder` is used, read from its settings. Raises TrichordError if it is no audio model."""
    model_type = str(model_files.read_settings(folder).get("model_type", ""))
    family = _FAMILIES.get(model_type, "frames")
    settings = model_files.read_settings(folder, "preprocessor_config.json")
    settings = settings or model_files.read_settings(folder, "processor_config.json").get("feature_extractor", {})
    if "sampling_rate" not in settings:
        what = f"this {model_type or 'unknown'} model states no sampling rate in preprocessor_config.json"
        raise TrichordError(f"{folder}: {what}; name an audio model, complete with that file")
    rate_hz = int(settings["sampling_rate"])
    if rate_hz < 1:
        raise TrichordError(f"{folder}: its sampling rate is {rate_hz} Hz; get the model again, or take another one")
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
            raise TrichordError(f"{folder}: a {model_type} model gives one row per second; leave @hop out")
        return AudioPlan(family, rate_hz, window, rate_hz)
    hop = min(round(DEFAULT_HOP_S * rate_hz), window) if hop_s is None else round(hop_s * rate_hz)
    if not 0 < hop <= window:
        raise TrichordError(f"{folder}: hop {hop_s:g} s is out of range; take up to {window / rate_hz:g} s")
    return AudioPlan(family, rate_hz, window, hop)


@dataclass
class AudioModel:
    """An `AudioEncoder` around a transformers model. Windows are computed one at a time on a CPU."""

    fingerprint: Fingerprint
    plan: AudioPlan
    dim: int
    extractor: Any = field(repr=False)
    model: Any = field(repr=False)
    device: str = "cpu"
    stream: str = STREAM

    @property
    def sample_rate_hz(self) -> int:
        return self.plan.sample_rate_hz

    @property
    def rate_hz(self) -> float:
        return self.plan.rate_hz

    def encode(self, sound: Sound) -> Iterator[np.ndarray]:
        """Blocks of rows (n, F) float16: ceil(duration rate_hz) in all, the same for any block sizes of `sound`.

        On a CPU exactly the same; so too elsewhere, as the windows that are computed together do not depend on blocks.
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
        """Windows of one length -> the rows of all of them, in order."""
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
        """(N, F) where the plan is windowed, hidden states (N, K, F) elsewhere."""
        import torch

        inputs = self.extractor(windows, sampling_rate=self.sample_rate_hz, return_tensors="pt").to(self.device)
        if self.plan.family == "clap":  # the extractor would draw one at random to be fused as "longer than 10 s"
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
    """Hidden states (K, F) of `padded` samples, of which `length` are sound -> (ceil(length / hop), F).

    State k stands at sample k padded / K; row r is the mean of the states in [r hop, (r + 1) hop) before `length`, or,
    where none is, the last state before it.
    """
    import torch

    num_states = len(states)
    row_of = np.array([k * padded // (num_states * hop) for k in range(num_states) if k * padded < length * num_states])
    bounds = np.searchsorted(row_of, np.arange(math.ceil(length / hop) + 1))
    pairs = zip(bounds[:-1], bounds[1:], strict=True)
    rows = [states[begin:end].mean(0) if end > begin else states[max(begin - 1, 0)] for begin, end in pairs]
    return torch.stack(rows)


def _found(name: str) -> tuple[Path, AudioPlan, Fingerprint]:
    model, options = model_files.split_name(name, "hf", KNOWN_FORM)
    hop_s = None
    if options:
        try:
            hop_s = float(options["hop"])
        except (KeyError, ValueError):
            raise TrichordError(f"unknown option in '{name}'; known is {KNOWN_FORM}") from None
    folder = model_files.find_model(model, extra="hf")
    with model_files.reading_settings(folder):
        plan = plan_of(folder, hop_s)
    parameters = {**plan.parameters(), "settings": model_files.settings_digest(folder)}
    own = f"hf:{model_files.own_name(model, folder)}" + (f"@hop={options['hop']}" if options else "")
    return folder, plan, Fingerprint(own, VERSION, parameters, model_files.weights_digest(folder))


def audio_encoder_info(name: str) -> tuple[str, Fingerprint]:
    """(stream, fingerprint) of the encoder `name` (`hf:MODEL`); hashes files, builds no network.

    Raises TrichordError for an unknown name and for a model that is not there.
    """
    return STREAM, _found(name)[2]


def list_audio_encoders() -> list[str]:
    """The known forms of names, with examples; `log-mel` is made without a model."""
    return ["log-mel", KNOWN_FORM, *EXAMPLES]


def load_audio_encoder(name: str, device: str = "cpu") -> AudioModel:
    """The encoder `name`, ready to encode. Raises TrichordError if it is unknown, missing or incomplete."""
    folder, plan, fingerprint = _found(name)
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
    raise TrichordError(f"a {config.model_type} model states no width of its hidden states; take another model")
