"""Clips and texts in a joint space, in memory and as a file: what every protocol that needs no model scores.

The file, so that other people's models can be scored (`trichord evaluate --embeddings FILE`): a `.safetensors` or `.npz`
with any of these arrays, N clips and M texts; only one of the first three is needed.

| name | shape | meaning |
|---|---|---|
| `video`, `audio`, `text` | (N, D), (N, D), (M, D) | embeddings, float32 (half precision and float64 are converted) |
| `video_valid`, ... | (N,) or (M,) bool | whether there is one; default: where all its numbers are finite |
| `text_clip` | (M,) integer | the clip that each text describes; default: one text per clip, in order |
| `start_s`, `end_s` | (N,) | span of each clip in its video; default 0 and 0 |
| `ids`, `videos` | N strings | name of each clip; of the video that it is cut from; default its number; its id |
| `captions` | M strings | the texts themselves |
| `labels/NAME` | N strings | any labelling of the clips, e.g. `labels/class`, `labels/split` |
| `classes/NAME` | strings | all classes of a labelling, where some have no clip; default: those that clips have |
| `modalities` | strings | names and letters of further modalities, such as `depth=d`; `depth` then has the shape of `video` |

An .npz holds strings as arrays of strings (nothing is unpickled). A .safetensors holds them in its metadata, one JSON list
of strings under each name.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from trichord.errors import TrichordError, one_line
from trichord.evaluation.embedded_files import CLASSES, FURTHER, LABELS, WRITE_ONE, read_npz, read_safetensors
from trichord.files.arrays import text_array
from trichord.files.lfs import refuse_lfs_pointer
from trichord.files.reading import open_regular
from trichord.files.writing import refuse_foreign, replacing, writing_to
from trichord.modality import MODALITIES, declare_recorded, further_letters, in_order, known

MOST_CLIPS = 1000  # for each text, where there are texts alone
OWN = ("text_clip", "ids", "videos", "start_s", "end_s", "captions")


@dataclass(frozen=True, eq=False)
class Embedded:
    """N clips and M texts in a joint space; make one with `Embedded.of`, which checks and fills in.

    Attributes:
        embeddings: By modality (N, D), of text (M, D), float32; a modality that nobody embedded is not there.
        valid: By modality (N,), of text (M,): whether the clip has it. Rows without are zeros.
        text_clip: (M,) int64, the clip that each text describes.
        ids: (N,) names of the clips, each once.
        videos: (N,) the video that each clip is cut from.
        start_s, end_s: (N,) its span there, float64.
        captions: (M,) the texts, or None.
        labels: By name (N,) strings.
        source: Where all this is from, for messages.
        classes: By name of a labelling all its classes, where that is known.
    """

    embeddings: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    text_clip: np.ndarray
    ids: np.ndarray
    videos: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    captions: np.ndarray | None = None
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    source: str = "embeddings"
    classes: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        embeddings: Mapping[str, Any],
        *,
        valid: Mapping[str, Any] | None = None,
        text_clip: Any = None,
        ids: Sequence[str] | np.ndarray | None = None,
        videos: Sequence[str] | np.ndarray | None = None,
        start_s: Any = None,
        end_s: Any = None,
        captions: Sequence[str] | np.ndarray | None = None,
        labels: Mapping[str, Sequence[str] | np.ndarray] | None = None,
        source: str = "embeddings",
        classes: Mapping[str, Sequence[str] | np.ndarray] | None = None,
    ) -> Embedded:
        """Embeddings with what is known of them; what is None gets the default that the module names.

        Raises TrichordError, one line, when the parts do not fit each other.
        """
        vectors = {m: _matrix(embeddings[m], f"{source}: {m}") for m in in_order(embeddings) if m in known()}
        if unknown := sorted(set(embeddings) - set(vectors)):
            raise TrichordError(f"{source}: '{unknown[0]}' is no modality; known are {', '.join(known())}")
        if not vectors:
            raise TrichordError(
                f"{source}: has no embeddings; expected at least one of the arrays {', '.join(known())}"
            )
        if len(widths := {m: v.shape[1] for m, v in vectors.items()}) and len(set(widths.values())) > 1:
            told = ", ".join(f"{m} {width}" for m, width in widths.items())
            raise TrichordError(
                f"{source}: embeddings of one joint space have one width, not {told}; give each the same"
            )
        num_clips, num_texts = _counts(vectors, text_clip, ids, source)
        clip = _indices(text_clip, num_texts, num_clips, source)
        there = {m: _mask((valid or {}).get(m), v, f"{source}: {m}_valid") for m, v in vectors.items()}
        names = _strings(range(num_clips) if ids is None else ids, num_clips, f"{source}: ids")
        if len(set(names.tolist())) < num_clips:
            spellings, counts = np.unique(names, return_counts=True)
            twice = spellings[counts.argmax()]
            raise TrichordError(f"{source}: two clips are called '{twice}'; ids name each clip once")
        return cls(
            {m: np.where(there[m][:, None], v, np.float32(0)) for m, v in vectors.items()},
            there,
            clip,
            names,
            names if videos is None else _strings(videos, num_clips, f"{source}: videos"),
            _seconds(start_s, num_clips, f"{source}: start_s"),
            _seconds(end_s, num_clips, f"{source}: end_s"),
            None if captions is None else _strings(captions, num_texts, f"{source}: captions"),
            {name: _strings(v, num_clips, f"{source}: {LABELS}{name}") for name, v in (labels or {}).items()},
            source,
            {name: _strings(v, None, f"{source}: {CLASSES}{name}") for name, v in (classes or {}).items()},
        )

    @property
    def num_clips(self) -> int:
        return len(self.ids)

    @property
    def num_texts(self) -> int:
        return len(self.text_clip)

    @property
    def one_text_each(self) -> bool:
        """Whether text i describes clip i, and there are no others."""
        return np.array_equal(self.text_clip, np.arange(self.num_clips))

    def but(self, **changes: Any) -> Embedded:
        """The same with other parts, named as by `of`, which checks that they fit."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)} | changes
        return Embedded.of(parts.pop("embeddings"), **parts)

    def take(self, clips: np.ndarray) -> Embedded:
        """These clips (indices, each once), in this order, with their texts in the order of the clips."""
        place = np.full(self.num_clips, -1)
        place[clips] = np.arange(len(clips))
        texts = np.flatnonzero(place[self.text_clip] >= 0)
        texts = texts[np.argsort(place[self.text_clip[texts]], kind="stable")]
        rows = {m: texts if m == "text" else clips for m in self.embeddings}
        return Embedded(
            {m: v[rows[m]] for m, v in self.embeddings.items()},
            {m: v[rows[m]] for m, v in self.valid.items()},
            place[self.text_clip[texts]],
            self.ids[clips],
            self.videos[clips],
            self.start_s[clips],
            self.end_s[clips],
            None if self.captions is None else self.captions[texts],
            {name: v[clips] for name, v in self.labels.items()},
            self.source,
            self.classes,
        )

    def save(self, path: Path) -> None:
        """Write the file that the module describes, whole or not at all. Raises TrichordError as `check_target`."""
        arrays = {m: np.ascontiguousarray(v) for m, v in self.embeddings.items()}
        arrays |= {f"{m}_valid": v for m, v in self.valid.items()}
        arrays |= {"text_clip": self.text_clip, "start_s": self.start_s, "end_s": self.end_s}
        texts = {"ids": self.ids, "videos": self.videos} | {f"{LABELS}{name}": v for name, v in self.labels.items()}
        texts |= {f"{CLASSES}{name}": v for name, v in self.classes.items()}
        if self.captions is not None:
            texts["captions"] = self.captions
        if modalities := further_letters(self.embeddings):
            texts[FURTHER] = np.array([f"{name}={letter}" for name, letter in modalities.items()])
        kind = check_target(path)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as partial:
                if kind == ".npz":
                    with partial.open("wb") as file:
                        np.savez(file, **arrays, **texts)  # type: ignore[arg-type]
                else:
                    from safetensors.numpy import save_file

                    save_file(arrays, partial, {name: json.dumps(v.tolist()) for name, v in texts.items()})

    @classmethod
    def load(cls, path: Path) -> Embedded:
        """Read such a file. Raises TrichordError, one line, when it is not there, is damaged or does not fit together."""
        kind = _kind(path, WRITE_ONE)
        try:
            if path.is_dir():
                raise TrichordError(f"{path}: is a folder; name the file of embeddings")
            refuse_lfs_pointer(path)
            if not path.stat().st_size:
                raise TrichordError(f"{path}: is empty; write it again")
            found = read_npz(path) if kind == ".npz" else read_safetensors(path)
        except TrichordError:
            raise
        except Exception as error:  # whatever torn zips, headers and lists make the readers raise
            if isinstance(error, OSError) and error.strerror:
                raise TrichordError(f"{path}: cannot be read ({error.strerror}); check the path") from None
            raise TrichordError(f"{path}: is damaged, or no {kind} file; get it again, or write it again") from None
        modalities = (*MODALITIES, *_declared(found.pop(FURTHER, []), path))
        given = {m: found[m] for m in modalities if m in found}
        valid = {m: found[f"{m}_valid"] for m in given if f"{m}_valid" in found}
        labels, classes = (
            {name.removeprefix(head): v for name, v in found.items() if name.startswith(head)}
            for head in (LABELS, CLASSES)
        )
        known = {*given, *(f"{m}_valid" for m in given), *OWN}
        if odd := sorted(name for name in set(found) - known if not name.startswith((LABELS, CLASSES))):
            raise TrichordError(
                f"{path}: '{one_line(odd[0])}' is nothing that is read here; known are {', '.join((*modalities, *OWN))}, "
                "labels/NAME, and MODALITY_valid of modalities that are there"
            )
        if lost := sorted(set(classes) - set(labels)):
            raise TrichordError(f"{path}: has {CLASSES}{one_line(lost[0])} without {LABELS}{one_line(lost[0])}; add it")
        rest: dict[str, Any] = {name: found.get(name) for name in OWN}
        made = cls.of(given, valid=valid, labels=labels, classes=classes, source=str(path), **rest)
        if bad := [m for m in made.valid if m not in valid and not made.valid[m].any()]:
            raise TrichordError(f"{path}: no row of {bad[0]} is finite; leave it out, or write it again")
        return made


