"""Score every window or clip of a block with a detector."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosswatch.annotation.labels import BatchLabels
from crosswatch.data.batches import Batch, BatchSet
from crosswatch.data.clips import TIMING_S
from crosswatch.errors import UserError
from crosswatch.evaluation.predictions import Floats, Predictions, together
from crosswatch.evaluation.segmentation import pixel_confusion
from crosswatch.examples.clips import ClipExamples, refuse_empty
from crosswatch.examples.opening import Sources, open_examples
from crosswatch.examples.windows import WindowExamples
from crosswatch.models.detector import Detector
from crosswatch.models.tokens import BINARY
from crosswatch.records import Block

BATCH_SIZE = 32
Progress = Callable[[int, int], None]


def score_block(
    detector: Detector,
    sources: Sources,
    *,
    block: Block = "evaluation",
    pool: Literal["window", "segment"] = "window",
    progress: Progress = lambda done, total: None,
    explained: Callable[[pd.DataFrame, Any], None] = lambda rows, scores: None,
) -> Predictions:
    """Every window or clip of a block, as long as the detector wants them.

    A model of moments gives a row a frame; where decisions are about whole recordings
    (`pool="segment"`), a row a clip as it judges clips itself. `explained` hears the rows of each
    mini-batch of clips and the model's scores of them.

    Raises:
        UserError: the detector was made for other classes, frame sizes or features, or finds
            nothing to look at.
    """
    refuse_other_shape(detector, sources.batch_set)
    examples = open_examples(sources, detector.facts, block)
    if isinstance(examples, WindowExamples):
        return _score_windows(detector, examples, block, progress)
    refuse_empty(examples, block)
    score: Callable[[pd.DataFrame, Any], Predictions] = _decisions
    if detector.facts.model.task == "moments" and pool == "window":
        score = functools.partial(_moments, examples, sources.labels)
    table, parts = examples.table(), []
    for rows in examples.chunks(np.arange(len(examples)), BATCH_SIZE):
        scores = detector.score(examples.example(rows).inputs)
        parts.append(score(table.iloc[rows], scores))
        explained(table.iloc[rows], scores)
        progress(int(rows[-1]) + 1, len(examples))
    return together(parts)


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


def _score_windows(
    detector: Detector, examples: WindowExamples, block: Block, progress: Progress
) -> Predictions:
    if not len(examples):
        raise UserError(
            f"the {block} blocks hold no window with a whole history of "
            f"{detector.facts.windows.signal_s:g} s; deliver longer batches"
        )
    classes = detector.facts.shape.classes
    cells, parts = [], []
    table = examples.table()
    for rows in examples.chunks(np.arange(len(examples)), BATCH_SIZE):
        scores = detector.score(examples.example(rows).inputs)
        parts.append(_decisions(table.iloc[rows], scores))
        if examples.has_pixels:
            decided = scores.pixel_BKHW.argmax(1).cpu().numpy()
            truth, known = examples.known_masks(rows)
            counts = pixel_confusion(truth, decided, classes=classes)
            cells.append(np.where(known[:, None, None], counts, 0))
        progress(int(rows[-1]) + 1, len(examples))
    pixels = np.concatenate(cells) if cells else None
    return dataclasses.replace(together(parts), pixels_NKK=pixels)


def _decisions(rows: pd.DataFrame, scores: Any) -> Predictions:
    """One a window or clip."""
    return Predictions(
        rows=rows.drop(columns="crop", errors="ignore").reset_index(drop=True),
        probability_NK=_array(scores.probability_BK()),
        branches={name: _array(values) for name, values in scores.branches().items()},
    )


def _moments(
    examples: ClipExamples, labels: Sequence[BatchLabels], rows: pd.DataFrame, scores: Any
) -> Predictions:
    """One row a frame; it has the score of the token that tells of it."""
    anomaly_BL, class_BLK = (_array(values) for values in scores.moments())
    parts = []
    for at, row in enumerate(rows.index):
        number, clip, _ = examples.clip_NC[row]
        batch, table = examples.batch_set.batches[number], examples.tables[number]
        spans_s = examples.spans_s(int(row))
        times_s, label = _frames(batch, labels[number], table.start_s[clip], table.stop_s[clip])
        token = _token_of(times_s, spans_s)
        abnormal = anomaly_BL[at, token]
        parts.append(
            Predictions(
                rows=pd.DataFrame(
                    {
                        "batch": batch.id,
                        "end_s": times_s,
                        "segment": table.segment[clip],
                        "start_s": table.start_s[clip],
                        "label": label,
                    }
                ),
                probability_NK=class_BLK[at, token],
                branches={BINARY: np.stack([1 - abnormal, abnormal], axis=1)},
            )
        )
    return together(parts)


def _frames(
    batch: Batch, labels: BatchLabels, start_s: float, stop_s: float
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Times of the frames (without video: of the samples) of a clip, and their classes."""
    first, behind = np.searchsorted(labels.times_s, [start_s, stop_s])
    times_s = np.asarray(labels.times_s[first:behind], np.float64)
    return times_s, np.asarray(labels.classes[first:behind]).astype(np.int64)


def _token_of(times_s: Floats, spans_s: Floats) -> npt.NDArray[np.int64]:
    """The token that began last by each instant (N,), the first before it; without tokens 0, which
    is padding. An instant where one ends and the next begins belongs to the next."""
    found = np.searchsorted(spans_s[:, 0], times_s + TIMING_S, side="right") - 1
    return np.asarray(np.clip(found, 0, None), np.int64)


def _array(values: Any) -> Floats:
    found: Floats = values.double().cpu().numpy()
    return found
