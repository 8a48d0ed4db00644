"""What each model learns by."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from crosswatch.models import ModelConfig
from crosswatch.models.tokens import Target
from crosswatch.training.losses.caam import caam_loss
from crosswatch.training.losses.classes import class_loss
from crosswatch.training.losses.cmaf import cmaf_loss
from crosswatch.training.losses.fmformer import fmformer_loss
from crosswatch.training.losses.mil import mil_loss

LossOf = Callable[[Any, Target, Any], Tensor]
"""From what a model's forward gives, the answers and the model's settings."""

LOSSES: dict[str, LossOf] = {
    "fmformer": fmformer_loss,
    "cmaf": cmaf_loss,
    "cross_modal_detector": class_loss,
    "caam": caam_loss,
    "clipfusion_vad": mil_loss,
}


def loss_of(model: ModelConfig) -> Callable[[Any, Target], Tensor]:
    """The loss of a model, by its settings."""
    loss = LOSSES[model.name]
    return lambda scores, target: loss(scores, target, model)
