"""L = L_pixel + alpha * L_class (FmFormer; alpha is not published, 1 here)."""

import torch
from torch.nn import functional

from crosswatch.annotation.refine import UNKNOWN
from crosswatch.models.fmformer import Scores


def joint_loss(
    scores: Scores, class_B: torch.Tensor, mask_BHW: torch.Tensor | None, *, alpha: float
) -> torch.Tensor:
    """Mean cross-entropy over pixels whose class is known, plus alpha times that over windows."""
    loss = torch.zeros((), device=class_B.device)
    if scores.class_BK is not None:
        loss = loss + alpha * functional.cross_entropy(scores.class_BK.float(), class_B)
    if scores.pixel_BKHW is not None:
        assert mask_BHW is not None, "a pixel head needs masks"
        known = (mask_BHW != UNKNOWN).sum().clamp(min=1)
        summed = functional.cross_entropy(
            scores.pixel_BKHW.float(), mask_BHW, ignore_index=UNKNOWN, reduction="sum"
        )
        loss = loss + summed / known
    return loss
