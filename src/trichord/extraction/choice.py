"""Which encoders an extraction uses, by name: their fingerprints without torch, the encoders themselves with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trichord.errors import TrichordError
from trichord.extraction.arrays import arrays_fingerprints
from trichord.features.encoders import AudioEncoder, Fingerprint, Recognizer, TextEncoder, VisualEncoder

NONE = "none"
WORDS = "words"
LOG_MEL = "log-mel"


@dataclass(frozen=True)
class EncoderChoice:
    """Names of the encoders, one per stream; `none` leaves a stream out.

    Attributes:
        visual_2d: Stream visual_2d: efficientnet-lite0, resnet152, hf:MODEL, timm:MODEL.
        visual_3d: Stream visual_3d: resnext101-3d, tv:MODEL.
        audio: log-mel (stream spectrogram), hf:MODEL (stream audio), or both with a comma between.
        text: words (word ids alone), hf:MODEL or st:MODEL (stream text, a row per caption, besides the word ids).
        captions: auto: caption files and subtitle tracks; none: neither.
        speech: Speech recognition where there are no captions: none or whisper:MODEL.
        weights_2d: Weights file in place of the encoder's usual one.
        weights_3d: The same for the 3-D encoder.
        decoder: auto, pyav or torchcodec.
        modalities: Name and letter of the modalities beyond video, audio and text: each has a stream of feature arrays.
    """

    visual_2d: str = "efficientnet-lite0"
    visual_3d: str = NONE
    audio: str = LOG_MEL
    text: str = WORDS
    captions: Literal["auto", "none"] = "auto"
    speech: str = NONE
    weights_2d: Path | None = None
    weights_3d: Path | None = None
    decoder: str = "auto"
    modalities: tuple[tuple[str, str], ...] = ()

    @property
    def audio_names(self) -> list[str]:
        return [name.strip() for name in self.audio.split(",") if name.strip() not in ("", NONE)]


@dataclass(frozen=True)
class Described:
    """What the encoders of a choice are: the streams with the fingerprint of what makes each."""

    streams: dict[str, Fingerprint]
    captions: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all of it: with the content, what identifies finished work."""
        values = {name: fingerprint.to_dict() for name, fingerprint in sorted(self.streams.items())}
        text = json.dumps({"streams": values, "captions": self.captions}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Encoders:
    """The encoders themselves, ready to run."""

    visual: tuple[VisualEncoder, ...]
    audio: tuple[AudioEncoder, ...]
    text: tuple[TextEncoder, ...]
    recognizer: Recognizer | None


def list_encoders() -> list[str]:
    """Lines for people: the names that each option of an extraction takes."""
    from trichord.features import audio, speech, text, visual

    visual_names = visual.list_visual_encoders().items()
    options = {
        "visual_2d, visual_3d": [f"{name}: {what}" for name, what in visual_names],
        "audio": audio.list_audio_encoders(),
        "text": text.list_text_encoders(),
        "speech": speech.list_recognizers(),
    }
    return [line for option, names in options.items() for line in (f"--{option}", *(f"  {name}" for name in names))]


def describe(choice: EncoderChoice, device: str = "cpu") -> Described:
    """The streams that the choice makes. Cheap: hashes weight files, builds no network, imports no torch.

    Raises TrichordError for unknown names, missing weights, and choices that leave nothing or make a stream twice.
    """
    from trichord.features import audio, spectrogram, speech, text, visual
    from trichord.media.decoders import choose_decoder

    decoder = choose_decoder(choice.decoder, device)
    streams: dict[str, Fingerprint] = {}

    def add(stream: str, fingerprint: Fingerprint, expected: tuple[str, ...], option: str) -> None:
        if stream not in expected:
            raise TrichordError(f"{fingerprint.name} gives {stream}, which is not --{option}; name it elsewhere")
        if stream in streams:
            raise TrichordError(f"{fingerprint.name} and {streams[stream].name} both give {stream}; leave one out")
        streams[stream] = fingerprint

    for option, name, weights in (
        ("visual_2d", choice.visual_2d, choice.weights_2d),
        ("visual_3d", choice.visual_3d, choice.weights_3d),
    ):
        if name != NONE:
            stream, _, fingerprint = visual.visual_encoder_info(name, weights)
            add(stream, _decoded_by(fingerprint, decoder.name, decoder.version), (option,), option)
    for name in choice.audio_names:
        if name == LOG_MEL:
            add("spectrogram", spectrogram.LogMel().fingerprint, ("spectrogram",), "audio")
        elif not name.startswith("hf:"):
            raise TrichordError(
                f"unknown audio encoder '{name}'; known are {LOG_MEL} and hf:MODEL, or both with a comma"
            )
        else:
            add(*audio.audio_encoder_info(name), ("audio",), "audio")
    if choice.text not in (NONE, WORDS):
        add(*text.text_encoder_info(choice.text), ("text",), "text")
    streams |= arrays_fingerprints(choice.modalities)
    captions: dict[str, Any] = {"captions": choice.captions}
    if choice.speech != NONE:
        captions["speech"] = speech.recognizer_info(choice.speech).to_dict()
    if not streams:
        raise TrichordError("every encoder is none: nothing would be extracted; name one, or leave the options out")
    return Described(streams, captions)


def _decoded_by(fingerprint: Fingerprint, decoder: str, version: str) -> Fingerprint:
    """PyAV's pictures are the reference; another decoder's are a little different, so it becomes a parameter."""
    if decoder == "pyav":
        return fingerprint
    parameters = {**fingerprint.parameters, "decoder": f"{decoder} {version}"}
    return Fingerprint(fingerprint.name, fingerprint.version, parameters, fingerprint.weights)


def load(choice: EncoderChoice, device: str = "cpu") -> Encoders:
    """Build the networks."""
    from trichord.features import audio, speech, text, visual
    from trichord.features.spectrogram import LogMel

    pairs = ((choice.visual_2d, choice.weights_2d), (choice.visual_3d, choice.weights_3d))
    make_audio: Callable[[str], AudioEncoder] = lambda name: (  # noqa: E731
        LogMel() if name == LOG_MEL else audio.load_audio_encoder(name, device)
    )
    return Encoders(
        visual=tuple(visual.load_visual_encoder(name, weights, device) for name, weights in pairs if name != NONE),
        audio=tuple(make_audio(name) for name in choice.audio_names),
        text=() if choice.text in (NONE, WORDS) else (text.load_text_encoder(choice.text, device),),
        recognizer=None if choice.speech == NONE else speech.load_recognizer(choice.speech, device),
    )
