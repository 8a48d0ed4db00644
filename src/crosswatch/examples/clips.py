"""Clips of features with their answers."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from crosswatch.data.batches import BatchSet
from crosswatch.data.clips import ClipTable, clip_table
from crosswatch.errors import UserError
from crosswatch.examples.example import Example, Rows
from crosswatch.examples.streams import BatchStream, Floats, Spread
from crosswatch.features.schema import FeatureSet
from crosswatch.models.detector import DetectorFacts
from crosswatch.models.layers.lengths import pool
from crosswatch.models.tokens import Target, Tokens
from crosswatch.records import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipExamples:
    """
    Attributes:
        clip_NC: of each example the number of its batch, the clip in that batch's table, and the
            crop of its pictures (-1: whole pictures). Training looks at every crop on its own
            unless clips.crops is first, everything else at the first that there is.
        pools: whether sequences longer than a stream's `most` are pooled; a model of moments is
            judged by every one of them.
    """

    batch_set: BatchSet
    tables: tuple[ClipTable, ...]
    streams: tuple[tuple[BatchStream, ...], ...]  # of each batch
    clip_NC: npt.NDArray[np.int64]
    class_N: npt.NDArray[np.int64]
    facts: DetectorFacts
    pools: bool

    @classmethod
    def open(
        cls, batch_set: BatchSet, features: FeatureSet, facts: DetectorFacts, block: Block
    ) -> "ClipExamples":
        """
        Raises:
            UserError: a modality is missing from the features, or an event's class is unknown.
        """
        tables, streams, parts = [], [], []
        for number, batch in enumerate(batch_set.batches):
            table = clip_table(batch, batch_set, facts.clips, block)
            opened = tuple(BatchStream.open(features, batch.id, stream) for stream in facts.streams)
            crops = next((each.crops for each in opened if each.crops), (-1,))
            every = block == "train" and facts.clips.crops == "all"
            taken = crops if every else crops[:1]
            clip, crop = np.repeat(np.arange(len(table)), len(taken)), np.tile(taken, len(table))
            parts.append(np.stack([np.full_like(clip, number), clip, crop], axis=1))
            tables.append(table)
            streams.append(opened)
        clip_NC = np.concatenate(parts).astype(np.int64)
        made = cls(
            batch_set=batch_set, tables=tuple(tables), streams=tuple(streams), clip_NC=clip_NC,
            class_N=np.empty(0, np.int64), facts=facts,
            pools=block == "train" or facts.model.task == "clips",
        )  # fmt: skip
        classes = [tables[number].class_of[clip] for number, clip, _ in clip_NC]
        return dataclasses.replace(made, class_N=np.array(classes, np.int64))

    def __len__(self) -> int:
        return len(self.clip_NC)

    def example(self, rows: Rows, share: float = 1.0) -> Example:
        label_B = torch.from_numpy(self.class_N[rows])
        occurs = [self.tables[n].occurs_NK[clip] for n, clip, _ in self.clip_NC[rows]]
        classes_BK = torch.from_numpy(np.stack(occurs)).float()
        inputs = tuple(self._tokens(rows, at) for at in range(len(self.facts.streams)))
        return Example(inputs=inputs, target=Target(label_B, classes_BK), share=share)

    def spans_s(self, row: int) -> npt.NDArray[np.float64]:
        """From and until when (L, 2) each token of the first stream tells."""
        number, clip, crop = self.clip_NC[row]
        stream = self.streams[number][0]
        rows = self._rows(stream, number, clip)
        _, valid = stream.tokens(rows, int(crop) if stream.crops else None)
        spans_s: npt.NDArray[np.float64] = stream.spans_s(rows)[valid]
        return spans_s

    def table(self) -> pd.DataFrame:
        told: list[dict[str, Any]] = []
        for number, clip, crop in self.clip_NC:
            table = self.tables[number]
            told.append(
                {
                    "batch": self.batch_set.batches[number].id,
                    "end_s": table.stop_s[clip],
                    "segment": table.segment[clip],
                    "start_s": table.start_s[clip],
                    "crop": crop,
                }
            )
        columns = ["batch", "end_s", "segment", "start_s", "crop"]
        return pd.DataFrame(told, columns=columns).assign(label=self.class_N)

    def holds_any(self, at: int) -> bool:
        """Whether any clip has a valid token in stream number `at`."""
        return any(len(self._one(row, at)) for row in range(len(self)))

    def spread(self, at: int) -> Spread:
        """Of the valid tokens of stream number `at`."""
        seen = Spread.none(self.facts.shape.widths[at])
        for row in range(len(self)):
            seen = seen.seeing(self._one(row, at))
        return seen

    def _rows(self, stream: BatchStream, number: int, clip: int) -> Rows:
        table = self.tables[number]
        return stream.rows(float(table.start_s[clip]), float(table.stop_s[clip]))

    def _one(self, row: int, at: int) -> Floats:
        """The valid tokens (L, D) of a stream of one clip, in order."""
        number, clip, crop = self.clip_NC[row]
        stream = self.streams[number][at]
        rows = self._rows(stream, number, clip)
        values, valid = stream.tokens(rows, int(crop) if stream.crops else None)
        found: Floats = values[valid]
        return found[: stream.stream.most] if stream.stream.shorten == "cut" else found

    def _tokens(self, rows: Rows, at: int) -> Tokens:
        """A stream of B clips, padded to the longest; at least one place, so that no shape is
        empty."""
        most = self.facts.streams[at].most
        found = [self._one(row, at) for row in rows]
        if self.pools:
            found = [_pooled(values, most) for values in found]
        longest = max(1, *map(len, found))
        values_BLD = np.zeros((len(rows), longest, self.facts.shape.widths[at]), np.float32)
        valid_BL = np.zeros((len(rows), longest), bool)
        for number, values in enumerate(found):
            scaled = self.facts.scales[at].apply(values) if self.facts.scales else values
            values_BLD[number, : len(values)], valid_BL[number, : len(values)] = scaled, True
        return Tokens(torch.from_numpy(values_BLD), torch.from_numpy(valid_BL))


def _pooled(values: Floats, most: int) -> Floats:
    """Means in `most` bins, where there are more tokens."""
    if len(values) <= most:
        return values
    pooled: Floats = pool(torch.from_numpy(values), most).numpy()
    return pooled


def refuse_empty(examples: ClipExamples, block: str) -> None:
    """Raise UserError where a block gives no clip, or no clip has any feature."""
    clips = examples.facts.clips
    if not len(examples):
        raise UserError(
            f"the {block} blocks hold no clip of {clips.length_s:g} s; deliver longer batches or "
            "shorten clips.length_s"
        )
