"""Two ways to join streams: a gate between their vectors, a sum of their logits.

Shape letters: N examples, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn


class Gated(NamedTuple):
    """The mix, and the share of the first part in it: (N, D), or (N, 1) for all dimensions."""

    values_ND: Tensor
    gate: Tensor


class GatedFusion(nn.Module):
    """f = g a + (1 - g) b

    vector: g = sigmoid(W [a; b]), one per dimension; scalar: the same, one per example;
    fixed: the given share.
    """

    def __init__(
        self, width: int, *, gate: Literal["vector", "scalar", "fixed"], fixed: float = 0.5
    ) -> None:
        super().__init__()
        outputs = {"vector": width, "scalar": 1}
        self.weigh = None if gate == "fixed" else nn.Linear(2 * width, outputs[gate])
        self.fixed = fixed

    def forward(self, a_ND: Tensor, b_ND: Tensor) -> Gated:
        if self.weigh is None:
            gate = torch.full_like(a_ND[:, :1], self.fixed)
        else:
            gate = self.weigh(torch.cat((a_ND, b_ND), dim=-1)).sigmoid()
        return Gated(gate * a_ND + (1 - gate) * b_ND, gate)


def linear_fusion(logit_NK: Iterable[Tensor]) -> Tensor:
    """Streams that scored for themselves: their logits (N, K), summed."""
    return torch.stack(list(logit_NK)).sum(dim=0)
