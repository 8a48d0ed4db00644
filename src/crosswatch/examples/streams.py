"""The features of a clip as a model wants them: joined, scaled, one vector a token.

Shape letters: N rows of a batch, L tokens, D width.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from crosswatch.features.encoder import Rows
from crosswatch.features.schema import Feature, FeatureSet
from crosswatch.models.detector import Scale
from crosswatch.models.settings.common import Stream

CLIP = "clip"  # the one modality whose second axis are crops of one picture
Floats = npt.NDArray[np.float32]
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

    @property
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
        joined = [self._part(number, rows, crop) for number in range(len(self.parts))]
        values = np.concatenate([values for values, _ in joined], axis=1)
        return values, np.logical_and.reduce([valid for _, valid in joined])

    def _part(self, number: int, rows: Rows, crop: int | None) -> tuple[Floats, Flags]:
        assert self.parts is not None
        part = self.parts[number]
        if number:
            middle_s = self.parts[0].spans_s[rows].mean(axis=1)
            rows = part.rows_at(middle_s, within_s=np.inf)
        which = (rows, crop) if crop is not None else (rows,)
        values = np.asarray(part.values[which], np.float32)
        valid = np.asarray(part.valid[which])
        values, valid = values.reshape(-1, values.shape[-1]), valid.reshape(-1)
        if self.stream.unit:
            length = np.linalg.norm(values, axis=1, keepdims=True)
            values = values / np.maximum(length, np.finfo(np.float32).tiny)
        return values, valid


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
