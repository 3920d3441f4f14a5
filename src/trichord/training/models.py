"""The files of trained models.

`model.safetensors` contains the weights, `model.json` the description and all digests, and `centroids.safetensors` the centroids
if the last stage had clustering (`training.centroids`). Reading executes no code from these files. The shapes in the description
are compared with those of the weights before a network is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from trichord.errors import TrichordError, one_line
from trichord.files.lfs import lfs_pointer_error
from trichord.files.reading import check_regular, file_sha256, unreadable
from trichord.files.writing import replacing, write_json
from trichord.losses.centroids import Centroids
from trichord.modalities.base import AudioInput, TextInput
from trichord.modality import declare_recorded, further_letters
from trichord.nn import MCN
from trichord.training.centroids import CENTROIDS, read_centroids, write_centroids
from trichord.training.checkpoint_folder import MANIFEST, Damaged, check_files, read_manifest, read_numbers
from trichord.training.seals import again, sealed, was_changed

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
FORMAT = 2  # 1 had no digests; it is still read
PUBLISHED_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")


@dataclass
class TrainedModel:
    """A model and its description.

    Attributes:
        model: Network in eval mode, on the CPU.
        trained: Modalities whose weights were trained. The others have their initial weights.
        visual_streams: Streams of the store that are concatenated to video features.
        audio: Input of the audio encoder: `spectrogram` or `embeddings`.
        text: Input of the text encoder: `words` or `embeddings`.
        settings: Recipe of the training. Empty for a published checkpoint.
        notes: Remarks for the user, such as ignored keys of a published file.
        centroids: Centroids of the last stage. None without clustering, and for files without centroids.
    """

    model: MCN
    trained: tuple[str, ...]
    visual_streams: tuple[str, ...] = ("visual_2d",)
    audio: AudioInput = "spectrogram"
    text: TextInput = "words"
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    centroids: Centroids | None = None


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
    centroids: torch.Tensor | None = None,
) -> None:
    """Write a model folder. The description is written last, so a folder with a description is complete.

    Args:
        folder: Folder, which is created. Files of a model that it contains are replaced.
        model: Network, whose weights and buffers are written.
        trained: Modalities whose weights were trained.
        visual_streams: Streams of the store that are concatenated to video features.
        audio: Input of the audio encoder.
        text: Input of the text encoder.
        settings: Recipe of the training.
        extra: Further entries of the description.
        centroids: Centroids of shape (K, D), float32. None removes an existing file of centroids.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
        digests = {"weights_sha256": file_sha256(partial)}
    digests |= write_centroids(folder, centroids)
    described = description_of(
        model, trained=trained, visual_streams=visual_streams, audio=audio, text=text, settings=settings, extra=extra
    )
    write_json(folder / DESCRIPTION, sealed({**described, "format": FORMAT, **digests}))


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
    """Return the content of `model.json` without digests. The arguments are those of `save_model`."""
    return {
        "format": 1,
        "arguments": model.arguments,
        "trained": list(trained),
        "visual_streams": list(visual_streams),
        "audio": audio,
        "text": text,
        "settings": settings,
        **({"modalities": recorded} if (recorded := further_letters(model.modalities)) else {}),
        **extra,
    }


def load_model(path: Path | str) -> TrainedModel:
    """Load a model.

    Args:
        path: Folder of a stage, one of its checkpoints, or a published checkpoint file (.pth).

    Returns:
        The model in eval mode, on the CPU.

    Raises:
        TrichordError: There is no model at `path`, a file is incomplete or was changed, or the weights do not fit the
            description.
    """
    path = Path(path)
    if path.is_file() and path.suffix in PUBLISHED_SUFFIXES:
        return _load_published(path)
    if path.is_file() and path.name in (WEIGHTS, DESCRIPTION, CENTROIDS):
        path = path.parent
    if not (path / DESCRIPTION).is_file():
        raise TrichordError(
            f"{path}: contains no trained model (there is no {DESCRIPTION}); give the folder of a stage, or a published .pth file"
        )
    if (path / MANIFEST).is_file():
        _require_whole(path)
    described = read_description(path)
    try:
        declare_recorded(described.get("modalities", {}), path / DESCRIPTION)
        model = network_of(described["arguments"], path / WEIGHTS)
        description = TrainedModel(
            model.eval(),
            _texts(described["trained"]),
            _texts(described["visual_streams"]),
            described.get("audio", "spectrogram"),
            described.get("text", "words"),
            dict(described.get("settings", {})),
            centroids=read_centroids(path, described, model.arguments["embed_dim"]),
        )
        if description.audio not in get_args(AudioInput) or description.text not in get_args(TextInput):
            raise ValueError("unknown kind of audio or text input")
    except TrichordError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _no_description(path, error) from None
    load_weights(model, path / WEIGHTS)
    return description


