"""Which instants train, validate and evaluate.

By time: contiguous blocks of each batch with guards that serve only as history, so that no window
of a later block reaches back into an earlier one. By batch: whole batches, named. By source: whole
batches, each in the block that its name alone decides. Given: as the delivery was published.
What a delivery calls undivided (a video of a set) lies in one block as a whole.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

from crosswatch import artifacts
from crosswatch.data.batches import Batch
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Block, TimeRange

Span = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    by: Literal["time", "batch", "source", "given"] = "time"
    train_share: float = 0.60
    validation_share: float = 0.15  # given: of the published training block, at its end
    validation_videos_share: float = 0.10  # given: of undivided training videos, by their names
    strict: bool = True  # guards as long as the longest window between blocks of one batch
    validation: tuple[str, ...] = ()  # batch ids, for by: batch
    evaluation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rest = 1.0 - self.train_share - self.validation_share
        if min(self.train_share, self.validation_share, rest) <= 0:
            raise UserError(
                f"train_share {self.train_share} and validation_share {self.validation_share} "
                "leave no evaluation block; both have to be above 0 and their sum below 1"
            )
        if not 0 <= self.validation_videos_share < 1:
            raise UserError(
                f"validation_videos_share is {self.validation_videos_share}; expected 0..1, 1 "
                "excluded"
            )


def split(
    batch: Batch, *, windows: WindowConfig, config: SplitConfig, validates: bool = True
) -> tuple[TimeRange, ...]:
    """The blocks of one batch.

    Args:
        validates: whether undivided training videos may be drawn for validation: not where other
            videos of the set were published for it.

    Raises:
        BadBatchError: the batch is too short for two guards and three blocks, or has none given.
        UserError: the batch is undivided, and the split would cut it.
    """
    first, last = batch.span_s
    if config.by in ("batch", "source"):
        block = _named(batch.id, config) if config.by == "batch" else _drawn(batch.id, config)
        return (_range(batch, block, first, last + 1e-6),)
    if batch.undivided:
        block = _published(batch, config, validates=validates)
        return (_range(batch, block, first, last + 1e-6),)
    guard_s = 0.0
    if config.strict and not batch.released:
        guard_s = windows.longest_s(batch.video_rate_hz)
    if config.by == "given":
        return _given(batch, guard_s=guard_s, config=config)
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


def publishes_validation(batches: Iterable[Batch]) -> bool:
    return any(name == "validation" for batch in batches for name, _, _ in batch.blocks)


def evaluation_set(ranges: Sequence[TimeRange]) -> dict[str, object]:
    """What candidate and champion are both scored on: batch digests and time ranges."""
    items = [
        {"batch": r.batch, "batch_digest": r.batch_digest, "start_s": r.start_s, "stop_s": r.stop_s}
        for r in ranges
        if r.block == "evaluation"
    ]
    return {"digest": artifacts.digest_of(items), "items": items}


def _named(batch_id: str, config: SplitConfig) -> Block:
    if batch_id in config.evaluation:
        return "evaluation"
    return "validation" if batch_id in config.validation else "train"


def _drawn(batch_id: str, config: SplitConfig) -> Block:
    """A block by the name's hash: it stays the same whatever other batches there are."""
    drawn = _share_of(batch_id)
    if drawn < config.train_share:
        return "train"
    return "validation" if drawn < config.train_share + config.validation_share else "evaluation"


def _share_of(batch_id: str) -> float:
    return int.from_bytes(hashlib.sha256(batch_id.encode()).digest()[:8]) / 2**64


def _published(batch: Batch, config: SplitConfig, *, validates: bool) -> Block:
    """The block that an undivided batch was published for, or validation, drawn by its name."""
    if config.by == "time":
        raise UserError(
            f"split.by=time would cut videos such as {batch.id}, which are labelled as a whole. "
            "Set split.by to given, source or batch."
        )
    if not batch.blocks:
        raise BadBatchError(
            f"batch {batch.id}: was imported without a split, which split.by=given asks for. "
            "Import it with --split train or test, or set split.by to source or batch."
        )
    ((block, _, _),) = batch.blocks
    if block == "train" and validates and _share_of(batch.id) < config.validation_videos_share:
        return "validation"
    return block


def _given(batch: Batch, *, guard_s: float, config: SplitConfig) -> tuple[TimeRange, ...]:
    """The published blocks. Evaluation stays whole; what its windows see, or what sees it, is
    taken from training, whose end validates."""
    training = sorted((a, b) for name, a, b in batch.blocks if name == "train")
    evaluation = sorted((a, b) for name, a, b in batch.blocks if name == "evaluation")
    validation = sorted((a, b) for name, a, b in batch.blocks if name == "validation")
    if not training and not evaluation:
        raise BadBatchError(
            f"batch {batch.id}: was delivered without a split, which split.by=given asks for. Set "
            "split.by to time, batch or source."
        )
    if guard_s:
        guard_s += 1 / batch.video_rate_hz if batch.video_rate_hz else 0.0  # frames are the nearest
    left = training
    for start_s, stop_s in (*evaluation, *validation):
        left = _without(left, start_s - guard_s, stop_s + guard_s)
    if not validation:
        usable_s = max(sum(b - a for a, b in left) - guard_s, 0.0)
        validation = _last(left, usable_s * config.validation_share)
        if validation:
            left = _without(left, validation[0][0] - guard_s, validation[-1][1])
    if training and not left:
        raise BadBatchError(
            f"batch {batch.id}: guards of {guard_s:.1f} s (the longest window) around its "
            "published evaluation and before validation leave nothing to train. Shorten "
            "windows.signal_s, or set split.strict=false."
        )
    spans: dict[Block, list[Span]] = {
        "train": left, "validation": validation, "evaluation": evaluation
    }  # fmt: skip
    return tuple(_range(batch, name, a, b) for name, found in spans.items() for a, b in found)


def _without(spans: list[Span], start_s: float, stop_s: float) -> list[Span]:
    """What is left of spans outside of start_s..stop_s."""
    parts = [part for a, b in spans for part in ((a, min(b, start_s)), (max(a, stop_s), b))]
    return [(a, b) for a, b in parts if b > a]


def _last(spans: list[Span], length_s: float) -> list[Span]:
    """The end of spans, of this length in all."""
    found: list[Span] = []
    for start_s, stop_s in reversed(spans):
        if length_s <= 0:
            break
        found.append((max(start_s, stop_s - length_s), stop_s))
        length_s -= stop_s - start_s
    return found[::-1]


def _range(batch: Batch, block: Block, start: float, stop: float) -> TimeRange:
    return TimeRange(
        batch=batch.id,
        batch_digest=batch.digest,
        block=block,
        start_s=round(start, 6),
        stop_s=round(stop, 6),
    )
