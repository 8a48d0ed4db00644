"""The expert's notes: sparse, a little late or early, with boxes drawn by hand."""

import numpy as np
from numpy.typing import NDArray

from crosswatch.synthetic.glow import Glow
from crosswatch.synthetic.schedule import EVENT_CLASS

SMALLEST_ERROR_S = 0.05
"""Nobody hits the true instant; a note is wrong by at least this much."""
BOX_MARGIN_SHARE = 0.13
"""An expert draws around a spot: each side lies this share of the box outside it ..."""
BOX_JITTER_SHARE = 0.05
"""... and is off by this share of the box (standard deviation), plus a pixel or so."""

Note = dict[str, object]


def write_notes(
    rng: np.random.Generator,
    spots: tuple[Glow, ...],
    *,
    frame_px: int,
    error_s: float,
    keyframe_every_s: float,
) -> Note:
    """What annotations.json holds; times are on the control system's clock."""
    events: list[Note] = []
    keyframes: list[Note] = []
    for spot in spots:
        onset_s, apex_s, offset_s = (
            time_s + _error(rng, error_s) for time_s in (spot.start_s, spot.apex_s, spot.end_s)
        )
        events.append(
            {
                "class": EVENT_CLASS,
                "onset_s": round(onset_s, 3),
                "apex_s": round(apex_s, 3),
                "offset_s": round(offset_s, 3),
            }
        )
        for time_s in _keyframe_times(rng, onset_s, offset_s, keyframe_every_s):
            box_px = _drawn_box(rng, _outline(spot, time_s), frame_px)
            keyframes.append(
                {"time_s": round(time_s, 3), "box_xywh_px": box_px, "class": EVENT_CLASS}
            )
    return {
        "clock": "control",
        "frame_width_px": frame_px,
        "frame_height_px": frame_px,
        "events": events,
        "keyframes": keyframes,
    }


def _error(rng: np.random.Generator, error_s: float) -> float:
    smallest_s = min(SMALLEST_ERROR_S, error_s / 2)
    return float(rng.choice([-1.0, 1.0]) * rng.uniform(smallest_s, 0.99 * error_s))


def _keyframe_times(
    rng: np.random.Generator, onset_s: float, offset_s: float, every_s: float
) -> list[float]:
    """First and last instant of the noted event and, about every so often, one between."""
    count = max(2, round((offset_s - onset_s) / every_s) + 1)
    times_s = np.linspace(onset_s, offset_s, count)
    times_s[1:-1] += rng.uniform(-0.2, 0.2, size=count - 2) * every_s
    return [float(time_s) for time_s in times_s]


def _outline(spot: Glow, time_s: float) -> NDArray[np.bool_]:
    """What the expert goes by; outside the true event, the spot as it first or last was."""
    return spot.mask_at(float(np.clip(time_s, spot.start_s, spot.end_s)), visible_levels=0.0)


def _drawn_box(rng: np.random.Generator, outline: NDArray[np.bool_], frame_px: int) -> list[float]:
    """x, y, width and height in pixels of a box drawn around the outline."""
    rows, columns = np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))
    low = np.array([columns[0], rows[0]], dtype=np.float64)
    high = np.array([columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    size = high - low
    slip_px = BOX_JITTER_SHARE * size + frame_px / 128.0
    low = low - BOX_MARGIN_SHARE * size + slip_px * rng.standard_normal(2)
    high = high + BOX_MARGIN_SHARE * size + slip_px * rng.standard_normal(2)
    low = np.clip(low, 0.0, frame_px - 2.0)
    high = np.clip(np.maximum(high, low + 2.0), 0.0, frame_px)
    return [round(float(value), 1) for value in (*low, *(high - low))]
