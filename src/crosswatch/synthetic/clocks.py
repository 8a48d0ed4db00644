"""Clocks that disagree, and a camera that does not deliver every frame once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosswatch.synthetic.noise import TimeArray

STAMP_JITTER_S = 0.002
"""Standard deviation of a frame's time stamp."""
SAMPLE_JITTER_S = 0.004
"""Standard deviation of a current sample's time stamp."""
DOUBLE_DELAY_S = 0.001
"""A doubled frame is stamped this much after the frame it repeats."""


@dataclass(frozen=True, kw_only=True)
class DeviceClock:
    """t_control = t_device * (1 + drift_ppm * 1e-6) + offset_s, for a camera or a microphone."""

    offset_s: float
    drift_ppm: float

    def to_control(self, device_s: TimeArray) -> TimeArray:
        """Instants of the device's clock on the control system's clock."""
        return np.asarray(device_s * (1.0 + self.drift_ppm * 1e-6) + self.offset_s)

    def offset_at(self, device_s: float) -> float:
        """t_control - t_device at this instant of the device's clock."""
        return device_s * self.drift_ppm * 1e-6 + self.offset_s


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The frames as they reach the disk; all arrays have one entry a delivered frame."""

    stamp_s: TimeArray
    """Time stamp on the camera's clock, strictly increasing."""
    exposed_s: TimeArray
    """True exposure time on the camera's clock; a doubled frame repeats its predecessor's."""
    doubled: NDArray[np.bool_]
    dropped_count: int
    gap_start_s: float
    gap_s: float


def draw_clock(
    rng: np.random.Generator, *, max_offset_s: float, max_drift_ppm: float
) -> DeviceClock:
    """A clock that is wrong within the limits."""
    return DeviceClock(
        offset_s=float(rng.uniform(-max_offset_s, max_offset_s)),
        drift_ppm=float(rng.uniform(-max_drift_ppm, max_drift_ppm)),
    )


def deliver_frames(
    rng: np.random.Generator,
    *,
    duration_s: float,
    fps: float,
    dropped_share: float,
    doubled_share: float,
    gap_s: float,
) -> Delivery:
    """Expose regularly, lose single frames and one stretch, deliver some frames twice."""
    exposed_s = np.arange(round(duration_s * fps)) / fps
    stamp_s = exposed_s + np.clip(
        rng.normal(0.0, STAMP_JITTER_S, exposed_s.size), -0.25 / fps, 0.25 / fps
    )
    gap_start_s = float(rng.uniform(0.2, 0.8) * duration_s)
    in_gap = (exposed_s >= gap_start_s) & (exposed_s < gap_start_s + gap_s)
    inner = np.flatnonzero(~in_gap)[1:-1]
    dropped = rng.choice(inner, size=_at_least_one(dropped_share, inner.size), replace=False)
    kept = np.setdiff1d(np.flatnonzero(~in_gap), dropped)
    twice = rng.choice(kept[:-1], size=_at_least_one(doubled_share, kept.size), replace=False)
    repeats = 1 + np.isin(kept, twice)
    index = np.repeat(kept, repeats)
    doubled = np.concatenate([[False], index[1:] == index[:-1]])
    return Delivery(
        stamp_s=stamp_s[index] + DOUBLE_DELAY_S * doubled,
        exposed_s=exposed_s[index],
        doubled=doubled,
        dropped_count=dropped.size,
        gap_start_s=gap_start_s,
        gap_s=gap_s,
    )


def sample_times(rng: np.random.Generator, *, duration_s: float, rate_hz: float) -> TimeArray:
    """When the control system stores a sample, on its own clock."""
    regular_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    jitter_s = np.clip(rng.normal(0.0, SAMPLE_JITTER_S, regular_s.size), -0.02, 0.02)
    return np.asarray(np.maximum(regular_s + jitter_s, 0.0), dtype=np.float64)


def _at_least_one(share: float, count: int) -> int:
    """A positive share means at least one; zero means none."""
    return max(1, round(share * count)) if share > 0 else 0
