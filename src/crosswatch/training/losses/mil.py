"""L = binary L1 + align L2 + separation L3 (VadCLIP), from the classes of whole videos.

Shape letters: B videos, K classes, normal first, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from crosswatch.models.clipfusion_vad import VadScores
from crosswatch.models.settings.vad import VadConfig
from crosswatch.models.tokens import Target


def mil_loss(scores: VadScores, target: Target, config: VadConfig) -> Tensor:
    weights = config.losses
    return (
        weights.binary * binary_loss(scores.anomaly_B(), target.classes_BK)
        + weights.align * align_loss(scores.class_logit_BK(), target.classes_BK)
        + weights.separation * separation_loss(scores.text_KD)
    )


def binary_loss(anomaly_B: Tensor, classes_BK: Tensor) -> Tensor:
    """Cross-entropy of the highest snippets' mean probability: is anything but normal there?"""
    return functional.binary_cross_entropy(anomaly_B, 1 - classes_BK[:, 0])


def align_loss(class_logit_BK: Tensor, classes_BK: Tensor) -> Tensor:
    """Cross-entropy between the classes' highest snippets and the label, whose classes share 1."""
    share_BK = classes_BK / classes_BK.sum(1, keepdim=True)
    return -(share_BK * class_logit_BK.log_softmax(1)).sum(1).mean()


def separation_loss(text_KD: Tensor) -> Tensor:
    """Mean |cosine| between the text of the normal class and that of another."""
    text_KD = text_KD.float()
    return torch.cosine_similarity(text_KD[:1], text_KD[1:], dim=-1).abs().mean()
