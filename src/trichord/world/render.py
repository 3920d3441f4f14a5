"""From the script to files: `train/<id>.mp4` and `.vtt`, `test/<id>.mp4` and `.vtt`, and `world.json`, the truth."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from trichord.errors import TrichordError
from trichord.files.paths import accepts_text_paths
from trichord.files.writing import write_text
from trichord.logs import deprecated_callback
from trichord.world.information import Information, script_information
from trichord.world.profiles import profile_named, record_of
from trichord.world.script import VideoScript, vtt_text, write_script
from trichord.world.speech import MAX_RATE_WPM, synthesize
from trichord.world.truth import claim, truth_of

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16000
_CRF = 26  # H.264 quality: flat colours stay clean, a video of 40 s takes about 1.3 MB
_SPEECH_RMS = 0.09
_AMBIENCE_DB = -10.0  # below the sounds of the actions


@dataclass(frozen=True)
class WorldSummary:
    """What `write_world` did. `duration_s` counts the videos' own seconds, `wall_s` the time it took; `information` is
    that of the training steps."""

    path: Path
    num_train: int
    num_test: int
    num_rendered: int
    num_kept: int
    num_captions: int
    duration_s: float
    wall_s: float
    information: Information

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.num_train} videos to train and {self.num_test} held out "
            f"({self.duration_s / 60:.1f} min, {self.num_captions} captions); "
            f"{self.num_rendered} rendered in {self.wall_s:.0f} s, {self.num_kept} kept\n{self.information}"
        )


@dataclass(frozen=True)
class _Look:
    """Size and rate of the pictures."""

    width: int
    height: int
    frame_rate_hz: float


def frames(video: VideoScript, look: _Look) -> Iterator[np.ndarray]:
    """All pictures of a video in order, uint8 (height, width, 3)."""
    from trichord.world.draw import StepPainter

    painter, current = None, -1
    step_s = video.steps[0].end_s
    for n in range(round(video.duration_s * look.frame_rate_hz)):
        t_s = min(max(n / look.frame_rate_hz - video.picture_off_s, 0.0), video.duration_s)
        index = min(int(t_s / step_s + 1e-9), len(video.steps) - 1)
        if painter is None or index != current:
            rng = np.random.default_rng([*video.seed, 1, index])
            seen, place = video.steps[index].as_seen(), video.place_in("place_shown")
            painter, current = StepPainter(seen, place, look.width, look.height, rng), index
        yield painter.frame(max(0.0, t_s - video.steps[index].start_s))


def soundtrack(video: VideoScript) -> np.ndarray:
    """Speech, the actions' sounds and the place's ambience: float32 (samples,) at SAMPLE_RATE_HZ within [-1, 1]."""
    from trichord.world.sounds import action_sound, ambience

    num = round(video.duration_s * SAMPLE_RATE_HZ)
    track = np.zeros(num)
    for line in video.narration:
        begin, end = (round(t * SAMPLE_RATE_HZ) for t in (line.start_s, line.end_s))
        speech = _speak(line.text, video, min(end, num) - begin)
        rms = float(np.sqrt(np.mean(speech**2))) if len(speech) else 0.0
        if rms > 0:
            track[begin : begin + len(speech)] += speech * (_SPEECH_RMS / rms)
    level = _SPEECH_RMS / 10 ** (video.snr_db / 20)
    for index, step in enumerate(video.steps):
        action = step.action_in_sound()
        begin, end = (round((t + video.sound_off_s) * SAMPLE_RATE_HZ) for t in (step.start_s, step.end_s))
        if action and end > 0 and begin < num:
            rng = np.random.default_rng([*video.seed, 2, index])
            material = step.object if video.material_heard else None
            sound = level * action_sound(action, material, end - begin, SAMPLE_RATE_HZ, rng)
            track[max(0, begin) : end] += sound[max(0, -begin) : num - begin]
    place = video.place_in("place_heard")
    if place:
        rng = np.random.default_rng([*video.seed, 3])
        track += level * 10 ** (_AMBIENCE_DB / 20) * ambience(place, num, SAMPLE_RATE_HZ, rng)
    peak = float(np.abs(track).max())
    return (track * min(1.0, 0.98 / (peak + 1e-9))).astype(np.float32)


def _speak(text: str, video: VideoScript, num_samples: int) -> np.ndarray:
    """The sentence in the video's voice, faster if it would not fit, cut if even that does not."""
    voice = video.voice
    say = partial(synthesize, text, voice=voice.name, pitch=voice.pitch, sample_rate_hz=SAMPLE_RATE_HZ)
    speech, _ = say(rate_wpm=voice.rate_wpm)
    if len(speech) > num_samples > 0:
        speech, _ = say(rate_wpm=min(MAX_RATE_WPM, int(1.05 * voice.rate_wpm * len(speech) / num_samples)))
    return speech[: max(0, num_samples)]


def _paths(out: Path, video: VideoScript) -> tuple[Path, Path]:
    folder = out / video.split
    return folder / f"{video.video_id}.mp4", folder / f"{video.video_id}.vtt"


