"""The clock of a media file: where each packet lies on one time line, whatever its own time stamps say.

Pictures, sound and captions read a file through `placed_packets`. It sees the packets of all of them in the order in which
they lie in the file, so that all three place a jump of the clock alike. `FrameTimes` then gives the time of each frame.
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
"""Version of the rules that give frames their times.

Rules 1 took every time stamp as it was: frames without a presentation time, and those whose presentation times are wrong,
were out of order; a clock that restarts put the rest of the pictures at times that had passed, and appended the rest of the
sound; a frame more than an hour past the one before it, or a minute past the stated end, was dropped; sound whose stamps
overlap was appended; sound of another program, or of a codec without a decoder, was preferred to one that fits.

Results of rules 1 and 2 can differ for containers whose clock is not counted by the header (MPEG-TS, MPEG-PS, FLV, AVI, Ogg, raw
streams, ...), for Matroska and MP4 only where stamps jump, overlap or are missing, where the stated length is wrong, or where
streams are chosen otherwise. `clock_can_differ` says which a file is.
"""

BACK_S = 0.5  # a decoding time that steps back further is a jump, not jitter
_BEGIN_BACK_S = 0.2  # the same, where it steps back to the beginning
_OVERLAP_S = 10.0  # one stream alone that steps back by up to this overlaps with itself
_HOLE_S = 60.0  # longer holes may add up to _HOLES_S, unless the header states them
_HOLES_S = 6 * 3600.0
_BROADCAST_LEAP_S = 10.0  # a leap of the clock of a container that is made to be joined; FFmpeg's own tool has the same
_ADOPT_S = 1.0  # how closely a packet that jumps must fit to be placed by an earlier clock of the file
_RETURN_S = 0.3  # the same of one that is late by more than that, but does not jump
_REORDER_S = 60.0  # a presentation time is at most this far from the decoding time in a broadcast container
_BROADCAST = {"mpegts", "mpeg", "live_flv", "mpegtsraw"}
_COUNTED = {"matroska", "mp4"}  # containers that count in one clock, and state its length
_PEEK_PACKETS, _PEEK_SAME, _MAX_PEEKS = 256, 4, 1000
_MAX_OFFSETS = 16  # earlier clocks of a file that are remembered


@dataclass
class _Track:
    """Where a stream stands: times in seconds on the file's time line."""

    offset_s: float = 0.0  # added to its stamps
    first_s: float = 0.0  # of its packets since the last jump
    last_s: float | None = None  # of its last packet
    next_s: float = 0.0  # end of its last packet
    tick_s: float = 0.0  # of its time base
    length_s: float = 0.0  # of a packet that does not say how long it lasts


