"""Stored frames by recording, and the original's pictures behind them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from crosswatch.data.batches import Batch
from crosswatch.errors import UserError
from crosswatch.features.encoder import Failed, Input, Rows
from crosswatch.features.source import Source

PIXELS = "pixels"


def recordings(batch: Batch) -> list[tuple[int, int]]:
    """First frame of each recording, and the one behind its last; where two meet, the later's.

    Frames outside of all recordings belong to none.
    """
    if batch.frame_times is None:
        return []
    times_s, bounds_s = np.asarray(batch.frame_times), np.array(batch.segments).reshape(-1, 2)
    first = np.searchsorted(times_s, bounds_s[:, 0])
    behind = np.searchsorted(times_s, bounds_s[:, 1], side="right")
    behind[:-1] = np.minimum(behind[:-1], first[1:])
    return list(zip(first.tolist(), behind.tolist(), strict=True))


def picture_inputs(
    source: Source, rows: Rows, frames: Rows, prepare: Callable[[Any], Any]
) -> Iterator[Input | Failed]:
    """The original's picture behind each row's stored frame, prepared.

    Args:
        frames: (N,) of each of `rows`.
        prepare: what of a picture (as `Original.pictures` converts) the model is given, under
            `PIXELS`.
    """
    sources = np.load(source.folder / "frame_sources.npy", mmap_mode="r", allow_pickle=False)
    positions = np.asarray(sources[frames])
    order = np.argsort(positions, kind="stable")
    wanted, starts = np.unique(positions[order], return_index=True)
    groups = zip(wanted.tolist(), np.split(rows[order], starts[1:]), strict=True)
    for position, prepared in source.original.pictures(wanted, convert=_tried(prepare)):
        for expected, sharing in groups:
            if expected != position:
                yield from _failed(sharing, f"picture {expected} cannot be decoded")
                continue
            if isinstance(prepared, Exception):
                yield from _failed(sharing, f"picture {position}: {prepared}")
            else:
                yield from (Input(row=int(row), values={PIXELS: prepared}) for row in sharing)
            break
    for expected, sharing in groups:
        yield from _failed(sharing, f"picture {expected} cannot be decoded")


def _failed(rows: Rows, reason: str) -> Iterator[Failed]:
    for row in rows:
        yield Failed(row=int(row), reason=reason)


def _tried(prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """With the error in place of a picture that cannot be prepared, such as one far too flat."""

    def convert(picture: Any) -> Any:
        try:
            return prepare(picture)
        except UserError:
            raise
        except (RuntimeError, ValueError) as error:
            return error

    return convert
