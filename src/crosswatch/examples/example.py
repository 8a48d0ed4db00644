"""A mini-batch as tensors."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from crosswatch.models.tokens import Target

Rows = npt.NDArray[np.int64]
PLACES = 2**16  # of a mini-batch that is only scored: examples x the longest of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """What a model's forward takes, in order, the answers, and the share of the global mini-batch
    that it is."""

    inputs: tuple[Any, ...]
    target: Target
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.target.class_B)

    def to(self, device: torch.device) -> "Example":
        """The same on another device."""
        inputs = tuple(None if each is None else each.to(device) for each in self.inputs)
        return Example(inputs=inputs, target=self.target.to(device), share=self.share)


class Examples(Protocol):
    """N windows or clips of one block of the split, over all batches in order.

    Attributes:
        class_N: the class of each.
    """

    class_N: npt.NDArray[np.int64]

    def __len__(self) -> int: ...

    def example(self, rows: Rows, share: float = 1.0) -> Example: ...

    def chunks(self, rows: Rows, size: int) -> list[Rows]:
        """Consecutive mini-batches of at most `size`, and of no more places than memory holds."""
        ...

    def table(self) -> pd.DataFrame:
        """batch, segment, end_s and label of each."""
        ...


def in_chunks(rows: Rows, size: int, lengths: Sequence[int]) -> list[Rows]:
    """Consecutive chunks of rows; padded to its longest none has more than PLACES, unless it is
    of one row."""
    chunks, first, longest = [], 0, 0
    for at, length in enumerate(lengths):
        longest = max(longest, length)
        count = at - first + 1
        if count > 1 and (count > size or count * longest > PLACES):
            chunks.append(rows[first:at])
            first, longest = at, length
    return [*chunks, rows[first:]] if len(rows) else []
