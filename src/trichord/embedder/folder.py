"""A model's folder, here or on the hub: `model.safetensors` and `model.json` (the network, as of a trained stage),
`config.json` (what leads to it: encoders, clips, scores) and `words.safetensors` (word vectors).

Nothing in them is run. `config.json` is sealed and names the digest of the words; `model.json` that of the weights.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trichord.captions import WORD_SPLITTINGS
from trichord.embedder.vocabulary import Vocabulary
from trichord.errors import TrichordError, one_line
from trichord.features.weights import offline
from trichord.files.folders import check_no_links
from trichord.files.reading import file_sha256, read_json_value
from trichord.files.writing import replacing, write_json
from trichord.store.words import WordVectors
from trichord.study.files import check_sha256, read_json
from trichord.tasks.benchmarks import ScoringSettings
from trichord.training.models import DESCRIPTION, WEIGHTS, TrainedModel, load_model, save_model
from trichord.training.seals import sealed

CONFIG, WORDS, CARD = "config.json", "words.safetensors", "README.md"
STAGE_CONFIG = "config.yaml"  # of a trained stage
LIBRARY = "trichord"
FORMAT = 1
AGAIN = "get the model again, or export it again"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ETAG_S = 5.0
_SCORING: dict[str, tuple[Any, float, float]] = {  # type, least, most
    "min_clip_s": ((int, float), 0, 1e6),
    "audio_frames": (int, 1, 1_000_000),
    "max_words": (int, 1, 100_000),
    "audio_pad_db": ((int, float), -1e6, 1e6),
    "cosine": (bool, 0, 1),
}


@dataclass
class Parts:
    """All that an embedder is made of.

    Attributes:
        trained: The network.
        scoring: How clips are read and scores are made.
        encoders: Stream -> fingerprint of what makes its features, as the store recorded it.
        vocabulary: Of a network that reads words; None where the words are not here.
        origin: Where it is from, for people: order, seed, data.
        results: Figures for the model card: see `embedder.card`.
    """

    trained: TrainedModel
    scoring: ScoringSettings
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)


def check_target(folder: Path) -> None:
    """Refuse to export a model to a folder that holds anything but an earlier export.

    A new or empty folder, and one that holds only a card and hidden files (a new repository), are fine. Whether a folder
    holds an earlier export is read from its `config.json`.

    Raises TrichordError.
    """
    check_no_links(folder)
    if not folder.is_dir():
        return
    held = sorted(path.name for path in folder.iterdir() if path.name != CARD and not path.name.startswith("."))
    if not held:
        return
    try:
        content = read_json_value(folder / CONFIG) if CONFIG in held else {}
    except (OSError, ValueError):
        content = {}
    exported = isinstance(content, dict) and content.get("library_name") == LIBRARY
    if not exported or STAGE_CONFIG in held:
        raise TrichordError(
            f"{folder}: holds {', '.join(held[:3])}, and is no earlier export of a model; give a new or empty folder"
        )


def write_folder(folder: Path, parts: Parts) -> None:
    """Write all files but the card. `config.json` is whole last."""
    folder.mkdir(parents=True, exist_ok=True)
    trained, scoring = parts.trained, parts.scoring
    head = {"format": FORMAT, "library_name": LIBRARY}  # says whose folder it is, should this be killed
    write_json(folder / CONFIG, sealed(head | {"complete": False}))
    save_model(
        folder, trained.model, trained=trained.trained, visual_streams=trained.visual_streams, audio=trained.audio,
        text=trained.text, settings=trained.settings, extra={"stage": parts.origin.get("order"), "seed": parts.origin.get("seed")},
    )  # fmt: skip
    words = None
    if parts.vocabulary is not None:
        words = _write_words(folder / WORDS, parts.vocabulary.words())
    else:
        (folder / WORDS).unlink(missing_ok=True)
    content = {
        "clips": {name: getattr(scoring, name) for name in _SCORING},
        "encoders": parts.encoders,
        "words": words,
        "origin": parts.origin,
        "results": parts.results,
    }
    write_json(folder / CONFIG, sealed(head | content))


def read_folder(folder: Path, words: Path | None = None) -> Parts:
    """Read what `write_folder` wrote.

    Args:
        folder: With the files.
        words: The whole word table, for words beyond those that came with the model.

    Raises TrichordError, one line, when a file is missing, damaged, or of another version.
    """
    for name in (CONFIG, DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise TrichordError(
                f"{folder}: no model here (no {name}); give a folder that `trichord export-model` wrote"
            )
    content = read_json(folder / CONFIG, mend=AGAIN)
    if content.get("format") != FORMAT:
        told = one_line(content.get("format"))[:20]
        raise TrichordError(f"{folder / CONFIG}: has format {told}, this version reads {FORMAT}; update trichord")
    if content.get("complete") is False:
        raise _damaged(folder, "its export was ended before it was complete")
    trained = load_model(folder)
    kinds = {"clips": dict, "encoders": dict, "origin": dict, "results": list}
    if wrong := [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]:
        raise _damaged(folder, f"its {wrong[0]} are not there")
    clips = content["clips"]
    for name, (kind, least, most) in _SCORING.items():
        value = clips.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool) or not least <= value <= most:
            raise _damaged(folder, f"clips.{name} is {one_line(value)[:20]}, which no model has")
    if not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in content["encoders"].values()
    ):
        raise _damaged(folder, "an encoder has no name")
    scoring = ScoringSettings(
        visual_streams=trained.visual_streams, audio=trained.audio, text=trained.text, **{k: clips[k] for k in _SCORING}
    )
    vocabulary = None
    if content.get("words") is not None:
        vocabulary = Vocabulary(_read_words(folder, content["words"]), words)
    elif words is not None and trained.text == "words":
        vocabulary = Vocabulary.of_table(words)
    return Parts(trained, scoring, content["encoders"], vocabulary, content["origin"], content["results"])


def _damaged(folder: Path, why: str) -> TrichordError:
    return TrichordError(f"{folder / CONFIG}: {why}; {AGAIN}")


def _write_words(path: Path, words: WordVectors) -> dict[str, Any]:
    from safetensors.numpy import save_file

    with replacing(path) as partial:
        save_file({"vectors": words.vectors}, partial, {"words": json.dumps(words.words)})
        digest = file_sha256(partial)
    return {
        "source": words.source,
        "lowercase": words.lowercase,
        "splitting": words.splitting,
        "dim": words.vectors.shape[1],
        "count": len(words.words),
        "sha256": digest,
    }


def _read_words(folder: Path, told: Any) -> WordVectors:
    from safetensors import SafetensorError, safe_open

    if not isinstance(told, dict) or not isinstance(told.get("source"), str) or type(told.get("lowercase")) is not bool:
        raise _damaged(folder, "what it says of the words is not whole")
    splitting = told.get("splitting", "published")  # models of earlier versions state none
    if splitting not in WORD_SPLITTINGS:
        raise _damaged(
            folder, f"splits text into words as '{one_line(splitting)[:20]}', which this version does not know"
        )
    path = folder / WORDS
    check_sha256(path, told.get("sha256"), mend=AGAIN)
    try:
        with safe_open(path, framework="np") as file:
            vectors, words = file.get_tensor("vectors"), json.loads(file.metadata()["words"])
        whole = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if not whole or vectors.shape != (len(words), told.get("dim")) or vectors.dtype != np.float32:
            raise ValueError("words and vectors do not fit each other")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrichordError(f"{path}: cannot be read ({one_line(error)[:120]}); {AGAIN}") from None
    return WordVectors(words, vectors, told["source"], told["lowercase"], splitting)


def find_folder(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder `name`, or that of the hub's repository `name` (OWNER/NAME) in the hub's cache, downloaded if need be.

    Raises TrichordError, one line, when there is none: offline within seconds, with what to do.
    """
    if not isinstance(name, str | Path):
        raise TrichordError(f"a model is a folder, or OWNER/NAME of the hub, not {name!r:.60}; give its name")
    folder = Path(name).expanduser()
    if folder.is_file():
        raise TrichordError(f"{folder}: is a file; give the folder of an exported model")
    if folder.is_dir():
        if revision is not None:
            raise TrichordError(f"{folder}: is a folder, so revision '{revision}' has no effect; leave it out")
        return folder
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "~", "/")) or not _HUB_NAME.fullmatch(text):
        raise TrichordError(f"{text}: no such folder; check the path, or give OWNER/NAME of the hub")
    from huggingface_hub import HfApi, constants, snapshot_download

    alone, why = local_files_only or offline(), "local_files_only or HF_HUB_OFFLINE forbids to download it"
    try:
        if not alone:  # once, and soon: a download alone would try for half a minute
            HfApi(token=token).model_info(text, revision=revision, timeout=_ETAG_S)
    except Exception as error:  # of its HTTP library too; without an answer the cache decides, as elsewhere
        alone, why = True, f"it cannot be downloaded ({one_line(error)[:120]})"
    try:
        return Path(
            snapshot_download(
                text, revision=revision, cache_dir=cache_dir, force_download=force_download and not alone, token=token,
                local_files_only=alone, etag_timeout=_ETAG_S, allow_patterns=[CONFIG, DESCRIPTION, WEIGHTS, WORDS, CARD],
            )
        )  # fmt: skip
    except Exception as error:
        cache = cache_dir or constants.HF_HUB_CACHE
        command = f"hf download {text}" + (f" --revision {revision}" if revision else "")
        why = why if alone else f"it cannot be downloaded ({one_line(error)[:120]})"
        raise TrichordError(
            f"{text}: is neither a folder here nor in {cache}, and {why}; run `{command}` where there is a network, "
            "or give a folder"
        ) from None
