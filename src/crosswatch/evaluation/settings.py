"""How scores are measured: units, pooling, alarms."""

import dataclasses
from typing import Literal

from crosswatch.errors import UserError
from crosswatch.evaluation.alarms import LEAST_S, MERGE_S


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    """Windows of other lengths than an FmFormer was trained with, without training again; None: as
    it was trained. A study of the model: the gate takes no such evaluation."""

    frames: int | None = None
    stride: int | None = None
    signal_s: float | None = None
    pe_resize: Literal["interp", "end_crop", "slice"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    pool: Literal["window", "segment"] = "window"  # segment: one decision a recording
    unit: Literal["auto", "batch"] = "auto"  # of the bootstrap; auto: blocks, pooled: recordings
    block_s: float = 20.0  # time blocks
    samples: int = 1000
    level: float = 0.95
    seed: int = 0
    has_normal: bool = True  # false: the first class is a class like the others, not normal
    lengths: LengthsConfig = dataclasses.field(default_factory=LengthsConfig)
    alarm_merge_s: float = MERGE_S  # alarms that are closer together are one
    alarm_least_s: float = LEAST_S  # shorter alarms are none

    def __post_init__(self) -> None:
        if self.block_s <= 0 or self.samples < 1 or not 0 < self.level < 1:
            raise UserError(
                f"block_s {self.block_s} has to be above 0, samples {self.samples} at least 1, "
                f"level {self.level} between 0 and 1"
            )
        for name in ("alarm_merge_s", "alarm_least_s"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; allowed 0 and above")
