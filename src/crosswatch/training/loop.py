"""One epoch over tensors: no files, no Ray, no MLflow.

Shape letters: B examples of a mini-batch, K classes, N examples.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch

from crosswatch.examples.example import Example
from crosswatch.models.tokens import BINARY, Target

LossOf = Callable[[Any, Target], torch.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """How an optimiser step is made."""

    optimizer: torch.optim.Optimizer
    loss_of: LossOf
    rate_of: Callable[[], float]  # learning rate of the coming step
    gradient_norm: float
    autocast: torch.autocast


def train_epoch(
    module: torch.nn.Module, examples: Iterable[Example], step: Step, *, after: Callable[[], None]
) -> float:
    """Train on every example once; the mean loss. `after` is called behind each step.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    module.train()
    total, count = 0.0, 0
    for example in examples:
        for group in step.optimizer.param_groups:
            group["lr"] = step.rate_of()
        step.optimizer.zero_grad(set_to_none=True)
        with step.autocast:
            scores = module(*example.inputs)
        loss = step.loss_of(scores, example.target)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()} in step {count + 1}")
        (loss * example.share).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), step.gradient_norm)
        step.optimizer.step()
        total, count = total + loss.item(), count + 1
        after()
    return total / max(count, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predicted:
    """N examples of a validation: class probabilities, labels, mean loss; and how abnormal each is
    by the model's own binary branch, where it has one."""

    probability_NK: torch.Tensor
    anomaly_N: torch.Tensor | None
    label_N: torch.Tensor
    loss: float


@torch.inference_mode()
def predict(module: torch.nn.Module, examples: Iterable[Example], step: Step) -> Predicted:
    """Score every example, without gradients."""
    module.eval()
    probabilities, anomalies, labels, losses = [], [], [], []
    for example in examples:
        with step.autocast:
            scores = module(*example.inputs)
        losses.append(step.loss_of(scores, example.target).item() * len(example))
        probabilities.append(scores.probability_BK().cpu())
        if BINARY in (branches := scores.branches()):
            anomalies.append(branches[BINARY][:, 1].cpu())
        labels.append(example.target.class_B.cpu())
    label_N = torch.cat(labels)
    return Predicted(
        probability_NK=torch.cat(probabilities),
        anomaly_N=torch.cat(anomalies) if anomalies else None,
        label_N=label_N,
        loss=sum(losses) / len(label_N),
    )
