"""The encoders that an extraction uses, by name: their fingerprints (without torch) and the encoders themselves (with torch)."""

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
    """The names of the encoders of an extraction. `none` leaves a stream out.

    Attributes:
        visual_2d: Stream visual_2d: efficientnet-lite0, resnet152, hf:MODEL or timm:MODEL.
        visual_3d: Stream visual_3d: resnext101-3d or tv:MODEL.
        audio: log-mel (stream spectrogram), hf:MODEL (stream audio), or both separated by a comma.
        text: words (only word ids), hf:MODEL or st:MODEL (also stream text with one row per caption).
        captions: auto uses caption files and subtitle tracks; none uses neither.
        speech: Speech recognition for videos without captions: none or whisper:MODEL.
        weights_2d: A weights file to use instead of the default of the 2-D encoder.
        weights_3d: A weights file to use instead of the default of the 3-D encoder.
        decoder: auto, pyav or torchcodec.
        modalities: The name and letter of each modality beyond video, audio and text. Each has a stream of feature arrays.
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
        """The names of the audio encoders."""
        return [name.strip() for name in self.audio.split(",") if name.strip() not in ("", NONE)]


@dataclass(frozen=True)
class Described:
    """The streams of a choice with the fingerprints of their encoders, and the settings of captions."""

    streams: dict[str, Fingerprint]
    captions: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over all attributes. Together with the content, they identify finished work."""
        values = {name: fingerprint.to_dict() for name, fingerprint in sorted(self.streams.items())}
        text = json.dumps({"streams": values, "captions": self.captions}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Encoders:
    """The loaded encoders of a choice."""

    visual: tuple[VisualEncoder, ...]
    audio: tuple[AudioEncoder, ...]
    text: tuple[TextEncoder, ...]
    recognizer: Recognizer | None


def list_encoders() -> list[str]:
    """Return lines for the user that list the names accepted by each option of an extraction."""
    from trichord.features import audio, speech, text, visual

    visual_names = visual.list_visual_encoders().items()
    options = {
        "visual_2d, visual_3d": [f"{name}: {description}" for name, description in visual_names],
        "audio": audio.list_audio_encoders(),
        "text": text.list_text_encoders(),
        "speech": speech.list_recognizers(),
    }
    return [line for option, names in options.items() for line in (f"--{option}", *(f"  {name}" for name in names))]


def describe(choice: EncoderChoice, device: str = "cpu") -> Described:
    """Return the streams of a choice. This is cheap: it hashes weights, but builds no network and does not import torch.

    Raises:
        TrichordError: A name is unknown, weights are missing, or the choice has no stream or one stream twice.
    """
    from trichord.features import audio, spectrogram, speech, text, visual
    from trichord.media.decoders import choose_decoder

    decoder = choose_decoder(choice.decoder, device)
    streams: dict[str, Fingerprint] = {}

    def add(stream: str, fingerprint: Fingerprint, expected: tuple[str, ...], option: str) -> None:
        if stream not in expected:
            raise TrichordError(
                f"{fingerprint.name} computes the stream {stream} and cannot be used with --{option}; pass it with another option"
            )
        if stream in streams:
            raise TrichordError(
                f"{fingerprint.name} and {streams[stream].name} both compute the stream {stream}; leave one out"
            )
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
                f"unknown audio encoder '{name}'; expected {LOG_MEL}, hf:MODEL, or both separated by a comma"
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
        raise TrichordError(
            "every encoder is none, so nothing would be extracted; choose an encoder, or leave the options out"
        )
    return Described(streams, captions)


def _decoded_by(fingerprint: Fingerprint, decoder: str, version: str) -> Fingerprint:
    """Add a decoder to a fingerprint. PyAV is the reference; pictures of other decoders differ slightly."""
    if decoder == "pyav":
        return fingerprint
    parameters = {**fingerprint.parameters, "decoder": f"{decoder} {version}"}
    return Fingerprint(fingerprint.name, fingerprint.version, parameters, fingerprint.weights)


def load(choice: EncoderChoice, device: str = "cpu") -> Encoders:
    """Load the encoders of a choice on a device."""
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
