"""Settings of the layouts that leave something open; each adapter reads its own."""

import dataclasses

from crosswatch.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FmfConfig:
    """FMF-Benchmark."""

    released: bool = False  # as FmFormer's released loader reads it, for comparison only


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Clips that an index.csv lists; other columns are ignored."""

    root: str = ""  # folder below the index that paths start from
    path: str = "path"  # names of the columns
    label: str = "label"
    source: str = "source"
    rate_hz: float = 10.0  # clips of any rate are taken at this one, each picture the nearest

    def __post_init__(self) -> None:
        _refuse_no_rate(self.rate_hz)
        if len({self.path, self.label, self.source}) < 3:
            raise UserError(
                f"path {self.path!r}, label {self.label!r} and source {self.source!r} have to name "
                "three different columns"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DonkeycarConfig:
    """A donkeycar tub: what its records do not say."""

    rate_hz: float = 20.0
    one_clock: bool = False  # true: pictures and controls are known to belong together

    def __post_init__(self) -> None:
        _refuse_no_rate(self.rate_hz)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedConfig:
    """Features of others, as `crosswatch data import` wrote them."""

    rate_hz: float = 10.0  # instants a second of clips whose frame rate nobody tells (MSR-VTT)

    def __post_init__(self) -> None:
        _refuse_no_rate(self.rate_hz)


def _refuse_no_rate(rate_hz: float) -> None:
    if not 0 < rate_hz < 1e6:
        raise UserError(f"rate_hz is {rate_hz:g}; expected more than 0 and less than 1000000")
