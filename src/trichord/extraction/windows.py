"""Encoding of pictures in windows: threads encode a limited number of windows ahead, and rows are written in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from trichord.errors import one_line
from trichord.features.encoders import VisualEncoder
from trichord.store.spool import SpoolWriter


class EncoderError(Exception):
    """Raised when an encoder fails for a reason other than the file. The cause is chained."""


@contextmanager
def encoding(encoder: Any) -> Iterator[None]:
    """Turn errors of an encoder in the block into EncoderError."""
    try:
        yield
    except Exception as error:
        raise EncoderError(f"{encoder.fingerprint.name} failed ({type(error).__name__}: {one_line(error)})") from error


class Windows:
    """Splits the pictures of one encoder into windows, encodes them in a thread pool and writes the rows in order.

    Args:
        encoder: The encoder.
        pool: The threads.
        writer: The writer of the item.
    """

    def __init__(self, encoder: VisualEncoder, pool: ThreadPoolExecutor, writer: SpoolWriter) -> None:
        self.encoder, self.pool, self.writer = encoder, pool, writer
        self.num_pictures, self.encode_s = 0, 0.0
        self._pictures: list[np.ndarray] = []
        self._pending: deque[Future[tuple[np.ndarray, float]]] = deque()

    def add(self, picture: np.ndarray, most_under_way: int) -> None:
        """Add a picture, and write rows until at most `most_under_way` batches are pending."""
        self._pictures.append(picture)
        self.num_pictures += 1
        if len(self._pictures) == self.encoder.batch_size * self.encoder.window:
            self._send()
            while len(self._pending) > most_under_way:
                self._write()

    def finish(self) -> None:
        """Encode and write everything that remains."""
        window = self.encoder.window
        if missing := -len(self._pictures) % window:
            self._pictures += [np.zeros_like(self._pictures[-1])] * missing  # the last window is padded with black
        if self._pictures:
            self._send()
        while self._pending:
            self._write()

    def cancel(self) -> None:
        """Cancel pending batches."""
        for future in self._pending:
            future.cancel()

    def _send(self) -> None:
        batch = np.stack(self._pictures)
        if self.encoder.window > 1:
            batch = batch.reshape(-1, self.encoder.window, *batch.shape[1:])
        self._pending.append(self.pool.submit(_timed_encode, self.encoder, batch))
        self._pictures = []

    def _write(self) -> None:
        rows, seconds = self._pending.popleft().result()
        self.encode_s += seconds
        self.writer.append(self.encoder.stream, rows)


def _timed_encode(encoder: VisualEncoder, batch: np.ndarray) -> tuple[np.ndarray, float]:
    began = time.thread_time()
    with encoding(encoder):
        return encoder.encode(batch), time.thread_time() - began
