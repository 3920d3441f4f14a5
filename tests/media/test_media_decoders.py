"""Choice of the decoder; the torchcodec path compared with PyAV, on a substitute with the interface of torchcodec."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import fake_torchcodec
from odd_media import OddFile, card_of
from trichord.errors import TrichordError
from trichord.media import Decoder, FrameSpec, available_decoders, choose_decoder, pictures


def without_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)


def test_pyav_is_there_and_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchcodec.install(monkeypatch)
    pyav, torchcodec = available_decoders()
    assert pyav.name == "pyav" and not pyav.problem and pyav.version.startswith("1")
    assert (torchcodec.name, torchcodec.version, torchcodec.problem) == ("torchcodec", "0.17.0", "")
    assert choose_decoder("auto") == choose_decoder("pyav", "cuda") == pyav
    assert choose_decoder("auto", "cuda:1") == Decoder("torchcodec", "0.17.0", "cuda:1")
    assert choose_decoder("torchcodec") == Decoder("torchcodec", "0.17.0", "cpu")


def test_where_torchcodec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torchcodec(monkeypatch)
    assert choose_decoder("auto", "cuda").name == "pyav"
    problem = available_decoders()[1].problem
    assert problem == "torchcodec is not installed; pip install torchcodec, or use pyav"
    with pytest.raises(TrichordError, match="decoder torchcodec: torchcodec is not installed; pip install torchcodec"):
        choose_decoder("torchcodec", "cuda")
    with pytest.raises(TrichordError, match="unknown decoder 'opencv'; expected auto, pyav or torchcodec"):
        choose_decoder("opencv")


def test_where_torchcodec_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "torchcodec"
    package.mkdir()
    broken = "try:\n    raise OSError('libnvrtc.so.13: cannot open shared object file')\n"
    broken += (
        "except OSError as e:\n    raise RuntimeError('Could not load libtorchcodec.\\nLikely causes:\\n1.') from e\n"
    )
    (package / "__init__.py").write_text("from . import decoders")
    (package / "decoders.py").write_text(broken)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    problem = available_decoders()[1].problem
    assert problem.startswith("cannot be loaded (libnvrtc.so.13: cannot open shared object file); install the shared")
    assert "\n" not in problem and choose_decoder("auto", "cuda").name == "pyav"
    assert not isinstance(sys.modules.get("torchcodec"), ModuleType)


@pytest.mark.parametrize("sampling", ["shown", "published"])
@pytest.mark.parametrize("name", ["b_frames", "variable_rate", "late_video", "clockwise", "transport", "short"])
def test_torchcodec_decodes_the_same_pictures(
    odd: dict[str, OddFile], monkeypatch: pytest.MonkeyPatch, name: str, sampling: str
) -> None:
    calls = fake_torchcodec.install(monkeypatch).calls
    decoder = choose_decoder("torchcodec")
    specs = [
        FrameSpec(rate_hz=1, short_side=48, sampling=sampling),  # type: ignore[arg-type]
        FrameSpec(rate_hz=24, short_side=40, crop=32, sampling=sampling),  # type: ignore[arg-type]
    ]
    path = odd[name].path
    for start_s, end_s in ((0.0, None), (0.25, 1.6), (0.3, None), (0.0, 0.31)):
        ours = list(pictures(path, specs, start_s=start_s, end_s=end_s))
        theirs = list(pictures(path, specs, start_s=start_s, end_s=end_s, decoder=decoder, num_threads=1))
        for index in (0, 1):
            our_pictures = [picture for i, picture in ours if i == index]
            their_pictures = [picture for i, picture in theirs if i == index]
            assert [card_of(picture) for picture in our_pictures] == [card_of(picture) for picture in their_pictures]
            assert all(
                x.shape == y.shape and x.dtype == y.dtype == np.uint8
                for x, y in zip(our_pictures, their_pictures, strict=True)
            )
            difference = np.mean(
                [np.abs(x.astype(int) - y).mean() for x, y in zip(our_pictures, their_pictures, strict=True)]
            )
            assert difference < 3  # scaled by another filter; a frame beside it differs by 5 everywhere
    assert {call["device"] for call in calls} == {"cpu"} and {call["threads"] for call in calls} == {1}


def test_files_that_torchcodec_cannot_read(
    odd: dict[str, OddFile], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    decoder_class = fake_torchcodec.install(monkeypatch)
    decoder = choose_decoder("torchcodec")
    with pytest.raises(TrichordError, match="audio_only.m4a: has no video stream; remove it"):
        next(pictures(odd["audio_only"].path, [FrameSpec()], decoder=decoder))
    with pytest.raises(TrichordError, match="gone.mp4: does not exist; check the path"):
        next(pictures(tmp_path / "gone.mp4", [FrameSpec()], decoder="torchcodec"))
    with pytest.raises(
        TrichordError, match="the clip begins at 9 s, but the pictures end at 3.00 s; correct the start"
    ):
        next(pictures(odd["no_audio"].path, [FrameSpec()], start_s=9.0, decoder=decoder))

    def broken(self: object, seconds: list[float]) -> None:
        raise RuntimeError("Could not push packet to decoder: Invalid data\nmore")

    monkeypatch.setattr(decoder_class, "get_frames_played_at", broken)
    message = r"no_audio.mp4: torchcodec cannot decode the file \(Could not push packet to decoder: Invalid data\); use the decoder"
    with pytest.raises(TrichordError, match=message):
        next(pictures(odd["no_audio"].path, [FrameSpec()], decoder=decoder))
