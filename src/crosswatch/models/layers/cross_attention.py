"""The cross-attention block that the models of features share.

Shape letters: B batch, Q queries, K keys, N tokens, D model width, H heads, E width per head.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from crosswatch import progress
from crosswatch.models.layers.attention import merge_heads


class Attended(NamedTuple):
    """What was asked for, and on which keys it rests; a map sums to 1 over the valid keys."""

    values_BQD: Tensor
    weight_BHQK: Tensor | None


class Attention(nn.Module):
    """MHA(Q, K, V) = softmax(Q K^T / sqrt(E)) V, projected, with biases on every projection.

    Weights begin as those of torch.nn.MultiheadAttention. `softmax=False` multiplies the scores
    into the values as they are (linear attention). With one key the weight is 1 whatever is asked:
    the map says nothing, and the projections of query and key learn nothing; this is said once.
    """

    def __init__(
        self, width: int, heads: int, *, dropout: float = 0.0, softmax: bool = True, name: str = ""
    ) -> None:
        super().__init__()
        self.heads, self.softmax, self.name = heads, softmax, name
        self.to_query = nn.Linear(width, width)
        self.to_key = nn.Linear(width, width)
        self.to_value = nn.Linear(width, width)
        self.to_out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        bound = math.sqrt(6 / (4 * width))  # Xavier's, of the three projections as one matrix
        for project in (self.to_query, self.to_key, self.to_value):
            nn.init.uniform_(project.weight, -bound, bound)
        for project in (self.to_query, self.to_key, self.to_value, self.to_out):
            nn.init.zeros_(project.bias)

    def forward(
        self,
        asks_BQD: Tensor,
        answers_BKD: Tensor,
        *,
        valid_BK: Tensor | None = None,
        allowed_QK: Tensor | None = None,
    ) -> Attended:
        """`valid_BK` says which keys there are, `allowed_QK` which a query may see; a query that
        sees none gets zeros before the output projection."""
        if answers_BKD.shape[1] == 1:
            warn_of_one_key(self.name)
        query_BHQE = self._heads(self.to_query(asks_BQD))
        key_BHKE = self._heads(self.to_key(answers_BKD))
        value_BHKE = self._heads(self.to_value(answers_BKD))
        weight_BHQK = self._weigh(query_BHQE, key_BHKE, _seen(valid_BK, allowed_QK))
        mixed_BHQE = self.dropout(weight_BHQK) @ value_BHKE
        return Attended(self.to_out(merge_heads(mixed_BHQE)), weight_BHQK)

    def _heads(self, tokens_BND: Tensor) -> Tensor:
        batch, count, _ = tokens_BND.shape
        return tokens_BND.reshape(batch, count, self.heads, -1).transpose(1, 2)

    def _weigh(self, query_BHQE: Tensor, key_BHKE: Tensor, seen: Tensor | None) -> Tensor:
        score_BHQK: Tensor = query_BHQE * query_BHQE.shape[-1] ** -0.5 @ key_BHKE.mT
        if seen is None:
            return score_BHQK.softmax(-1) if self.softmax else score_BHQK
        if not self.softmax:
            return score_BHQK.masked_fill(~seen, 0.0)
        # Not -inf, of which softmax makes NaN for a query that sees nothing.
        least = torch.finfo(score_BHQK.dtype).min
        weight_BHQK = score_BHQK.masked_fill(~seen, least).softmax(-1)
        return weight_BHQK.masked_fill(~seen, 0.0)


def _seen(valid_BK: Tensor | None, allowed_QK: Tensor | None) -> Tensor | None:
    """(B or 1, 1, Q or 1, K)"""
    valid = None if valid_BK is None else valid_BK[:, None, None, :]
    allowed = None if allowed_QK is None else allowed_QK[None, None]
    if valid is None or allowed is None:
        return allowed if valid is None else valid
    return valid & allowed


@functools.cache
def warn_of_one_key(name: str) -> None:
    """Once a process and name."""
    progress.warn(
        f"{name or 'attention'} sees one key: its map is constant, and what asks has no influence. "
        "Feed it sequences in place of pooled vectors."
    )


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "quick_gelu": lambda: QuickGELU(),
}


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), CLIP's approximation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class AttentionBlock(nn.Module):
    """Queries ask keys, and a feed-forward follows, both with residuals of the queries.

    pre:  o = q + A(LN1(q), LN1(k)); y = o + FF(LN2(o))
    post: o = LN1(q + A(q, k));      y = LN2(o + FF(o))

    With the keys left out, queries ask each other.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        norm: Literal["pre", "post"],
        hidden_width: int,
        activation: Literal["gelu", "relu", "quick_gelu"] = "gelu",
        dropout: float = 0.0,
        softmax: bool = True,
        eps: float = 1e-5,
        name: str = "",
    ) -> None:
        super().__init__()
        self.norms_first = norm == "pre"
        self.attention = Attention(width, heads, softmax=softmax, name=name)
        self.norm_attention = nn.LayerNorm(width, eps=eps)
        self.norm_feed_forward = nn.LayerNorm(width, eps=eps)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden_width),
            ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            nn.Linear(hidden_width, width),
        )

    def forward(
        self,
        asks_BQD: Tensor,
        answers_BKD: Tensor | None = None,
        *,
        valid_BK: Tensor | None = None,
        allowed_QK: Tensor | None = None,
    ) -> Attended:
        answers = asks_BQD if answers_BKD is None else answers_BKD
        masks = {"valid_BK": valid_BK, "allowed_QK": allowed_QK}
        if self.norms_first:
            query = self.norm_attention(asks_BQD)
            key = query if answers is asks_BQD else self.norm_attention(answers)
            found = self.attention(query, key, **masks)
            tokens = asks_BQD + found.values_BQD
            tokens = tokens + self.feed_forward(self.norm_feed_forward(tokens))
        else:
            found = self.attention(asks_BQD, answers, **masks)
            tokens = self.norm_attention(asks_BQD + found.values_BQD)
            tokens = self.norm_feed_forward(tokens + self.feed_forward(tokens))
        return Attended(tokens, found.weight_BHQK)
