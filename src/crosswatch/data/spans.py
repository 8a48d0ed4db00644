"""When streams speak: their silences, and the stretches that all of them cover."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosswatch.data import signals
from crosswatch.errors import ADVICE, BadBatchError

Spans = tuple[tuple[float, float], ...]
FloatArray = npt.NDArray[np.float64]


def silences(times_s: FloatArray, seconds: float) -> Spans:
    """Gaps longer than this, and than two and a half periods: a slow stream is not all gaps."""
    if times_s.size < 2:
        return ()
    longest_s = max(seconds, 2.5 * float(np.median(np.diff(times_s))))
    return signals.find_gaps(times_s, longer_than_s=longest_s)


def span_of(times: Sequence[FloatArray]) -> tuple[float, float]:
    """From the first instant of any stream to the last of any."""
    return min(float(t[0]) for t in times), max(float(t[-1]) for t in times)


def common_span(times: Sequence[FloatArray]) -> tuple[float, float]:
    """From the last stream's first instant to the first stream's last; may be upside down."""
    return max(float(t[0]) for t in times), min(float(t[-1]) for t in times)


def segments(times: Sequence[FloatArray], max_gap_s: float) -> Spans:
    """Stretches that every stream covers without a longer silence.

    Raises:
        BadBatchError: there is none.
    """
    start_s, stop_s = common_span(times)
    gaps = sorted(
        gap for t in times for gap in silences(t, max_gap_s) if gap[1] > start_s and gap[0] < stop_s
    )
    spans: list[tuple[float, float]] = []
    for gap_start_s, gap_stop_s in gaps:
        if gap_start_s > start_s:
            spans.append((start_s, gap_start_s))
        start_s = max(start_s, gap_stop_s)
    if start_s < stop_s:
        spans.append((start_s, stop_s))
    if not spans:
        raise BadBatchError(
            f"the streams never speak together for longer than their gaps of over {max_gap_s:g} s. "
            f"{ADVICE}"
        )
    return tuple(spans)


def covered_share(spans: Spans, batch_s: tuple[float, float]) -> float:
    length_s = batch_s[1] - batch_s[0]
    return sum(stop - start for start, stop in spans) / length_s if length_s > 0 else 0.0
