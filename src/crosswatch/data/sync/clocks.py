"""What is known about one clock against the reference clock, and from what."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
MAPPING = "t_ref = t + offset_s + drift_ppm * 1e-6 * (t - t_mid_s)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClockMap:
    """t_ref = t + offset + drift * (t - t_mid), and how well that is known."""

    method: str
    offset_s: float = 0.0
    offset_low_s: float | None = None
    offset_high_s: float | None = None
    drift_ppm: float = 0.0
    drift_bound_ppm: float | None = None
    t_mid_s: float = 0.0
    correlation: float | None = None  # negative where the one rises as the other falls
    correlation_by_chance: float | None = None
    pulses: int | None = None  # triggers that both clocks saw

    @property
    def half_width_s(self) -> float | None:
        if self.offset_low_s is None or self.offset_high_s is None:
            return None
        return (self.offset_high_s - self.offset_low_s) / 2

    def to_reference(self, times_s: FloatArray) -> FloatArray:
        drift_s = self.drift_ppm * 1e-6 * (times_s - self.t_mid_s)
        return np.asarray(times_s + self.offset_s + drift_s, np.float64)

    @classmethod
    def restored(cls, told: Mapping[str, Any]) -> "ClockMap":
        """The mapping that `described` told of; the bound is not needed to place an instant."""
        return cls(
            method=told["method"],
            offset_s=told["offset_s"],
            drift_ppm=told["drift_ppm"],
            t_mid_s=told["t_mid_s"],
        )

    def inverse(self) -> "ClockMap":
        """The reference against this clock; its bound is the same seen from the other side."""
        swapped = (self.offset_high_s, self.offset_low_s)
        low_s, high_s = (None if bound_s is None else -bound_s for bound_s in swapped)
        return dataclasses.replace(
            self,
            offset_s=-self.offset_s,
            offset_low_s=low_s,
            offset_high_s=high_s,
            drift_ppm=-self.drift_ppm / (1 + 1e-6 * self.drift_ppm),
            t_mid_s=self.t_mid_s + self.offset_s,
        )

    def described(self) -> dict[str, Any]:
        """As sync.json says it."""
        return {
            "method": self.method,
            "offset_s": self.offset_s,
            "bound_s": {
                "low": self.offset_low_s,
                "high": self.offset_high_s,
                "half_width": self.half_width_s,
            },
            "drift_ppm": self.drift_ppm,
            "drift_bound_ppm": self.drift_bound_ppm,
            "t_mid_s": self.t_mid_s,
            "correlation": self.correlation,
            "correlation_by_chance": self.correlation_by_chance,
            "pulses_matched": self.pulses,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One limit that a batch is held to; `refusal` says it to whoever delivered the batch."""

    stream: str
    name: str
    value: float
    limit: float
    passed: bool
    refusal: str = ""

    def described(self) -> dict[str, Any]:
        told = {"stream": self.stream, "name": self.name, "value": self.value}
        return {**told, "limit": self.limit, "passed": self.passed}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """What one stream shows over time: one series, or cells of which some may follow one."""

    stream: str
    feature: str
    times_s: FloatArray  # (N,)
    values: npt.NDArray[np.floating]  # (N,) or (N, K)

    def mean(self) -> "Course":
        """One series of all cells."""
        return dataclasses.replace(self, values=np.asarray(self.values, np.float64).mean(axis=1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """Both streams as they were compared, for a figure; lags count from `moved_s`."""

    names: tuple[str, str]  # of what moves, and of what it is compared with
    series_s: FloatArray
    series: FloatArray
    moving_s: FloatArray  # on its own clock
    moving: FloatArray
    offsets_s: FloatArray  # (L,)
    agreement: FloatArray  # (L,)

    def turned(self) -> "Trace":
        """As if the other stream had moved."""
        return Trace(
            names=(self.names[1], self.names[0]),
            series_s=self.moving_s,
            series=self.moving,
            moving_s=self.series_s,
            moving=self.series,
            offsets_s=-self.offsets_s[::-1],
            agreement=self.agreement[::-1],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A clock, the limits it was held to, and what it was read from."""

    clock: ClockMap
    checks: tuple[Check, ...] = ()
    trace: Trace | None = None

    @property
    def refusal(self) -> str:
        return next((check.refusal for check in self.checks if not check.passed), "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reach:
    """Offsets among which the true one is sought."""

    centre_s: float
    half_s: float


def at_most(stream: str, name: str, value: float, limit: float, refusal: str) -> Check:
    return Check(
        stream=stream,
        name=name,
        value=value,
        limit=limit,
        passed=bool(value <= limit),
        refusal=refusal,
    )


def at_least(stream: str, name: str, value: float, limit: float, refusal: str) -> Check:
    return Check(
        stream=stream,
        name=name,
        value=value,
        limit=limit,
        passed=bool(value >= limit),
        refusal=refusal,
    )
