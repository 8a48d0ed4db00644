"""The features of a clip as the artifact holds them: found by time and joined, one vector a token.

Shape letters: N rows of a batch, L tokens, D width.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.examples.reading import Floats
from crosswatch.features.encoder import Rows
from crosswatch.features.schema import Feature, FeatureSet
from crosswatch.models.detector import Scale
from crosswatch.models.settings.common import Stream

CLIP = "clip"  # the one modality whose second axis are crops of one picture
Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchStream:
    """One stream of one batch; `parts` are None where the batch lacks a modality of it."""

    stream: Stream
    parts: tuple[Feature, ...] | None
    widths: tuple[int, ...]

    @classmethod
    def open(cls, features: FeatureSet, batch: str, stream: Stream) -> "BatchStream":
        found = [features.feature(batch, name) for name in stream.modalities]
        parts = [part for part in found if part is not None]
        widths = tuple(int(features.modalities[name]["width"]) if name in features.modalities else 0
                       for name in stream.modalities)  # fmt: skip
        return cls(
            stream=stream, parts=tuple(parts) if len(parts) == len(found) else None, widths=widths
        )

    @functools.cached_property
    def crops(self) -> tuple[int, ...]:
        """The crops that there are of each row; none where rows are whole pictures."""
        if self.parts is None or self.stream.modalities != (CLIP,):
            return ()
        (part,) = self.parts
        if part.valid.ndim == 1:
            return ()
        return tuple(np.flatnonzero(np.asarray(part.valid).any(axis=0)).tolist())

    def rows(self, start_s: float, stop_s: float) -> Rows:
        """Rows whose middle lies in start_s <= t < stop_s; where there is none, such as of a
        caption that holds for longer, those that tell of any instant of it."""
        if self.parts is None:
            return np.empty(0, np.int64)
        middle_s = self.parts[0].spans_s.mean(axis=1)
        inside = np.flatnonzero((middle_s >= start_s) & (middle_s < stop_s))
        return inside if len(inside) else self.parts[0].rows_between(start_s, stop_s)

    def spans_s(self, rows: Rows) -> npt.NDArray[np.float64]:
        """From and until when (L, 2) each row tells."""
        assert self.parts is not None
        return np.asarray(self.parts[0].spans_s[rows])

    def tokens(self, rows: Rows, crop: int | None = None) -> tuple[Floats, Flags]:
        """Values (L, D) and which of them are valid (L,): of the rows, or of each of the tokens
        that rows consist of."""
        if self.parts is None or not len(rows):
            return np.zeros((0, sum(self.widths)), np.float32), np.zeros(0, bool)
        joined = [
            _taken(part.values, self._rows_of(part, rows), crop).reshape(-1, width)
            for part, width in zip(self.parts, self.widths, strict=True)
        ]
        return np.concatenate(joined, axis=1), self.valid(rows, crop)

    def valid(self, rows: Rows, crop: int | None = None) -> Flags:
        """Which of the tokens (L,) are valid; values are not read for it."""
        if self.parts is None or not len(rows):
            return np.zeros(0, bool)
        flags = [
            _taken(part.valid, self._rows_of(part, rows), crop).reshape(-1) for part in self.parts
        ]
        found: Flags = np.logical_and.reduce(flags)
        return found

    def places(self, rows: Rows) -> int:
        """How many tokens the rows have, valid or not."""
        if self.parts is None:
            return 0
        axes = self.parts[0].valid.shape[1:]
        return len(rows) if self.crops else len(rows) * int(np.prod(axes))

    def _rows_of(self, part: Feature, rows: Rows) -> Rows:
        """The row of a part that tells of the middle of each row of the first part, or is no
        farther from it than that row lasts; -1 where there is none."""
        assert self.parts is not None
        if part is self.parts[0]:
            return rows
        spans_s = np.asarray(self.parts[0].spans_s[rows])
        lasts_s = spans_s[:, 1] - spans_s[:, 0]
        return part.rows_at(spans_s.mean(axis=1), within_s=lasts_s)


def _taken(array: npt.NDArray[Any], rows: Rows, crop: int | None) -> npt.NDArray[Any]:
    """Rows of an array, zero for -1."""
    array = array if crop is None else array[:, crop]
    there = rows >= 0
    found = np.zeros((len(rows), *array.shape[1:]), array.dtype)
    found[there] = array[rows[there]]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and deviation (D,) of what was seen, one clip after another."""

    count: int
    total: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    @classmethod
    def none(cls, width: int) -> "Spread":
        return cls(count=0, total=np.zeros(width), squares=np.zeros(width))

    def seeing(self, values: Floats) -> "Spread":
        wide = values.astype(np.float64)
        return Spread(
            count=self.count + len(wide),
            total=self.total + wide.sum(axis=0),
            squares=self.squares + (wide**2).sum(axis=0),
        )

    def scale(self) -> Scale:
        """Mean and deviation; what never varies is left as it is."""
        mean = self.total / max(self.count, 1)
        variance = np.maximum(self.squares / max(self.count, 1) - mean**2, 0.0)
        deviation = np.sqrt(variance)
        steady = deviation <= 1e-6 * np.maximum(np.abs(mean), 1.0)
        deviation = np.where(steady, 1.0, deviation)
        return Scale(mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))
