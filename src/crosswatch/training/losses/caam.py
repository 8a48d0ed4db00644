"""L = CE(VA) + CE(AT) + CE(TV) (CAAM): every group learns the class by itself."""

import torch
from torch import Tensor

from crosswatch.models.caam import CaamScores
from crosswatch.models.settings.caam import CaamConfig
from crosswatch.models.tokens import Target
from crosswatch.training.losses.classes import cross_entropy


def caam_loss(scores: CaamScores, target: Target, config: CaamConfig) -> Tensor:
    """Sum of the groups' cross-entropies, each of weight 1."""
    return torch.stack(
        [cross_entropy(logits_BK, target, config) for logits_BK in scores.logits.values()]
    ).sum()
