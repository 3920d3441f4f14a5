"""What callers give to an embedder, checked before anything is loaded or computed: each mistake is one line."""

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


# ---- of constructors


def check_options(call: str, options: Mapping[str, Any], known: Sequence[str] = OPTIONS) -> None:
    """Raises TrichordError for an option that `call` does not have, and for a device that is not here."""
    if unknown := [name for name in options if name not in known]:
        raise TrichordError(f"{call} has no option '{unknown[0]}'; it takes {', '.join(known)}")
    if "device" in options:
        device_of(options["device"])


def device_of(device: Any) -> str:
    """The name of a device. Raises TrichordError, which says which there are, where torch cannot use it."""
    check_device(device)
    return str(device)


def streams_of(trained: TrainedModel) -> tuple[str, ...]:
    """The streams of features that a model reads; words are none."""
    streams: list[str] = []
    if "video" in trained.trained:
        streams += trained.visual_streams
    if "audio" in trained.trained:
        streams.append(EMBEDDING_STREAMS["audio"] if trained.audio == "embeddings" else AUDIO_STREAM)
    if "text" in trained.trained and trained.text == "embeddings":
        streams.append(EMBEDDING_STREAMS["text"])
    return (*streams, *further_letters(trained.trained))


def check_encoders(trained: TrainedModel, encoders: Any, weights: Any) -> None:
    """Raises TrichordError for encoders, or weights of them, that have no effect on this model."""
    streams = tuple(stream for stream in streams_of(trained) if stream not in further_letters(trained.trained))
    visual = tuple(stream for stream in streams if stream in trained.visual_streams)
    for what, given, known in (("encoders", encoders, streams), ("weights", weights, visual)):
        if given is None:
            continue
        if not isinstance(given, Mapping) or not all(isinstance(value, str | Path) for value in given.values()):
            value = "NAME" if what == "encoders" else "FILE"
            raise TrichordError(f"{what} are given by stream, as {{'visual_2d': {value}}}, not {given!r:.60}; name it")
        if unknown := [stream for stream in given if stream not in known]:
            reads = f"those of {', '.join(known)}" if known else "none"
            raise TrichordError(f"{what} of '{unknown[0]}' have no effect on this model; it takes {reads}")


def check_card_options(options: Any) -> None:
    """Raises TrichordError for what a model card does not have, and for a license that cannot stand in it."""
    if not isinstance(options, Mapping):
        raise TrichordError(f"a model card takes {', '.join(CARD_OPTIONS)} by name, not {options!r:.60}")
    check_options("a model card", options, CARD_OPTIONS)
    if wrong := [name for name, value in options.items() if value is not None and not isinstance(value, str)]:
        raise TrichordError(f"{wrong[0]} of a model card is text, not {options[wrong[0]]!r:.60}; give a string")
    if options.get("license") is not None:
        from trichord.embedder.card import hub_license

        hub_license(options["license"])


def check_push(push: bool, repo_id: str | None, options: Mapping[str, Any]) -> None:
    """Raises TrichordError for options of an upload that there are not, or without an upload."""
    known = [name for name in inspect.signature(ModelHubMixin.push_to_hub).parameters if name != "self"]
    check_options("save_pretrained", options, [name for name in known if name not in ("repo_id", "config")])
    given = [*options, *["repo_id"] * (repo_id is not None)]
    if given and not push:
        raise TrichordError(f"{given[0]} has no effect without push_to_hub=True; add it, or leave {given[0]} out")


def check_folder(folder: Path) -> None:
    """Raises TrichordError when a file stands where a folder is to be written."""
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise TrichordError(f"{path}: is a file, a model is a folder; name another place")
            return


# ---- of what is encoded


def items_of(values: Any) -> list[Any]:
    """One item, or several, as a list."""
    single = isinstance(values, str | Path | np.ndarray | Mapping) or hasattr(values, "detach")
    if not single and (not isinstance(values, Iterable) or isinstance(values, bytes | set | frozenset)):
        raise TrichordError(f"{type(values).__name__} is nothing that can be encoded; give files or arrays")
    return [values] if single else list(values)


def texts_of(texts: Any) -> list[Any]:
    """One text, or several, as a list."""
    no_order = (
        isinstance(texts, bytes | Mapping | set | frozenset) or np.ndim(texts if hasattr(texts, "ndim") else [0]) == 0
    )
    if not isinstance(texts, str) and (not isinstance(texts, Iterable) or no_order):
        raise TrichordError(f"texts are a string or a list of strings, not {type(texts).__name__}; convert them")
    return [texts] if isinstance(texts, str) else list(texts)


def spans_of(start_s: Any, end_s: Any, count: int) -> list[Span]:
    """One span for each of `count` items."""
    starts, ends = (
        list(value) if isinstance(value, Sequence | np.ndarray) and np.ndim(value) else [value] * count
        for value in (start_s, end_s)
    )
    if len(starts) != count or len(ends) != count:
        raise TrichordError(
            f"{len(starts)} starts and {len(ends)} ends for {count} items; give one for all, or one each"
        )
    for value in (*starts, *ends):
        if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
            raise TrichordError(f"start_s and end_s are seconds, not {value!r:.40}; give numbers")
    return [
        Span(0.0 if start is None else float(start), None if end is None else float(end))
        for start, end in zip(starts, ends, strict=True)
    ]


def check_rate(rate_hz: Any, what: str) -> None:
    """Raises TrichordError for a rate that is no number above 0. None is no rate."""
    if rate_hz is None:
        return
    is_number = isinstance(rate_hz, Real) and not isinstance(rate_hz, bool)
    if not is_number or not 0 < float(rate_hz) < math.inf:
        raise TrichordError(f"rate_hz cannot be {rate_hz!r:.40}; give the {what} a second, a number above 0")
