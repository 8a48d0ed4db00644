"""Multiple instance learning: what of a video's snippets speaks for the whole.

Shape letters: B videos, L snippets, K classes, P picks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def top_mean(values_BLK: Tensor, valid_BL: Tensor, *, snippets_per_pick: int) -> Tensor:
    """Mean (B, K) of the largest values of each class, of one in so many snippets and one more.

    Only valid snippets are picked; zero for a video that has none.
    """
    length_B = valid_BL.sum(1)
    count_B = (length_B // snippets_per_pick + 1).minimum(length_B)
    most = min(valid_BL.shape[1] // snippets_per_pick + 1, valid_BL.shape[1])
    least = torch.finfo(values_BLK.dtype).min
    seen_BLK = values_BLK.masked_fill(~valid_BL[..., None], least)
    best_BPK = seen_BLK.topk(most, dim=1).values
    picked_BP = torch.arange(most, device=valid_BL.device) < count_B[:, None]
    return best_BPK.masked_fill(~picked_BP[..., None], 0).sum(1) / count_B.clamp(min=1)[:, None]
