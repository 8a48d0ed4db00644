"""Which instants train, validate and evaluate.

By time: contiguous blocks of each batch with guards that serve only as history, so that no window
of a later block reaches back into an earlier one. By batch: whole batches, named.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from crosswatch import artifacts
from crosswatch.data.batches import Batch
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import TimeRange


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    by: Literal["time", "batch"] = "time"
    train_share: float = 0.60
    validation_share: float = 0.15
    validation: tuple[str, ...] = ()  # batch ids, for by: batch
    evaluation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rest = 1.0 - self.train_share - self.validation_share
        if min(self.train_share, self.validation_share, rest) <= 0:
            raise UserError(
                f"train_share {self.train_share} and validation_share {self.validation_share} "
                "leave no evaluation block; both have to be above 0 and their sum below 1"
            )


def split(batch: Batch, *, windows: WindowConfig, config: SplitConfig) -> tuple[TimeRange, ...]:
    """The blocks of one batch.

    Raises:
        BadBatchError: the batch is too short for two guards and three blocks.
    """
    first, last = batch.span_s
    if config.by == "batch":
        return (_whole(batch, first, last, config),)
    guard_s = windows.longest_s(batch.video_rate_hz)
    usable_s = last - first - 2 * guard_s
    if usable_s * min(config.train_share, config.validation_share) * windows.per_second < 1:
        raise BadBatchError(
            f"batch {batch.id}: lasts {last - first:.1f} s, and two guards of {guard_s:.1f} s (the "
            f"longest window) leave {max(usable_s, 0):.1f} s for three blocks. Deliver longer "
            "batches or shorten windows.signal_s."
        )
    train_stop = first + usable_s * config.train_share
    validation_start = train_stop + guard_s
    validation_stop = validation_start + usable_s * config.validation_share
    evaluation_start = validation_stop + guard_s
    ends = last + 1e-6  # ranges are half open; the last instant counts
    return (
        _range(batch, "train", first, train_stop),
        _range(batch, "validation", validation_start, validation_stop),
        _range(batch, "evaluation", evaluation_start, ends),
    )


def evaluation_set(ranges: Sequence[TimeRange]) -> dict[str, object]:
    """What candidate and champion are both scored on: batch digests and time ranges."""
    items = [
        {"batch": r.batch, "batch_digest": r.batch_digest, "start_s": r.start_s, "stop_s": r.stop_s}
        for r in ranges
        if r.block == "evaluation"
    ]
    return {"digest": artifacts.digest_of(items), "items": items}


def _whole(batch: Batch, first: float, last: float, config: SplitConfig) -> TimeRange:
    ends = last + 1e-6
    if batch.id in config.evaluation:
        return _range(batch, "evaluation", first, ends)
    if batch.id in config.validation:
        return _range(batch, "validation", first, ends)
    return _range(batch, "train", first, ends)


def _range(
    batch: Batch, block: Literal["train", "validation", "evaluation"], start: float, stop: float
) -> TimeRange:
    return TimeRange(
        batch=batch.id,
        batch_digest=batch.digest,
        block=block,
        start_s=round(start, 6),
        stop_s=round(stop, 6),
    )
