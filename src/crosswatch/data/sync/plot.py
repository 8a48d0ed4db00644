"""What a person looks at to believe an alignment: both streams before and after, and the lag.

The arithmetic is `lag`'s; a picture of it shows at a glance what a number hides: a peak that is
broad, or one of two.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from crosswatch.data.sync.align import Aligned
from crosswatch.data.sync.clocks import FloatArray, Trace

SECONDS = 40.0  # as much as one can follow by eye
SERIES, MOVING = "#1f77b4", "#d9730d"


def draw_alignment(title: str, aligned: Sequence[Aligned]) -> bytes | None:
    """A PNG with a row for each stream that was compared; None where none was."""
    rows = [(each, each.trace) for each in aligned if each.trace is not None]
    if not rows:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 0.5 + 2.3 * len(rows)
    figure = Figure(figsize=(12.0, height), dpi=80)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9, y=1 - 0.12 / height)
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(2, 2, 1.4))
    edge = {"left": 0.045, "right": 0.99, "wspace": 0.14, "hspace": 0.5}
    figure.subplots_adjust(bottom=0.5 / height, top=1 - 0.6 / height, **edge)
    for axes, (each, trace) in zip(grid, rows, strict=True):
        _draw_streams(axes[0], axes[1], each, trace)
        _draw_agreement(axes[2], each, trace)
    written = io.BytesIO()
    figure.savefig(written, format="png", metadata={"Software": None})
    return written.getvalue()


def _draw_streams(before: Any, after: Any, aligned: Aligned, trace: Trace) -> None:
    start_s = _liveliest_s(trace, aligned)
    for axes, name, moving_s in (
        (before, "as stamped", trace.moving_s),
        (after, "aligned", aligned.main.to_reference(trace.moving_s)),
    ):
        for times_s, values, colour, label in (
            (trace.series_s, trace.series, SERIES, trace.names[1]),
            (moving_s, trace.moving, MOVING, trace.names[0]),
        ):
            seen = (times_s >= start_s) & (times_s <= start_s + SECONDS)
            axes.plot(times_s[seen], values[seen], color=colour, linewidth=1.0, label=label)
        axes.set_title(f"{aligned.stream}: {name}", fontsize=9)
        axes.set_xlabel("s on the reference clock", fontsize=8)
        axes.set_xlim(start_s, start_s + SECONDS)
        axes.tick_params(labelsize=7)
    before.set_ylabel("robust deviations", fontsize=8)
    before.legend(loc="upper right", fontsize=7)


def _draw_agreement(axes: Any, aligned: Aligned, trace: Trace) -> None:
    clock = aligned.main
    axes.plot(trace.offsets_s, trace.agreement, color="0.3", linewidth=1.0)
    if clock.offset_low_s is not None and clock.offset_high_s is not None:
        axes.axvspan(clock.offset_low_s, clock.offset_high_s, color=MOVING, alpha=0.3, linewidth=0)
    axes.axvline(clock.offset_s, color=MOVING, linewidth=1.0)
    bound = "" if clock.half_width_s is None else f" ± {clock.half_width_s:.3f}"
    refused = ", refused" if aligned.refusal else ""
    axes.set_title(f"agreement: {clock.offset_s:+.3f}{bound} s{refused}", fontsize=9)
    axes.set_xlabel(f"offset in s, {clock.method[:48]}", fontsize=8)
    axes.tick_params(labelsize=7)


def _liveliest_s(trace: Trace, aligned: Aligned) -> float:
    """Where the stretch begins in which both streams move most."""
    moved_s: FloatArray = aligned.main.to_reference(trace.moving_s)
    first_s = max(float(trace.series_s[0]), float(moved_s[0]))
    last_s = min(float(trace.series_s[-1]), float(moved_s[-1])) - SECONDS
    if last_s <= first_s:
        return first_s
    starts_s = np.arange(first_s, last_s, SECONDS / 4)
    energy = np.zeros(starts_s.size)
    for times_s, values in ((trace.series_s, trace.series), (moved_s, trace.moving)):
        area = np.concatenate([[0.0], np.cumsum(values**2)])
        stop = np.searchsorted(times_s, starts_s + SECONDS)
        energy += (area[stop] - area[np.searchsorted(times_s, starts_s)]) / area[-1].clip(1e-9)
    return float(starts_s[energy.argmax()])
