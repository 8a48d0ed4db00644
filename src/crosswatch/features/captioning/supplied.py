"""Sentences that people wrote, put on the time of a batch."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np

from crosswatch import artifacts
from crosswatch.data.adapters.arrival import safe_path
from crosswatch.data.sync.clocks import ClockMap
from crosswatch.errors import BadBatchError, UserError
from crosswatch.features.captioning.captions import Caption, Captioned
from crosswatch.features.captioning.explanation import explained
from crosswatch.features.captioning.supplied_table import Sentence, TableError, read_sentences
from crosswatch.features.settings import SuppliedConfig
from crosswatch.features.source import Source

NAME = "supplied"
OPTION = "caption.supplied"
STREAM_OF_CLOCK = {"camera": "video", "audio": "audio"}


def read_supplied(source: Source, config: SuppliedConfig, *, explain_s: float) -> Captioned:
    """The sentences of a batch.

    One that begins before the batch, or ends behind it, is cut; one that lies outside of it is left
    out and counted. A sentence holds until the next one begins, even if it was to go on, and where
    it does not say until when, no longer than its recording. One over several recordings becomes a
    row of each.

    Raises:
        BadBatchError: the table of this delivery cannot be used, or no clock tells its times.
        UserError: the table of all batches cannot be used.
    """
    named = PurePath(config.table)
    if named.is_absolute():
        path, names, shared = Path(config.table), {source.batch_id}, True
    else:
        path, shared = _in_delivery(source.original.path, config.table)
        names = {source.batch_id, source.original.path.name}
    try:
        sentences, digest = _read(path, config, names=names, shared=shared)
    except TableError as error:
        kind = UserError if named.is_absolute() else BadBatchError
        raise kind(str(error)) from error
    return _placed(source, sentences, config, digest=digest, explain_s=explain_s)


def _in_delivery(delivery: Path, table: str) -> tuple[Path, bool]:
    """The table's path, and whether other deliveries may share it: those of files do."""
    if ".." in PurePath(table).parts or not table:
        raise UserError(
            f"{OPTION}.table is {table!r}, which leads out of the delivery. Name a file in it, or "
            "an absolute path."
        )
    folder = delivery if delivery.is_dir() else delivery.parent
    return safe_path(folder, table), folder != delivery


def _read(
    path: Path, config: SuppliedConfig, *, names: set[str], shared: bool
) -> tuple[list[Sentence], str]:
    if not path.is_file():
        raise TableError(
            f"{path.name}: is missing in {path.parent}. Deliver it, name another table "
            f"({OPTION}.table), or set caption.source to template."
        )
    try:
        digest = artifacts.sha256_of(path)
        return list(read_sentences(path, config, names=names, shared=shared)), digest
    except PermissionError as error:
        raise TableError(
            f"{path}: cannot be read: {error.strerror}. Give the user that runs Crosswatch the "
            "right to read it."
        ) from error


def _placed(
    source: Source,
    sentences: Sequence[Sentence],
    config: SuppliedConfig,
    *,
    digest: str,
    explain_s: float,
) -> Captioned:
    recordings = source.batch.segments
    to_reference_s = _clock(source, sentences, config.clock)
    placed = sorted(
        (_Placed.of(sentence, recordings, to_reference_s) for sentence in sentences),
        key=lambda each: each.time_s,
    )
    ends_s = _cut([each.time_s for each in placed], [each.until_s for each in placed])
    made: list[Caption] = []
    left_out = 0
    for each, until_s in zip(placed, ends_s, strict=True):
        rows = [
            Caption(
                time_s=max(each.time_s, start_s),
                until_s=min(until_s, stop_s),
                frame=-1,
                caption=each.text,
                explanation="",
                score=math.nan,
                source=NAME,
                digest=digest,
            )
            for start_s, stop_s in recordings
            if max(each.time_s, start_s) < min(until_s, stop_s)
        ]
        left_out += not rows
        made += rows
    made.sort(key=lambda caption: caption.time_s)
    captions = explained(made, recordings=recordings, within_s=explain_s)
    return Captioned(captions=captions, left_out=left_out)


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A sentence on the reference clock."""

    text: str
    time_s: float
    until_s: float

    @classmethod
    def of(
        cls,
        sentence: Sentence,
        recordings: Sequence[tuple[float, float]],
        to_reference_s: Callable[[float], float],
    ) -> "_Placed":
        from_s, until_s = recordings[0][0], recordings[-1][1]
        if sentence.time_s is not None:
            from_s = to_reference_s(sentence.time_s)
            until_s = next((stop for start, stop in recordings if from_s < stop), from_s)
        if sentence.until_s is not None:
            until_s = to_reference_s(sentence.until_s)
        return cls(sentence.text, from_s, until_s)


def _cut(starts_s: Sequence[float], ends_s: Sequence[float]) -> Iterator[float]:
    """Ends, not behind the next later start; of sentences that begin together none is cut."""
    later_s = np.unique(starts_s)
    following = np.searchsorted(later_s, starts_s, side="right")
    bounds_s = np.append(later_s, math.inf)[following]
    return itertools.starmap(min, zip(ends_s, bounds_s.tolist(), strict=True))


def _clock(source: Source, sentences: Sequence[Sentence], clock: str) -> Callable[[float], float]:
    """From the table's clock to the reference clock."""
    stream = STREAM_OF_CLOCK.get(clock)
    timed = any(each.time_s is not None or each.until_s is not None for each in sentences)
    if stream is None or not timed:
        return lambda time_s: time_s
    told = source.batch.sync["streams"].get(stream)
    if told is None:
        raise BadBatchError(
            f"{OPTION}.clock is {clock}, and the batch has no {stream} to take it from. Set it to "
            "the clock that the table was written by."
        )
    if told.get("pieces"):
        raise BadBatchError(
            f"{OPTION}.clock is {clock}, which was reset {len(told['pieces']) - 1} times, so that "
            "a time on it may be said twice. Write the table on the control system's clock."
        )
    known = ClockMap.restored(told)
    return lambda time_s: float(known.to_reference(np.array([time_s]))[0])
