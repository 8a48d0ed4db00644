"""Two linear maps with QuickGELU between, x sigmoid(1.702 x), at the cost of two linear maps.

QuickGELU is silu(1.702 x) / 1.702. Both factors are put into the weights, which are smaller than
what passes through them, and silu is one pass over memory, its backward another.

Shape letters: N any number of tokens, D width, F hidden width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

SLOPE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    return functional.silu(SLOPE * x) / SLOPE


class QuickMlp(nn.Module):
    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, hidden_width)
        self.narrow = nn.Linear(hidden_width, width)

    def forward(self, tokens_ND: Tensor) -> Tensor:
        weight_DF = self.narrow.weight / SLOPE
        return functional.linear(self._hidden(tokens_ND), weight_DF, self.narrow.bias)

    def read(self, tokens_ND: Tensor, direction_1D: Tensor) -> Tensor:
        """The answer (N, 1) along one direction, without making the answer."""
        weight_1F = direction_1D @ self.narrow.weight / SLOPE
        return functional.linear(
            self._hidden(tokens_ND), weight_1F, direction_1D @ self.narrow.bias
        )

    def _hidden(self, tokens_ND: Tensor) -> Tensor:
        """(N, F), times 1.702"""
        widened_NF = functional.linear(
            tokens_ND, SLOPE * self.widen.weight, SLOPE * self.widen.bias
        )
        return functional.silu(widened_NF)
