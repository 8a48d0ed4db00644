"""L = L_pixel + alpha * L_class (FmFormer; alpha is not published, 1 here)."""

from __future__ import annotations

import torch
from torch.nn import functional

from crosswatch.annotation.refine import UNKNOWN
from crosswatch.models.fmformer import Scores
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.tokens import Target


def fmformer_loss(scores: Scores, target: Target, config: FmFormerConfig) -> torch.Tensor:
    """Over the heads that there are; the class is the label's, or with config.tau the mask's."""
    class_B = target.class_B if config.tau is None else class_of_mask(target, config.tau)
    return joint_loss(scores, class_B, target.mask_BHW, alpha=config.alpha)


def class_of_mask(target: Target, tau: float) -> torch.Tensor:
    """G(y) (B): 1 where more than tau pixels are anomalous.

    Where a pixel's class is unknown the mask cannot tell, and the label stays.
    """
    assert target.mask_BHW is not None, "tau needs masks"
    unknown_B = (target.mask_BHW == UNKNOWN).flatten(1).any(1)
    anomalous_B = (target.mask_BHW != 0).flatten(1).sum(1) > tau
    return torch.where(unknown_B, target.class_B, anomalous_B.to(target.class_B.dtype))


def joint_loss(
    scores: Scores, class_B: torch.Tensor, mask_BHW: torch.Tensor | None, *, alpha: float
) -> torch.Tensor:
    """Mean cross-entropy over pixels whose class is known, plus alpha times that over windows.

    Without a pixel head there is nothing to weigh against, and alpha has no effect.
    """
    if scores.pixel_BKHW is None:
        assert scores.class_BK is not None, "a model has one head at least"
        return functional.cross_entropy(scores.class_BK.float(), class_B)
    assert mask_BHW is not None, "a pixel head needs masks"
    known = (mask_BHW != UNKNOWN).sum().clamp(min=1)
    summed = functional.cross_entropy(
        scores.pixel_BKHW.float(), mask_BHW, ignore_index=UNKNOWN, reduction="sum"
    )
    if scores.class_BK is None:
        return summed / known
    return summed / known + alpha * functional.cross_entropy(scores.class_BK.float(), class_B)
