"""Read and write the folder of a model, which may also be a repository on the Hugging Face hub.

The folder contains `model.safetensors` and `model.json` (the network, as in the folder of a trained stage), `config.json`
(encoders, reading of clips, scoring) and `words.safetensors` (word vectors). No code in it is executed. `config.json` is sealed
and contains the digest of the words; `model.json` contains the digest of the weights.
"""

from __future__ import annotations

import json
import os
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
from trichord.files.reading import file_sha256, missing, read_json_value
from trichord.files.writing import replacing, write_json
from trichord.store.words import WordVectors
from trichord.study.files import check_sha256, read_json
from trichord.tasks.benchmarks import ScoringSettings
from trichord.training.models import DESCRIPTION, WEIGHTS, TrainedModel, load_model, save_model
from trichord.training.seals import sealed

CONFIG, WORDS, CARD = "config.json", "words.safetensors", "README.md"
STAGE_CONFIG = "config.yaml"  # settings in the folder of a trained stage
LIBRARY = "trichord"
FORMAT = 1
AGAIN = "get the model again, or export it again"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ETAG_S = 5.0
_SCORING: dict[str, tuple[Any, float, float]] = {  # type, minimum, maximum
    "min_clip_s": ((int, float), 0, 1e6),
    "audio_frames": (int, 1, 1_000_000),
    "max_words": (int, 1, 100_000),
    "audio_pad_db": ((int, float), -1e6, 1e6),
    "cosine": (bool, 0, 1),
}


@dataclass
class Parts:
    """The parts of an embedder.

    Attributes:
        trained: The network.
        scoring: How clips are read and scores are computed.
        encoders: Fingerprint of the encoder of each stream, as recorded in the store.
        vocabulary: Vocabulary of a network that reads words; None if the words are not available.
        origin: Description of the training: order, seed, data.
        results: Figures for the model card (see `embedder.card`).

    Example:
        >>> parts = read_folder(Path("my_model"))
        >>> parts.trained.trained, list(parts.encoders), parts.scoring.max_words
        (('video', 'audio', 'text'), ['visual_2d'], 20)
    """

    trained: TrainedModel
    scoring: ScoringSettings
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)


def check_target(folder: Path) -> None:
    """Refuse to export a model to a folder that contains anything but an earlier export.

    A new or empty folder is accepted, and so is one that contains only a card and hidden files (a new repository). An earlier
    export is recognized by its `config.json`.

    Raises:
        TrichordError: The folder contains other files, or is a link.

    Example:
        >>> check_target(Path("my_model"))  # an earlier export
        >>> check_target(Path("my_run"))
        Traceback (most recent call last):
        trichord.errors.TrichordError: my_run: the folder contains stages and is not an earlier export of a model; give a
        new or empty folder
    """
    check_no_links(folder)
    if not folder.is_dir():
        return
    names = sorted(path.name for path in folder.iterdir() if path.name != CARD and not path.name.startswith("."))
    if not names:
        return
    try:
        content = read_json_value(folder / CONFIG) if CONFIG in names else {}
    except (OSError, ValueError):
        content = {}
    is_export = isinstance(content, dict) and content.get("library_name") == LIBRARY
    if not is_export or STAGE_CONFIG in names:
        raise TrichordError(
            f"{folder}: the folder contains {', '.join(names[:3])} and is not an earlier export of a model; give a new or empty "
            "folder"
        )


