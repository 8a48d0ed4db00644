"""AdamW with a linear warm-up and a cosine descent, a step at a time."""

import dataclasses
import math

import torch

from crosswatch.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    warmup_share: float = 0.1  # of all steps
    final_share: float = 0.02  # of the learning rate, at the last step
    gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.gradient_norm <= 0:
            raise UserError(
                f"learning_rate {self.learning_rate} and gradient_norm {self.gradient_norm} have "
                f"to be above 0, weight_decay {self.weight_decay} at least 0"
            )

    def build(self, module: torch.nn.Module) -> torch.optim.AdamW:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(
            trained, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        warmup = max(1, round(self.warmup_share * steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        share = (step - warmup) / max(1, steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)