@dataclass
class Timeline:
    """The clock of one file, as its packets go by in the order of the file.

    Time goes on where a clock jumps: where a decoding time steps back, or leaps ahead of all streams by more than an hour (ten
    seconds in MPEG-TS and MPEG-PS, as FFmpeg has it). A longer hole of Matroska or MP4 is believed where it ends within
    the length that the header states and a file of that size can have; other holes may add up to six hours. Where one
    stream alone steps back by a few seconds, it overlaps with itself: its stamps are kept.

    Attributes:
        end_s: The end of what has gone by.
        first_jump: (time, seconds that the clock jumped), or None.
        num_jumps: How often it jumped.
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
        """Bring a packet's stamps onto the time line. `ahead`, called where the clock jumps, gives the packets after it."""
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
        self._go_on(track, shown_s + (length_s if length_s < LEAP_S else LEAP_S))

    def _settle(self, packet: Any, track: _Track, stamp_s: float, ahead: Callable[[], Iterator[Any]]) -> float:
        """The time of a packet that does not follow the one before it: after a jump, a hole, or at the beginning."""
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
        """Place a packet without a decoding time, or without any."""
        if packet.pts is not None:
            time_s = self._stamp_s(packet, packet.pts) + track.offset_s
            if self._has_begun and time_s - max(self.end_s, track.next_s) > self._limit_s(time_s):
                packet.pts = None
                return
            self._shift(packet, track.offset_s)
            self._go_on(track, time_s + min(length_s, LEAP_S))
        elif packet.size:
            self._go_on(track, track.next_s + length_s)

    def _go_on(self, track: _Track, next_s: float) -> None:
        track.next_s = next_s
        if next_s > self.end_s:
            self.end_s = next_s
        self._has_begun = True

    def notes(self) -> list[str]:
        """What to tell of the clock, in one line or none."""
        if self.first_jump is None:
            return []
        (time_s, by_s), more = self.first_jump, self.num_jumps - 1
        others = f", and {more} times more" if more > 1 else ", and once more" if more else ""
        where = f"jump by {by_s:+.1f} s at {time_s:.1f} s{others}"
        return [f"its time stamps {where}; this is taken as a joint or as damaged stamps, and time goes on there"]

    def is_moved(self, packet: Any) -> bool:
        """Whether a joint lies between the beginning of the file and a packet that was placed."""
        track = self._tracks.get(packet.stream.index)
        return track is not None and track.offset_s != 0.0

    def is_beyond(self, time_s: float) -> bool:
        """Whether a frame's time is ahead of all packets by more than its clock may leap."""
        return time_s > self.end_s + LEAP_S

    # ---- jumps

    def _limit_s(self, time_s: float) -> float:
        """How long a hole before `time_s` may be."""
        return math.inf if time_s <= self._believed_s else min(self._leap_s, max(_HOLES_S - self._holes_s, _HOLE_S))

    def _jump(self, track: _Track, time_s: float) -> float:
        """By how many seconds the clock jumps at a packet; 0.0 if it goes on."""
        if track.last_s is not None and time_s < track.last_s:
            back_s = track.last_s - time_s
            to_begin = time_s <= track.first_s + 0.05
            return -back_s if back_s > (_BEGIN_BACK_S if to_begin else BACK_S) else 0.0
        hole_s = time_s - max(self.end_s, track.next_s)
        return hole_s if self._has_begun and hole_s > self._limit_s(time_s) else 0.0

    def _move(self, packet: Any, jump_s: float, ahead: Iterator[Any]) -> None:
        """Give a stream that jumps a new offset."""
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
        """Return to an earlier clock of the file, by which a hole is none."""
        for offset_s in reversed(self._offsets_s):
            if abs(stamp_s + offset_s - track.next_s) <= _RETURN_S:
                self._set_offset(track, offset_s)
                return

    def _joint_s(self, starts_s: dict[int, float], ends_s: dict[int, float]) -> float:
        """The offset of a part that follows a joint: its pictures follow those before, unless sound goes on for much longer.

        So pictures stay in time over many joints, though the sound of a part is mostly some hundredths of a second longer.
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
        """The other streams that jump where the stream of `packet` does, and where they begin then.

        Empty where the others go on; None where there are no others, or none comes any more. `ends_s`, where each stream ends
        before the jump, is brought up to date: transport streams hold packets back beyond a joint.
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
        """For a stream of captions: the offset that brings its packet closest to what goes by."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or len(self._offsets_s) == 1:
            return 0.0
        stamp_s = self._stamp_s(packet, stamp)
        return min(reversed(self._offsets_s), key=lambda offset_s: abs(stamp_s + offset_s - self.end_s))

    def _stamp_s(self, packet: Any, ticks: int) -> float:
        return float(ticks * packet.time_base) - self.origin_s

    def _shown_s(self, packet: Any) -> float:
        """The time at which a packet is shown, by its own stamps; its presentation time must be near its decoding time."""
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
    """One interval of a video's rate; 0.0 for other streams."""
    rate = (stream.average_rate or stream.guessed_rate) if stream.type == "video" else None
    return float(1 / rate) if rate else 0.0


def placed_packets(container: InputContainer, streams: Sequence[Any], timeline: Timeline) -> Iterator[Any]:
    """The packets of `streams` with their stamps on the time line. Raises what the demuxer raises, after what came before."""
    source = container.demux(list(streams))
    held: deque[Any] = deque()
    failures: list[Exception] = []

    def ahead() -> Iterator[Any]:
        yield from tuple(held)
        while not failures:
            try:
                packet = next(source)
            except StopIteration:
                return
            except Exception as error:  # it comes up again below, in its place
                failures.append(error)
                return
            held.append(packet)
            yield packet

    while True:
        if held:
            packet = held.popleft()
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
    """The packet without the mark by which FFmpeg drops what it decodes.

    FFmpeg marks the packets of an MP4's fragments whose times have gone by before. After a joint they are no repetition.
    """
    import av

    copy: Any = av.Packet(bytes(packet))
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration, copy.is_keyframe = packet.pts, packet.dts, packet.duration, packet.is_keyframe
    for side_data in packet.iter_sidedata():
        copy.set_sidedata(side_data)
    return copy


class FrameTimes:
    """The ticks of each frame of a stream: FFmpeg's best-effort time stamps, brought into order.

    As FFmpeg does, it counts how often presentation times, and decoding times, do not ascend, and takes the presentation
    time unless those are the worse. A frame without either begins where the one before it ends.

    Args:
        in_order: A frame that is not later than the one before it follows that by half a frame.
        first: The stream's first time stamp in ticks, on which frames without a time stand that come before it; None where the
            stream has none.
    """

    def __init__(self, in_order: bool, first: int | None = None) -> None:
        self._in_order, self._first = in_order, first
        self._last_pts = self._last_dts = -math.inf
        self._num_bad_pts = self._num_bad_dts = 0
        self._last: float | None = None
        self._last_length_s: float = 0.0
        self._is_moved = False
        self._steps = (0.0, 0.0)  # between the latest frames in order

    def ticks_of(self, frame: Any, length_s: float, base: Fraction) -> float:
        """Its time in ticks of `base` seconds; `length_s`: how long it lasts."""
        guess, is_moved = self._guess(frame.pts, frame.dts), False
        if self._last is None:
            if guess is None:
                guess, length_s = (0, length_s) if self._first is None else (self._first, 0.0)
        elif guess is None:
            guess, length_s = self._last + self._last_length_s / base, length_s if self._last_length_s else 0.0
        elif self._in_order and guess <= self._last:
            step = min(self._steps) or self._last_length_s / base  # AVI may say that every frame lasts for one tick
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
