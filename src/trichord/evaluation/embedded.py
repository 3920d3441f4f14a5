"""Embeddings of clips and texts in a joint space, in memory and as a file. Protocols that need no model score these.

With a file, embeddings of any model can be evaluated (`trichord evaluate --embeddings FILE`). The file is a `.safetensors` or
`.npz` with any of these arrays for N clips and M texts; at least one of the first three is required.

| name | shape | meaning |
|---|---|---|
| `video`, `audio`, `text` | (N, D), (N, D), (M, D) | embeddings, float32 (half precision and float64 are converted) |
| `video_valid`, ... | (N,) or (M,) bool | whether the embedding exists; default: whether all its values are finite |
| `text_clip` | (M,) integer | index of the clip that each text describes; default: one text per clip, in order |
| `start_s`, `end_s` | (N,) | span of each clip in its video in seconds; default 0 and 0 |
| `ids`, `videos` | N strings | id of each clip, and of the video it is cut from; defaults: its index, and its id |
| `captions` | M strings | the texts themselves |
| `labels/NAME` | N strings | a labelling of the clips, such as `labels/class` or `labels/split` |
| `classes/NAME` | strings | all classes of a labelling, if some of them have no clip; default: the classes that occur |
| `modalities` | strings | names and letters of further modalities, such as `depth=d`; `depth` then has the shape of `video` |

An .npz stores strings as arrays of strings (nothing is unpickled). A .safetensors stores them in its metadata, as a JSON list of
strings under each name.
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

MOST_CLIPS = 1000  # largest number of clips per text if there are only texts
OWN = ("text_clip", "ids", "videos", "start_s", "end_s", "captions")


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of N clips and M texts in a joint space; create it with `Embedded.of`, which checks the parts and sets defaults.

    Attributes:
        embeddings: By modality (N, D), for text (M, D), float32; modalities without embeddings are absent.
        valid: By modality (N,), for text (M,): whether the embedding exists. Rows that do not exist are zeros.
        text_clip: (M,) int64, index of the clip that each text describes.
        ids: (N,) unique ids of the clips.
        videos: (N,) id of the video that each clip is cut from.
        start_s: (N,) float64, start of each clip in its video in seconds.
        end_s: (N,) float64, end of each clip in its video in seconds.
        captions: (M,) the texts, or None.
        labels: (N,) strings for each labelling, by its name.
        source: Origin of the embeddings, for error messages.
        classes: All classes of a labelling by its name, where they are known.

    Example:
        >>> vectors = {"video": np.eye(2, 3), "text": np.ones((2, 3))}
        >>> embedded = Embedded.of(vectors, ids=["a", "b"], captions=["stir", "cut"])
        >>> embedded.ids, embedded.text_clip, embedded.embeddings["text"].shape
        (array(['a', 'b'], dtype='<U1'), array([0, 1]), (2, 3))
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
        """Return embeddings after checking that the parts fit together; parts that are None get the defaults of the module.

        Args:
            embeddings: By modality (N, D), for text (M, D).
            valid: By modality (N,), for text (M,): whether the embedding exists.
            text_clip: (M,) index of the clip that each text describes.
            ids: N unique ids of the clips.
            videos: N ids of the videos that the clips are cut from.
            start_s: (N,) start of each clip in its video in seconds.
            end_s: (N,) end of each clip in its video in seconds.
            captions: The M texts.
            labels: N strings for each labelling, by its name.
            source: Origin of the embeddings, for error messages.
            classes: All classes of a labelling by its name.

        Returns:
            The embeddings, with zeros in the rows that do not exist.

        Raises:
            TrichordError: The parts do not fit together.

        Example:
            >>> import numpy as np
            >>> embedded = Embedded.of({"video": np.eye(2, 3), "text": np.ones((4, 3))}, text_clip=[0, 0, 1, 1])
            >>> embedded.num_clips, embedded.num_texts
            (2, 4)
        """
        vectors = {m: _matrix(embeddings[m], f"{source}: {m}") for m in in_order(embeddings) if m in known()}
        if unknown := sorted(set(embeddings) - set(vectors)):
            raise TrichordError(f"{source}: unknown modality '{unknown[0]}'; expected one of: {', '.join(known())}")
        if not vectors:
            raise TrichordError(
                f"{source}: has no embeddings; expected at least one of the arrays {', '.join(known())}"
            )
        if len(widths := {m: v.shape[1] for m, v in vectors.items()}) and len(set(widths.values())) > 1:
            listed_widths = ", ".join(f"{m} {width}" for m, width in widths.items())
            raise TrichordError(
                f"{source}: embeddings of a joint space must have the same width, but the widths are {listed_widths}; give all "
                "modalities the same width"
            )
        num_clips, num_texts = _counts(vectors, text_clip, ids, source)
        clip = _indices(text_clip, num_texts, num_clips, source)
        is_valid = {m: _mask((valid or {}).get(m), v, f"{source}: {m}_valid") for m, v in vectors.items()}
        names = _strings(range(num_clips) if ids is None else ids, num_clips, f"{source}: ids")
        if len(set(names.tolist())) < num_clips:
            distinct_names, counts = np.unique(names, return_counts=True)
            repeated = distinct_names[counts.argmax()]
            raise TrichordError(f"{source}: two clips have the id '{repeated}'; give every clip a different id")
        return cls(
            {m: np.where(is_valid[m][:, None], v, np.float32(0)) for m, v in vectors.items()},
            is_valid,
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
        """Number N of clips.

        Example:
            >>> Embedded.of({"text": np.ones((4, 3))}, text_clip=[0, 0, 1, 1]).num_clips
            2
        """
        return len(self.ids)

    @property
    def num_texts(self) -> int:
        """Number M of texts.

        Example:
            >>> Embedded.of({"text": np.ones((4, 3))}, text_clip=[0, 0, 1, 1]).num_texts
            4
        """
        return len(self.text_clip)

    @property
    def one_text_each(self) -> bool:
        """Whether there is exactly one text per clip, in the order of the clips.

        Example:
            >>> Embedded.of({"text": np.ones((4, 3))}, text_clip=[0, 0, 1, 1]).one_text_each
            False
        """
        return np.array_equal(self.text_clip, np.arange(self.num_clips))

    def but(self, **changes: Any) -> Embedded:
        """Return a copy with some parts replaced, named as in `of`, which checks that they fit.

        Example:
            >>> embedded = Embedded.of({"video": np.eye(2, 3)})
            >>> embedded.but(ids=["a", "b"]).ids
            array(['a', 'b'], dtype='<U1')
        """
        parts = {f.name: getattr(self, f.name) for f in fields(self)} | changes
        return Embedded.of(parts.pop("embeddings"), **parts)

    def take(self, clips: np.ndarray) -> Embedded:
        """Return the given clips (indices, each once) in this order, with their texts sorted by clip.

        Example:
            >>> embedded = Embedded.of({"video": np.eye(3)}, ids=["a", "b", "c"])
            >>> embedded.take(np.array([2, 0])).ids
            array(['c', 'a'], dtype='<U1')
        """
        position = np.full(self.num_clips, -1)
        position[clips] = np.arange(len(clips))
        texts = np.flatnonzero(position[self.text_clip] >= 0)
        texts = texts[np.argsort(position[self.text_clip[texts]], kind="stable")]
        rows = {m: texts if m == "text" else clips for m in self.embeddings}
        return Embedded(
            {m: v[rows[m]] for m, v in self.embeddings.items()},
            {m: v[rows[m]] for m, v in self.valid.items()},
            position[self.text_clip[texts]],
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
        """Write the file described in the module, completely or not at all.

        Raises:
            TrichordError: The file cannot be written, or `check_target` refuses the path.

        Example:
            >>> embedded = Embedded.of({"video": np.eye(2, 3), "text": np.ones((2, 3))})
            >>> embedded.save(Path("ours.npz"))  # for `trichord evaluate --embeddings ours.npz`
        """
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
        """Read a file of embeddings.

        Raises:
            TrichordError: The file does not exist, is damaged, or its parts do not fit together.

        Example:
            >>> np.savez("theirs.npz", video=np.eye(2, 3), text=np.ones((4, 3)), text_clip=[0, 0, 1, 1])
            >>> Embedded.load(Path("theirs.npz")).num_texts
            4
        """
        kind = _kind(path, WRITE_ONE)
        try:
            if path.is_dir():
                raise TrichordError(f"{path}: the path is a folder; give the path of the file of embeddings")
            refuse_lfs_pointer(path)
            if not path.stat().st_size:
                raise TrichordError(f"{path}: the file is empty; write it again")
            values = read_npz(path) if kind == ".npz" else read_safetensors(path)
        except TrichordError:
            raise
        except Exception as error:  # the readers raise various types for damaged archives, headers and lists
            if isinstance(error, OSError) and error.strerror:
                raise TrichordError(f"{path}: the file cannot be read ({error.strerror}); check the path") from None
            raise TrichordError(
                f"{path}: the file is damaged or is not a {kind} file; copy it again, or write it again"
            ) from None
        modalities = (*MODALITIES, *_declared(values.pop(FURTHER, []), path))
        embeddings = {m: values[m] for m in modalities if m in values}
        valid = {m: values[f"{m}_valid"] for m in embeddings if f"{m}_valid" in values}
        labels, classes = (
            {name.removeprefix(head): v for name, v in values.items() if name.startswith(head)}
            for head in (LABELS, CLASSES)
        )
        expected = {*embeddings, *(f"{m}_valid" for m in embeddings), *OWN}
        if unknown := sorted(name for name in set(values) - expected if not name.startswith((LABELS, CLASSES))):
            raise TrichordError(
                f"{path}: unknown array '{one_line(unknown[0])}'; expected one of: {', '.join((*modalities, *OWN))}, "
                "labels/NAME, classes/NAME, or MODALITY_valid for a modality in the file"
            )
        if without_labels := sorted(set(classes) - set(labels)):
            name = one_line(without_labels[0])
            raise TrichordError(f"{path}: the file has {CLASSES}{name} but not {LABELS}{name}; add {LABELS}{name}")
        others: dict[str, Any] = {name: values.get(name) for name in OWN}
        embedded = cls.of(embeddings, valid=valid, labels=labels, classes=classes, source=str(path), **others)
        if not_finite := [m for m in embedded.valid if m not in valid and not embedded.valid[m].any()]:
            raise TrichordError(f"{path}: no row of {not_finite[0]} is finite; remove the array, or write it again")
        return embedded


def _declared(entries: Any, path: Path) -> tuple[str, ...]:
    """Declare the further modalities of a file and return their names."""
    pairs = [entry.partition("=") for entry in _strings(entries, None, f"{path}: {FURTHER}").tolist()]
    modalities = {name: letter for name, _, letter in pairs}
    declare_recorded(modalities, f"{path}: {FURTHER}")
    return tuple(modalities)


def check_target(path: Path) -> str:
    """Return the suffix of a file of embeddings that is to be written.

    Raises:
        TrichordError: The suffix is not supported, or the path holds a file that `Embedded.save` did not write.

    Example:
        >>> check_target(Path("new.safetensors"))
        '.safetensors'
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


