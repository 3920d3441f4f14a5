"""What the published loaders make of the release sample, recomputed from the store by plain numpy and loops.

The rules, as found by comparison with `loader_outputs.npz`:
- video: rows int(start * rate) .. int(end * rate), both included and cut at the end of the video; maximum over time per
  stream, divided by its length, streams side by side. A pooled row is divided by its length as it is.
- audio: frames begin .. end of floor((int(time * 16000) - 200) / 160), end excluded, cut at the end of the video; the
  first 1000 of them (1024 in evaluation), zeros behind. An evaluation clip is its whole spectrogram.
- text: words in the order in which the captions joined the clip; those without a vector go first, then the cut to 20.
A clip that starts before 12.5 ms has no audio there (its first frame is -2, which wraps); here it starts at frame 0.
"""

from __future__ import annotations

import numpy as np
import pytest

from paths import FIXTURES
from trichord.captions import tokenize
from trichord.data.batches import evaluation_clips, item_clips
from trichord.data.clips import words_published_order
from trichord.data.reader import Batch, ClipReader, Clips
from trichord.modalities.base import ReadingSettings
from trichord.releases import import_howto100m, import_msrvtt, import_youcook2
from trichord.store import Store

SAMPLE = FIXTURES / "release-sample"
MAX_WORDS = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("sample") / "store"
    for importer in (import_howto100m, import_youcook2, import_msrvtt):
        importer(SAMPLE, path, SAMPLE / "word2vec.bin")
    return Store(path)


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "parity" / "loader_outputs.npz") as arrays:
        return dict(arrays)


def clip_of(start: np.ndarray, end: np.ndarray, caption: int) -> tuple[float, float, list[int]]:
    """Return start, end and captions (in the order of joining) of the clip of at least 10 s that contains a caption."""
    first = last = caption
    joined = [caption]
    while end[last] - start[first] < 10.0 and (first > 0 or last + 1 < len(start)):
        left = end[last] - start[first - 1] if first > 0 else np.inf
        right = end[last + 1] - start[first] if last + 1 < len(start) else np.inf
        if left <= right:
            first -= 1
            joined.append(first)
        else:
            last += 1
            joined.append(last)
    return float(start[first]), float(end[last]), joined


