"""What models of features take and give.

Shape letters: B clips, L tokens, D width of a token, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

BINARY = "binary"  # the branch of a model that tells abnormal from normal on its own


class Tokens(NamedTuple):
    """A stream of B clips, padded to the longest; a clip that lacks it has no valid token.

    What is not valid may hold anything: no model looks at it.
    """

    values_BLD: Tensor
    valid_BL: Tensor

    def to(self, device: torch.device) -> Tokens:
        return Tokens(self.values_BLD.to(device), self.valid_BL.to(device))

    def cleared(self) -> Tensor:
        """The values (B, L, D), with zeros for what is not valid."""
        return self.values_BLD.masked_fill(~self.valid_BL[..., None], 0.0)

    def mean(self) -> Tensor:
        """Mean (B, D) of the valid tokens; zero where there is none."""
        count_B1 = self.valid_BL.sum(1, keepdim=True).clamp(min=1)
        return self.cleared().sum(1) / count_B1


class Target(NamedTuple):
    """The answers to B examples.

    Attributes:
        class_B: the one class of each; of several that occur, the one that lasts longest.
        classes_BK: 1 for every class that occurs, float32; normal where no other does.
        mask_BHW: class of each pixel of the last frame; None where masks are not learned.
    """

    class_B: Tensor
    classes_BK: Tensor
    mask_BHW: Tensor | None = None

    def to(self, device: torch.device) -> Target:
        mask = None if self.mask_BHW is None else self.mask_BHW.to(device)
        return Target(self.class_B.to(device), self.classes_BK.to(device), mask)


class Scores(Protocol):
    """What every model's forward gives, whatever else it holds."""

    def probability_BK(self) -> Tensor:  # noqa: N802
        """Class probabilities of each example, float32."""
        ...

    def branches(self) -> Mapping[str, Tensor]:
        """Class probabilities (B, K) by the parts of the model that vote, where there are such."""
        ...
