"""Rendering of the script to files: `train/<id>.mp4` and `.vtt`, `test/<id>.mp4` and `.vtt`, and `world.json` with the content."""

from __future__ import annotations

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
from trichord.logs import deprecated_callback, get_logger
from trichord.world.information import Information, script_information
from trichord.world.profiles import profile_named, record_of
from trichord.world.script import VideoScript, vtt_text, write_script
from trichord.world.speech import MAX_RATE_WPM, synthesize
from trichord.world.truth import claim, truth_of

logger = get_logger(__name__)

SAMPLE_RATE_HZ = 16000
_CRF = 26  # quality of H.264, at which flat colors stay clean and a video of 40 s takes about 1.3 MB
_SPEECH_RMS = 0.09
_AMBIENCE_DB = -10.0  # level relative to the sounds of the actions


@dataclass(frozen=True)
class WorldSummary:
    """The result of `write_world`.

    Attributes:
        path: Folder of the world.
        num_train: Number of training videos.
        num_test: Number of held-out videos.
        num_rendered: Number of videos that were rendered.
        num_kept: Number of videos that existed already.
        num_captions: Number of captions of all videos.
        duration_s: Total duration of the videos in seconds.
        wall_s: Time that the call took in seconds.
        information: Information of each modality about the training steps.
        num_val: Number of held-out videos for validation.
    """

    path: Path
    num_train: int
    num_test: int
    num_rendered: int
    num_kept: int
    num_captions: int
    duration_s: float
    wall_s: float
    information: Information
    num_val: int = 0

    def __str__(self) -> str:
        validation = f", {self.num_val} of them for validation" if self.num_val else ""
        return (
            f"{self.path}: {self.num_train} training videos and {self.num_test + self.num_val} held-out videos{validation} "
            f"({self.duration_s / 60:.1f} min, {self.num_captions} captions); "
            f"{self.num_rendered} rendered in {self.wall_s:.0f} s, {self.num_kept} kept\n{self.information}"
        )


@dataclass(frozen=True)
class _Look:
    """The size and rate of the pictures."""

    width: int
    height: int
    frame_rate_hz: float


def frames(video: VideoScript, look: _Look) -> Iterator[np.ndarray]:
    """Iterate over the pictures of a video.

    Args:
        video: Script of the video.
        look: Size and rate of the pictures.

    Yields:
        Pictures of shape (height, width, 3), uint8 RGB.
    """
    from trichord.world.draw import StepPainter

    painter, current = None, -1
    step_s = video.steps[0].end_s
    for n in range(round(video.duration_s * look.frame_rate_hz)):
        t_s = min(max(n / look.frame_rate_hz - video.picture_off_s, 0.0), video.duration_s)
        index = min(int(t_s / step_s + 1e-9), len(video.steps) - 1)
        if painter is None or index != current:
            rng = np.random.default_rng([*video.seed, 1, index])
            step, place = video.steps[index].as_seen(), video.place_in("place_shown")
            painter, current = StepPainter(step, place, look.width, look.height, rng), index
        yield painter.frame(max(0.0, t_s - video.steps[index].start_s))


def soundtrack(video: VideoScript) -> np.ndarray:
    """Mix the speech, the sounds of the actions and the ambience of the place.

    Args:
        video: Script of the video.

    Returns:
        Samples of shape (N,), float32, in [-1, 1], at SAMPLE_RATE_HZ.
    """
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
    """Speak a sentence in the voice of the video. It is spoken faster if it is too long, and truncated if necessary."""
    voice = video.voice
    speak = partial(synthesize, text, voice=voice.name, pitch=voice.pitch, sample_rate_hz=SAMPLE_RATE_HZ)
    speech, _ = speak(rate_wpm=voice.rate_wpm)
    if len(speech) > num_samples > 0:
        speech, _ = speak(rate_wpm=min(MAX_RATE_WPM, int(1.05 * voice.rate_wpm * len(speech) / num_samples)))
    return speech[: max(0, num_samples)]


def _paths(out: Path, video: VideoScript) -> tuple[Path, Path]:
    folder = out / video.split
    return folder / f"{video.video_id}.mp4", folder / f"{video.video_id}.vtt"


def _render(video: VideoScript, out: Path, look: _Look) -> str:
    """Write one video and its captions. Each file is either complete or missing. This may run in a separate process."""
    from trichord.media.encode import write_video

    mp4_path, vtt_path = _paths(out, video)
    write_video(mp4_path, frames(video, look), look.frame_rate_hz, soundtrack(video), SAMPLE_RATE_HZ, crf=_CRF)
    write_text(vtt_path, vtt_text(video.captions), shared=True)
    return video.video_id


