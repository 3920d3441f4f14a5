"""The clock of a media file, which places each packet on one time line even if its timestamps jump or are damaged.

Pictures, sound and captions are read through `placed_packets`. It processes the packets of all of them in the order of the file,
so that all three place a jump of the clock in the same way. `FrameTimes` then computes the time of each frame.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from trichord.media.clock import LEAP_S, longest_s
from trichord.media.streams import origin_s

if TYPE_CHECKING:
    from av.container import InputContainer

CLOCK_RULES = 2
"""Version of the rules that determine the times of frames.

Version 1 used every timestamp unchanged. Frames without a presentation time, or with wrong presentation times, were out of order.
If a clock restarted, the remaining pictures were placed at past times, and the remaining sound was appended. A frame more than an
hour after the previous one, or a minute after the stated end, was dropped. Sound with overlapping timestamps was appended. Sound
of another program, or of a codec without a decoder, was preferred to sound that fits.

The results of versions 1 and 2 can differ for containers whose clock is not determined by the header (MPEG-TS, MPEG-PS, FLV, AVI,
Ogg, raw streams, ...). For Matroska and MP4, they can differ only if timestamps jump, overlap or are missing, if the stated
duration is wrong, or if other streams are selected. `clock_can_differ` returns whether they can differ for a file.
"""

BACK_S = 0.5  # a decoding time that steps back by more than this is a jump instead of jitter
_BEGIN_BACK_S = 0.2  # the same for a step back to the beginning
_OVERLAP_S = 10.0  # a single stream that steps back by at most this overlaps with itself
_HOLE_S = 60.0  # longer gaps may add up to _HOLES_S, unless the header states them
_HOLES_S = 6 * 3600.0
_BROADCAST_LEAP_S = 10.0  # leap of the clock in a container that is designed to be joined, as in the ffmpeg tool
_ADOPT_S = 1.0  # maximum distance at which a packet that jumps is placed by an earlier clock of the file
_RETURN_S = 0.3  # the same for a packet that is late by more than _ADOPT_S, but does not jump
_REORDER_S = 60.0  # maximum distance between presentation and decoding times in a broadcast container
_BROADCAST = {"mpegts", "mpeg", "live_flv", "mpegtsraw"}
_COUNTED = {"matroska", "mp4"}  # containers that have a single clock and state its duration
_PEEK_PACKETS, _PEEK_SAME, _MAX_PEEKS = 256, 4, 1000
_MAX_OFFSETS = 16  # maximum number of earlier clocks of a file that are kept


@dataclass
class _Track:
    """The state of a stream, with times in seconds on the time line of the file."""

    offset_s: float = 0.0  # offset that is added to its timestamps
    first_s: float = 0.0  # time of the first packet since the last jump
    last_s: float | None = None  # time of the last packet
    next_s: float = 0.0  # end of the last packet
    tick_s: float = 0.0  # duration of a tick of its time base
    length_s: float = 0.0  # duration of a packet that does not state its duration


@dataclass
class Timeline:
    """The clock of one file, which places packets in the order of the file.

    If the clock jumps, time continues without a gap. A jump is a decoding time that steps back, or that leaps ahead of all
    streams by more than an hour (ten seconds in MPEG-TS and MPEG-PS, as in FFmpeg). A longer gap in Matroska or MP4 is accepted
    if it ends within the duration that the header states and that is plausible for the size of the file; other gaps may add up to
    six hours. If a single stream steps back by a few seconds, it overlaps with itself, and its timestamps are kept.

    Attributes:
        container: Open container.
        indices: Indices of the streams that determine the clock.
        sought: Whether the container is not at its beginning.
        end_s: End of the packets that have been placed.
        first_jump: Time of the first jump and its size in seconds, or None.
        num_jumps: Number of jumps.
    """

    container: InputContainer
    indices: Sequence[int]
    sought: bool = False
    end_s: float = 0.0
    first_jump: tuple[float, float] | None = None
    num_jumps: int = 0

    def __post_init__(self) -> None:
        names = set(self.container.format.name.split(","))
        self.origin_s = origin_s(self.container)
        self._is_broadcast = bool(names & _BROADCAST)
        self._leap_s = _BROADCAST_LEAP_S if self._is_broadcast else LEAP_S
        self._reorder_s = _REORDER_S if self._is_broadcast else LEAP_S
        self._is_matroska = "matroska" in names
        stated_s = (self.container.duration or 0) / 1e6 if names & _COUNTED else 0.0
        self._believed_s = min(stated_s + 1.0, longest_s(self.container.size)) if stated_s else 0.0
        self._tracks = {index: _Track() for index in self.indices}
        self._video = next((i for i in self.indices if self.container.streams[i].type == "video"), None)
        self._offsets_s = [0.0]
        self._has_begun, self._num_peeks, self._holes_s = not self.sought, 0, 0.0

    def place(self, packet: Any, ahead: Callable[[], Iterator[Any]]) -> None:
        """Move the timestamps of a packet to the time line.

        Args:
            packet: Packet, which is changed in place.
            ahead: Function that returns the packets after it. It is called if the clock jumps.
        """
        stream, pts, dts = packet.stream, packet.pts, packet.dts
        track = self._tracks.get(stream.index)
        if track is None:
            self._shift(packet, self._nearest_s(packet))
            return
        if not track.tick_s:
            track.tick_s, track.length_s = float(packet.time_base), _interval_s(stream)
        duration, tick_s = packet.duration, track.tick_s
        length_s = duration * tick_s if duration else track.length_s
        if dts is None:
            self._place_by_pts(packet, track, length_s)
            return
        time_s = dts * tick_s - self.origin_s + track.offset_s
        if track.last_s is None or not track.last_s <= time_s <= track.next_s + _ADOPT_S:
            time_s = self._settle(packet, track, dts * tick_s - self.origin_s, ahead)
        track.last_s = shown_s = time_s
        if pts is not None and pts != dts:
            if abs(pts - dts) * tick_s > self._reorder_s:
                packet.pts = None
            else:
                shown_s = max(time_s, pts * tick_s - self.origin_s + track.offset_s)
        if track.offset_s:
            self._shift(packet, track.offset_s)
        self._advance(track, shown_s + (length_s if length_s < LEAP_S else LEAP_S))

    def _settle(self, packet: Any, track: _Track, stamp_s: float, ahead: Callable[[], Iterator[Any]]) -> float:
        """Return the time of a packet that does not follow the previous one: after a jump or a gap, or at the beginning."""
        time_s = stamp_s + track.offset_s
        jump_s = self._jump(track, time_s)
        if jump_s:
            self._move(packet, jump_s, ahead())
        elif len(self._offsets_s) > 1 and time_s - track.next_s > _ADOPT_S:
            self._return(track, stamp_s)
        hole_s = stamp_s + track.offset_s - max(self.end_s, track.next_s)
        if self._has_begun and hole_s > _HOLE_S:
            self._holes_s += hole_s
        if jump_s or track.last_s is None:
            track.first_s = stamp_s + track.offset_s
        return stamp_s + track.offset_s

    def _place_by_pts(self, packet: Any, track: _Track, length_s: float) -> None:
        """Place a packet without a decoding time, or without any timestamp."""
        if packet.pts is not None:
            time_s = self._stamp_s(packet, packet.pts) + track.offset_s
            if self._has_begun and time_s - max(self.end_s, track.next_s) > self._limit_s(time_s):
                packet.pts = None
                return
            self._shift(packet, track.offset_s)
            self._advance(track, time_s + min(length_s, LEAP_S))
        elif packet.size:
            self._advance(track, track.next_s + length_s)

    def _advance(self, track: _Track, next_s: float) -> None:
        """Set the end of the last packet of a stream."""
        track.next_s = next_s
        if next_s > self.end_s:
            self.end_s = next_s
        self._has_begun = True

    def notes(self) -> list[str]:
        """Return a list with one note about the jumps of the clock, or an empty list."""
        if self.first_jump is None:
            return []
        (time_s, by_s), more = self.first_jump, self.num_jumps - 1
        others = f", and {more} times more" if more > 1 else ", and once more" if more else ""
        where = f"jump by {by_s:+.1f} s at {time_s:.1f} s{others}"
        return [f"its timestamps {where}; this is treated as a joint or as damage, and time continues without a gap"]

    def is_moved(self, packet: Any) -> bool:
        """Return whether the clock jumped between the beginning of the file and a packet that was placed."""
        track = self._tracks.get(packet.stream.index)
        return track is not None and track.offset_s != 0.0

    def is_beyond(self, time_s: float) -> bool:
        """Return whether the time of a frame is ahead of all packets by more than a clock may leap."""
        return time_s > self.end_s + LEAP_S

    # ---- jumps

    def _limit_s(self, time_s: float) -> float:
        """Return the maximum duration of a gap that ends at `time_s`."""
        return math.inf if time_s <= self._believed_s else min(self._leap_s, max(_HOLES_S - self._holes_s, _HOLE_S))

    def _jump(self, track: _Track, time_s: float) -> float:
        """Return the number of seconds by which the clock jumps at a packet, or 0.0 if it continues."""
        if track.last_s is not None and time_s < track.last_s:
            back_s = track.last_s - time_s
            to_begin = time_s <= track.first_s + 0.05
            return -back_s if back_s > (_BEGIN_BACK_S if to_begin else BACK_S) else 0.0
        hole_s = time_s - max(self.end_s, track.next_s)
        return hole_s if self._has_begun and hole_s > self._limit_s(time_s) else 0.0

    def _move(self, packet: Any, jump_s: float, ahead: Iterator[Any]) -> None:
        """Set a new offset for a stream that jumps."""
        index, stamp_s = packet.stream.index, self._stamp_s(packet, packet.dts)
        track = self._tracks[index]
        for offset_s in reversed(self._offsets_s):
            time_s = stamp_s + offset_s
            is_last = offset_s == self._offsets_s[-1]
            is_close = is_last or abs(time_s - track.next_s) <= _ADOPT_S or abs(time_s - self.end_s) <= _ADOPT_S
            if offset_s != track.offset_s and is_close and not self._jump(track, time_s):
                self._set_offset(track, offset_s)
                return
        ends_s = {i: other.next_s for i, other in self._tracks.items()}
        together = self._jumping(packet, ahead, ends_s)
        is_alone = together == {} if together is not None else self._is_matroska and jump_s < 0
        to_begin = stamp_s + track.offset_s <= track.first_s + 0.05
        if is_alone and not to_begin and -_OVERLAP_S <= jump_s < 0:
            return
        if together:
            offset_s = self._joint_s({index: self._shown_s(packet), **together}, ends_s)
        else:
            offset_s = (track.next_s if is_alone or jump_s > 0 else self.end_s) - self._shown_s(packet)
        self.first_jump = self.first_jump or (self._shown_s(packet) + offset_s, jump_s)
        self.num_jumps += 1
        self._set_offset(track, offset_s)

    def _return(self, track: _Track, stamp_s: float) -> None:
        """Return to an earlier clock of the file if there is no gap according to it."""
        for offset_s in reversed(self._offsets_s):
            if abs(stamp_s + offset_s - track.next_s) <= _RETURN_S:
                self._set_offset(track, offset_s)
                return

    def _joint_s(self, starts_s: dict[int, float], ends_s: dict[int, float]) -> float:
        """Return the offset of a part after a joint. Its pictures follow the previous ones, unless sound lasts much longer.

        Pictures thus stay in time over many joints, even though the sound of a part is usually some hundredths of a second longer.
        """
        end_s = max(self.end_s, *ends_s.values())
        if self._video in starts_s and end_s - ends_s[self._video] <= BACK_S:
            return ends_s[self._video] - starts_s[self._video]
        return end_s - min(starts_s.values())

    def _set_offset(self, track: _Track, offset_s: float) -> None:
        track.offset_s = offset_s
        earlier = [other_s for other_s in self._offsets_s if other_s != offset_s]
        self._offsets_s = [*earlier[-_MAX_OFFSETS:], offset_s]

    def _jumping(self, packet: Any, ahead: Iterator[Any], ends_s: dict[int, float]) -> dict[int, float] | None:
        """Return the other streams that jump together with the stream of `packet`, and the times at which they continue.

        The result is empty if the other streams do not jump, and None if there are no other streams or no further packets.
        `ends_s`, the end of each stream before the jump, is updated, because transport streams delay packets beyond a joint.
        """
        others = {i: 0 for i, track in self._tracks.items() if i != packet.stream.index and track.last_s is not None}
        if not others or self._num_peeks >= _MAX_PEEKS:
            return None
        self._num_peeks += 1
        starts_s: dict[int, float] = {}
        for _, other in zip(range(_PEEK_PACKETS), ahead, strict=False):
            index = other.stream.index
            if index not in others or index in starts_s or other.dts is None:
                continue
            track = self._tracks[index]
            if self._jump(track, self._stamp_s(other, other.dts) + track.offset_s):
                starts_s[index] = self._shown_s(other)
            else:
                length_s = (other.duration or 0) * track.tick_s or track.length_s
                ends_s[index] = max(ends_s[index], self._shown_s(other) + track.offset_s + length_s)
            others[index] += 1
            if all(i in starts_s or count >= _PEEK_SAME for i, count in others.items()):
                break
        return starts_s if any(others.values()) else None

    # ---- stamps

    def _nearest_s(self, packet: Any) -> float:
        """Return the offset that places a packet of captions closest to the packets that were placed last."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or len(self._offsets_s) == 1:
            return 0.0
        stamp_s = self._stamp_s(packet, stamp)
        return min(reversed(self._offsets_s), key=lambda offset_s: abs(stamp_s + offset_s - self.end_s))

    def _stamp_s(self, packet: Any, ticks: int) -> float:
        return float(ticks * packet.time_base) - self.origin_s

    def _shown_s(self, packet: Any) -> float:
        """Return the time at which a packet is shown, by its own timestamps.

        This is its decoding time if its presentation time is too far from it.
        """
        dts_s = self._stamp_s(packet, packet.dts)
        pts_s = dts_s if packet.pts is None else self._stamp_s(packet, packet.pts)
        return pts_s if abs(pts_s - dts_s) <= self._reorder_s else dts_s

    @staticmethod
    def _shift(packet: Any, offset_s: float) -> None:
        if offset_s:
            ticks = round(offset_s / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks


def _interval_s(stream: Any) -> float:
    """Return the interval between the frames of a video stream, or 0.0 for other streams."""
    rate = (stream.average_rate or stream.guessed_rate) if stream.type == "video" else None
    return float(1 / rate) if rate else 0.0


def placed_packets(container: InputContainer, streams: Sequence[Any], timeline: Timeline) -> Iterator[Any]:
    """Iterate over the packets of streams, with their timestamps on the time line.

    An error of the demuxer is raised after the packets before it.

    Args:
        container: Open container.
        streams: Streams to read.
        timeline: Clock of the file.

    Yields:
        Packets.
    """
    source = container.demux(list(streams))
    pending: deque[Any] = deque()
    failures: list[Exception] = []

    def ahead() -> Iterator[Any]:
        yield from tuple(pending)
        while not failures:
            try:
                packet = next(source)
            except StopIteration:
                return
            except Exception as error:  # raised below, after the pending packets
                failures.append(error)
                return
            pending.append(packet)
            yield packet

    while True:
        if pending:
            packet = pending.popleft()
        elif failures:
            raise failures[0]
        else:
            try:
                packet = next(source)
            except StopIteration:
                return
        timeline.place(packet, ahead)
        yield _undiscarded(packet) if packet.is_discard and timeline.is_moved(packet) else packet


def _undiscarded(packet: Any) -> Any:
    """Return a copy of a packet without the flag that tells FFmpeg to discard its frames.

    FFmpeg sets this flag for packets of fragmented MP4 files whose times have passed already. After a joint, they are not
    repetitions.
    """
    import av

    copy: Any = av.Packet(bytes(packet))
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration, copy.is_keyframe = packet.pts, packet.dts, packet.duration, packet.is_keyframe
    for side_data in packet.iter_sidedata():
        copy.set_sidedata(side_data)
    return copy


class FrameTimes:
    """The times of the frames of a stream: the best-effort timestamps of FFmpeg, in increasing order.

    Like FFmpeg, it counts how often presentation times and decoding times do not increase, and uses the presentation time unless
    presentation times are worse. A frame without either time begins at the end of the previous frame.

    Args:
        in_order: Whether a frame that is not later than the previous one is placed half a frame after it.
        first: First timestamp of the stream in ticks, at which earlier frames without a time are placed, or None if the stream
            has none.
    """

    def __init__(self, in_order: bool, first: int | None = None) -> None:
        self._in_order, self._first = in_order, first
        self._last_pts = self._last_dts = -math.inf
        self._num_bad_pts = self._num_bad_dts = 0
        self._last: float | None = None
        self._last_length_s: float = 0.0
        self._is_moved = False
        self._steps = (0.0, 0.0)  # intervals between the latest frames that were in order

    def ticks_of(self, frame: Any, length_s: float, base: Fraction) -> float:
        """Return the time of a frame.

        Args:
            frame: Frame.
            length_s: Duration of the frame in seconds.
            base: Duration of a tick in seconds.

        Returns:
            The time in ticks.
        """
        guess, is_moved = self._guess(frame.pts, frame.dts), False
        if self._last is None:
            if guess is None:
                guess, length_s = (0, length_s) if self._first is None else (self._first, 0.0)
        elif guess is None:
            guess, length_s = self._last + self._last_length_s / base, length_s if self._last_length_s else 0.0
        elif self._in_order and guess <= self._last:
            step = (
                min(self._steps) or self._last_length_s / base
            )  # AVI may state a duration of one tick for every frame
            guess, is_moved = self._last + step / (1 if frame.dts is None else 2), True
        elif not self._is_moved:
            self._steps = self._steps[1], guess - self._last
        self._last, self._last_length_s, self._is_moved = guess, length_s, is_moved
        return guess

    def _guess(self, pts: int | None, dts: int | None) -> float | None:
        if dts is not None:
            self._num_bad_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._num_bad_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self._num_bad_pts <= self._num_bad_dts):
            return pts
        return dts
