"""How the vectors of a stream become a model's tokens: one way for examples of batches and for
arrays that a registered model is asked about.

Shape letters: B clips, L tokens, D width.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from crosswatch.models.detector import DetectorFacts, Scale
from crosswatch.models.layers.lengths import pool
from crosswatch.models.settings.common import Stream
from crosswatch.models.tokens import Tokens

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """Of one stream.

    Attributes:
        parts: how wide each of the joined features is.
        pools: whether a sequence longer than the stream's `most` is pooled, where it is not cut.
    """

    stream: Stream
    parts: tuple[int, ...]
    scale: Scale | None
    pools: bool

    @property
    def width(self) -> int:
        return sum(self.parts)

    @property
    def bounded(self) -> bool:
        """Whether no clip has more than `most` tokens."""
        return self.pools or self.stream.shorten == "cut"

    def begun(self, values_LD: Floats) -> Floats:
        """Valid vectors of one clip, each part of length 1 where the stream wants that, and cut:
        what statistics are made of."""
        if self.stream.shorten == "cut":
            values_LD = values_LD[: self.stream.most]
        if not self.stream.unit:
            return values_LD
        edges = np.cumsum(self.parts)[:-1]
        return np.concatenate([_unit(part) for part in np.split(values_LD, edges, axis=1)], axis=1)

    def read(self, values_LD: Floats) -> Floats:
        """Valid vectors of one clip as the model takes them: also pooled and scaled."""
        found = self.begun(values_LD)
        if self.pools and len(found) > self.stream.most:
            found = pool(torch.from_numpy(found), self.stream.most).numpy()
        return found if self.scale is None else self.scale.apply(found)

    def tokens(self, clips: Sequence[Floats]) -> Tokens:
        """Valid vectors of B clips, read and padded to the longest; at least one place, so that no
        shape is empty."""
        found = [self.read(values_LD) for values_LD in clips]
        longest = max(1, *map(len, found))
        values_BLD = np.zeros((len(found), longest, self.width), np.float32)
        valid_BL = np.zeros((len(found), longest), bool)
        for number, values in enumerate(found):
            values_BLD[number, : len(values)], valid_BL[number, : len(values)] = values, True
        return Tokens(torch.from_numpy(values_BLD), torch.from_numpy(valid_BL))


def readings_of(facts: DetectorFacts, *, training: bool = False) -> tuple[Reading, ...]:
    """Of every stream. A model of moments is trained on pooled sequences, and judges every one."""
    scales = facts.scales or (None,) * len(facts.streams)
    return tuple(
        Reading(
            stream=stream, parts=parts, scale=scale,
            pools=training or facts.model.task == "clips",
        )
        for stream, parts, scale in zip(facts.streams, facts.parts, scales, strict=True)
    )  # fmt: skip


def _unit(values_LD: Floats) -> Floats:
    length_L1 = np.linalg.norm(values_LD, axis=1, keepdims=True)
    found: Floats = values_LD / np.maximum(length_L1, np.finfo(np.float32).tiny)
    return found
