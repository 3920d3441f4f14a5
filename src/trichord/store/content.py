"""Whether a part's tensors are what its Parquet file says: kinds, shapes and offsets, so that reading them leads nowhere else."""

from __future__ import annotations

import numpy as np

from trichord.store.manifest import StreamInfo


def shard_problem(
    shard: dict[str, np.ndarray],
    streams: dict[str, StreamInfo],
    rows: dict[str, int],
    captions: int,
    words: tuple[int, int],
) -> str:
    """What keeps the part's tensors from serving `rows` rows per stream, `captions` captions and `words` (n, W)."""
    for name, info in streams.items():
        tensor = shard.get(name)
        if tensor is None or tensor.dtype != info.dtype or tensor.ndim != 2 or tensor.shape[1] != info.dim:
            return f"its tensor {name} is not {info.dtype} of width {info.dim}"
        if rows[name] > len(tensor):
            return f"has {len(tensor)} rows of {name} where its Parquet file asks for {rows[name]}"
    text, word = shard.get("caption_text_offsets"), shard.get("word_offsets")
    expected: dict[str, tuple[str, tuple[int, ...] | None]] = {
        "caption_start_s": ("float64", (captions,)),
        "caption_end_s": ("float64", (captions,)),
        "caption_text_offsets": ("int64", (captions + 1,)),
        "word_offsets": ("int64", (captions + 1,)),
        "caption_text": ("uint8", None),
        "word_ids": ("int32", None),
        "word_table_ids": ("int32", (words[0],)),
        "word_vectors": ("float32", words),
        "word_spelling": ("uint8", None),
        "word_spelling_offsets": ("int64", (words[0] + 1,)),
    }
    for name, (dtype, shape) in expected.items():
        tensor = shard.get(name)
        if tensor is None or tensor.dtype != dtype or (tensor.ndim != 1 if shape is None else tensor.shape != shape):
            return f"its tensor {name} is missing or of another shape than its Parquet file says"
    assert text is not None and word is not None
    for offsets, data in (
        (text, "caption_text"),
        (word, "word_ids"),
        (shard["word_spelling_offsets"], "word_spelling"),
    ):
        if offsets[0] != 0 or offsets[-1] != len(shard[data]):
            return f"its {data} offsets do not fit"
    return ""


def words_problem(shard: dict[str, np.ndarray], num_words: int) -> str:
    """What would lead a reader of the part's captions out of its text, its word ids or the store's word vectors."""
    for name in ("caption_text_offsets", "word_offsets", "word_spelling_offsets"):
        if (np.diff(shard[name]) < 0).any():
            return f"its {name} do not rise"
    ids = shard["word_ids"]
    return "its word ids are out of range" if len(ids) and not 0 <= ids.min() <= ids.max() < num_words else ""


def spellings(shard: dict[str, np.ndarray], count: int) -> list[str]:
    """The first `count` words of a part."""
    text, offsets = shard["word_spelling"].tobytes(), shard["word_spelling_offsets"].tolist()
    return [text[offsets[k] : offsets[k + 1]].decode("utf-8", "replace") for k in range(count)]
