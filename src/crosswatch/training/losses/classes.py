"""The loss of models that tell classes apart, one of which is right."""

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from crosswatch.models.tokens import Target


class ClassScores(Protocol):
    @property
    def class_BK(self) -> Tensor:  # noqa: N802
        """Logits of the classes."""
        ...


def class_loss(scores: ClassScores, target: Target, config: object) -> Tensor:
    """Mean cross-entropy; the settings, which every loss is given, do not change it."""
    return cross_entropy(scores.class_BK, target, config)


def cross_entropy(logit_BK: Tensor, target: Target, config: object) -> Tensor:
    """The same of logits alone."""
    return functional.cross_entropy(logit_BK.float(), target.class_B)
