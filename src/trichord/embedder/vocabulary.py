"""Vocabulary of a model: the words saved with it and, if available, the word table that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from trichord.captions import tokenize
from trichord.errors import TrichordError
from trichord.store.words import WordVectors, default_word_vectors, read_word_vectors

_DEFAULT = "GloVe 6B "  # beginning of the source of the packaged table


class Vocabulary:
    """Word vectors by spelling. A word that was not saved with the model is looked up once in the word table.

    Args:
        known: Words saved with the model; their source identifies the table.
        table: File with the complete word table. None uses the packaged table, if it is installed and `known` comes from it;
            otherwise other words remain unknown.

    Example:
        >>> known = WordVectors(["soup", "stir"], np.eye(2, dtype=np.float32), "my words", lowercase=True)
        >>> Vocabulary(known).vectors_of([["Stir the soup"]])
        [array([[0., 1.],
               [1., 0.]], dtype=float32)]
    """

    def __init__(self, known: WordVectors, table: Path | None = None) -> None:
        self.source, self.lowercase, self.dim = known.source, known.lowercase, known.vectors.shape[1]
        self.splitting = known.splitting
        self.table = table
        self._vectors = dict(zip(known.words, known.vectors, strict=True))
        self._missed: set[str] = set()

    @classmethod
    def of_table(cls, table: Path) -> Vocabulary:
        """Return a vocabulary that looks up all words in a table.

        Raises:
            TrichordError: The file is not a word table.

        Example:
            >>> Vocabulary.of_table(Path("GoogleNews-vectors-negative300.bin")).dim
            6
        """
        return cls(read_word_vectors(table, set()), table)

    def words(self) -> WordVectors:
        """Return all words that were saved with the model or looked up since.

        Example:
            >>> vocabulary = Vocabulary.of_table(Path("GoogleNews-vectors-negative300.bin"))
            >>> vectors = vocabulary.vectors_of([["stir the soup"]])
            >>> sorted(vocabulary.words().words)
            ['soup', 'stir', 'the']
        """
        vectors = np.array(list(self._vectors.values()), np.float32).reshape(-1, self.dim)
        return WordVectors(list(self._vectors), vectors, self.source, self.lowercase, self.splitting)

    def vectors_of(self, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Return the vectors (L, W) float32 of the known words of each text, in order.

        All texts of a call are looked up together, because a table in a file is read completely to look up new words.

        Args:
            texts: Captions of each text, in order.

        Raises:
            TrichordError: The table cannot be read or is not the table of the model.

        Example:
            >>> vocabulary = Vocabulary.of_table(Path("GoogleNews-vectors-negative300.bin"))
            >>> [vectors.shape for vectors in vocabulary.vectors_of([["stir the soup"], ["xyzzy"]])]
            [(3, 6), (0, 6)]
        """
        tokens = [[token for caption in text for token in tokenize(caption, self.splitting)] for text in texts]
        if self.lowercase:
            tokens = [[token.lower() for token in words] for words in tokens]
        self._look_up({token for words in tokens for token in words})
        vectors = [[self._vectors[token] for token in words if token in self._vectors] for words in tokens]
        return [np.array(rows, np.float32).reshape(-1, self.dim) for rows in vectors]

    def _look_up(self, tokens: Iterable[str]) -> None:
        unseen = {token for token in tokens if token not in self._vectors and token not in self._missed}
        if not unseen:
            return
        self._missed |= unseen
        if (new_words := self._read(unseen)) is not None:
            self._vectors |= dict(zip(new_words.words, new_words.vectors, strict=True))

    def _read(self, words: set[str]) -> WordVectors | None:
        if self.table is not None:
            vectors = read_word_vectors(self.table, words)
            if vectors.source != self.source:
                raise TrichordError(
                    f"{self.table}: the table is {vectors.source}, but the model reads {self.source}; give that table, or omit it"
                )
            return vectors
        if not self.source.startswith(_DEFAULT):
            return None
        try:
            vectors = default_word_vectors(words)
        except TrichordError:  # the table is not installed, so only the words saved with the model are used
            return None
        return vectors if vectors.source == self.source else None