def _check(num_train: int, num_test: int, steps_per_video: int, step_s: float, seed: int, look: _Look) -> None:
    for name, value in (("num_train", num_train), ("num_test", num_test), ("steps_per_video", steps_per_video)):
        if value < 1:
            raise TrichordError(f"{name} is {value}; it must be at least 1")
    if not 1 <= step_s <= 60:
        raise TrichordError(f"step_s is {step_s}; it must be in the range from 1 to 60 seconds")
    if seed < 0:
        raise TrichordError(f"seed is {seed}; it must be 0 or a positive integer")
    if look.width < 64 or look.height < 64 or look.width % 2 or look.height % 2:
        raise TrichordError(
            f"pictures of {look.width}x{look.height} cannot be encoded; give an even width and height of at least 64, "
            "such as 320x180"
        )
    if not 1 <= look.frame_rate_hz <= 60:
        raise TrichordError(f"frame_rate_hz is {look.frame_rate_hz}; it must be in the range from 1 to 60")


@deprecated_callback("progress")
@accepts_text_paths
def write_world(
    out: Path,
    *,
    num_train: int = 60,
    num_test: int = 40,
    num_val: int = 0,
    steps_per_video: int = 8,
    step_s: float = 5.0,
    seed: int = 0,
    width: int = 320,
    height: int = 180,
    frame_rate_hz: float = 10.0,
    profile: str = "balanced",
    workers: int | None = None,
) -> WorldSummary:
    """Render narrated how-to videos with captions, whose content is known.

    The held-out videos show combinations of object, tool and action that do not occur in the training videos. The same arguments
    give the same files. Existing videos are kept, so that an interrupted call can be repeated to continue.

    Args:
        out: Folder for train/, test/, val/ and world.json (the object, tool, action and place of every step).
        num_train: Number of training videos.
        num_test: Number of held-out videos.
        num_val: Number of further held-out videos for validation, which show the same combinations as the test videos.
        steps_per_video: Number of steps in each video.
        step_s: Duration of a step in seconds, from 1 to 60.
        seed: Random seed. Another seed gives another world.
        width: Width of the pictures in pixels, an even number.
        height: Height of the pictures in pixels, an even number.
        frame_rate_hz: Pictures per second, from 1 to 60.
        profile: Profile of how much each modality reveals of the content: `balanced` (picture and words reveal most of it),
            `procedure` (speech and captions reveal the steps, and the picture shows the place and moving hands), `scene` (the
            picture reveals the steps, and the speech is about other things) or `noisy-audio` (sounds and speech are often wrong).
            The summary lists the information in bits, and so does world.json for all profiles except `balanced`.
        workers: Number of processes. The default is one per processor that this process may use.

    Returns:
        A summary.

    Raises:
        TrichordError: If an argument is out of range, if the folder has other contents, or if the speech library is missing.
    """
    begin = time.monotonic()
    out = Path(out)
    look = _Look(width, height, float(frame_rate_hz))
    _check(num_train, num_test, steps_per_video, step_s, seed, look)
    chosen = profile_named(profile)
    if num_val < 0:
        raise TrichordError(f"num_val is {num_val}; it must be 0 or a positive integer")
    counts = {"num_train": num_train, "num_test": num_test, "steps_per_video": steps_per_video}
    if num_val:  # worlds without validation videos are described as before
        counts["num_val"] = num_val
    videos = write_script(**counts, step_s=float(step_s), seed=seed, profile=chosen)
    synthesize("ready")  # fails early if the speech library is missing
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
        num_val=num_val,
    )


def _num_workers(workers: int | None, num_videos: int) -> int:
    if workers is not None and workers < 1:
        raise TrichordError(f"workers is {workers}; it must be at least 1")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers is None:
        workers = usable if num_videos > 2 else 1  # starting a process takes longer than rendering a few videos
    return max(1, min(workers, num_videos))


def _render_all(videos: list[VideoScript], out: Path, look: _Look, workers: int) -> None:
    begin = last_message = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last_message
        now = time.monotonic()
        if now - last_message > 2 or done == len(videos):
            last_message, rate = now, done / max(now - begin, 1e-6)
            left_s = (len(videos) - done) / rate
            logger.info(f"world: {done}/{len(videos)} videos, {rate:.1f} per second, {left_s:.0f} s left")

    if workers == 1:
        for done, video in enumerate(videos, 1):
            _render(video, out, look)
            tell(done)
        return
    # Processes are spawned, because forked processes would share the state of the speech library and the encoder.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_render, video, out, look) for video in videos]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                tell(done)
        except BrokenProcessPool as error:
            raise TrichordError(
                f"{out}: a rendering process was terminated; run the same command again to continue (finished videos are kept)"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
