"""Check the arguments of an embedder before anything is loaded or computed, so that mistakes give errors of one line."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelHubMixin

from trichord.data.reader import AUDIO_STREAM, EMBEDDING_STREAMS
from trichord.embedder.inputs import Span
from trichord.errors import TrichordError
from trichord.features.model_files import check_device
from trichord.modality import further_letters

if TYPE_CHECKING:
    from trichord.training.models import TrainedModel

OPTIONS = ("encoders", "weights", "device")
CARD_OPTIONS = ("name", "license", "language")


# ---- arguments of constructors


def check_options(call: str, options: Mapping[str, Any], known: Sequence[str] = OPTIONS) -> None:
    """Raise TrichordError if `call` does not have one of the options, or if the device is not available.

    Example:
        >>> check_options("from_run", {"device": "cpu"})
        >>> check_options("from_run", {"devise": "cpu"})
        Traceback (most recent call last):
        trichord.errors.TrichordError: from_run has no option 'devise'; its options are encoders, weights, device
    """
    if unknown := [name for name in options if name not in known]:
        raise TrichordError(f"{call} has no option '{unknown[0]}'; its options are {', '.join(known)}")
    if "device" in options:
        device_of(options["device"])


def device_of(device: Any) -> str:
    """Return the name of a device.

    Raises:
        TrichordError: Torch cannot use the device; the message lists the available devices.

    Example:
        >>> import torch
        >>> device_of(torch.device("cpu"))
        'cpu'
    """
    check_device(device)
    return str(device)


def path_or_none(path: str | Path | None) -> Path | None:
    """Return an optional path as a `Path`.

    Example:
        >>> path_or_none("words.txt") == Path("words.txt"), path_or_none(None) is None
        (True, True)
    """
    return None if path is None else Path(path)


def streams_of(trained: TrainedModel) -> tuple[str, ...]:
    """Return the names of the feature streams that a model reads, which do not include words.

    Example:
        >>> from trichord.embedder import Embedder
        >>> streams_of(Embedder.from_pretrained("my_model").parts.trained)
        ('visual_2d', 'spectrogram')
    """
    streams: list[str] = []
    if "video" in trained.trained:
        streams += trained.visual_streams
    if "audio" in trained.trained:
        streams.append(EMBEDDING_STREAMS["audio"] if trained.audio == "embeddings" else AUDIO_STREAM)
    if "text" in trained.trained and trained.text == "embeddings":
        streams.append(EMBEDDING_STREAMS["text"])
    return (*streams, *further_letters(trained.trained))


def check_encoders(trained: TrainedModel, encoders: Any, weights: Any) -> None:
    """Raise TrichordError for encoders, or weights of encoders, that have no effect on this model.

    Example:
        >>> from trichord.embedder import Embedder
        >>> trained = Embedder.from_pretrained("my_model").parts.trained
        >>> check_encoders(trained, {"visual_2d": "resnet152"}, weights=None)
        >>> check_encoders(trained, None, weights={"visual_3d": "e29.pth"})
        Traceback (most recent call last):
        trichord.errors.TrichordError: weights of 'visual_3d' have no effect on this model; it uses weights of visual_2d
    """
    streams = tuple(stream for stream in streams_of(trained) if stream not in further_letters(trained.trained))
    visual = tuple(stream for stream in streams if stream in trained.visual_streams)
    for option, values, known in (("encoders", encoders, streams), ("weights", weights, visual)):
        if values is None:
            continue
        if not isinstance(values, Mapping) or not all(isinstance(value, str | Path) for value in values.values()):
            value = "NAME" if option == "encoders" else "FILE"
            raise TrichordError(
                f"{option} must be a mapping of streams, such as {{'visual_2d': {value}}}, not {values!r:.60}; give the stream"
            )
        if unknown := [stream for stream in values if stream not in known]:
            usable = f"{option} of {', '.join(known)}" if known else f"no {option}"
            raise TrichordError(f"{option} of '{unknown[0]}' have no effect on this model; it uses {usable}")


def check_card_options(options: Any) -> None:
    """Raise TrichordError for options that a model card does not have, and for an invalid license.

    Example:
        >>> check_card_options({"license": "cc-by-4.0"})
        >>> check_card_options({"licence": "cc-by-4.0"})
        Traceback (most recent call last):
        trichord.errors.TrichordError: a model card has no option 'licence'; its options are name, license, language
    """
    if not isinstance(options, Mapping):
        raise TrichordError(
            f"the options of a model card must be keyword arguments ({', '.join(CARD_OPTIONS)}), not {options!r:.60}"
        )
    check_options("a model card", options, CARD_OPTIONS)
    if invalid := [name for name, value in options.items() if value is not None and not isinstance(value, str)]:
        name = invalid[0]
        raise TrichordError(f"{name} of a model card must be a string, not {options[name]!r:.60}; convert it")
    if options.get("license") is not None:
        from trichord.embedder.card import hub_license

        hub_license(options["license"])


def check_push(push: bool, repo_id: str | None, options: Mapping[str, Any]) -> None:
    """Raise TrichordError for options of an upload that do not exist, or that are given without an upload.

    Example:
        >>> check_push(True, "me/my_model", {"private": True})
        >>> check_push(False, "me/my_model", {})
        Traceback (most recent call last):
        trichord.errors.TrichordError: repo_id has no effect without push_to_hub=True; add it, or omit repo_id
    """
    known = [name for name in inspect.signature(ModelHubMixin.push_to_hub).parameters if name != "self"]
    check_options("save_pretrained", options, [name for name in known if name not in ("repo_id", "config")])
    given_options = [*options, *["repo_id"] * (repo_id is not None)]
    if given_options and not push:
        raise TrichordError(
            f"{given_options[0]} has no effect without push_to_hub=True; add it, or omit {given_options[0]}"
        )


def check_folder(folder: Path) -> None:
    """Raise TrichordError if there is a file in place of a folder that is to be written.

    Example:
        >>> check_folder(Path("my_new_model"))
        >>> check_folder(Path("a.mp4"))
        Traceback (most recent call last):
        trichord.errors.TrichordError: a.mp4: the path is a file, but a model is saved as a folder; give another path
    """
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise TrichordError(f"{path}: the path is a file, but a model is saved as a folder; give another path")
            return


# ---- inputs


def items_of(values: Any) -> list[Any]:
    """Return a single item or several items as a list.

    Example:
        >>> items_of("a.mp4"), items_of(("a.mp4", "b.mp4"))
        (['a.mp4'], ['a.mp4', 'b.mp4'])
    """
    single = isinstance(values, str | Path | np.ndarray | Mapping) or hasattr(values, "detach")
    if not single and (not isinstance(values, Iterable) or isinstance(values, bytes | set | frozenset)):
        raise TrichordError(f"an object of type {type(values).__name__} cannot be encoded; give files or arrays")
    return [values] if single else list(values)


def texts_of(texts: Any) -> list[Any]:
    """Return a single text or several texts as a list.

    Example:
        >>> texts_of("stir the soup"), texts_of(("stir", "cut"))
        (['stir the soup'], ['stir', 'cut'])
    """
    unordered = (
        isinstance(texts, bytes | Mapping | set | frozenset) or np.ndim(texts if hasattr(texts, "ndim") else [0]) == 0
    )
    if not isinstance(texts, str) and (not isinstance(texts, Iterable) or unordered):
        raise TrichordError(f"texts must be a string or a list of strings, not {type(texts).__name__}; convert them")
    return [texts] if isinstance(texts, str) else list(texts)


def spans_of(start_s: Any, end_s: Any, count: int) -> list[Span]:
    """Return one span for each of `count` items.

    Example:
        >>> spans_of(2.0, [3.0, 4.0], count=2)
        [Span(start_s=2.0, end_s=3.0), Span(start_s=2.0, end_s=4.0)]
    """
    starts, ends = (
        list(value) if isinstance(value, Sequence | np.ndarray) and np.ndim(value) else [value] * count
        for value in (start_s, end_s)
    )
    if len(starts) != count or len(ends) != count:
        raise TrichordError(
            f"there are {len(starts)} start times and {len(ends)} end times for {count} items; give one time for all items, or one "
            "for each"
        )
    for value in (*starts, *ends):
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
            raise TrichordError(f"start_s and end_s must be numbers of seconds, not {value!r:.40}; convert them")
    return [
        Span(0.0 if start is None else float(start), None if end is None else float(end))
        for start, end in zip(starts, ends, strict=True)
    ]


def check_rate(rate_hz: Any, unit_name: str) -> None:
    """Raise TrichordError for a rate that is not a positive number; None is allowed.

    Example:
        >>> check_rate(16_000, "samples")
        >>> check_rate(0, "samples")
        Traceback (most recent call last):
        trichord.errors.TrichordError: rate_hz is 0; give the number of samples per second, greater than 0
    """
    if rate_hz is None:
        return
    is_number = isinstance(rate_hz, Real) and not isinstance(rate_hz, bool)
    if not is_number or not 0 < float(rate_hz) < math.inf:
        raise TrichordError(f"rate_hz is {rate_hz!r:.40}; give the number of {unit_name} per second, greater than 0")
