"""What crosses borders between stages."""

import dataclasses
from typing import Literal

from crosswatch.errors import UserError

Block = Literal["train", "validation", "evaluation"]
BLOCKS: tuple[Block, ...] = ("train", "validation", "evaluation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """A span of one class on the reference clock: an anomaly, or a labelled recording."""

    class_name: str
    onset_s: float
    apex_s: float
    offset_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keyframe:
    """An expert's coarse box at one instant, in pixels of the stored frames."""

    class_name: str
    time_s: float
    box_xywh_px: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeRange:
    """Instants `start_s` <= t < `stop_s` of one batch that belong to one block."""

    batch: str
    batch_digest: str
    block: Block
    start_s: float
    stop_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputShape:
    """Sizes that follow from data and windows, not from a model's settings; 0: no such stream."""

    frames: int = 10
    frame_px: int = 64
    signal_samples: int = 120
    signal_channels: int = 3
    classes: int = 2
    widths: tuple[int, ...] = ()  # of each stream of features


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Which weights an encoder loads; empty: none were named, which is an error where needed."""

    source: str = ""  # folder, file, or on the hub owner/name[@revision][:file]
    sha256: str = ""  # of the file, or of the folder as `crosswatch` prints it; empty: not held to
    download: bool = False  # may a hub name be fetched; otherwise only what lies in its cache

    def __post_init__(self) -> None:
        wrong = self.sha256.strip("0123456789abcdef") or len(self.sha256) not in (0, 64)
        if wrong:
            raise UserError(f"sha256 is {self.sha256!r}; expected 64 digits 0-9, a-f, or nothing")
