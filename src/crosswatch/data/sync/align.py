"""Every stream on the reference clock: the control system's, or the camera's where that is absent.

A stream on the reference's own clock needs nothing; every other clock is given, read off pulses
that both clocks saw, or found from what both streams show. A clock that was reset says each time
anew where it stands: its stretches are placed one by one, in their order.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from crosswatch.data.sync import triggers
from crosswatch.data.sync.clocks import Check, ClockMap, Course, Finding, FloatArray, Trace, at_most
from crosswatch.data.sync.estimate import SyncConfig, look, search
from crosswatch.errors import BadBatchError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """A stream on its own clock, and what in it tells the time."""

    course: Course
    clock: str
    triggers_s: FloatArray | None = None
    pieces: npt.NDArray[np.int64] | None = None  # resets of the clock before each instant

    @property
    def resets(self) -> int:
        return 0 if self.pieces is None else int(self.pieces[-1] - self.pieces[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """A clock's difference from the reference that the user told."""

    offset_s: float
    drift_ppm: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """What a stream recorded between two resets of its clock."""

    rows: slice
    start_s: float  # on the stream's clock
    stop_s: float
    clock: ClockMap
    lost: str = ""  # why it cannot be placed; it is left out then

    @property
    def length_s(self) -> float:
        return self.stop_s - self.start_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aligned:
    """A stream's place on the reference clock, and the limits that it was held to."""

    stream: str
    clock: str
    stretches: tuple[Stretch, ...]
    checks: tuple[Check, ...] = ()
    trace: Trace | None = None
    warnings: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        return next((check.refusal for check in self.checks if not check.passed), "")

    @property
    def main(self) -> ClockMap:
        """The clock of the longest stretch that could be placed."""
        placed = [stretch for stretch in self.stretches if not stretch.lost] or self.stretches
        return max(placed, key=lambda stretch: stretch.length_s).clock

    def kept(self, times_s: FloatArray) -> npt.NDArray[np.bool_]:
        """Which of the stream's instants have a place on the reference clock.

        Where stretches meet, their offsets' errors may lay the end of one over the beginning of
        the next: of those instants the first stay.
        """
        if len(self.stretches) == 1:
            return np.ones(times_s.size, np.bool_)
        mapped_s, kept, last_s = (
            self.to_reference(times_s),
            np.zeros(times_s.size, np.bool_),
            -math.inf,
        )
        for stretch in self.stretches:
            if not stretch.lost:
                kept[stretch.rows] = mapped_s[stretch.rows] > last_s
                last_s = max(last_s, float(mapped_s[stretch.rows][-1]))
        return kept

    def instant(self, time_s: float) -> float:
        """One instant of a stream that may have been reset; NaN where no stretch holds it.

        Raises:
            BadBatchError: the clock said so twice.
        """
        if len(self.stretches) == 1:
            return float(self.stretches[0].clock.to_reference(np.array([time_s]))[0])
        held = [each for each in self.stretches if each.start_s <= time_s <= each.stop_s]
        if len(held) > 1:
            raise BadBatchError(
                f"the {self.stream}'s clock was reset: it said {time_s:.3f} s {len(held)} times, "
                "and a note does not say which is meant. Give notes on the reference clock."
            )
        placed = [each for each in held if not each.lost]
        return float(placed[0].clock.to_reference(np.array([time_s]))[0]) if placed else math.nan

    def to_reference(self, times_s: FloatArray) -> FloatArray:
        """All instants of the stream, or of one that lies on its clock and was never reset."""
        if len(self.stretches) == 1:
            return self.stretches[0].clock.to_reference(times_s)
        parts = [each.clock.to_reference(times_s[each.rows]) for each in self.stretches]
        return np.concatenate(parts)


