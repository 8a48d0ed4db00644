"""Videos of any length for a model of so many positions.

Shape letters: L snippets, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def pool(values_LD: Tensor, bins: int) -> Tensor:
    """Means (bins, D) over consecutive bins with whole edges from 0 to L.

    A bin that is empty, as L is below `bins`, takes the snippet at its edge.
    """
    length = len(values_LD)
    assert length, "nothing to pool"
    edge = torch.arange(bins + 1, device=values_LD.device) * length // bins
    count = edge.diff()
    bin_L = torch.repeat_interleave(count)
    sum_ND = values_LD.new_zeros(bins, *values_LD.shape[1:]).index_add_(0, bin_L, values_LD)
    return torch.where(
        count[:, None] > 0, sum_ND / count.clamp(min=1)[:, None], values_LD[edge[:-1]]
    )


def chunks(length: int, most: int) -> Iterator[slice]:
    """Where the consecutive pieces of at most `most` of a sequence lie."""
    for start in range(0, length, most):
        yield slice(start, min(start + most, length))
