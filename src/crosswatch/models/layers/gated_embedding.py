"""Features of any width to tokens of the model's, each element gated by all (Miech et al. 2018)."""

from torch import Tensor, nn


class GatedEmbedding(nn.Module):
    """y = W x + b; out = y * sigmoid(W' y + b')"""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.gate = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(..., features) to (..., width)"""
        embedded: Tensor = self.embed(features)
        gate: Tensor = self.gate(embedded)
        return embedded * gate.sigmoid()
