"""What of training can be set: apart from the loop, so that a command starts without torch."""

import dataclasses
import math
from typing import Literal

from crosswatch.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    flip_probability: float = 0.5  # left to right, every frame and the mask
    shift_px: int = 0  # up to so far in each direction; borders are repeated
    signal_drop_probability: float = 0.0  # the signal at its mean: the video has to do alone
    stream_drop_probability: float = 0.0  # a stream of features missing: the others have to do

    def __post_init__(self) -> None:
        for name in ("flip_probability", "signal_drop_probability", "stream_drop_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; allowed 0 to 1")
        if self.shift_px < 0:
            raise UserError(f"shift_px is {self.shift_px}; allowed 0 and above")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    warmup_share: float = 0.1  # of all steps; 0: none
    schedule: Literal["cosine", "steps"] = "cosine"
    final_share: float = 0.02  # cosine: of the learning rate, at the last step
    drops: tuple[float, ...] = ()  # steps: after these shares of all steps; none: a constant rate
    drop_factor: float = 0.1  # steps: times the rate at each drop
    gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.gradient_norm <= 0:
            raise UserError(
                f"learning_rate {self.learning_rate} and gradient_norm {self.gradient_norm} have "
                f"to be above 0, weight_decay {self.weight_decay} at least 0"
            )
        if self.drops and self.schedule != "steps":
            raise UserError(
                f"drops {list(self.drops)} are of schedule: steps, and schedule is "
                f"{self.schedule}. Set schedule: steps, or drops: []."
            )
        if any(not 0 < share < 1 for share in self.drops) or not 0 < self.drop_factor <= 1:
            raise UserError(
                f"drops are {list(self.drops)}, shares of all steps between 0 and 1; drop_factor "
                f"is {self.drop_factor}, allowed above 0 and up to 1"
            )

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        warmup = max(1, round(self.warmup_share * steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.schedule == "steps":
            dropped = sum(step >= round(share * steps) for share in self.drops)
            return self.learning_rate * self.drop_factor**dropped
        share = (step - warmup) / max(1, steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    epochs: int = 6
    batch_size: int = 16  # over all workers
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # best: of validation. test: of the evaluation set, as some publications did; what is measured
    # on it afterwards is branded, and never promoted.
    select: Literal["best", "last", "test"] = "best"
    metric: Literal[
        "f1", "accuracy", "balanced_accuracy", "macro_f1", "auc", "ap", "auc2", "ap2"
    ] = "f1"
    workers: int | None = None  # None: one a GPU, or two on a machine without; 0: in process
    threads: int | None = None  # of each worker; None: the cores, shared out
    max_failures: int = 2  # restarts of lost workers
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("max_failures", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; allowed {least} and above")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads is {self.threads}; allowed 1 and above")
        if self.workers is not None and not 0 <= self.workers <= self.batch_size:
            raise UserError(
                f"workers is {self.workers}; allowed 0 (in process) to batch_size, "
                f"{self.batch_size}, because each mini-batch is shared out among them"
            )
