"""Windows as index tables over a batch's arrays: what a model sees at one instant.

Published rule: the last frame and the last sample belong to one instant, and the two lengths are
independent. Instants lie on the signal's samples (on frames where there is no signal). A window
needs its whole history: one with a hole behind its instant is left out, and so is, unless
windows.early says otherwise, one whose instant comes too early in its segment.
"""

import dataclasses
import zlib
from typing import Literal

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch, BatchSet
from crosswatch.errors import UserError
from crosswatch.records import Block

Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Lengths of a window; 0 frames or 0 s leaves that stream out."""

    frames: int = 10
    stride: int = 4
    signal_s: float = 60.0
    per_second: float = 2.0
    # What a segment's beginning lacks: the window is left out, or it is repeated; mask: repeated
    # frames, and samples that a model is told are not there.
    early: Literal["skip", "clamp", "mask"] = "skip"

    def __post_init__(self) -> None:
        if self.frames < 0 or self.signal_s < 0 or (self.frames == 0 and self.signal_s == 0):
            raise UserError(
                f"frames is {self.frames} and signal_s is {self.signal_s}; "
                "neither may be negative, and one has to be above 0"
            )
        if self.stride < 1 or self.per_second <= 0:
            raise UserError(
                f"stride is {self.stride} and per_second is {self.per_second}; "
                "stride is at least 1, per_second above 0"
            )

    def signal_samples(self, rate_hz: float) -> int:
        return round(self.signal_s * rate_hz)

    def video_s(self, rate_hz: float) -> float:
        """From the first to the last frame of a window."""
        return max(self.frames - 1, 0) * self.stride / rate_hz if rate_hz else 0.0

    def longest_s(self, video_rate_hz: float) -> float:
        return max(self.signal_s, self.video_s(video_rate_hz))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowTable:
    """N windows of one batch.

    Attributes:
        end_s: the instants, float64 (N,), reference clock.
        frames: frame indices, oldest first (N, F); F is 0 without video.
        signal_stop: index behind the last sample (N,); the window holds `samples` before it.
        signal_first: first sample that it may hold (N,), and repeats if it reaches further back.
        stretched: it is drawn out over the window instead, as FmFormer's released loader does.
        segment: which contiguous stretch or recording the window lies in (N,).
    """

    end_s: npt.NDArray[np.float64]
    frames: Indices
    signal_stop: Indices
    samples: int
    segment: Indices
    signal_first: Indices
    stretched: bool = False

    def __len__(self) -> int:
        return len(self.end_s)

    def take(self, keep: npt.NDArray[np.bool_] | Indices) -> "WindowTable":
        return dataclasses.replace(
            self,
            end_s=self.end_s[keep],
            frames=self.frames[keep],
            signal_stop=self.signal_stop[keep],
            segment=self.segment[keep],
            signal_first=self.signal_first[keep],
        )

    @property
    def last_frame(self) -> Indices:
        return self.frames[:, -1]

    def sample_valid(self, rows: Indices) -> npt.NDArray[np.bool_]:
        """Which of them (B, S) there are, and are not the first of the segment repeated."""
        stop, first = self.signal_stop[rows][:, None], self.signal_first[rows][:, None]
        valid: npt.NDArray[np.bool_] = stop + np.arange(-self.samples, 0) >= first
        return valid

    def sample_rows(self, rows: Indices) -> Indices:
        """Rows of the signal (B, S) that windows hold, oldest first."""
        stop, first = self.signal_stop[rows][:, None], self.signal_first[rows][:, None]
        if self.stretched and self.samples:
            count = np.minimum(stop - first, self.samples)
            share = np.arange(self.samples) / max(self.samples - 1, 1)
            drawn_out = stop - count + np.floor(share * (count - 1) + 1e-9)
            return np.asarray(drawn_out, np.int64)
        return np.asarray(np.maximum(stop + np.arange(-self.samples, 0), first), np.int64)


def window_table(batch: Batch, windows: WindowConfig) -> WindowTable:
    """Every window that the batch has a whole history for.

    Raises:
        UserError: a stream that the windows need is absent from the batch.
    """
    end_s, segment = _instants(batch, windows)
    seen_s, seen_in = end_s, segment
    if batch.released:
        seen_s = _substituted(batch, windows, end_s)
        seen_in = np.maximum(np.searchsorted(_starts(batch), seen_s, side="right") - 1, 0)
    frames, whole_video = _frames_before(batch, windows, seen_s, seen_in)
    stop, first, whole_signal = _samples_before(batch, windows, seen_s, seen_in)
    table = WindowTable(
        end_s=end_s,
        frames=frames,
        signal_stop=stop,
        signal_first=first,
        samples=windows.signal_samples(batch.signal_rate_hz),
        stretched=batch.released,
        segment=segment,
    )
    return table.take(whole_video & whole_signal)


def block_of(table: WindowTable, batch_set: BatchSet, batch: Batch, block: Block) -> WindowTable:
    """The windows whose instant lies in one block of the split."""
    keep = np.zeros(len(table), bool)
    for span in batch_set.ranges_of(batch):
        if span.block == block:
            keep |= (table.end_s >= span.start_s) & (table.end_s < span.stop_s)
    return table.take(keep)


def nearest(times_s: npt.NDArray[np.float64], wanted_s: npt.NDArray[np.float64]) -> Indices:
    """Index of the instant next to each wanted one; the earlier of two that are equally near."""
    right = np.clip(np.searchsorted(times_s, wanted_s), 1, len(times_s) - 1)
    is_left = wanted_s - times_s[right - 1] <= times_s[right] - wanted_s
    return np.where(is_left, right - 1, right)


def check_windows(batch: Batch, windows: WindowConfig) -> None:
    """Hold a batch to giving at least one window.

    Raises:
        UserError: it gives none; says whether a stream, the rate or the length is at fault.
    """
    if len(window_table(batch, windows)):
        return
    spans_s = _window_spans(batch, windows)
    allowed_s = windows.signal_s + np.array([-2, 2]) / max(batch.signal_rate_hz, 1e-9)
    if spans_s.size and not allowed_s[0] <= np.median(spans_s) <= allowed_s[1]:
        raise UserError(
            f"batch {batch.id}: gives no window: {windows.signal_s:g} s at the declared "
            f"{batch.signal_rate_hz:g} Hz are {windows.signal_samples(batch.signal_rate_hz)} "
            f"samples; by their times they span {np.median(spans_s):.1f} s, and "
            f"{2 / batch.signal_rate_hz:g} s of difference are allowed. "
            "Correct the signal's rate_hz in batch.json."
        )
    needed_s = windows.longest_s(batch.video_rate_hz)
    longest_s = max(stop - start for start, stop in batch.segments)
    raise UserError(
        f"batch {batch.id}: gives no window: a window needs {needed_s:.1f} s of all its streams "
        f"without a hole; the longest of its {len(batch.segments)} stretches lasts "
        f"{longest_s:.1f} s. Deliver longer batches or shorten windows.signal_s."
    )


def _window_spans(batch: Batch, windows: WindowConfig) -> npt.NDArray[np.float64]:
    """How long as many samples as a window holds really last, everywhere in the batch (N,)."""
    if batch.signal_times is None or windows.signal_s == 0:
        return np.empty(0)
    times_s, samples = np.asarray(batch.signal_times), windows.signal_samples(batch.signal_rate_hz)
    if not 0 < samples <= len(times_s):
        return np.empty(0)
    return times_s[samples - 1 :] - times_s[: len(times_s) - samples + 1] + 1 / batch.signal_rate_hz


def _instants(batch: Batch, windows: WindowConfig) -> tuple[npt.NDArray[np.float64], Indices]:
    clock, rate_hz = batch.signal_times, batch.signal_rate_hz
    if clock is None:
        clock, rate_hz = batch.frame_times, batch.video_rate_hz
    assert clock is not None, "a batch has at least one stream"
    step = max(1, round(rate_hz / windows.per_second))
    first, last = batch.span_s
    found: list[npt.NDArray[np.float64]] = []
    segment: list[Indices] = []
    for number, (start, stop) in enumerate(batch.segments):
        inside = clock[(clock >= max(start, first)) & (clock <= min(stop, last))]
        picked = np.asarray(inside[step - 1 :: step], np.float64)
        found.append(picked)
        segment.append(np.full(len(picked), number, np.int64))
    return np.concatenate(found), np.concatenate(segment)


def _substituted(
    batch: Batch, windows: WindowConfig, end_s: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """As FmFormer's released loader: an instant too early for its frames shows a random one.

    It draws a frame below the length of the instant's list, whatever split that frame is in.
    """
    times, seen_s = batch.frame_times, end_s.copy()
    needed = windows.frames * windows.stride - 1
    if times is None or windows.frames == 0 or len(times) <= needed:
        return seen_s
    rng = np.random.default_rng(zlib.crc32(batch.id.encode()))
    for row in np.flatnonzero(nearest(np.asarray(times), end_s) < needed):
        behind = max(_frames_listed(batch, end_s[row]), needed + 1)
        seen_s[row] = times[rng.integers(needed, behind)]
    return seen_s


def _frames_listed(batch: Batch, end_s: float) -> int:
    """How many frames the block of an instant has; all of them if it is in none."""
    assert batch.frame_times is not None
    names = [name for name, start_s, stop_s in batch.blocks if start_s <= end_s < stop_s]
    spans = np.array([span for name, *span in batch.blocks if name in names]).reshape(-1, 2)
    bounds = np.searchsorted(batch.frame_times, spans)
    return int((bounds[:, 1] - bounds[:, 0]).sum()) if names else len(batch.frame_times)


def _frames_before(
    batch: Batch, windows: WindowConfig, end_s: npt.NDArray[np.float64], segment: Indices
) -> tuple[Indices, npt.NDArray[np.bool_]]:
    if windows.frames == 0:
        return np.empty((len(end_s), 0), np.int64), np.ones(len(end_s), bool)
    if batch.frame_times is None:
        raise UserError(
            f"batch {batch.id}: has no video, but windows.frames is {windows.frames}. "
            "Set windows.frames=0 and model.modality=current."
        )
    times, starts = np.asarray(batch.frame_times), _starts(batch)
    step_s = windows.stride / batch.video_rate_hz
    wanted = end_s[:, None] - step_s * np.arange(windows.frames - 1, -1, -1)
    whole = wanted[:, 0] >= starts[segment]
    if windows.early != "skip" or batch.released:
        first = np.minimum(np.searchsorted(times, starts), len(times) - 1)
        wanted = np.maximum(wanted, times[first][segment][:, None])
        whole = np.ones(len(end_s), bool)
    at = nearest(times, wanted)
    close = np.abs(times[at] - wanted) <= max(step_s, 1.5 / batch.video_rate_hz)
    return at, close.all(axis=1) & whole


def _samples_before(
    batch: Batch, windows: WindowConfig, end_s: npt.NDArray[np.float64], segment: Indices
) -> tuple[Indices, Indices, npt.NDArray[np.bool_]]:
    """Behind the last sample, the first of the segment, and whether none is missing between."""
    if windows.signal_s == 0:
        none = np.zeros(len(end_s), np.int64)
        return none, none, np.ones(len(end_s), bool)
    if batch.signal_times is None:
        raise UserError(
            f"batch {batch.id}: has no signal, but windows.signal_s is {windows.signal_s}. "
            "Set windows.signal_s=0 and model.modality=visual."
        )
    times = np.asarray(batch.signal_times)
    samples = windows.signal_samples(batch.signal_rate_hz)
    half = 0.5 / batch.signal_rate_hz
    stop = np.searchsorted(times, end_s + half)
    first = np.searchsorted(times, _starts(batch) - half)[segment]
    oldest = np.maximum(stop - samples, first)
    whole = oldest < stop
    if windows.early == "skip" and not batch.released:
        whole &= stop - samples >= first
    held = np.minimum(samples, stop - first)
    nominal = end_s - (held - 1) / batch.signal_rate_hz
    late = np.abs(times[np.minimum(oldest, len(times) - 1)] - nominal)
    return stop, first, whole & (late <= 4 * half)


def _starts(batch: Batch) -> npt.NDArray[np.float64]:
    return np.array([start for start, _ in batch.segments], np.float64)
