"""Checks that the tensors of a part match its Parquet file, so that reading them never goes out of bounds; reading of words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from trichord.errors import TrichordError
from trichord.store.manifest import PartInfo, StreamInfo

_Expected = dict[str, tuple[str, tuple[int, ...] | None]]  # by tensor: dtype and shape, where None allows any length


def shard_problem(
    shard: dict[str, np.ndarray],
    streams: dict[str, StreamInfo],
    rows: dict[str, int],
    captions: int,
    words: tuple[int, int],
) -> str:
    """Compare the tensors of a part with its description.

    Args:
        shard: The tensors of the part, by name.
        streams: The width and dtype of each stream.
        rows: The number of rows that the Parquet file expects of each stream.
        captions: The number of captions that the Parquet file expects.
        words: The expected shape (n, W) of the word table.

    Returns:
        A description of the first problem; '' if there is none.
    """
    for name, info in streams.items():
        tensor = shard.get(name)
        if tensor is None or tensor.dtype != info.dtype or tensor.ndim != 2 or tensor.shape[1] != info.dim:
            return f"its tensor {name} is not {info.dtype} of width {info.dim}"
        if rows[name] > len(tensor):
            return f"has {len(tensor)} rows of {name}, but its Parquet file expects {rows[name]}"
    expected: _Expected = {
        "caption_start_s": ("float64", (captions,)),
        "caption_end_s": ("float64", (captions,)),
        "caption_text_offsets": ("int64", (captions + 1,)),
        "word_offsets": ("int64", (captions + 1,)),
        "caption_text": ("uint8", None),
        "word_ids": ("int32", None),
    }
    return (
        _shape_problem(shard, expected)
        or _offsets_problem(shard, caption_text_offsets="caption_text", word_offsets="word_ids")
        or word_table_problem(shard, words)
    )


def word_table_problem(shard: dict[str, np.ndarray], words: tuple[int, int]) -> str:
    """Return why the word tensors of a part do not form a word table of shape `words` (n, W); '' if they do."""
    expected: _Expected = {
        "word_table_ids": ("int32", (words[0],)),
        "word_vectors": ("float32", words),
        "word_spelling": ("uint8", None),
        "word_spelling_offsets": ("int64", (words[0] + 1,)),
    }
    return _shape_problem(shard, expected) or _offsets_problem(shard, word_spelling_offsets="word_spelling")


def _shape_problem(shard: dict[str, np.ndarray], expected: _Expected) -> str:
    for name, (dtype, shape) in expected.items():
        tensor = shard.get(name)
        if tensor is None or tensor.dtype != dtype or (tensor.ndim != 1 if shape is None else tensor.shape != shape):
            return f"its tensor {name} is missing or does not have the shape that its Parquet file states"
    return ""


def _offsets_problem(shard: dict[str, np.ndarray], **data_of: str) -> str:
    for name, data in data_of.items():
        if shard[name][0] != 0 or shard[name][-1] != len(shard[data]):
            return f"its {data} offsets do not match the data"
    return ""


def falling_offsets(shard: dict[str, np.ndarray]) -> str:
    """Return the name of the first offset tensor with decreasing values; '' if there is none."""
    names = ("caption_text_offsets", "word_offsets", "word_spelling_offsets")
    return next((name for name in names if (np.diff(shard[name]) < 0).any()), "")


def words_problem(shard: dict[str, np.ndarray], num_words: int) -> str:
    """Return why reading the captions would go out of bounds of the text, the word ids or the word vectors; '' if it would not."""
    if name := falling_offsets(shard):
        return f"its {name} decrease"
    ids = shard["word_ids"]
    return "its word ids are out of range" if len(ids) and not 0 <= ids.min() <= ids.max() < num_words else ""


def spellings(shard: dict[str, np.ndarray], count: int) -> list[str]:
    """Return the first `count` words of a part."""
    text, offsets = shard["word_spelling"].tobytes(), shard["word_spelling_offsets"].tolist()
    return [text[offsets[k] : offsets[k + 1]].decode("utf-8", "replace") for k in range(count)]


def gathered_words(
    infos: Sequence[PartInfo],
    shards: Callable[[list[int]], Iterable[dict[str, np.ndarray]]],
    damaged: Callable[[int, str], TrichordError],
) -> tuple[list[str], np.ndarray]:
    """Collect the spelling and vector of each word id from all parts.

    Both are empty for a word whose part was deleted and that no other part uses.

    Args:
        infos: The descriptions of the parts.
        shards: Returns the word tensors of the parts with the given numbers.
        damaged: Returns the error to raise for the part with the given number.

    Returns:
        The V spellings and the vectors (V, W).
    """
    size = num_words_of(infos)
    words, vectors = [""] * size, np.zeros((size, infos[0].word_dim), dtype=np.float32)
    known = np.zeros(size, dtype=bool)

    def take(part: int, count: int, shard: dict[str, np.ndarray]) -> None:
        ids = shard["word_table_ids"][:count]
        if count and not 0 <= ids.min() <= ids.max() < size:
            raise damaged(part, "its word ids are out of range")
        vectors[ids] = shard["word_vectors"][:count]
        known[ids] = True
        for word, spelling in zip(ids.tolist(), spellings(shard, count), strict=True):
            words[word] = spelling

    adding = [part for part, info in enumerate(infos) if info.num_new_words]
    for part, shard in zip(adding, shards(adding), strict=True):
        take(part, infos[part].num_new_words, shard)
    if not known.all():  # a part was deleted; the other parts contain the words of it that they use
        every = list(range(len(infos)))
        for part, shard in zip(every, shards(every), strict=True):
            take(part, infos[part].num_words, shard)
    return words, vectors


def num_words_of(infos: Sequence[PartInfo]) -> int:
    """Return the number of word ids that the parts have assigned."""
    return max(info.first_word + info.num_new_words for info in infos)
