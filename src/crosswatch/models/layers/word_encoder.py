"""A small transformer over words, learned from scratch.

Shape letters: B batch, L words, D width, P half of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crosswatch.models.layers.cross_attention import AttentionBlock
from crosswatch.models.tokens import Tokens

LONGEST_PERIOD = 10_000.0


class WordEncoder(nn.Module):
    """Words, projected, with sines of their places, ask each other (Vaswani et al. 2017; the norm
    comes first, and once more at the end)."""

    def __init__(self, features: int, width: int, *, heads: int, depth: int) -> None:
        super().__init__()
        self.out_width = width
        self.embed = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            AttentionBlock(width, heads, norm="pre", hidden_width=4 * width, name="words")
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, words: Tokens) -> Tokens:
        words_BLD = self.embed(words.cleared())
        _, length, width = words_BLD.shape
        words_BLD = words_BLD + sines(length, width, words_BLD.device)
        for block in self.blocks:
            words_BLD = block(words_BLD, valid_BK=words.valid_BL).values_BQD
        return Tokens(self.norm(words_BLD), words.valid_BL)


def sines(length: int, width: int, device: torch.device) -> Tensor:
    """Sines, then cosines, of each place (length, width) at periods of 2 pi to 20000 pi words."""
    exponent_P = torch.arange(width // 2, device=device) / (width // 2)
    angle_LP = torch.arange(length, device=device)[:, None] / LONGEST_PERIOD**exponent_P
    return torch.cat((angle_LP.sin(), angle_LP.cos()), dim=1)
