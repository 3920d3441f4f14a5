"""The words of a store, gathered from its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from trichord.errors import TrichordError
from trichord.store.content import spellings
from trichord.store.manifest import PartInfo


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
