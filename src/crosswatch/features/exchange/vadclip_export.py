"""A features artifact as the files that VadCLIP reads (see features/vadclip.py for the layout)."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crosswatch import artifacts, config, progress
from crosswatch.errors import UserError
from crosswatch.features.exchange import ground_truth
from crosswatch.features.exchange.ground_truth import SNIPPET_FRAMES, Segment
from crosswatch.features.exchange.imported import LABELS
from crosswatch.features.exchange.vadclip import CLIP, LAYOUT
from crosswatch.features.exchange.vadclip_list import CROPS, write_list
from crosswatch.features.schema import Feature, FeatureSet, open_features

LIST, FILES = "list.csv", "features"
LONGEST_NAME = 200  # bytes; file systems take 255 with crop and ending
NO_NAME = re.compile(r"[/\\\0\ud800-\udfff]")
NO_TEXT = re.compile(r"[\0\ud800-\udfff]")
EXAMPLE = '{"BATCH": {"label": "Fighting", "segments": [[0, 80]], "segment_labels": ["Fighting"]}}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What is told of a batch in labels.json; what is not needed here is not looked at.

    Attributes:
        name: of the video.
        label: of the list, such as "Normal" or "B2-0-0".
        crops: which the features are, where they hold one; empty: crop 0.
        segments: half-open, in frames; None: not annotated.
    """

    name: str
    label: str
    crops: tuple[int, ...] = ()
    segments: tuple[tuple[int, ...], ...] | None = None
    segment_labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not ground_truth.classes_of(self.label):
            raise UserError(f"label {self.label!r} names no class")
        if not self.name or NO_NAME.search(self.name) or NO_TEXT.search(self.label):
            raise UserError(f"{self.name[:80]!r} and {self.label[:80]!r} have to be plain text")
        if len(self.name.encode()) > LONGEST_NAME:
            raise UserError(f"name {self.name[:80]!r} is longer than {LONGEST_NAME} bytes")
        if any(not 0 <= crop < CROPS for crop in self.crops):
            raise UserError(f"crops {list(self.crops)}; allowed 0 to {CROPS - 1}")
        spans, names = self.segments, self.segment_labels
        if (spans is None) != (names is None) or len(spans or ()) != len(names or ()):
            raise UserError("there have to be as many segment_labels as segments")
        if any(len(span) != 2 or not 0 <= span[0] < span[1] for span in spans or ()):
            raise UserError(f"segments {str(spans)[:80]}; expected [start, end] in frames")

    def truth(self) -> tuple[Segment, ...] | None:
        if self.segments is None or self.segment_labels is None:
            return None
        return tuple(
            Segment(start=start, end=end, label=label)
            for (start, end), label in zip(self.segments, self.segment_labels, strict=True)
        )


def export_vadclip(features: Path, out: Path, labels: Path | None = None) -> dict[str, int]:
    """Write list.csv, features/VIDEO__CROP.npy and, where every batch is annotated, gt.npy,
    gt_segment.json and gt_label.json; with a manifest, so that a next export may replace it.

    The list's paths begin in its own folder. Rows that are not valid in a crop that is are zero,
    for the layout cannot say so. Frames are 16 a snippet.

    Args:
        labels: in place of the artifact's own labels.json.

    Returns:
        How many videos and files there were, snippets that are zero, and annotated videos.

    Raises:
        UserError: there is no `clip`, or no label for a batch.
    """
    found = open_features(features)
    records = _records(labels or features / LABELS, found)
    with artifacts.create(
        out, kind=f"{LAYOUT} files", config={"layout": LAYOUT}, parents={"features": found.digest}
    ) as draft:
        rows: list[tuple[str, str]] = []
        truth: dict[str, tuple[Segment, ...]] = {}
        frames, blank = [], 0
        for batch, record in progress.track(records.items(), what="videos", total=len(records)):
            feature = found.feature(batch, CLIP)
            if feature is None or not len(feature):
                raise UserError(f"{features}: batch {batch} has no {CLIP}. Run extract with it.")
            for crop, valid, values in _crops(feature, record):
                file = f"{FILES}/{record.name}__{crop}.npy"
                np.save(draft / file, values)
                rows.append((file, record.label))
                blank += int(np.count_nonzero(~valid))
            frames.append(SNIPPET_FRAMES * len(feature))
            if (segments := record.truth()) is not None:
                truth[batch] = segments
        write_list(draft / LIST, rows)
        if len(truth) == len(records):
            _write_truth(draft.path, truth, frames)
        counts = {
            "videos": len(records), "files": len(rows), "blank": blank, "annotated": len(truth),
        }  # fmt: skip
        draft.counts.update(counts)
    return counts


def _records(path: Path, found: FeatureSet) -> dict[str, Record]:
    """In the order of the file, which is that of the list that was imported."""
    if not path.is_file():
        raise UserError(f"{path}: is missing. Name a file of labels by --labels, as {EXAMPLE}.")
    try:
        told = artifacts.read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: is no JSON: {error}. Write it as {EXAMPLE}.") from error
    if not isinstance(told, dict) or not all(isinstance(each, dict) for each in told.values()):
        raise UserError(f"{path}: is no table of labels by batch. Write it as {EXAMPLE}.")
    if missing := [batch for batch in found.batches if batch not in told]:
        raise UserError(
            f"{path}: has no label for {len(missing)} of {len(found.batches)} batches, the first "
            f"{missing[0]}. Write it as {EXAMPLE}."
        )
    fields = {field.name for field in dataclasses.fields(Record)}
    records: dict[str, Record] = {}
    names: dict[str, str] = {}
    rank = {batch: at for at, batch in enumerate(told)}
    for batch in sorted(found.batches, key=rank.__getitem__):
        known = {key: value for key, value in told[batch].items() if key in fields}
        if "label" not in known:
            raise UserError(f"{path}: {batch} has no label. Write it as {EXAMPLE}.")
        record = config.build(Record, {"name": batch, **known}, where=f"{path}: {batch}")
        if (other := names.setdefault(record.name, batch)) != batch:
            raise UserError(f"{path}: {other} and {batch} have one name, {record.name[:80]!r}.")
        records[batch] = record
    return records


def _crops(feature: Feature, record: Record) -> Iterator[tuple[int, Any, Any]]:
    if feature.values.ndim == 2:
        crop = record.crops[0] if record.crops else 0
        yield crop, feature.valid, np.asarray(feature.values)
        return
    if feature.values.ndim != 3 or feature.values.shape[1] > CROPS:
        raise UserError(
            f"{record.name[:80]!r}: {CLIP} has shape {feature.values.shape}; the layout holds "
            f"(snippets, numbers) or (snippets, up to {CROPS} crops, numbers)."
        )
    for crop in np.flatnonzero(feature.valid.any(axis=0)).tolist():
        yield crop, feature.valid[:, crop], np.ascontiguousarray(feature.values[:, crop])


def _write_truth(folder: Path, truth: Mapping[str, tuple[Segment, ...]], frames: list[int]) -> None:
    np.save(folder / "gt.npy", ground_truth.all_frames(truth, frames))
    spans = [[[each.start, each.end] for each in segments] for segments in truth.values()]
    names = [[each.label for each in segments] for segments in truth.values()]
    artifacts.write_json(folder / "gt_segment.json", spans)
    artifacts.write_json(folder / "gt_label.json", names)