def _declared(entries: Any, path: Path) -> tuple[str, ...]:
    """Declare the further modalities of a file and return their names."""
    pairs = [entry.partition("=") for entry in _strings(entries, None, f"{path}: {FURTHER}").tolist()]
    modalities = {name: letter for name, _, letter in pairs}
    declare_recorded(modalities, f"{path}: {FURTHER}")
    return tuple(modalities)


def check_target(path: Path) -> str:
    """Return the suffix of a file of embeddings that is to be written.

    Raises TrichordError for another suffix, and where a file lies that `Embedded.save` did not write.
    """
    kind = _kind(path)
    refuse_foreign([path], _is_saved, "a file of embeddings")
    return kind


def _is_saved(path: Path) -> bool:
    """Return whether `Embedded.save` wrote a file: it always writes the clip of each text and the span of each clip."""
    if path.suffix == ".npz":
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    else:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as tensors:
                names = {*tensors.keys(), *(tensors.metadata() or {})}
        except SafetensorError:
            return False
    return names >= {"text_clip", "start_s", "end_s", "ids", "videos"}


def _kind(path: Path, action: str = "give the file such a name") -> str:
    if path.suffix not in (".npz", ".safetensors"):
        what = "is a folder" if path.is_dir() else "embeddings are kept as .npz or .safetensors"
        raise TrichordError(f"{path}: {what}; {action}")
    return path.suffix


