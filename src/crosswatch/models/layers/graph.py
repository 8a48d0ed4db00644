"""Snippets related by likeness and by nearness in time (VadCLIP's global module).

Shape letters: B videos, L snippets, D width in, H width out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from crosswatch.models.layers.quick_mlp import quick_gelu

ALIKE = 0.7  # cosine above which two snippets are related
NEVER_ZERO = 1e-20  # as released
SIGMA = 0.1  # where the released distance graph's unused parameter begins


def similarity_graph(x_BLD: Tensor, valid_BL: Tensor | None, *, compat: bool) -> Tensor:
    """Rows (B, L, L) of weights over the valid snippets; zero for a row that is not valid.

    Args:
        valid_BL: None where all are.
        compat: as released, snippets that are not alike take part with cosine 0, hence with
            exp(0). Otherwise they take no part.
    """
    length_BL = torch.linalg.vector_norm(x_BLD, dim=-1)
    lengths_BLL = length_BL[:, :, None] * length_BL[:, None, :]
    cosine_BLL: Tensor = x_BLD @ x_BLD.mT / (lengths_BLL + NEVER_ZERO)
    unlike_BLL = cosine_BLL <= ALIKE
    # Not -inf, of which softmax makes NaN in a row that sees nothing.
    least = torch.finfo(cosine_BLL.dtype).min
    score_BLL = cosine_BLL.masked_fill(unlike_BLL, 0.0 if compat else least)
    out_BLL = None if compat else unlike_BLL
    if valid_BL is not None:
        invalid_BLL = ~(valid_BL[:, :, None] & valid_BL[:, None, :])
        score_BLL = score_BLL.masked_fill(invalid_BLL, least)
        out_BLL = invalid_BLL if out_BLL is None else out_BLL | invalid_BLL
    weight_BLL: Tensor = score_BLL.softmax(-1)
    return weight_BLL if out_BLL is None else weight_BLL.masked_fill(out_BLL, 0.0)


def distance_graph(length: int) -> Tensor:
    """exp(-|i - j| / e) (L, L), which is not normalised: a row sums to about 5.5."""
    place_L = torch.arange(length)
    return torch.exp(-(place_L[:, None] - place_L[None, :]).abs() / math.e)


class GraphConvolution(nn.Module):
    """A h W + r(h), where r is a convolution over 5 steps if the width changes, and h if not."""

    def __init__(self, width: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width_out)))
        changes = width != width_out
        self.residual = nn.Conv1d(width, width_out, 5, padding=2) if changes else None

    def forward(self, h_BLD: Tensor, graph_BLL: Tensor) -> Tensor:
        related_BLH = graph_BLL @ (h_BLD @ self.weight)
        kept = h_BLD if self.residual is None else self.residual(h_BLD.mT).mT
        return related_BLH + kept


class GraphBranch(nn.Module):
    """u = q(GC(q(GC(x)))), q QuickGELU."""

    def __init__(self, width: int, width_out: int) -> None:
        super().__init__()
        self.first = GraphConvolution(width, width_out)
        self.second = GraphConvolution(width_out, width_out)

    def forward(self, x_BLD: Tensor, graph_BLL: Tensor, seen_BL: Tensor | None) -> Tensor:
        h_BLH = quick_gelu(self.first(x_BLD, graph_BLL))
        return quick_gelu(self.second(cleared(h_BLH, seen_BL), graph_BLL))


class Relate(nn.Module):
    """f = Linear([u1; u2]) of the branches that there are; x itself where there is none.

    In float32 whatever surrounds it: u2 grows to 100 times what comes in, and a rounded cosine
    would fall on the other side of the threshold.
    """

    distance_LL: Tensor

    def __init__(
        self, width: int, *, similarity: bool, distance: bool, length: int, compat: bool
    ) -> None:
        super().__init__()
        self.compat = compat
        half = width // 2
        self.by_similarity = GraphBranch(width, half) if similarity else None
        self.by_distance = GraphBranch(width, half) if distance else None
        branches = similarity + distance
        self.join = nn.Linear(branches * half, width) if branches else None
        if distance:
            self.register_buffer("distance_LL", distance_graph(length), persistent=False)
        if distance and compat:
            # Released weights have it and nothing reads it. It is kept, frozen, so that they load
            # one to one and counts compare.
            self.sigma = nn.Parameter(torch.tensor([SIGMA]), requires_grad=False)

    def forward(self, x_BLD: Tensor, *, valid_BL: Tensor | None, seen_BL: Tensor | None) -> Tensor:
        """
        Args:
            valid_BL: what the similarity graph relates; None: everything.
            seen_BL: what all else looks at; None: everything.
        """
        if self.join is None:
            return x_BLD
        joined_BLD: Tensor = self.join(self.branches(x_BLD, valid_BL=valid_BL, seen_BL=seen_BL))
        return joined_BLD

    def branches(self, x_BLD: Tensor, *, valid_BL: Tensor | None, seen_BL: Tensor | None) -> Tensor:
        """[u1; u2]"""
        with torch.autocast(x_BLD.device.type, enabled=False):
            x_BLD = cleared(x_BLD.float(), seen_BL)
            found = []
            if self.by_similarity is not None:
                alike_BLL = similarity_graph(x_BLD, valid_BL, compat=self.compat)
                found.append(self.by_similarity(x_BLD, alike_BLL, seen_BL))
            if self.by_distance is not None:
                near_LL = self.distance_LL[: x_BLD.shape[1], : x_BLD.shape[1]]
                found.append(self.by_distance(x_BLD, near_LL, seen_BL))
            return torch.cat(found, dim=-1)


def cleared(values_BLD: Tensor, seen_BL: Tensor | None) -> Tensor:
    """Zeros where nothing may be looked at, so that no neighbour does."""
    return values_BLD if seen_BL is None else values_BLD.masked_fill(~seen_BL[..., None], 0.0)
