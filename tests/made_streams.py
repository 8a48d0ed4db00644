"""Made-up streams of one process, seen by clocks that disagree."""

import dataclasses

import numpy as np

from crosswatch.data.sync.clocks import Course


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """Something lively (N,) at 20 Hz that cameras, meters and microphones see."""

    times_s: np.ndarray
    values: np.ndarray

    def at(self, times_s: np.ndarray) -> np.ndarray:
        return np.interp(times_s, self.times_s, self.values)


def process(*, seed: int, seconds: float) -> Process:
    rng = np.random.default_rng(seed)
    times_s = np.arange(-10, seconds + 10, 0.05)
    kernel = np.exp(-np.arange(0, 8, 0.05) / 1.0)
    values = np.convolve(rng.standard_normal(times_s.size), kernel)[: times_s.size]
    return Process(times_s=times_s, values=values / values.std())


def metered(made: Process, times_s: np.ndarray, *, seed: int = 1) -> Course:
    noise = np.random.default_rng(seed).standard_normal(times_s.size)
    return Course(
        stream="signal",
        feature="power",
        times_s=times_s,
        values=1e8 + 4e6 * made.at(times_s) + 5e5 * noise,
    )


def filmed(
    made: Process, true_s: np.ndarray, camera_s: np.ndarray, *, feature: str = "brightness"
) -> Course:
    """16 cells, a third of which see the process; `true_s` is when pictures were really taken."""
    cells = 100 + 3 * np.random.default_rng(2).standard_normal((true_s.size, 16))
    cells[:, :5] += 6 * made.at(true_s)[:, None]
    return Course(
        stream="video", feature=feature, times_s=camera_s, values=cells.astype(np.float32)
    )


def heard(made: Process, true_s: np.ndarray, microphone_s: np.ndarray) -> Course:
    """8 bands of loudness, three of which follow the process."""
    bands = -40 + 2 * np.random.default_rng(3).standard_normal((true_s.size, 8))
    bands[:, :3] += 3 * made.at(true_s)[:, None]
    return Course(
        stream="audio", feature="loudness", times_s=microphone_s, values=bands.astype(np.float32)
    )
