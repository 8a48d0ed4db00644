"""Where in a video something happens: annotations of UCF-Crime and XD-Violence, per frame.

Segments are half-open, in frames. A video's list label names its classes, joined by "-" and filled
up with 0 (`B2-0-0`); "Normal" (UCF-Crime) and "A" (XD-Violence) say that nothing happens.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.adapters.imported_labels import NORMAL as NORMAL
from crosswatch.data.adapters.imported_labels import classes_of as classes_of
from crosswatch.errors import UserError
from crosswatch.features.exchange.unpickle import load_npy

SNIPPET_FRAMES = 16
MOST_DIFFERING = 0.01  # of the frames
ABSENT = -1  # in UCF-Crime's text: there is no second segment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Frames start <= f < end; of several classes ("B1-B2") it is one or more."""

    start: int
    end: int
    label: str


def is_normal(label: str) -> bool:
    return set(classes_of(label)) <= set(NORMAL)


def read_annotations(path: Path) -> dict[str, tuple[Segment, ...]]:
    """By the video's name without `.mp4`; a segment whose class the text does not tell has "".

    Of UCF-Crime `name class start end start end` with -1 for what is not there; of XD-Violence
    `name start end ...` or, with classes, `name class start end class start end ...`.

    Raises:
        UserError: a row is none of these, or a name comes twice.
    """
    found: dict[str, tuple[Segment, ...]] = {}
    for row, line in enumerate(_text(path).splitlines(), start=1):
        if not (parts := line.split()):
            continue
        name = parts[0].removesuffix(".mp4")  # UCF-Crime's have it, and 14 of XD-Violence's
        if name in found:
            raise UserError(f"{path}: row {row}: {name[:80]!r} is annotated twice. Remove one.")
        found[name] = _segments(parts[1:], f"{path}: row {row}: {name[:80]!r}")
    if not found:
        raise UserError(f"{path}: annotates nothing. Give rows of a name and its segments.")
    return found


def truth_of(
    annotated: Mapping[str, tuple[Segment, ...]], labels: Mapping[str, str], frames: Sequence[int]
) -> dict[str, tuple[Segment, ...]]:
    """The segments of every listed video; of a normal one a single one, all of it.

    The released scripts took every video without a row for a normal one, so that a name that is
    spelled otherwise in the text cost its anomaly without a word.

    Args:
        labels: of each video in the list, in its order.
        frames: how many it has, in the same order.

    Raises:
        UserError: a video of an anomalous class has no segment, or a normal one has.
    """
    truth = {}
    for (name, label), count in zip(labels.items(), frames, strict=True):
        segments = annotated.get(name, ())
        if bool(segments) == is_normal(label):
            raise UserError(
                f"{name[:80]!r} is listed as {label!r} and has {len(segments)} annotated segments. "
                "Give the annotations of this list."
            )
        truth[name] = tuple(
            dataclasses.replace(segment, label=segment.label or "-".join(classes_of(label)))
            for segment in segments
        ) or (_whole(count, label),)
    return truth


def read_truth(
    segments: Path, segment_labels: Path, labels: Mapping[str, str], frames: Sequence[int]
) -> dict[str, tuple[Segment, ...]]:
    """As `truth_of`, from gt_segment and gt_label: JSON, or `.npy` of objects as released.

    Released ones write frames of anomalous videos as text, and UCF-Crime's call normal videos "A":
    here frames are whole numbers, and a normal video has the class that its list says.

    Raises:
        UserError: they tell of other videos than the list, or of other lengths.
    """
    all_spans, all_names = _entries(segments), _entries(segment_labels)
    for path, entries in ((segments, all_spans), (segment_labels, all_names)):
        if len(entries) != len(labels):
            raise UserError(
                f"{path}: tells of {len(entries)} videos; the list has {len(labels)}. Give the one "
                "of this list."
            )
    truth = {}
    rows = zip(labels.items(), frames, all_spans, all_names, strict=True)
    for (name, label), count, spans, names in rows:
        where = f"{segments}: {name[:80]!r}"
        found = _paired(spans, names, where)
        if is_normal(label):
            if [(segment.start, segment.end) for segment in found] != [(0, count)]:
                raise UserError(
                    f"{where}: is normal and has {count} frames (16 a snippet); the file says "
                    f"{spans}. Give the one that belongs to these features."
                )
            found = (_whole(count, label),)
        elif not found:
            raise UserError(f"{where}: is listed as {label!r} and has no segment.")
        truth[name] = found
    return truth