def _kind(path: Path, action: str = "give a file name with this suffix") -> str:
    if path.suffix not in (".npz", ".safetensors"):
        problem = "the path is a folder" if path.is_dir() else "a file of embeddings must be .npz or .safetensors"
        raise TrichordError(f"{path}: {problem}; {action}")
    return path.suffix


def _matrix(value: Any, where: str) -> np.ndarray:
    array = np.asarray(value.detach().float().cpu().numpy() if hasattr(value, "detach") else value)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.size:
        raise TrichordError(f"{where} must be a matrix of numbers with one row per embedding, not {_shown(array)}")
    with np.errstate(over="ignore"):
        rows = array.astype(np.float32, copy=False)
    if array.dtype.itemsize > 4 and array.dtype.kind == "f" and (np.isinf(rows) & np.isfinite(array)).any():
        raise TrichordError(f"{where} contains numbers that are too large for float32; scale the embeddings")
    return rows


def _counts(vectors: dict[str, np.ndarray], text_clip: Any, ids: Any, source: str) -> tuple[int, int]:
    """Return the numbers N of clips and M of texts."""
    clips = {m: len(v) for m, v in vectors.items() if m != "text"}
    if len(set(clips.values())) > 1:
        row_counts = " and ".join(f"{n} rows of {m}" for m, n in clips.items())
        raise TrichordError(
            f"{source}: there are {row_counts}; give one row per clip, and mark missing embeddings in MODALITY_valid"
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
        raise TrichordError(
            f"{source}: there are {num_texts} texts for {num_clips} clips; give the index of the clip of each text in text_clip"
        )
    return num_clips, num_texts


def _last(text_clip: Any, num_texts: int) -> int:
    """Return the last clip that the texts refer to, bounded so that a single number cannot create a huge list of clips."""
    index = np.asarray(text_clip)
    return min(int(index.max()), MOST_CLIPS * num_texts - 1) if index.size and index.dtype.kind in "iu" else 0


def _indices(text_clip: Any, num_texts: int, num_clips: int, source: str) -> np.ndarray:
    if text_clip is None:
        return np.arange(num_clips, dtype=np.int64)
    index = np.asarray(text_clip)
    inside = index.shape == (num_texts,) and index.dtype.kind in "iu"
    if not inside or (num_texts and (index.min() < 0 or index.max() >= num_clips)):
        fits = index.shape == (num_texts,) and index.dtype.kind in "iu" and num_texts
        actual = f"{index.min()} to {index.max()}" if fits else _shown(index)
        raise TrichordError(
            f"{source}: text_clip must contain a clip index from 0 to {num_clips - 1} for each of {num_texts} texts, not {actual}"
        )
    return index.astype(np.int64)


def _mask(value: Any, vectors: np.ndarray, where: str) -> np.ndarray:
    finite = np.isfinite(vectors).all(axis=1)
    if value is None:
        return finite
    mask = np.asarray(value)
    if mask.shape != (len(vectors),) or mask.dtype.kind not in "biu":
        raise TrichordError(f"{where} must contain true or false for each of {len(vectors)} rows, not {_shown(mask)}")
    if rows := np.flatnonzero(mask.astype(bool) & ~finite).tolist():
        raise TrichordError(f"{where} is true in row {rows[0]}, but its embedding is not finite; set it to false")
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
        raise TrichordError(f"{where} must have {count} entries, but it has {len(texts)}; give one entry each")
    return text_array(texts, where)


def _seconds(value: Any, count: int, where: str) -> np.ndarray:
    if value is None:
        return np.zeros(count)
    array = np.asarray(value)
    if array.shape != (count,) or array.dtype.kind not in "fiu":
        raise TrichordError(f"{where} must contain a time in seconds for each of {count} clips, not {_shown(array)}")
    if not np.isfinite(array).all():
        raise TrichordError(f"{where} contains times that are not finite; correct them, or omit {where.split()[-1]}")
    return array.astype(np.float64)


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
