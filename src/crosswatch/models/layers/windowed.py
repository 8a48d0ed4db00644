"""A transformer that looks only within consecutive windows (VadCLIP's local module).

Windows do not see each other, so that each is an example of its own: attention costs window^2 each
and not length^2, and a window without a valid token costs nothing.

Shape letters: B videos, L snippets, D width, W windows of all videos, S snippets of a window,
H heads, E width per head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from crosswatch.models.layers.attention import merge_heads
from crosswatch.models.layers.cross_attention import Attention
from crosswatch.models.layers.quick_mlp import QuickMlp


class WindowedTransformer(nn.Module):
    def __init__(self, width: int, *, layers: int, window: int, heads: int) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(PreNormBlock(width, heads) for _ in range(layers))

    def forward(self, tokens_BLD: Tensor, seen_BL: Tensor | None) -> Tensor:
        """`seen_BL` says what may be looked at; None: everything. Other places are left as they
        are or get any value. The last window may be short."""
        length = tokens_BLD.shape[1]
        window = min(self.window, max(length, 2))  # of one snippet attention would warn
        short = -length % window
        if short and seen_BL is None:
            seen_BL = tokens_BLD.new_ones(tokens_BLD.shape[:2]).bool()
        tokens_WSD = functional.pad(tokens_BLD, (0, 0, 0, short)).reshape(
            -1, window, tokens_BLD.shape[2]
        )
        if seen_BL is None:
            changed_WSD = self._through(tokens_WSD, None)
        else:
            seen_WS = functional.pad(seen_BL, (0, short)).reshape(-1, window)
            # One at least, so that every weight has a gradient on every worker.
            full = seen_WS.any(1).nonzero()[:, 0] if seen_WS.any() else seen_WS.new_zeros(1).long()
            changed_WSD = self._through(tokens_WSD[full], seen_WS[full])
            changed_WSD = tokens_WSD.index_copy(0, full, changed_WSD)
        return changed_WSD.reshape(len(tokens_BLD), length + short, -1)[:, :length]

    def _through(self, tokens_WSD: Tensor, seen_WS: Tensor | None) -> Tensor:
        for block in self.blocks:
            tokens_WSD = block(tokens_WSD, seen_WS)
        return tokens_WSD


class SelfAttention(Attention):
    """The shared attention, of tokens among themselves: one product makes query, key and value."""

    def ask(self, tokens_WSD: Tensor, seen_WS: Tensor | None) -> Tensor:
        projections = (self.to_query, self.to_key, self.to_value)
        packed_WSD3 = functional.linear(
            tokens_WSD,
            torch.cat([each.weight for each in projections]),
            torch.cat([each.bias for each in projections]),
        )
        query, key, value = (self._heads(each) for each in packed_WSD3.chunk(3, dim=-1))
        seen = None if seen_WS is None else seen_WS[:, None, None, :]
        mixed_WHSE = self._weigh(query, key, seen) @ value
        changed_WSD: Tensor = self.to_out(merge_heads(mixed_WHSE))
        return changed_WSD


class PreNormBlock(nn.Module):
    """x <- x + A(LN x); x <- x + MLP(LN x), with QuickGELU and without dropout, as CLIP's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, name="windowed attention")
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = QuickMlp(width, 4 * width)

    def forward(self, tokens_WSD: Tensor, seen_WS: Tensor | None) -> Tensor:
        tokens_WSD = tokens_WSD + self.attention.ask(self.norm_attention(tokens_WSD), seen_WS)
        changed_WSD: Tensor = tokens_WSD + self.mlp(self.norm_mlp(tokens_WSD))
        return changed_WSD