def _matrix(value: Any, where: str) -> np.ndarray:
    array = np.asarray(value.detach().float().cpu().numpy() if hasattr(value, "detach") else value)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
        raise TrichordError(f"{where} must be a matrix of numbers, a row for each embedding, not {_shown(array)}")
    with np.errstate(over="ignore"):
        rows = array.astype(np.float32, copy=False)
    if array.dtype.itemsize > 4 and array.dtype.kind == "f" and (np.isinf(rows) & np.isfinite(array)).any():
        raise TrichordError(f"{where} has numbers beyond what float32 holds; scale them")
    return rows


def _counts(vectors: dict[str, np.ndarray], text_clip: Any, ids: Any, source: str) -> tuple[int, int]:
    """N and M."""
    clips = {m: len(v) for m, v in vectors.items() if m != "text"}
    if len(set(clips.values())) > 1:
        told = " and ".join(f"{n} of {m}" for m, n in clips.items())
        raise TrichordError(
            f"{source}: has {told}; there is one row for each clip, with {{modality}}_valid where it lacks"
        )
    num_texts = len(vectors["text"]) if "text" in vectors else np.size(() if text_clip is None else text_clip)
    if clips:
        num_clips = next(iter(clips.values()))
    elif ids is not None:
        num_clips = np.size(ids)
    else:
        num_clips = num_texts if text_clip is None else _last(text_clip, num_texts) + 1
    if "text" not in vectors and text_clip is None:
        return num_clips, num_clips
    if text_clip is None and num_texts != num_clips:
        raise TrichordError(f"{source}: has {num_texts} texts for {num_clips} clips; say in text_clip whose each is")
    return num_clips, num_texts