def read_description(folder: Path) -> dict[str, Any]:
    """Read `model.json` of a folder.

    Raises:
        TrichordError: The file cannot be read, was changed, or has an unknown format.
    """
    try:
        described = read_numbers((folder / DESCRIPTION).resolve())
    except Damaged as error:
        raise _no_description(folder, error) from None
    if was_changed(described) or (described.get("format") == FORMAT and "sha256" not in described):
        raise TrichordError(f"{folder / DESCRIPTION}: has changed since it was written; {again(folder)}")
    if described.get("format", 1) not in (1, FORMAT):
        format_name = one_line(described["format"])[:20]
        raise TrichordError(
            f"{folder / DESCRIPTION}: has format {format_name}, but this version of trichord reads 1 and {FORMAT}; update trichord"
        )
    return described


def _no_description(folder: Path, error: object) -> TrichordError:
    reason = one_line(error)[:200]
    return lfs_pointer_error(folder / DESCRIPTION) or TrichordError(
        f"{folder / DESCRIPTION}: not a model description ({reason}); {again(folder)}"
    )


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("expected a list of names")
    return tuple(values)


def network_of(arguments: dict[str, Any], path: Path) -> MCN:
    """Return a network that fits a file of weights.

    Args:
        arguments: Arguments of `MCN`.
        path: File of the weights. Its shapes are compared with those of the network before memory is allocated.

    Raises:
        TrichordError: The arguments are invalid, or the weights do not fit them.
    """
    try:
        with torch.device("meta"):
            model = MCN(**arguments)
    except TrichordError as error:
        raise TrichordError(f"{path}: {error}") from None
    _check_fit(model, _shapes(path), path)
    return MCN(**arguments)


def _require_whole(path: Path) -> None:
    try:
        check_files(path, read_manifest(path))
    except Damaged as error:
        raise TrichordError(f"{path}: the checkpoint is damaged ({error}); give another one, or the stage") from None


def load_weights(model: MCN, path: Path) -> None:
    """Load the weights of a model from a safetensors file.

    Args:
        model: Network whose weights are replaced.
        path: File with exactly the keys and shapes of the network. If the description in the same folder contains a digest
            (since format 2), the file must have this digest.

    Raises:
        TrichordError: The file cannot be read, was changed, or does not fit the network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_fit(model, _shapes(path), path)
    described = read_description(path.parent) if (path.parent / DESCRIPTION).is_file() else {}
    try:
        if "weights_sha256" in described and file_sha256(path) != described["weights_sha256"]:
            raise TrichordError(f"{path}: the weights have changed since they were written; {again(path.parent)}")
        tensors = load_file(path)
    except (OSError, SafetensorError, MemoryError) as error:
        raise unreadable(path, error, mend=again(path.parent)) from None
    with torch.no_grad():
        model.load_state_dict(tensors)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a safetensors file from its header, which the library checks against the file size."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, MemoryError) as error:
        raise unreadable(path, error, mend=again(path.parent)) from None


def _check_fit(model: MCN, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if wrong := [key for key in own if key in shapes and shapes[key] != own[key]]:
        key = wrong[0]
        raise TrichordError(
            f"{path}: the weights do not fit the model: {key} has shape {shapes[key]} instead of {own[key]}; "
            "use the recipe that they were trained with"
        )
    missing, extra = sorted(set(own) - set(shapes)), sorted(set(shapes) - set(own))
    if missing or extra:
        raise TrichordError(
            f"{path}: the weights belong to another model: missing {missing[:3]}, unexpected {extra[:3]}; "
            "use the recipe that they were trained with"
        )


def _load_published(path: Path) -> TrainedModel:
    model = MCN.from_published(path).eval()
    wide = "video" in model.modalities and model.arguments["video_dim"] > 2048
    streams = ("visual_2d", "visual_3d") if wide else ("visual_2d",)
    return TrainedModel(model, model.modalities, streams, notes=(str(model.load_report),))
