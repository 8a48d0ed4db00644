"""The arc: three phase currents, and the power that they give the flame."""

from dataclasses import dataclass

import numpy as np

from crosswatch.synthetic import difficulty
from crosswatch.synthetic.noise import TimeArray, relaxing_noise, smooth_step
from crosswatch.synthetic.schedule import Event, Feed, Schedule

GRID_HZ = 20.0
"""Rate at which the arc is simulated; the control system stores far fewer samples."""
PAD_S = 6.0
"""The arc burns before and after the record, so that a camera whose clock is off sees it too."""
LIMITS_A = (5_500.0, 14_500.0)


@dataclass(frozen=True, kw_only=True)
class Arc:
    """The arc over time, on a regular grid of the control system's clock."""

    times_s: TimeArray
    current_a: TimeArray
    """Shape (3, times)."""

    def flame_at(self, times_s: TimeArray) -> TimeArray:
        """Brightness that the arc power gives the flame at these instants; 1 on average."""
        relative = self._relative_power() ** difficulty.FLAME_GAMMA
        return np.asarray(np.interp(times_s, self.times_s, relative), dtype=np.float64)

    def hum_at(self, times_s: TimeArray) -> TimeArray:
        """Loudness that the arc power gives the hum at these instants; 1 on average."""
        relative = self._relative_power() ** difficulty.HUM_GAMMA
        return np.asarray(np.interp(times_s, self.times_s, relative), dtype=np.float64)

    def sample(self, times_s: TimeArray, *, period_s: float) -> TimeArray:
        """Mean over one sampling period centred on each instant, as a meter stores it: (N, 3)."""
        step_s = 1.0 / GRID_HZ
        area = np.cumsum(self.current_a, axis=1) * step_s
        edge_s = self.times_s + step_s / 2
        columns = [
            np.interp(times_s + period_s / 2, edge_s, row)
            - np.interp(times_s - period_s / 2, edge_s, row)
            for row in area
        ]
        return np.stack(columns, axis=1) / period_s

    def _relative_power(self) -> TimeArray:
        power = (self.current_a**2).sum(axis=0)
        return np.asarray(power / power.mean(), dtype=np.float64)


def run_arc(rng: np.random.Generator, schedule: Schedule) -> Arc:
    """Let the arc burn through one batch."""
    count = int((schedule.duration_s + 2 * PAD_S) * GRID_HZ) + 1
    times_s = -PAD_S + np.arange(count) / GRID_HZ
    drift, restless = trace(times_s, schedule.events)
    dip, stirred = feeding(times_s, schedule.feeds)
    relative = (
        1.0
        + _cycle(rng, times_s)
        + _fluctuation(rng, count, fast_gain=1.0 + restless + stirred)
        - drift
        - dip
    )
    current_a = _set_points(rng, times_s, schedule.duration_s) * relative
    return Arc(times_s=times_s, current_a=np.clip(current_a, *LIMITS_A))


def phase_weights(centre_x_share: float) -> TimeArray:
    """How near each phase's electrode is to a spot: the three stand left, middle and right."""
    distance = np.abs(np.array([0.2, 0.5, 0.8]) - centre_x_share)
    return np.asarray(np.exp(-((distance / 0.3) ** 2)), dtype=np.float64)


def trace(times_s: TimeArray, events: tuple[Event, ...]) -> tuple[TimeArray, TimeArray]:
    """An anomaly's weak, late effect: a drop (3, N) and a gain of the fluctuation (3, N)."""
    from scipy.signal import lfilter

    drift = np.zeros((3, times_s.size))
    restless = np.zeros((3, times_s.size))
    keep = float(np.exp(-1.0 / (difficulty.TRACE_LAG_S * GRID_HZ)))
    for event in events:
        late_s = times_s - event.trace_delay_s
        box = ((late_s >= event.onset_s) & (late_s < event.offset_s)).astype(np.float64)
        course = event.trace_strength * lfilter([1.0 - keep], [1.0, -keep], box)
        weights = phase_weights(event.centre_share[0])[:, None]
        drift += difficulty.TRACE_DRIFT_SHARE * weights * course
        restless += difficulty.TRACE_FLUCTUATION_GAIN * (0.4 + 0.6 * weights) * course
    return drift, restless


def feeding(times_s: TimeArray, feeds: tuple[Feed, ...]) -> tuple[TimeArray, TimeArray]:
    """Each feed's dip (N,) and the restlessness (N,) that comes with it."""
    dip = np.zeros(times_s.size)
    for feed in feeds:
        since_s = times_s - feed.start_s
        fall = smooth_step(since_s / 1.0)
        dip += feed.dip_share * fall * np.exp(-np.maximum(since_s - 1.0, 0.0) / feed.recovery_s)
    return dip, dip / difficulty.FEED_DIP_SHARE[1]


def _fluctuation(rng: np.random.Generator, count: int, *, fast_gain: TimeArray) -> TimeArray:
    """Noise of three time scales (3, N); two thirds of its power is common to the phases."""
    total = np.zeros((3, count))
    for tau_s, share, gain in (
        (0.4, difficulty.FAST_FLUCTUATION_SHARE, fast_gain),
        (2.5, difficulty.MEDIUM_FLUCTUATION_SHARE, 1.0),
        (25.0, difficulty.SLOW_FLUCTUATION_SHARE, 1.0),
    ):
        noise = relaxing_noise(rng, count, tau_s=tau_s, rate_hz=GRID_HZ, rows=4)
        total += gain * share * (np.sqrt(2 / 3) * noise[:1] + np.sqrt(1 / 3) * noise[1:])
    return total


def _cycle(rng: np.random.Generator, times_s: TimeArray) -> TimeArray:
    """The slow smelting cycle, common to the phases (N,)."""
    period_s = rng.uniform(180.0, 320.0)
    return difficulty.CYCLE_SHARE * np.sin(2 * np.pi * (times_s / period_s + rng.uniform()))


def _set_points(rng: np.random.Generator, times_s: TimeArray, duration_s: float) -> TimeArray:
    """What the operator asks of each phase in A (3, N): imbalanced, and changed now and then."""
    asked_a = rng.uniform(9_000.0, 11_000.0) * (1.0 + rng.uniform(-0.06, 0.06, size=(3, 1)))
    course = np.ones((3, times_s.size))
    for start_s in rng.uniform(0.0, duration_s, size=max(1, round(duration_s / 200.0))):
        change = rng.uniform(-0.04, 0.04, size=(3, 1))
        course += change * smooth_step((times_s - start_s) / 4.0)
    return np.asarray(asked_a * course, dtype=np.float64)
