"""Score every window of a block with a detector, and keep the answers beside the scores."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosswatch.annotation.labels import BatchLabels
from crosswatch.annotation.refine import UNKNOWN
from crosswatch.data.batches import BatchSet
from crosswatch.data.gather import WindowSet, windows_of
from crosswatch.errors import UserError
from crosswatch.evaluation.segmentation import pixel_confusion
from crosswatch.models.detector import Detector
from crosswatch.records import Block, TimeRange

BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """One row an instant.

    Attributes:
        rows: DataFrame with batch, end_s, segment and label.
        probability_NK: class probabilities.
        pixels_NKK: confusion of the pixels of each window's mask; None without a pixel head.
    """

    rows: pd.DataFrame
    probability_NK: npt.NDArray[np.float64]
    pixels_NKK: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.rows)

    def save(self, path: Path) -> None:
        """As Parquet: the rows, p_0 .. p_K-1, and the confusion's cells. Whole or not at all."""
        table = self.rows.copy()
        for k, column in enumerate(self.probability_NK.T):
            table[f"p_{k}"] = column
        if self.pixels_NKK is not None:
            classes = self.pixels_NKK.shape[1]
            for cell, column in enumerate(self.pixels_NKK.reshape(len(self), -1).T):
                table[f"pixels_{cell // classes}_{cell % classes}"] = column
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        table.to_parquet(temporary, index=False)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        table = pd.read_parquet(path)
        chances = [name for name in table if str(name).startswith("p_")]
        cells = [name for name in table if str(name).startswith("pixels_")]
        classes = len(chances)
        pixels = table[cells].to_numpy().reshape(-1, classes, classes) if cells else None
        return cls(
            rows=table[["batch", "end_s", "segment", "label"]],
            probability_NK=table[chances].to_numpy(np.float64),
            pixels_NKK=pixels,
        )

    def take(self, keep: npt.NDArray[np.int64]) -> "Predictions":
        pixels = None if self.pixels_NKK is None else self.pixels_NKK[keep]
        return Predictions(
            rows=self.rows.iloc[keep].reset_index(drop=True),
            probability_NK=self.probability_NK[keep],
            pixels_NKK=pixels,
        )

    def outside(self, ranges: Sequence[TimeRange], digests: Mapping[str, str]) -> "Predictions":
        """Without the instants in `ranges`; `digests` names each batch's contents."""
        digest = self.rows["batch"].map(digests)
        keep = np.ones(len(self), bool)
        for span in ranges:
            at = self.rows["end_s"]
            inside = (digest == span.batch_digest) & (at >= span.start_s) & (at < span.stop_s)
            keep &= ~inside.to_numpy()
        return self.take(np.flatnonzero(keep))

    def pooled(self, pool: Literal["window", "segment"]) -> "Predictions":
        """As it is, or one row a recording: the mean of its windows' probabilities."""
        if pool == "window":
            return self
        keys = self.rows.groupby(["batch", "segment"], sort=True).indices
        groups = [np.asarray(rows, np.int64) for rows in keys.values()]
        return Predictions(
            rows=self.rows.iloc[[rows[-1] for rows in groups]].reset_index(drop=True),
            probability_NK=np.stack([self.probability_NK[rows].mean(0) for rows in groups]),
            pixels_NKK=None,
        )


def score_block(
    detector: Detector,
    batch_set: BatchSet,
    labels: tuple[BatchLabels, ...],
    *,
    block: Block = "evaluation",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Predictions:
    """Every window of a block, in the detector's own window lengths.

    Raises:
        UserError: the detector was made for other classes or frame sizes, or finds no window.
    """
    refuse_other_shape(detector, batch_set)
    windows = windows_of(batch_set, detector.facts.windows, block)
    if not len(windows):
        raise UserError(
            f"the {block} blocks hold no window with a whole history of "
            f"{detector.facts.windows.signal_s:g} s; deliver longer batches"
        )
    pixels = bool(getattr(detector.facts.model, "pixel_head", False))
    chances, cells = [], []
    for at in range(0, len(windows), BATCH_SIZE):
        rows = np.arange(at, min(at + BATCH_SIZE, len(windows)))
        scores = detector.score(windows, rows)
        assert scores.class_BK is not None
        chances.append(scores.class_BK.double().softmax(1).numpy())
        if pixels:
            assert scores.pixel_BKHW is not None
            decided = scores.pixel_BKHW.argmax(1).numpy()
            cells.append(_confusion(windows, labels, rows, decided, len(batch_set.classes)))
        progress(int(rows[-1]) + 1, len(windows))
    return Predictions(
        rows=_rows(windows, labels),
        probability_NK=np.concatenate(chances),
        pixels_NKK=np.concatenate(cells) if pixels else None,
    )


def refuse_other_shape(detector: Detector, batch_set: BatchSet) -> None:
    facts = detector.facts
    if facts.classes != batch_set.classes:
        raise UserError(
            f"the model knows classes {', '.join(facts.classes)}; the batches are labelled with "
            f"{', '.join(batch_set.classes)}"
        )
    for batch in batch_set.batches:
        frames = 0 if batch.frames is None else batch.frames.shape[1]
        if facts.shape.frames and frames != facts.shape.frame_px:
            raise UserError(
                f"the model takes frames of {facts.shape.frame_px} px; batch {batch.id} has "
                f"{frames} px. Ingest with ingest.frame_px={facts.shape.frame_px}."
            )


def _confusion(
    windows: WindowSet,
    labels: tuple[BatchLabels, ...],
    rows: npt.NDArray[np.int64],
    decided: npt.NDArray[np.int64],
    classes: int,
) -> npt.NDArray[np.int64]:
    def pick(number: int, of_table: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        masks = labels[number].masks
        if masks is None:
            raise UserError(
                f"batch {windows.batches[number].id} has no masks to hold the pixel head against. "
                "Run refine with refine.masks=window_ends."
            )
        return masks[labels[number].mask_row(windows.tables[number].take(of_table))]

    truth = windows.gather(rows, pick).astype(np.int64)
    known = (truth != UNKNOWN).all(axis=(1, 2))
    counts = pixel_confusion(np.where(truth == UNKNOWN, 0, truth), decided, classes=classes)
    return np.where(known[:, None, None], counts, 0)


def _rows(windows: WindowSet, labels: tuple[BatchLabels, ...]) -> pd.DataFrame:
    parts: list[dict[str, Any]] = [
        {
            "batch": batch.id,
            "end_s": table.end_s,
            "segment": table.segment,
            "label": of_batch.class_of(table),
        }
        for batch, table, of_batch in zip(windows.batches, windows.tables, labels, strict=True)
    ]
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
