"""Trained models as files: `model.safetensors` with the weights, `model.json` with what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trichord.data.reader import AudioInput, TextInput
from trichord.errors import TrichordError, one_line
from trichord.nn import MCN
from trichord.training.checkpoint_folder import MANIFEST, Damaged, check_files, read_manifest
from trichord.training.files import replacing, write_json

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
PUBLISHED_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass
class TrainedModel:
    """A model and what is known of it.

    Attributes:
        model: In eval mode, on the CPU.
        trained: Modalities whose weights were trained; the others are at their initial values.
        visual_streams: Store streams that make its video features.
        audio: `spectrogram` or `embeddings`: what its audio encoder reads.
        text: `words` or `embeddings`: what its text encoder reads.
        settings: The recipe that trained it; empty for a published checkpoint.
        notes: What a reader should know, e.g. ignored keys of a published file.
    """

    model: MCN
    trained: tuple[str, ...]
    visual_streams: tuple[str, ...] = ("visual_2d",)
    audio: AudioInput = "spectrogram"
    text: TextInput = "words"
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def save_model(
    folder: Path,
    model: MCN,
    *,
    trained: tuple[str, ...],
    visual_streams: tuple[str, ...],
    audio: AudioInput = "spectrogram",
    text: TextInput = "words",
    settings: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """Write a model folder; the description comes last, so that a folder with one is complete.

    Args:
        folder: Is made; what it holds of a model is replaced.
        model: Its weights and buffers are written.
        trained, visual_streams, audio, text, settings: As of `TrainedModel`.
        extra: More entries of the description.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
    described = description_of(
        model, trained=trained, visual_streams=visual_streams, audio=audio, text=text, settings=settings, extra=extra
    )
    write_json(folder / DESCRIPTION, described)


def description_of(
    model: MCN,
    *,
    trained: tuple[str, ...],
    visual_streams: tuple[str, ...],
    audio: AudioInput = "spectrogram",
    text: TextInput = "words",
    settings: dict[str, Any],
    extra: dict[str, Any],
) -> dict[str, Any]:
    """What `model.json` says of a model; arguments as of `save_model`."""
    return {
        "format": 1,
        "arguments": model.arguments,
        "trained": list(trained),
        "visual_streams": list(visual_streams),
        "audio": audio,
        "text": text,
        "settings": settings,
        **extra,
    }


def load_model(path: Path | str) -> TrainedModel:
    """A model folder of ours (a stage, or one of its checkpoints), or a published checkpoint file (.pth).

    Raises TrichordError for anything else, for a torn file, and for weights of other widths than described.
    """
    path = Path(path)
    if path.is_file() and path.suffix in PUBLISHED_SUFFIXES:
        return _load_published(path)
    if path.is_file() and path.name in (WEIGHTS, DESCRIPTION):
        path = path.parent
    if not (path / DESCRIPTION).is_file():
        raise TrichordError(
            f"{path}: no trained model here (no {DESCRIPTION}); give a stage folder of a run, or a published .pth file"
        )
    if (path / MANIFEST).is_file():
        _require_whole(path)
    try:
        described = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        model = MCN(**described["arguments"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrichordError(
            f"{path / DESCRIPTION}: not a model description ({one_line(error)}); train the stage again"
        ) from None
    load_weights(model, path / WEIGHTS)
    return TrainedModel(
        model.eval(),
        tuple(described["trained"]),
        tuple(described["visual_streams"]),
        described.get("audio", "spectrogram"),
        described.get("text", "words"),
        described.get("settings", {}),
    )


def _require_whole(path: Path) -> None:
    try:
        check_files(path, read_manifest(path))
    except Damaged as error:
        raise TrichordError(f"{path}: the checkpoint is damaged ({error}); give another one, or the stage") from None


def load_weights(model: MCN, path: Path) -> None:
    """Fill a model from a safetensors file whose keys and shapes must be exactly its own."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrichordError(f"{path}: the weights cannot be read ({one_line(error)}); train the stage again") from None
    own = model.state_dict()
    if wrong := [k for k in own if k in tensors and tensors[k].shape != own[k].shape]:
        key = wrong[0]
        raise TrichordError(
            f"{path}: weights of other widths: {key} is {tuple(tensors[key].shape)}, the model wants {tuple(own[key].shape)}; "
            "use the recipe that trained them"
        )
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or extra:
        raise TrichordError(
            f"{path}: weights of another model: missing {missing[:3]}, extra {extra[:3]}; use the recipe that trained them"
        )
    with torch.no_grad():
        model.load_state_dict(tensors)


def _load_published(path: Path) -> TrainedModel:
    model = MCN.from_published(path).eval()
    wide = "video" in model.modalities and model.arguments["video_dim"] > 2048
    streams = ("visual_2d", "visual_3d") if wide else ("visual_2d",)
    return TrainedModel(model, model.modalities, streams, notes=(str(model.load_report),))
