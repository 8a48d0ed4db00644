"""One epoch over tensors: no files, no Ray, no MLflow.

Shape letters: B windows of a mini-batch, T frames, H W pixels, C colours or channels, S samples,
K classes, N windows.
"""

import dataclasses
from collections.abc import Callable, Iterable

import torch

from crosswatch.models.detector import Inputs
from crosswatch.models.fmformer import Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A mini-batch with its answers, and the share of the global mini-batch that it is."""

    inputs: Inputs
    class_B: torch.Tensor
    mask_BHW: torch.Tensor | None
    share: float = 1.0

    def to(self, device: torch.device) -> "Example":
        """The same on another device."""
        inputs, mask = self.inputs, self.mask_BHW
        video, signal = inputs.video_BTHWC, inputs.signal_BSC
        moved = Inputs(
            video_BTHWC=None if video is None else video.to(device),
            signal_BSC=None if signal is None else signal.to(device),
        )
        return Example(
            inputs=moved,
            class_B=self.class_B.to(device),
            mask_BHW=None if mask is None else mask.to(device),
            share=self.share,
        )


LossOf = Callable[[Scores, Example], torch.Tensor]


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
            scores = module(example.inputs.video_BTHWC, example.inputs.signal_BSC)
        loss = step.loss_of(scores, example)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()} in step {count + 1}")
        (loss * example.share).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), step.gradient_norm)
        step.optimizer.step()
        total, count = total + loss.item(), count + 1
        after()
    return total / max(count, 1)


@torch.inference_mode()
def predict(
    module: torch.nn.Module, examples: Iterable[Example], step: Step
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Class probabilities (N, K), labels (N,) and the mean loss."""
    module.eval()
    probabilities, labels, losses = [], [], []
    for example in examples:
        with step.autocast:
            scores = module(example.inputs.video_BTHWC, example.inputs.signal_BSC)
        losses.append(step.loss_of(scores, example).item() * len(example.class_B))
        assert scores.class_BK is not None, "selection needs a class head"
        probabilities.append(scores.class_BK.float().softmax(1).cpu())
        labels.append(example.class_B.cpu())
    label_N = torch.cat(labels)
    return torch.cat(probabilities), label_N, sum(losses) / len(label_N)
