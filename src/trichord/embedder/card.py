"""The model card: `README.md` with the metadata of the hub (`model-index`) and a text with the same content.

It is created by the classes of huggingface_hub and checked with its parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from trichord.embedder.card_results import evaluation_result, limits_section, results_section, slug, table
from trichord.embedder.folder import Parts
from trichord.embedder.results import is_figure
from trichord.errors import TrichordError
from trichord.files.reading import read_text
from trichord.modality import MODALITIES, Order, in_order
from trichord.recipes.reading import parse_metadata
from trichord.report.document import folded
from trichord.report.markdown import plain

_MOST_CARD_BYTES = 16 << 20
TAGS = ("trichord", "video-text-retrieval", "audio-visual", "multimodal-embeddings")


def make_card(
    parts: Parts, *, name: str = "model", license: str | None = None, language: str | None = None
) -> ModelCard:
    """Return the card of a model.

    Args:
        parts: The model with its figures.
        name: Name of the model in the `model-index`.
        license: License of the weights, as an identifier of the hub (`apache-2.0`) or in words (see `hub_license`). With None,
            the card says that no license is stated.
        language: Language of the texts, as a code of the hub (`en`).

    Raises:
        TrichordError: The license contains no letter, or the parser of the hub does not read the card as it was written.

    Example:
        >>> from trichord.embedder import Embedder
        >>> parts = Embedder.from_pretrained("my_model").parts
        >>> card = make_card(parts, name="soups", license="cc-by-4.0", language="en")
        >>> card.data.license, card.data.language, card.data.pipeline_tag
        ('cc-by-4.0', 'en', 'feature-extraction')
    """
    identifier, license_name = (None, None) if license is None else hub_license(license)
    figures = [figure for figure in parts.results if is_figure(figure)]
    results = [evaluation_result(figure) for figure in figures]
    data = ModelCardData(
        library_name="trichord",
        license=identifier,
        license_name=license_name,
        language=language,
        pipeline_tag="feature-extraction",
        tags=[*TAGS, *(f"modality:{m}" for m in parts.trained.trained)],
        model_name=folded(name) or "model" if results else None,
        eval_results=results or None,
    )
    body = _body(parts, figures, name, license if license_name is not None else identifier)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}", ignore_metadata_errors=False)
    read = cast(ModelCardData, ModelCard(str(card), ignore_metadata_errors=False).data)
    if _as_written(read.eval_results or []) != _as_written(results) or read.library_name != "trichord":
        raise TrichordError(
            "the parser of the hub does not read the model card as it was written; export without results"
        )
    return card


def num_figures(path: Path) -> int:
    """Return the number of figures in the metadata of an existing card, or 0 if its metadata do not have the form of the hub.

    Example:
        >>> num_figures(Path("my_model/README.md"))
        0
    """
    text = read_text(path, errors="replace", max_bytes=_MOST_CARD_BYTES)
    begin, end = text.find("---"), text.find("\n---", 3)
    if begin != 0 or end < 0:
        return 0
    try:
        models = parse_metadata(text[3:end]).get("model-index", [])
        return sum(len(result["metrics"]) for model in models for result in model["results"])
    except (ValueError, TypeError, KeyError, AttributeError):  # written by hand
        return 0


def hub_license(license: str) -> tuple[str, str | None]:
    """Return (`license`, `license_name`) of the metadata of the hub.

    A text of letters, digits, dots and dashes is used as an identifier in lowercase, and `license_name` is None. Any other text
    becomes `other` with a `license_name` of that form. The list of identifiers of the hub is not consulted.

    Raises:
        TrichordError: The text contains none of the letters a to z.

    Example:
        >>> hub_license("Apache-2.0"), hub_license("My own license")
        (('apache-2.0', None), ('other', 'my-own-license'))
    """
    text = folded(license)
    name = ".".join(filter(None, map(slug, text.split("."))))
    if not re.search("[a-z]", slug(text)):
        raise TrichordError(
            f"{license!r:.60} is not a license; give an identifier of the hub, such as cc-by-4.0, or leave it out"
        )
    if text.isascii() and re.fullmatch(r"[a-z0-9]+(?:[.-][a-z0-9]+)*", text.lower()):
        return text.lower(), None
    return "other", name


def _as_written(results: Sequence[EvalResult]) -> list[str]:
    return sorted(json.dumps(asdict(result), sort_keys=True) for result in results)


def _body(parts: Parts, figures: list[dict[str, Any]], name: str, license: str | None) -> str:
    trained, scoring, origin = parts.trained, parts.scoring, parts.origin
    code = origin.get("order")
    order = Order.parse(code) if isinstance(code, str) and code else None
    sections = [f"# {plain(name)}", _summary(parts, order)]
    sections.append("## Use\n\n" + _usage(trained.trained))
    scores = "cosines" if scoring.cosine else "dot products"
    reads = "words" if scoring.text == "words" else "captions"
    rows = [
        ("modalities", ", ".join(trained.trained)),
        ("joint space", f"{trained.model.arguments['embed_dim']} dimensions, scores are {scores}"),
        ("order", "not recorded" if order is None else str(order)),
        ("seed", str(origin.get("seed", "not recorded"))),
        ("trained on", str(origin.get("collections") or "not recorded")),
        ("text", f"at most {scoring.max_words} {reads}; {_words(parts)}"),
        ("sound", f"at most {scoring.audio_frames / 100:g} s" if scoring.audio == "spectrogram" else "embeddings"),
    ]
    for stream, entry in parts.encoders.items():
        rows.append((f"encoder of {stream}", f"{entry['name']} ({entry.get('digest', 'fingerprint unknown')})"))
    rows.append(("license of the weights", license or "not stated by who exported them"))
    sections.append("## The model\n\n" + table(("", ""), rows))
    sections.append("## Results\n\n" + results_section(figures))
    sections.append("## Limits\n\n" + limits_section(figures, origin))
    return "\n\n".join(sections) + "\n"


def _summary(parts: Parts, order: Order | None) -> str:
    kinds = in_order(parts.trained.trained)
    modalities = " and ".join((", ".join(kinds[:-1]), kinds[-1]) if len(kinds) > 1 else kinds)
    trained = "" if order is None else f", trained in the order {order}"
    return f"A joint embedding space of {modalities} of narrated video{trained}. It is used with the Python package `trichord`."


def _usage(trained: tuple[str, ...]) -> str:
    calls = {
        "video": 'video = model.encode_video(["clip.mp4"])',
        "audio": 'audio = model.encode_audio(["clip.mp4"])',
        "text": 'text = model.encode_text(["crack the eggs into a bowl"])',
    }
    lines = ["import trichord", "", 'model = trichord.Embedder.from_pretrained("FOLDER, OR OWNER/NAME OF THE HUB")']
    lines += [
        calls.get(m, f'{m} = model.encode_features("{m}", ["clip.npy"])  # a vector (F,), or rows in time (N, F)')
        for m in in_order(trained)
    ]
    further = [m for m in in_order(trained) if m not in MODALITIES]
    known = [m for m in ("text", "video", "audio", *further) if m in trained]
    if len(known) > 1:
        lines.append(f"scores = model.similarity({known[0]}, {known[1]})")
    return "```python\n" + "\n".join(lines) + "\n```"


def _words(parts: Parts) -> str:
    if parts.trained.text == "embeddings":
        return "read by the encoder below"
    if parts.vocabulary is None:
        return "word table not recorded"
    return f"word vectors of {parts.vocabulary.source}"
