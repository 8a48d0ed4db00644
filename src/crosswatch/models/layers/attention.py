"""Attention and feed-forward of FmFormer, each with its layer norm in front.

Shape letters: B batch, N tokens of a stream, Q query tokens, K key tokens, D model width,
H heads, E width per head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def attend(
    query_BHQE: Tensor, key_BHKE: Tensor, value_BHKE: Tensor, valid_BK: Tensor | None = None
) -> Tensor:
    """Softmax attention over the valid keys, of which every example needs one.

    Written out: the fused kernel's bf16 backward is slower on CPUs.
    """
    scaled_BHQE = query_BHQE * query_BHQE.shape[-1] ** -0.5
    score_BHQK = scaled_BHQE @ key_BHKE.transpose(-2, -1)
    if valid_BK is not None:
        least = torch.finfo(score_BHQK.dtype).min
        score_BHQK = score_BHQK.masked_fill(~valid_BK[:, None, None, :], least)
    mixed_BHQE: Tensor = score_BHQK.softmax(dim=-1) @ value_BHKE
    return mixed_BHQE


def merge_heads(mixed_BHNE: Tensor) -> Tensor:
    return mixed_BHNE.transpose(1, 2).flatten(start_dim=2)


class QueryKeyValue(nn.Module):
    """One bias-free projection, packed q, k, v, with heads in contiguous slices of the width."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.split = (3, heads, head_width)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * heads * head_width, bias=False)

    def forward(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed_BN3HE = self.project(self.norm(tokens_BND)).unflatten(-1, self.split)
        query_BHNE, key_BHNE, value_BHNE = packed_BN3HE.permute(2, 0, 3, 1, 4).unbind(0)
        return query_BHNE, key_BHNE, value_BHNE


class AttentionOutput(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(heads * head_width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, mixed_BHNE: Tensor) -> Tensor:
        change_BND: Tensor = self.dropout(self.project(merge_heads(mixed_BHNE)))
        return change_BND


class SelfAttention(nn.Module):
    """MHSA(LN(z)) of one stream: softmax(Q K^T / sqrt(E)) V."""

    def __init__(self, width: int, heads: int, head_width: int, dropout: float) -> None:
        super().__init__()
        self.to_qkv = QueryKeyValue(width, heads, head_width)
        self.to_out = AttentionOutput(width, heads, head_width, dropout)

    def forward(self, tokens_BND: Tensor, valid_BN: Tensor | None = None) -> Tensor:
        query_BHNE, key_BHNE, value_BHNE = self.to_qkv(tokens_BND)
        change_BND: Tensor = self.to_out(attend(query_BHNE, key_BHNE, value_BHNE, valid_BN))
        return change_BND


class FeedForward(nn.Sequential):
    def __init__(self, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, hidden_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, width),
            nn.Dropout(dropout),
        )