def frame_truth(segments: Sequence[Segment], snippets: int) -> npt.NDArray[np.float64]:
    """(16 * snippets,) 1 where something happens.

    Segments may reach a snippet beyond the end: frames that fill no snippet have no features.
    """
    happens = np.zeros(SNIPPET_FRAMES * (snippets + 1))
    for segment in segments:
        if not is_normal(segment.label):
            happens[segment.start : segment.end] = 1.0
    return happens[:-SNIPPET_FRAMES]


def all_frames(truth: Mapping[str, Sequence[Segment]], frames: Sequence[int]) -> Any:
    """What is called gt: every video's frames, in order of the list."""
    each = [
        frame_truth(segments, count // SNIPPET_FRAMES)
        for segments, count in zip(truth.values(), frames, strict=True)
    ]
    return np.concatenate(each) if each else np.zeros(0)


def frames_that_differ(
    path: Path, truth: Mapping[str, Sequence[Segment]], frames: Sequence[int]
) -> int:
    """For how many frames a gt file says something else than the segments.

    XD-Violence's is built from its text without classes, which differs from the one with classes
    for 143 frames of five videos.

    Raises:
        UserError: it has another length than the features, or differs for over a hundredth.
    """
    given, built = load_npy(path), all_frames(truth, frames)
    if given.shape != built.shape:
        raise UserError(
            f"{path}: has shape {given.shape}; the features have {len(built)} frames, 16 a "
            "snippet. Give the one that belongs to this list and these features."
        )
    differing = int(np.count_nonzero((given != 0) != (built != 0)))
    if differing > MOST_DIFFERING * len(built):
        raise UserError(
            f"{path}: says something else than the segments for {differing} of {len(built)} "
            "frames; allowed a hundredth. Give the one that belongs to them."
        )
    return differing


def _whole(frames: int, label: str) -> Segment:
    return Segment(start=0, end=frames, label="-".join(classes_of(label)) or NORMAL[0])


def _segments(parts: Sequence[str], where: str) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    label, pending = "", []
    for part in parts:
        try:
            pending.append(int(part))
        except ValueError:
            if pending:
                raise UserError(f"{where}: a start without an end before {part[:40]!r}.") from None
            label = part
        if len(pending) == 2:
            segments += _segment(pending, label, where)
            pending = []
    if pending:
        raise UserError(f"{where}: a start without an end: {pending[0]}.")
    return tuple(segments)


def _segment(span: Sequence[int], label: str, where: str) -> tuple[Segment, ...]:
    start, end = span
    if start == end == ABSENT:
        return ()
    if not 0 <= start < end:
        raise UserError(f"{where}: segment {start} to {end}; expected 0 <= start < end, in frames.")
    return (Segment(start=start, end=end, label=label),)


def _paired(spans: Any, names: Any, where: str) -> tuple[Segment, ...]:
    try:
        pairs = [(int(start), int(end), str(name))
                 for (start, end), name in zip(spans, names, strict=True)]  # fmt: skip
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where}: {str(spans)[:80]} with classes {str(names)[:80]}; expected a list of "
            "[start, end] and as many classes."
        ) from error
    return tuple(
        segment for start, end, name in pairs for segment in _segment((start, end), name, where)
    )


def _entries(path: Path) -> list[Any]:
    if path.suffix == ".npy":
        return list(load_npy(path, objects=True))
    try:
        entries = json.loads(_text(path))
    except ValueError as error:
        raise UserError(
            f"{path}: is no JSON: {error}. Give a list with an entry a video."
        ) from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: is no list. Give a list with an entry a video.")
    return entries


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text: {error}. Give UTF-8.") from error
