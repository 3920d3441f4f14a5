"""The work of a worker process on one item: decode, encode, and write the rows into the spool as they are computed.

Decoding runs in the main thread of the process, and encoding in `threads` other threads. Decoding is at most a limited number of
windows ahead, so that neither waits for long and memory does not grow with the length of the video. Each encoding thread uses one
core, and the rows of an encoder do not depend on how pictures are grouped, so the rows are bit-identical for any number of threads
and workers. A decoder that makes no progress for `stall_s` ends the process (`media.watchdog`). The driver notices this and
continues with a new process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trichord.captions import Captions, clean_captions
from trichord.errors import TrichordError, one_line
from trichord.extraction.arrays import feature_rows
from trichord.extraction.choice import Encoders
from trichord.extraction.failures import ItemError, check_there, described, kind_of
from trichord.extraction.file_rows import FILE_ROWS
from trichord.extraction.folder import captions_of, content_files
from trichord.extraction.renewal import ALL, CAPTIONS, Stored, same_captions
from trichord.extraction.task import Outcome, Task
from trichord.extraction.windows import Windows, encoding
from trichord.features.encoders import AudioEncoder
from trichord.features.hashes import state_of
from trichord.files.faults import FAULTS, fault_of
from trichord.media import clock_can_differ, image, pictures, probe, sound
from trichord.media.watchdog import watched, watching
from trichord.modality import MODALITIES
from trichord.store.items import PER_CAPTION
from trichord.store.rules import CURRENT_RULES
from trichord.store.spool import SpoolWriter

ORPHAN_EXIT = 3
parent: int | None = None  # in a worker process: the process id of the driver
_STILL_S = 1.0  # the duration of an item that is only a picture
_FLUSH_ROWS = 64


def run_task(task: Task, encoders: Encoders, threads: int) -> Outcome:
    """Extract one item into the spool. Any problem with its files becomes the class and reason of the outcome."""
    outcome = Outcome()
    try:
        writer = SpoolWriter(task.store, task.key, task.collection)
    except OSError as error:
        return Outcome(fault_of(error) or "disk", f"{task.store}: cannot be written to ({error.strerror})")
    try:
        item = _Item(task, encoders, threads, writer, outcome)
        item.extract() if task.stored is None else item.renew(task.stored)
    except ItemError as error:
        outcome.kind, outcome.reason = error.kind, str(error)
    except Exception as error:  # damaged files make decoders raise errors of any type
        outcome.kind = kind_of(error)
        outcome.reason = described(error) if outcome.kind in FAULTS else one_line(error) or type(error).__name__
    finally:
        writer.discard()  # has no effect after a commit
    for path in task.source.files:
        outcome.reason = outcome.reason.removeprefix(f"{path}: ")
        outcome.notes = [note.replace(str(path), task.source.name) for note in outcome.notes]
    return outcome


class _Item:
    """The state of the extraction of one item."""

    def __init__(self, task: Task, encoders: Encoders, threads: int, writer: SpoolWriter, outcome: Outcome) -> None:
        self.task, self.source, self.encoders, self.threads = task, task.source, encoders, threads
        self.writer, self.outcome = writer, outcome
        self.rates_hz: dict[str, float] = {}
        self.decoded_s = 0.0
        self.no_audio = "has no sound"  # the reason why there is no sound
        self.renews = ""

    def extract(self) -> None:
        """Extract all streams and captions, and commit the item to the spool."""
        source, outcome = self.source, self.outcome
        if "video" in self.task.require and source.video is None and source.image is None:
            raise ItemError("no-video-stream", "has no pictures, which are required")
        for path in source.files:
            check_there(path)
        stated_s, has_sound = self._probed()
        if source.image is not None:
            self._still(source.image)
        elif source.video is not None and self.encoders.visual:
            self._visual(source.video)
        sound_path = source.audio or source.video
        if "audio" in self.task.require and not has_sound:
            raise ItemError("no-audio", f"{self.no_audio}, but sound is required")
        if self.encoders.audio and sound_path is not None and has_sound:
            for encoder in self.encoders.audio:
                self._audio(encoder, sound_path)
        if self.encoders.audio and not any(self.writer.num_rows(e.stream) for e in self.encoders.audio):
            if "audio" in self.task.require:
                raise ItemError("no-audio", f"{self.no_audio}, but sound is required")
            if source.video is not None or source.audio is not None:
                outcome.notes.append(f"{source.name}: {self.no_audio}; stored without {self.encoders.audio[0].stream}")
        duration_s = min(stated_s, self.decoded_s) if stated_s and self.decoded_s else stated_s or self.decoded_s
        outcome.duration_s = duration_s or _STILL_S
        captions = self._captions(outcome.duration_s, sound_path if has_sound else None)
        self._arrays(outcome.duration_s)
        if not self.rates_hz and not len(captions):
            reason = "" if self.no_audio == "has no sound" else f" ({self.no_audio})"
            raise ItemError(
                "unreadable", f"has neither pictures, sound nor captions{reason}; remove it or correct its files"
            )
        self._commit(captions)

    def renew(self, stored: Stored) -> None:
        """Update a stored item.

        The whole item is extracted again if newer rules can give it other times. Otherwise only its captions and feature arrays are
        read, and written to the spool if they differ.
        """
        source, outcome = self.source, self.outcome
        for path in source.files:
            check_there(path)
        if stored.has_old_clock and any(map(self._can_differ, filter(None, (source.video, source.audio)))):
            self.renews = ALL
            self.extract()
            return
        self.renews = CAPTIONS
        outcome.duration_s = stored.duration_s
        sound_path = source.audio or source.video
        recognizes = (
            self.encoders.recognizer is not None and stored.is_asked and sound_path is not None and self._probed()[1]
        )
        try:
            captions = self._captions(stored.duration_s, sound_path if recognizes else None)
        except ItemError as error:
            if stored.is_asked or error.kind in FAULTS:
                raise
            outcome.notes.append(f"{source.name}: {error}; the store keeps the captions read by earlier rules")
            outcome.is_unchanged = True
            return
        has_arrays = bool(source.arrays) or stored.has_arrays
        if not len(captions) and len(stored.captions):
            if stored.is_asked and (source.text or "captions" in content_files(source) or not has_arrays):
                raise ItemError(
                    "captions", "its caption file is empty now; the store keeps the stored captions; correct the file"
                )
            captions = stored.captions
        outcome.is_unchanged = same_captions(captions, stored.captions) and not (stored.is_asked and has_arrays)
        if not outcome.is_unchanged:
            self._arrays(stored.duration_s)
            self._commit(captions)  # the driver compares the new item with the stored one
        elif not stored.is_asked:
            outcome.notes.clear()  # they were reported when the item was extracted

    def _can_differ(self, path: Path) -> bool:
        try:
            with self._watched(path):
                return clock_can_differ(path)
        except TrichordError as error:
            if fault_of(error):
                raise
            return False

    def _commit(self, captions: Captions) -> None:
        self._check_unchanged()
        self.outcome.num_bytes = self.writer.commit(
            video_id=self.source.video_id,
            split=self.task.split,
            duration_s=self.outcome.duration_s,
            rates_hz=self.rates_hz,
            captions=captions,
            media=self.task.media,
            rules=CURRENT_RULES,
            renews=self.renews,
        )

    def _check_unchanged(self) -> None:
        """Check that the files have not changed since they were hashed, because features are identified by the hash.

        Raises:
            ItemError: A file has changed.
        """
        if self.task.states is None:
            return
        files = content_files(self.source).values()
        if {path: state_of(path) for path in files} != dict(self.task.states):
            raise ItemError("modified", "changed while it was being extracted; the next run tries again")

    def _probed(self) -> tuple[float, bool]:
        """Return the duration of the clip according to its files (0.0: unknown), and whether it has sound."""
        source = self.source
        stated_s, has_sound = 0.0, False
        if source.video is not None:
            with self._watched(source.video):
                info = probe(source.video)
            self.no_audio = info.no_audio or self.no_audio
            if not info.has_video and (self.encoders.visual or "video" in self.task.require):
                raise ItemError("no-video-stream", info.no_video)
            stated_s, has_sound = info.duration_s, info.has_audio
        if source.audio is not None:
            with self._watched(source.audio):
                info = probe(source.audio)
            if not info.has_audio:
                raise ItemError("no-audio", f"{source.audio}: {info.no_audio}; use another file")
            stated_s, has_sound = stated_s or info.duration_s, True
        if source.video is None and source.audio is None and source.end_s is not None:
            stated_s = source.end_s  # an item of only arrays has no other duration
        if stated_s and (source.start_s or source.end_s is not None):
            end_s = stated_s if source.end_s is None else min(source.end_s, stated_s)
            if end_s <= source.start_s:
                problem = f"the clip begins at {source.start_s:g} s, but the file ends at {stated_s:.2f} s"
                raise ItemError("unreadable", f"{problem}; correct its start and end")
            stated_s = end_s - source.start_s
        return stated_s, has_sound

    # ---- pictures

    def _still(self, path: Path) -> None:
        for encoder in self.encoders.visual:
            if encoder.window == 1:
                with self._watched(path):
                    picture = image(path, encoder.frames)
                with encoding(encoder):
                    rows = encoder.encode(picture[None])
                self.writer.append(encoder.stream, rows)
                self.rates_hz[encoder.stream] = 0.0

    def _visual(self, path: Path) -> None:
        encoders, source = self.encoders.visual, self.source
        stream = pictures(
            path,
            [encoder.frames for encoder in encoders],
            start_s=source.start_s,
            end_s=self._end_s(),
            notes=self.outcome.notes,
            decoder=self.task.decoder,
            num_threads=self.threads,
        )
        with ThreadPoolExecutor(self.threads, thread_name_prefix="encode") as pool:
            streams = [Windows(encoder, pool, self.writer) for encoder in encoders]
            try:
                for index, picture in self._guarded(stream, path):
                    streams[index].add(picture, 2 * self.threads)
                for windows in streams:
                    windows.finish()
            finally:
                for windows in streams:
                    windows.cancel()
                    self.outcome.encode_s += windows.encode_s
        for windows in streams:
            rate_hz = windows.encoder.rate_hz
            if windows.num_pictures:
                self.rates_hz[windows.encoder.stream] = rate_hz
                self.decoded_s = max(self.decoded_s, windows.num_pictures / windows.encoder.frames.rate_hz)
        if not self.rates_hz:
            raise ItemError("unreadable", "no picture can be decoded; replace the file")

    # ---- sound

    def _audio(self, encoder: AudioEncoder, path: Path) -> None:
        source = self.source

        def blocks(start_s: float, end_s: float | None) -> Iterator[np.ndarray]:
            return self._sound(path, encoder.sample_rate_hz, start_s, end_s, self.outcome.notes)

        whole = source.start_s == 0 and source.end_s is None
        if whole or encoder.stream != "spectrogram" or self.task.sample_s:
            for rows in encoder.encode(lambda: blocks(source.start_s, self._end_s())):
                self._append(encoder.stream, rows)
        else:  # spectrograms are relative to the loudest moment of the file, so the whole file is computed, then sliced
            rows = FILE_ROWS.get(path, encoder, lambda: blocks(0.0, None))
            begin = int(source.start_s * encoder.rate_hz)
            end = len(rows) if source.end_s is None else int(np.ceil(source.end_s * encoder.rate_hz))
            if len(rows[begin:end]):
                self._append(encoder.stream, np.array(rows[begin:end]))
        num_rows = self.writer.num_rows(encoder.stream)
        if num_rows:
            self.rates_hz[encoder.stream] = encoder.rate_hz
            if encoder.stream == "spectrogram":  # frame i is centered on i / rate, so the last one adds nothing
                self.decoded_s = max(self.decoded_s, (num_rows - 1) / encoder.rate_hz)

    def _sound(
        self, path: Path, rate_hz: int, start_s: float, end_s: float | None, notes: list[str] | None = None
    ) -> Iterator[np.ndarray]:
        threads = self.threads
        blocks = sound(path, sample_rate_hz=rate_hz, start_s=start_s, end_s=end_s, notes=notes, num_threads=threads)
        return self._guarded(blocks, path)

    def _end_s(self) -> float | None:
        """Return where reading ends: at the end of the clip, or earlier for a sample."""
        if self.task.sample_s is None:
            return self.source.end_s
        stop_s = self.source.start_s + self.task.sample_s
        return stop_s if self.source.end_s is None else min(stop_s, self.source.end_s)

    def _append(self, stream: str, rows: np.ndarray) -> None:
        if len(rows):
            self.writer.append(stream, rows)

    # ---- feature arrays

    def _arrays(self, duration_s: float) -> None:
        """Write the rows of the modalities beyond video, audio and text."""
        source = self.source
        for name, path in source.arrays.items():
            with self._watched(path):
                rows = feature_rows(path, name, pooled=not source.has_length, expected=self.task.widths.get(name))
            self.writer.append(name, rows)
            self.rates_hz[name] = len(rows) / duration_s if len(rows) > 1 else 0.0
        if absent := [name for name in self.task.require if name not in (*MODALITIES, *source.arrays)]:
            raise ItemError("missing", f"has no {absent[0]}, which is required")

    # ---- captions

    def _captions(self, duration_s: float, sound_path: Path | None) -> Captions:
        source, notes = self.source, self.outcome.notes
        captions = Captions.empty()
        if self.task.captions != "none" or source.text:
            try:
                with self._watched(source.captions or source.video or source.audio):
                    captions = captions_of(source, duration_s, notes)
            except TrichordError as error:
                raise ItemError(fault_of(error) or "captions", str(error)) from None
        if not len(captions) and self.encoders.recognizer is not None and sound_path is not None:
            recognizer = self.encoders.recognizer
            captions = recognizer.transcribe(
                lambda: self._sound(sound_path, recognizer.sample_rate_hz, source.start_s, self._end_s())
            )
            notes.append(f"{source.name}: {len(captions)} captions recognized by {recognizer.fingerprint.name}")
        captions, repairs = clean_captions(captions, duration_s=duration_s, source=source.name)
        notes += repairs
        if not len(captions):
            if "text" in self.task.require:
                raise ItemError("no-captions", "has no captions, which are required")
            notes.append(f"{source.name}: has no captions, so text cannot be trained or evaluated with it")
        self.outcome.num_captions = len(captions)
        for encoder in self.encoders.text:
            if len(captions):
                for begin in range(0, len(captions), _FLUSH_ROWS):
                    with encoding(encoder):
                        rows = encoder.encode(captions.text[begin : begin + _FLUSH_ROWS])
                    self.writer.append(encoder.stream, rows)
                self.rates_hz[encoder.stream] = PER_CAPTION
        return captions

    # ---- the watchdog

    @contextmanager
    def _watched(self, path: Path | None) -> Iterator[None]:
        """End this process if the block takes longer than a file of that size may take, or if the driver has ended."""
        if parent is not None and os.getppid() != parent:
            os._exit(ORPHAN_EXIT)  # the driver was killed; its next run extracts this item
        began = time.thread_time()
        try:
            with watching(path, self.task.stall_s):
                yield
        finally:
            self.outcome.decode_s += time.thread_time() - began

    def _guarded(self, values: Iterator[Any], path: Path) -> Iterator[Any]:
        """Yield the same values, each of which must arrive in time."""
        return watched(values, partial(self._watched, path))