def frame(time_s: float) -> int:
    return max(0, (int(time_s * 16000) - 200) // 160)


def video_of(store: Store, item: int, start_s: float, end_s: float) -> np.ndarray:
    parts = []
    for stream in ("visual_2d", "visual_3d"):
        rows, rate = store.rows(stream, item), store.rate_hz(stream, item)
        if rate > 0:
            rows = rows[int(start_s * rate) : int(end_s * rate) + 1]
        pooled = rows.astype(np.float64).max(axis=0) if len(rows) else np.zeros(rows.shape[1])
        parts.append(pooled / max(np.sqrt((pooled**2).sum()), 1e-12))
    return np.concatenate(parts)


def audio_of(store: Store, item: int, begin: int, end: int | None, length: int) -> tuple[np.ndarray, int]:
    """Return the mean over the 40 mel bins of each frame, with zeros after the clip, and the number of frames."""
    frames = store.rows("spectrogram", item)[begin:end][:length].astype(np.float64)
    return np.pad(frames.mean(axis=1), (0, length - len(frames))), len(frames)


def text_of(store: Store, item: int, captions: list[int]) -> np.ndarray:
    """Return the sum of each word's vector, with zeros where there is no word."""
    known = {word: row for row, word in enumerate(store.words)}
    words = [word for c in captions for word in tokenize(store.caption_text(item, c)) if word in known][:MAX_WORDS]
    assert [known[word] for word in words] == [i for c in captions for i in store.word_ids(item, c).tolist()][
        :MAX_WORDS
    ]
    sums = [store.word_vectors[known[word]].astype(np.float64).sum() for word in words]
    return np.pad(sums, (0, MAX_WORDS - len(sums)))


def test_training_clips_of_howto100m(store: Store, published: dict[str, np.ndarray]) -> None:
    items = store.select("howto100m")
    assert len(items) == 5
    clips = silent = 0
    for item in items.tolist():
        expected = {name.partition("/")[2]: a for name, a in published.items() if name.startswith(store.video_id(item))}
        start, end = store.caption_spans(item)
        assert len(start) == len(expected["start"])
        for caption in range(len(start)):
            start_s, end_s, joined = clip_of(start, end, caption)
            assert (start_s, end_s) == (expected["start"][caption], expected["end"][caption])
            video = video_of(store, item, start_s, end_s)
            np.testing.assert_allclose(video, expected["video"][caption], rtol=0, atol=1e-7)
            text = text_of(store, item, joined)
            np.testing.assert_allclose(text, expected["text_sum_over_dims"][caption], rtol=0, atol=1e-6)
            audio, num_frames = audio_of(store, item, frame(start_s), frame(end_s), 1000)
            if start_s < 0.0125:
                silent += 1
                assert expected["nframes"][caption] == 0 and not expected["audio_mean_over_mel"][caption].any()
                assert num_frames == min(1000, frame(end_s)) and audio[:num_frames].all()
            else:
                assert num_frames == expected["nframes"][caption]
                np.testing.assert_allclose(audio, expected["audio_mean_over_mel"][caption], rtol=1e-6, atol=1e-5)
            clips += 1
    assert (clips, silent) == (69, 9)


@pytest.mark.parametrize(("collection", "name"), [("youcook2", "youcook"), ("msrvtt", "msrvtt")])
def test_evaluation_clips(collection: str, name: str, store: Store, published: dict[str, np.ndarray]) -> None:
    items = store.select(collection)
    assert len(items) == 12
    for row, item in enumerate(items.tolist()):
        assert store.num_captions(item) == 1
        assert store.caption_spans(item)[0].tolist() == [0.0]
        assert store.caption_spans(item)[1].tolist() == [store.duration_s(item)]
        video = video_of(store, item, 0.0, store.duration_s(item))
        np.testing.assert_allclose(video, published[f"{name}/video"][row], rtol=0, atol=1e-7)
        audio, num_frames = audio_of(store, item, 0, None, 1024)
        assert num_frames == published[f"{name}/nframes"][row] == store.num_rows("spectrogram", item)
        np.testing.assert_allclose(audio, published[f"{name}/audio_mean_over_mel"][row], rtol=1e-6, atol=1e-5)
        text = text_of(store, item, [0])
        np.testing.assert_allclose(text, published[f"{name}/text_sum_over_dims"][row], rtol=0, atol=1e-6)


def mcn_reader(store: Store, audio_frames: int) -> ClipReader:
    streams, modalities = ("visual_2d", "visual_3d"), ("video", "audio", "text")
    return ClipReader(store, modalities, ReadingSettings(streams, audio_frames, audio_pad_db=0.0, max_words=20))


def compare(batch: Batch, store: Store, expected: dict[str, np.ndarray], rows: np.ndarray) -> None:
    np.testing.assert_allclose(batch.inputs["video"][rows].numpy(), expected["video"][rows], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(batch.inputs["audio_frames"][rows].numpy(), expected["nframes"][rows])
    mean = batch.inputs["audio"][rows].double().mean(1).numpy()
    np.testing.assert_allclose(mean, expected["audio_mean_over_mel"][rows], rtol=1e-6, atol=1e-5)
    sums = np.append(store.word_vectors.astype(np.float64).sum(1), 0.0)[batch.inputs["word_ids"][rows].numpy()]
    np.testing.assert_allclose(sums, expected["text_sum_over_dims"][rows], rtol=0, atol=1e-6)


def test_the_clip_reader_returns_the_published_training_clips(store: Store, published: dict[str, np.ndarray]) -> None:
    for item in store.select("howto100m").tolist():
        expected = {name.partition("/")[2]: a for name, a in published.items() if name.startswith(store.video_id(item))}
        start_s, end_s, _, _ = item_clips(store, item, 10.0)
        joined = [words_published_order(c, *store.caption_spans(item)) for c in range(len(start_s))]
        batch = mcn_reader(store, 1000).read(Clips(np.full(len(start_s), item), start_s, end_s, joined))
        compare(batch, store, expected, np.flatnonzero(start_s >= 0.0125))


@pytest.mark.parametrize(("collection", "name"), [("youcook2", "youcook"), ("msrvtt", "msrvtt")])
def test_the_clip_reader_returns_the_published_evaluation_clips(
    collection: str, name: str, store: Store, published: dict[str, np.ndarray]
) -> None:
    expected = {key.partition("/")[2]: a for key, a in published.items() if key.startswith(f"{name}/")}
    clips = evaluation_clips(store, store.select(collection), 10.0)
    compare(mcn_reader(store, 1024).read(clips), store, expected, np.arange(12))
