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
from crosswatch.examples.example import Example, Rows, in_chunks
from crosswatch.examples.reading import Floats, Reading, readings_of
from crosswatch.examples.streams import BatchStream, Spread
from crosswatch.features.schema import FeatureSet
from crosswatch.models.detector import DetectorFacts
from crosswatch.models.tokens import Target
from crosswatch.records import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipExamples:
    """
    Attributes:
        clip_NC: of each example the number of its batch, the clip in that batch's table, and the
            crop of its pictures (-1: whole pictures). Training looks at every crop on its own
            unless clips.crops is first, everything else at the first that there is.
        readings: how each stream is read.
    """

    batch_set: BatchSet
    tables: tuple[ClipTable, ...]
    streams: tuple[tuple[BatchStream, ...], ...]  # of each batch
    clip_NC: npt.NDArray[np.int64]
    class_N: npt.NDArray[np.int64]
    facts: DetectorFacts
    readings: tuple[Reading, ...]

    @classmethod
    def open(
        cls, batch_set: BatchSet, features: FeatureSet, facts: DetectorFacts, block: Block
    ) -> "ClipExamples":
        """
        Raises:
            UserError: a modality is missing from the features, or an event's class is unknown.
        """
        tables, streams, parts, classes = [], [], [], []
        for number, batch in enumerate(batch_set.batches):
            table = clip_table(batch, batch_set, facts.clips, block)
            opened = tuple(BatchStream.open(features, batch.id, stream) for stream in facts.streams)
            crops = next((each.crops for each in opened if each.crops), (-1,))
            every = block == "train" and facts.clips.crops == "all"
            taken = crops if every else crops[:1]
            clip, crop = np.repeat(np.arange(len(table)), len(taken)), np.tile(taken, len(table))
            parts.append(np.stack([np.full_like(clip, number), clip, crop], axis=1))
            classes.append(table.class_of[clip])
            tables.append(table)
            streams.append(opened)
        return cls(
            batch_set=batch_set,
            tables=tuple(tables),
            streams=tuple(streams),
            clip_NC=np.concatenate(parts).astype(np.int64),
            class_N=np.concatenate(classes).astype(np.int64),
            facts=facts,
            readings=readings_of(facts, training=block == "train"),
        )

    def __len__(self) -> int:
        return len(self.clip_NC)

    def example(self, rows: Rows, share: float = 1.0) -> Example:
        label_B = torch.from_numpy(self.class_N[rows])
        occurs = [self.tables[n].occurs_NK[clip] for n, clip, _ in self.clip_NC[rows]]
        classes_BK = torch.from_numpy(np.stack(occurs)).float()
        inputs = tuple(
            reading.tokens([self._valid(row, at) for row in rows])
            for at, reading in enumerate(self.readings)
        )
        return Example(inputs=inputs, target=Target(label_B, classes_BK), share=share)

    def chunks(self, rows: Rows, size: int) -> list[Rows]:
        return in_chunks(rows, size, [self._places(row) for row in rows])

    def spans_s(self, row: int) -> npt.NDArray[np.float64]:
        """From and until when (L, 2) each token of the first stream tells."""
        number, clip, crop = self.clip_NC[row]
        stream = self.streams[number][0]
        rows = self._rows(stream, number, clip)
        valid = stream.valid(rows, int(crop) if stream.crops else None)
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

    def holding(self, at: int) -> int:
        """How many clips have a valid token in stream number `at`."""
        return sum(len(self._valid(row, at)) > 0 for row in range(len(self)))

    def spread(self, at: int) -> Spread:
        """Of the valid tokens of stream number `at`."""
        seen = Spread.none(self.facts.shape.widths[at])
        for row in range(len(self)):
            seen = seen.seeing(self.readings[at].begun(self._valid(row, at)))
        return seen

    def _rows(self, stream: BatchStream, number: int, clip: int) -> Rows:
        table = self.tables[number]
        return stream.rows(float(table.start_s[clip]), float(table.stop_s[clip]))

    def _valid(self, row: int, at: int) -> Floats:
        """The valid vectors (L, D) of a stream of one clip, in order."""
        number, clip, crop = self.clip_NC[row]
        stream = self.streams[number][at]
        rows = self._rows(stream, number, clip)
        values, valid = stream.tokens(rows, int(crop) if stream.crops else None)
        found: Floats = values[valid]
        return found

    def _places(self, row: int) -> int:
        """Of the longest stream of one clip; at most so many tokens are valid."""
        number, clip, _ = self.clip_NC[row]
        found = [1]
        for stream, reading in zip(self.streams[number], self.readings, strict=True):
            places = stream.places(self._rows(stream, number, clip))
            found.append(min(places, stream.stream.most) if reading.bounded else places)
        return max(found)


def refuse_empty(examples: ClipExamples, block: str) -> None:
    """Raise UserError where a block gives no clip, or no clip has any feature."""
    clips, streams = examples.facts.clips, examples.facts.streams
    if not len(examples) and not clips.length_s:
        raise UserError(
            f"the {block} blocks hold no whole recording (clips.length_s is 0), the usual cause is "
            "split.by=time, which cuts through recordings. Split by recordings, or set "
            "clips.length_s."
        )
    if not len(examples):
        raise UserError(
            f"the {block} blocks hold no clip of {clips.length_s:g} s; deliver longer batches or "
            "shorten clips.length_s"
        )
    if not any(examples.holding(at) for at in range(len(streams))):
        names = dict.fromkeys(name for stream in streams for name in stream.modalities)
        raise UserError(
            f"none of the {len(examples)} clips of the {block} blocks has a valid row of "
            f"{' or '.join(names)}. See why extract found none."
        )