def align(
    moving: Timeline,
    reference: Timeline,
    config: SyncConfig,
    *,
    known: Known | None = None,
    how: Literal["auto", "features", "triggers", "given"] = "auto",
) -> Aligned:
    """Place a stream that was never reset, by the surest means that there is for it."""
    warnings: list[str] = []
    if moving.clock == reference.clock:
        clock = ClockMap(method="one clock, nothing to align", t_mid_s=_middle_s(moving))
        found = Finding(clock=clock)
    elif known is not None:
        found = Finding(
            clock=ClockMap(
                method="given",
                offset_s=known.offset_s,
                drift_ppm=known.drift_ppm,
                t_mid_s=_middle_s(moving),
            )
        )
    else:
        found = _found(moving, reference, config, how, warnings)
    trace = found.trace
    if trace is None and not found.refusal:
        trace = look(moving.course, reference.course, config, found.clock.offset_s)
    return Aligned(
        stream=moving.course.stream,
        clock=moving.clock,
        stretches=(_stretch(moving.course.times_s, slice(0, None), found.clock),),
        checks=found.checks,
        trace=trace,
        warnings=tuple(warnings),
    )


def unaligned(stream: str, clock: str, times_s: FloatArray, method: str) -> Aligned:
    """The reference itself."""
    mapped = ClockMap(method=method, t_mid_s=float(times_s[0] + times_s[-1]) / 2)
    return Aligned(
        stream=stream, clock=clock, stretches=(_stretch(times_s, slice(0, None), mapped),)
    )


def along_with(audio: Timeline, camera: Aligned) -> Aligned:
    """Sound on the camera's clock lies where the pictures lie."""
    alone = len(camera.stretches) == 1
    check = at_most(
        "audio",
        "resets",
        len(camera.stretches) - 1,
        0,
        "sync outside limits: audio is on the camera's clock, which was reset "
        f"{len(camera.stretches) - 1} times; nobody knows which of its stretches the sound "
        "belongs to. Record the sound on a clock of its own, or set sync.audio_lag_s.",
    )
    clock = dataclasses.replace(camera.main, method=f"the camera's: {camera.main.method}")
    return Aligned(
        stream="audio",
        clock=audio.clock,
        stretches=(_stretch(audio.course.times_s, slice(0, None), clock),),
        checks=() if alone else (check,),
    )


def align_to_camera(audio: Timeline, camera: Timeline, config: SyncConfig) -> Aligned:
    """Without a control system the camera's clock is the reference, and its cells follow the sound.

    The search wants one series as the reference and cells that may follow it, so it is done the
    other way round, and its answer turned.
    """
    loudness = audio.course.mean()
    found = search(camera.course, loudness, config, about="audio")
    clock = dataclasses.replace(
        found.clock.inverse(), method=f"{loudness.feature} against {camera.course.feature}"
    )
    return Aligned(
        stream="audio",
        clock=audio.clock,
        stretches=(_stretch(audio.course.times_s, slice(0, None), clock),),
        checks=found.checks,
        trace=None if found.trace is None else found.trace.turned(),
    )


def _found(
    moving: Timeline, reference: Timeline, config: SyncConfig, how: str, warnings: list[str]
) -> Finding:
    both = moving.triggers_s is not None and reference.triggers_s is not None
    if how == "triggers" or (how == "auto" and both):
        found = triggers.match(
            moving.course.stream,
            np.empty(0) if moving.triggers_s is None else moving.triggers_s,
            np.empty(0) if reference.triggers_s is None else reference.triggers_s,
            _middle_s(moving),
            config,
        )
        if how == "triggers" or not found.refusal:
            return found
        warnings.append(f"triggers were not used for the {moving.course.stream}: {found.refusal}")
    return search(moving.course, reference.course, config)


def _middle_s(stream: Timeline) -> float:
    return float(stream.course.times_s[0] + stream.course.times_s[-1]) / 2


def _stretch(times_s: FloatArray, rows: slice, clock: ClockMap, lost: str = "") -> Stretch:
    inside = times_s[rows]
    return Stretch(
        rows=rows, start_s=float(inside[0]), stop_s=float(inside[-1]), clock=clock, lost=lost
    )
