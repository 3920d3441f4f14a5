"""What a part's tensors hold: whether they are what its Parquet file says, so that reading them leads nowhere else, and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from trichord.errors import TrichordError
from trichord.store.manifest import PartInfo, StreamInfo

_Expected = dict[str, tuple[str, tuple[int, ...] | None]]  # tensor -> dtype and shape; None: of any length


def shard_problem(
    shard: dict[str, np.ndarray],
    streams: dict[str, StreamInfo],
    rows: dict[str, int],
    captions: int,
    words: tuple[int, int],
) -> str:
    """Return why a part's tensors do not hold `rows` rows per stream, `captions` captions and `words` (n, W); '' if they do."""
    for name, info in streams.items():
        tensor = shard.get(name)
        if tensor is None or tensor.dtype != info.dtype or tensor.ndim != 2 or tensor.shape[1] != info.dim:
            return f"its tensor {name} is not {info.dtype} of width {info.dim}"
        if rows[name] > len(tensor):
            return f"has {len(tensor)} rows of {name} where its Parquet file asks for {rows[name]}"
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
    """Return why the tensors of words of a part are not a table of shape `words` (n, W); '' if they are."""
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
            return f"its tensor {name} is missing or of another shape than its Parquet file says"
    return ""


def _offsets_problem(shard: dict[str, np.ndarray], **data_of: str) -> str:
    for name, data in data_of.items():
        if shard[name][0] != 0 or shard[name][-1] != len(shard[data]):
            return f"its {data} offsets do not fit"
    return ""


def falling_offsets(shard: dict[str, np.ndarray]) -> str:
    """Return the name of the first tensor whose offsets do not rise; '' if all rise."""
    names = ("caption_text_offsets", "word_offsets", "word_spelling_offsets")
    return next((name for name in names if (np.diff(shard[name]) < 0).any()), "")


def words_problem(shard: dict[str, np.ndarray], num_words: int) -> str:
    """What would lead a reader of the part's captions out of its text, its word ids or the store's word vectors."""
    if falling := falling_offsets(shard):
        return f"its {falling} do not rise"
    ids = shard["word_ids"]
    return "its word ids are out of range" if len(ids) and not 0 <= ids.min() <= ids.max() < num_words else ""


def spellings(shard: dict[str, np.ndarray], count: int) -> list[str]:
    """The first `count` words of a part."""
    text, offsets = shard["word_spelling"].tobytes(), shard["word_spelling_offsets"].tolist()
    return [text[offsets[k] : offsets[k + 1]].decode("utf-8", "replace") for k in range(count)]


def gathered_words(
    infos: Sequence[PartInfo],
    shards: Callable[[list[int]], Iterable[dict[str, np.ndarray]]],
    damaged: Callable[[int, str], TrichordError],
) -> tuple[list[str], np.ndarray]:
    """Spelling and vector of each word id; empty where the part that brought the word was deleted and nothing else uses it.

    Args:
        infos: Descriptions of the parts.
        shards: Gives the tensors of words of the parts with these numbers.
        damaged: Makes the error for a part with that number.
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
    if not known.all():  # a part was deleted: the others carry what they use of its words
        every = list(range(len(infos)))
        for part, shard in zip(every, shards(every), strict=True):
            take(part, infos[part].num_words, shard)
    return words, vectors


def num_words_of(infos: Sequence[PartInfo]) -> int:
    """How many word ids the parts have given."""
    return max(info.first_word + info.num_new_words for info in infos)
