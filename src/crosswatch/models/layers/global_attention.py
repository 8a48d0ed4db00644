"""ClipFusionVAD's global attention: which channels count, then which moments.

Shape letters: B videos, L snippets, D width, N snippets that are seen.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from crosswatch.models.layers.graph import cleared

NARROWER = 4
STEPS = 7


class GlobalAttention(nn.Module):
    """channel: x sigmoid(W2 ReLU(W1 x)) at each step;
    spatial: x sigmoid(BN(C2(ReLU(BN(C1(x)))))) with convolutions over 7 steps in time."""

    def __init__(self, width: int, kind: Literal["channel", "spatial", "both"]) -> None:
        super().__init__()
        self.channel = ChannelGate(width) if kind != "spatial" else None
        self.moment = MomentGate(width) if kind != "channel" else None

    def forward(self, x_BLD: Tensor, seen_BL: Tensor | None) -> Tensor:
        if self.channel is not None:
            x_BLD = x_BLD * self.channel(x_BLD)
        if self.moment is not None:
            x_BLD = x_BLD * self.moment(x_BLD, seen_BL)
        return x_BLD


class ChannelGate(nn.Sequential):
    def __init__(self, width: int) -> None:
        narrow = width // NARROWER
        super().__init__(
            nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, width), nn.Sigmoid()
        )


class MomentGate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // NARROWER
        self.narrow = nn.Conv1d(width, narrow, STEPS, padding=STEPS // 2)
        self.norm_narrow = SeenBatchNorm(narrow)
        self.widen = nn.Conv1d(narrow, width, STEPS, padding=STEPS // 2)
        self.norm_wide = SeenBatchNorm(width)

    def forward(self, x_BLD: Tensor, seen_BL: Tensor | None) -> Tensor:
        hidden = self.narrow(cleared(x_BLD, seen_BL).mT).mT
        hidden = self.norm_narrow(hidden, seen_BL).relu()
        opened = self.widen(cleared(hidden, seen_BL).mT).mT
        gate_BLD: Tensor = self.norm_wide(opened, seen_BL).sigmoid()
        return gate_BLD


class SeenBatchNorm(nn.BatchNorm1d):
    """Batch norm over the snippets that are seen; others neither enter statistics nor are changed.

    Fewer than two have no variance: they are normalised by the running statistics.
    """

    def forward(self, x_BLD: Tensor, seen_BL: Tensor | None = None) -> Tensor:
        if seen_BL is None:
            return self._norm(x_BLD.mT).mT
        rows_ND = x_BLD.flatten(0, 1)
        seen = seen_BL.flatten().nonzero()[:, 0]
        normed_ND = self._norm(rows_ND[seen])
        return rows_ND.index_copy(0, seen, normed_ND.to(rows_ND.dtype)).view_as(x_BLD)

    def _norm(self, x: Tensor) -> Tensor:
        """Over all axes but the second."""
        if self.training and x.numel() < 2 * x.shape[1]:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)