def _last(text_clip: Any, num_texts: int) -> int:
    """The last clip that texts alone speak of; within bounds, so that one number makes no endless list of clips."""
    index = np.asarray(text_clip)
    return min(int(index.max()), MOST_CLIPS * num_texts - 1) if index.size and index.dtype.kind in "iu" else 0


def _indices(text_clip: Any, num_texts: int, num_clips: int, source: str) -> np.ndarray:
    if text_clip is None:
        return np.arange(num_clips, dtype=np.int64)
    index = np.asarray(text_clip)
    inside = index.shape == (num_texts,) and index.dtype.kind in "iu"
    if not inside or (num_texts and (index.min() < 0 or index.max() >= num_clips)):
        fits = index.shape == (num_texts,) and index.dtype.kind in "iu" and num_texts
        what = f"{index.min()} to {index.max()}" if fits else _shown(index)
        raise TrichordError(
            f"{source}: text_clip must hold, for each of {num_texts} texts, its clip, 0 to {num_clips - 1}, not {what}"
        )
    return index.astype(np.int64)


def _mask(value: Any, vectors: np.ndarray, where: str) -> np.ndarray:
    finite = np.isfinite(vectors).all(axis=1)
    if value is None:
        return finite
    mask = np.asarray(value)
    if mask.shape != (len(vectors),) or mask.dtype.kind not in "biu":
        raise TrichordError(f"{where} must hold true or false for each of {len(vectors)} rows, not {_shown(mask)}")
    if bad := np.flatnonzero(mask.astype(bool) & ~finite).tolist():
        raise TrichordError(f"{where} is true in row {bad[0]}, whose embedding is not finite; mark it false")
    return mask.astype(bool)


def _strings(values: Any, count: int | None, where: str) -> np.ndarray:
    shape = np.shape(values) if isinstance(values, np.ndarray) else None
    if (
        isinstance(values, str | bytes | dict)
        or not hasattr(values, "__iter__")
        or (shape and len(shape) > 1)
        or shape == ()
    ):
        raise TrichordError(
            f"{where} must be a list of strings, not {f'of shape {shape}' if shape else 'a single value'}"
        )
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
    if count is not None and len(texts) != count:
        raise TrichordError(f"{where} has {len(texts)} entries for {count}; give one each")
    return text_array(texts, where)


def _seconds(value: Any, count: int, where: str) -> np.ndarray:
    if value is None:
        return np.zeros(count)
    array = np.asarray(value)
    if array.shape != (count,) or array.dtype.kind not in "fiu":
        raise TrichordError(f"{where} must be seconds of each of {count} clips, not {_shown(array)}")
    if not np.isfinite(array).all():
        raise TrichordError(f"{where} has times that are not finite; correct them, or leave {where.split()[-1]} out")
    return array.astype(np.float64)


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
