"""The words that a model knows: those that came with it and, where it is at hand, the table that they are from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from trichord.captions import tokenize
from trichord.errors import TrichordError
from trichord.store.words import WordVectors, default_word_vectors, read_word_vectors

_DEFAULT = "GloVe 6B "  # how sources of the packaged table begin


class Vocabulary:
    """Word vectors by spelling. A word that did not come with the model is looked up in the table, once.

    Args:
        known: The words that came with the model; their source names the table.
        table: File of the whole table. None: the packaged one, if it is installed and is the one that `known` is from;
            else words beyond `known` stay unknown.
    """

    def __init__(self, known: WordVectors, table: Path | None = None) -> None:
        self.source, self.lowercase, self.dim = known.source, known.lowercase, known.vectors.shape[1]
        self.splitting = known.splitting
        self.table = table
        self._vectors = dict(zip(known.words, known.vectors, strict=True))
        self._missed: set[str] = set()

    @classmethod
    def of_table(cls, table: Path) -> Vocabulary:
        """A vocabulary that holds no word yet. Raises TrichordError for a file that is no word table."""
        return cls(read_word_vectors(table, set()), table)

    def words(self) -> WordVectors:
        """Every word that it came with or has met since."""
        vectors = np.array(list(self._vectors.values()), np.float32).reshape(-1, self.dim)
        return WordVectors(list(self._vectors), vectors, self.source, self.lowercase, self.splitting)

    def vectors_of(self, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """For each text, given as its captions in order, the vectors (L, W) float32 of its known words, in order.

        All texts of a call are looked up together: a table in a file is read from end to end for words that are new.

        Raises TrichordError when the table cannot be read or is another one.
        """
        tokens = [[token for caption in text for token in tokenize(caption, self.splitting)] for text in texts]
        if self.lowercase:
            tokens = [[token.lower() for token in words] for words in tokens]
        self._look_up({token for words in tokens for token in words})
        found = [[self._vectors[token] for token in words if token in self._vectors] for words in tokens]
        return [np.array(rows, np.float32).reshape(-1, self.dim) for rows in found]

    def _look_up(self, tokens: Iterable[str]) -> None:
        fresh = {token for token in tokens if token not in self._vectors and token not in self._missed}
        if not fresh:
            return
        self._missed |= fresh
        if (found := self._read(fresh)) is not None:
            self._vectors |= dict(zip(found.words, found.vectors, strict=True))

    def _read(self, wanted: set[str]) -> WordVectors | None:
        if self.table is not None:
            found = read_word_vectors(self.table, wanted)
            if found.source != self.source:
                raise TrichordError(
                    f"{self.table}: holds {found.source}, the model reads {self.source}; name that table, or leave it out"
                )
            return found
        if not self.source.startswith(_DEFAULT):
            return None
        try:
            found = default_word_vectors(wanted)
        except TrichordError:  # not installed: the words that came with the model are there
            return None
        return found if found.source == self.source else None
