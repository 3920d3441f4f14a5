"""Features of three real videos compared with reference features, and decoders with each other.

`PYTHONPATH=tests/helpers python tests/extraction/test_golden_features.py` writes the golden file again.
Run it only if the features are meant to change.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from paths import FIXTURES
from trichord.extraction.extract import ExtractSummary, extract
from trichord.features.visual import load_visual_encoder
from trichord.media import FrameSpec, pictures, probe, waveform
from trichord.store import Store

VIDEOS = FIXTURES / "videos"
GOLDEN = FIXTURES / "golden_features.npz"
NAMES = ("bigbuckbunny", "flipping_a_pancake", "nasa_13013")


def features(store: Path) -> dict[str, np.ndarray]:
    """Return all visual rows, and every tenth frame of the spectrogram."""
    opened = Store(store)
    arrays = {}
    for i in range(len(opened)):
        name = opened.video_id(i)
        arrays[f"{name}.visual_2d"] = np.array(opened.rows("visual_2d", i))
        arrays[f"{name}.spectrogram"] = np.array(opened.rows("spectrogram", i)[::10])
        arrays[f"{name}.duration_s"] = np.array(opened.duration_s(i))
    return arrays


def extracted(store: Path) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    summary = extract(VIDEOS, store, workers=0)
    assert isinstance(summary, ExtractSummary) and summary.num_added == 3, str(summary)
    return features(store)


@pytest.fixture(scope="module")
def extracted_arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return extracted(tmp_path_factory.mktemp("golden") / "s")


@pytest.mark.parametrize("name", NAMES)
def test_features_of_real_videos_are_the_golden_ones(extracted_arrays: dict[str, np.ndarray], name: str) -> None:
    with np.load(GOLDEN) as golden:
        visual, spectrogram = golden[f"{name}.visual_2d"], golden[f"{name}.spectrogram"]
        assert extracted_arrays[f"{name}.duration_s"] == pytest.approx(float(golden[f"{name}.duration_s"]), abs=1e-3)
    rows = extracted_arrays[f"{name}.visual_2d"]
    assert rows.shape == visual.shape and rows.dtype == visual.dtype == np.float16
    # processors sum in different orders: the rows are equal up to rounding in half precision
    assert np.abs(rows.astype(np.float32) - visual.astype(np.float32)).max() < 2e-3
    mel = extracted_arrays[f"{name}.spectrogram"]
    assert mel.shape == spectrogram.shape
    assert np.abs(mel.astype(np.float32) - spectrogram.astype(np.float32)).max() < 0.13


def ffmpeg(*arguments: str) -> bytes:
    from imageio_ffmpeg import get_ffmpeg_exe

    return subprocess.run([get_ffmpeg_exe(), "-v", "error", *arguments, "-"], check=True, capture_output=True).stdout


@pytest.mark.parametrize("name", [pytest.param(NAMES[0], marks=pytest.mark.slow), *NAMES[1:]])
def test_decoders_agree_on_features(name: str) -> None:
    """Uses the ffmpeg tool with its own build of FFmpeg, as the published extractors do."""
    (path,) = VIDEOS.glob(f"{name}.*")
    torch.set_num_threads(1)
    encoder = load_visual_encoder()
    spec = replace(encoder.frames, sampling="published")
    info = probe(path)
    width, height = spec.size_of(info.width, info.height)
    raw = ffmpeg(
        "-i", str(path), "-vf", f"fps=1,scale={width}:{height}", "-pix_fmt", "rgb24", "-f", "rawvideo"
    )  # fmt: skip
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    ours = np.stack([picture for _, picture in pictures(path, [spec])])
    assert ours.shape == theirs.shape
    cosines = (encoder.encode(ours).astype(np.float64) * encoder.encode(theirs).astype(np.float64)).sum(1)
    assert cosines.min() > 0.999


@pytest.mark.parametrize("name", NAMES)
def test_decoders_agree_on_sound(name: str) -> None:
    (path,) = VIDEOS.glob(f"{name}.*")
    # of several streams, the tool selects the one with the most channels, and PyAV the best one
    with av.open(str(path)) as container:
        index = container.streams.best("audio").index
    raw = ffmpeg("-i", str(path), "-map", f"0:{index}", "-ac", "1", "-ar", "16000", "-f", "f32le")
    theirs, ours = np.frombuffer(raw, np.float32), waveform(path)
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-4


def test_one_pass_serves_several_encoders() -> None:
    path = VIDEOS / "nasa_13013.mp4"
    specs = [FrameSpec(short_side=64), FrameSpec(rate_hz=4, short_side=48, crop=48)]
    together: list[list[np.ndarray]] = [[], []]
    for index, picture in pictures(path, specs):
        together[index].append(picture.copy())
    for spec, got in zip(specs, together, strict=True):
        assert np.array_equal(np.stack(got), np.stack([picture for _, picture in pictures(path, [spec])]))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        np.savez_compressed(GOLDEN, **extracted(Path(folder) / "s"))
