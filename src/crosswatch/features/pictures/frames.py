"""Stored frames by recording, and the original's pictures behind them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch
from crosswatch.errors import UserError
from crosswatch.features.encoder import Failed, Input, Rows
from crosswatch.features.source import Source

PIXELS = "pixels"


def recordings(batch: Batch) -> list[tuple[int, int]]:
    """First frame of each recording, and the one behind its last; where two meet, the later's.

    Frames outside of all recordings belong to none. Without pictures there is none to look at.
    """
    if batch.frames is None or batch.frame_times is None:
        return []
    times_s, bounds_s = np.asarray(batch.frame_times), np.array(batch.segments).reshape(-1, 2)
    first = np.searchsorted(times_s, bounds_s[:, 0])
    behind = np.searchsorted(times_s, bounds_s[:, 1], side="right")
    behind[:-1] = np.minimum(behind[:-1], first[1:])
    return list(zip(first.tolist(), behind.tolist(), strict=True))


def shown_by(source: Source) -> Rows:
    """(T,) which picture of the original each stored frame shows."""
    path = source.folder / "frame_sources.npy"
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def fresh_frames(source: Source) -> npt.NDArray[np.bool_]:
    """(T,) false for a stored frame that repeats the one before it: its own picture was lost."""
    shown = shown_by(source)
    return np.append(np.ones(min(1, shown.size), np.bool_), shown[1:] != shown[:-1])


def picture_inputs(
    source: Source, rows: Rows, frames: Rows, prepare: Callable[[Any], Any]
) -> Iterator[Input | Failed]:
    """The original's picture behind each row's stored frame, prepared.

    Args:
        frames: (N,) of each of `rows`.
        prepare: what of a picture (as `Original.pictures` converts) the model is given, under
            `PIXELS`.
    """
    fresh = fresh_frames(source)[frames]
    for row in rows[~fresh].tolist():
        yield Failed(row=row, reason="its picture could not be decoded by ingest either")
    positions = shown_by(source)[frames[fresh]]  # each but once
    waiting = dict(zip(positions.tolist(), rows[fresh].tolist(), strict=True))
    for position, prepared in source.original.pictures(positions, convert=_tried(prepare)):
        row = waiting.pop(position)
        if isinstance(prepared, Exception):
            yield Failed(row=row, reason=f"picture {position}: {prepared}")
        else:
            yield Input(row=row, values={PIXELS: prepared})
    for position, row in waiting.items():
        yield Failed(row=row, reason=f"picture {position} cannot be decoded")


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