def _render(video: VideoScript, out: Path, look: _Look) -> str:
    """Write one video and its captions, each complete or not at all. Runs in a process of its own."""
    from trichord.media.encode import write_video

    mp4_path, vtt_path = _paths(out, video)
    write_video(mp4_path, frames(video, look), look.frame_rate_hz, soundtrack(video), SAMPLE_RATE_HZ, crf=_CRF)
    write_text(vtt_path, vtt_text(video.captions), shared=True)
    return video.video_id


def _check(num_train: int, num_test: int, steps_per_video: int, step_s: float, seed: int, look: _Look) -> None:
    for name, value in (("num_train", num_train), ("num_test", num_test), ("steps_per_video", steps_per_video)):
        if value < 1:
            raise TrichordError(f"{name} is {value}; a world needs at least 1")
    if not 1 <= step_s <= 60:
        raise TrichordError(f"step_s is {step_s}; a step needs 1 to 60 seconds to be shown and told")
    if seed < 0:
        raise TrichordError(f"seed is {seed}; give 0 or a positive number")
    if look.width < 64 or look.height < 64 or look.width % 2 or look.height % 2:
        raise TrichordError(f"pictures of {look.width}x{look.height} do not encode; give even sizes such as 320x180")
    if not 1 <= look.frame_rate_hz <= 60:
        raise TrichordError(f"frame_rate_hz is {look.frame_rate_hz}; give 1 to 60")


@deprecated_callback("progress")
@accepts_text_paths
def write_world(
    out: Path,
    *,
    num_train: int = 60,
    num_test: int = 40,
    steps_per_video: int = 8,
    step_s: float = 5.0,
    seed: int = 0,
    width: int = 320,
    height: int = 180,
    frame_rate_hz: float = 10.0,
    profile: str = "balanced",
    workers: int | None = None,
) -> WorldSummary:
    """Render narrated how-to videos with captions: a world in which it is known what happens.

    The held-out videos show combinations of object, tool and action that are never trained on. The same arguments give
    the same files. Videos that are there already are kept, so an interrupted world is gone on with.

    Args:
        out: folder for train/, test/ and world.json (the truth: object, tool, action and place of every step).
        num_train: videos to train on.
        num_test: held-out videos.
        steps_per_video: steps in each video.
        step_s: seconds per step, 1 to 60.
        seed: seed of everything that is drawn; another seed gives another world.
        width: of the pictures, an even number of pixels.
        height: of the pictures, an even number of pixels.
        frame_rate_hz: pictures per second, 1 to 60.
        profile: how much each modality knows of the content: `balanced` (picture and words tell most of it),
            `procedure` (speech and captions tell the steps, the picture shows the place and busy hands), `scene` (the
            picture tells, the speech is about other things) or `noisy-audio` (sounds and speech are often wrong). The
            summary, and for all but `balanced` world.json, says in bits how much that is.
        workers: processes; by default one per processor that this process may use.

    Raises:
        TrichordError: an argument is out of range, the folder holds something else, or the speech library is missing.
    """
    begin = time.monotonic()
    out = Path(out)
    look = _Look(width, height, float(frame_rate_hz))
    _check(num_train, num_test, steps_per_video, step_s, seed, look)
    chosen = profile_named(profile)
    counts = {"num_train": num_train, "num_test": num_test, "steps_per_video": steps_per_video}
    videos = write_script(**counts, step_s=float(step_s), seed=seed, profile=chosen)
    synthesize("ready")  # says at once what is missing
    parameters = {**counts, "step_s": float(step_s), "seed": seed, **asdict(look), "profile": record_of(chosen)}
    information = {split: script_information(videos, chosen, split=split) for split in ("train", "test")}
    claim(out, truth_of(parameters, videos, information))
    todo = [video for video in videos if not all(path.exists() for path in _paths(out, video))]
    _render_all(todo, out, look, _num_workers(workers, len(todo)))
    return WorldSummary(
        path=out,
        num_train=num_train,
        num_test=num_test,
        num_rendered=len(todo),
        num_kept=len(videos) - len(todo),
        num_captions=sum(len(video.captions) for video in videos),
        duration_s=sum(video.duration_s for video in videos),
        wall_s=time.monotonic() - begin,
        information=information["train"],
    )


def _num_workers(workers: int | None, num_videos: int) -> int:
    if workers is not None and workers < 1:
        raise TrichordError(f"workers is {workers}; give at least 1")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        workers = usable if num_videos > 2 else 1  # a new process takes longer than a few videos
    return max(1, min(workers, num_videos))


def _render_all(videos: list[VideoScript], out: Path, look: _Look, workers: int) -> None:
    begin = told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > 2 or done == len(videos):
            told, rate = now, done / max(now - begin, 1e-6)
            left_s = (len(videos) - done) / rate
            logger.info(f"world: {done}/{len(videos)} videos, {rate:.1f} per second, {left_s:.0f} s left")

    if workers == 1:
        for done, video in enumerate(videos, 1):
            _render(video, out, look)
            tell(done)
        return
    # fresh processes: a forked one would share the speech library's and the encoder's state
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_render, video, out, look) for video in videos]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                tell(done)
        except BrokenProcessPool as error:
            raise TrichordError(f"{out}: a rendering process died; run it again, finished videos are kept") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