def write_folder(folder: Path, parts: Parts) -> None:
    """Write all files except the model card. `config.json` is completed last.

    Example:
        >>> write_folder(Path("written"), read_folder(Path("my_model")))
        >>> sorted(path.name for path in Path("written").iterdir())
        ['config.json', 'model.json', 'model.safetensors', 'words.safetensors']
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained, scoring = parts.trained, parts.scoring
    head = {"format": FORMAT, "library_name": LIBRARY}  # identifies the folder if the process is killed before the end
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
    """Read the folder that `write_folder` wrote.

    Args:
        folder: The folder.
        words: File with the complete word table, for words beyond those saved with the model.

    Raises:
        TrichordError: A file is missing, damaged, or of another version.

    Example:
        >>> read_folder(Path("my_model")).trained.trained
        ('video', 'audio', 'text')
    """
    for name in (CONFIG, DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise TrichordError(
                f"{folder}: the folder does not contain a model ({name} is missing); give a folder of `trichord export-model`"
            )
    content = read_json(folder / CONFIG, mend=AGAIN)
    if content.get("format") != FORMAT:
        version = one_line(content.get("format"))[:20]
        raise TrichordError(
            f"{folder / CONFIG}: the file has the format {version}, but this version reads format {FORMAT}; update trichord"
        )
    if content.get("complete") is False:
        raise _damaged(folder, "the export was interrupted before it was complete")
    trained = load_model(folder)
    kinds = {"clips": dict, "encoders": dict, "origin": dict, "results": list}
    if invalid := [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]:
        raise _damaged(folder, f"the entry '{invalid[0]}' is missing or invalid")
    clips = content["clips"]
    for name, (kind, least, most) in _SCORING.items():
        value = clips.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool) or not least <= value <= most:
            raise _damaged(folder, f"clips.{name} has the invalid value {one_line(value)[:20]}")
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


def _damaged(folder: Path, problem: str) -> TrichordError:
    return TrichordError(f"{folder / CONFIG}: {problem}; {AGAIN}")


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


def _read_words(folder: Path, description: Any) -> WordVectors:
    from safetensors import SafetensorError, safe_open

    if (
        not isinstance(description, dict)
        or not isinstance(description.get("source"), str)
        or type(description.get("lowercase")) is not bool
    ):
        raise _damaged(folder, "the description of the words is incomplete")
    splitting = description.get("splitting", "published")  # models of earlier versions do not state it
    if splitting not in WORD_SPLITTINGS:
        raise _damaged(
            folder, f"the word splitting is '{one_line(splitting)[:20]}', which this version does not support"
        )
    path = folder / WORDS
    check_sha256(path, description.get("sha256"), mend=AGAIN)
    try:
        with safe_open(path, framework="np") as file:
            vectors, words = file.get_tensor("vectors"), json.loads(file.metadata()["words"])
        is_list_of_strings = isinstance(words, list) and all(isinstance(word, str) for word in words)
        if (
            not is_list_of_strings
            or vectors.shape != (len(words), description.get("dim"))
            or vectors.dtype != np.float32
        ):
            raise ValueError("the words and the vectors do not fit together")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrichordError(f"{path}: the file cannot be read ({one_line(error)[:120]}); {AGAIN}") from None
    return WordVectors(words, vectors, description["source"], description["lowercase"], splitting)


def find_folder(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Return the folder `name`, or the cached folder of the hub repository `name` (OWNER/NAME), which is downloaded if necessary.

    Args:
        name: The folder, or OWNER/NAME on the hub.
        revision: Branch, tag or commit of the repository.
        cache_dir: Cache folder, instead of the default one.
        force_download: Whether to download the files even if they are in the cache.
        local_files_only: Whether to use only files in the cache, without network access.
        token: Access token for private repositories.

    Raises:
        TrichordError: The model does not exist or cannot be downloaded. Without a network the error is raised within seconds.

    Example:
        >>> find_folder("my_model").name
        'my_model'
    """
    if not isinstance(name, str | Path):
        raise TrichordError(f"a model must be a folder, or OWNER/NAME on the hub, not {name!r:.60}; give its name")
    folder = Path(name).expanduser()
    if os.path.isdir(folder):
        if revision is not None:
            raise TrichordError(f"{folder}: the path is a folder, so revision '{revision}' has no effect; omit it")
        return folder
    if os.path.exists(folder):
        raise missing(folder, "folder", mend="give the folder of an exported model")
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "~", "/")) or not _HUB_NAME.fullmatch(text):
        raise missing(text, "folder", mend="check the path, or give OWNER/NAME on the hub")
    from huggingface_hub import HfApi, constants, snapshot_download

    cache_only, reason = local_files_only or offline(), "local_files_only or HF_HUB_OFFLINE disables downloads"
    try:
        if not cache_only:  # a single quick request: the download itself would retry for half a minute
            HfApi(token=token).model_info(text, revision=revision, timeout=_ETAG_S)
    except Exception as error:  # includes errors of the HTTP library; without an answer the cache is used
        cache_only, reason = True, f"it cannot be downloaded ({one_line(error)[:120]})"
    try:
        return Path(
            snapshot_download(
                text, revision=revision, cache_dir=cache_dir, force_download=force_download and not cache_only, token=token,
                local_files_only=cache_only, etag_timeout=_ETAG_S, allow_patterns=[CONFIG, DESCRIPTION, WEIGHTS, WORDS, CARD],
            )
        )  # fmt: skip
    except Exception as error:
        cache = cache_dir or constants.HF_HUB_CACHE
        command = f"hf download {text}" + (f" --revision {revision}" if revision else "")
        reason = reason if cache_only else f"it cannot be downloaded ({one_line(error)[:120]})"
        raise TrichordError(
            f"{text}: the model is neither a local folder nor in the cache {cache}, and {reason}; run `{command}` on a machine "
            "with network access, or give a folder"
        ) from None
