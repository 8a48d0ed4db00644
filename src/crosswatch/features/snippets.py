"""So many successive frames of one recording, and the pictures that they show."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch

END = np.iinfo(np.int64).max  # behind every picture


def snippets(batch: Batch, snippet_frames: int) -> npt.NDArray[np.int64]:
    """(K, 3) first stored frame of each snippet, the one behind its last, and its recording."""
    if batch.frame_times is None:
        return np.empty((0, 3), np.int64)
    times_s = np.asarray(batch.frame_times)
    bounds: list[tuple[int, int, int]] = []
    behind = 0  # recordings share no frame
    for recording, (start_s, stop_s) in enumerate(batch.segments):
        start = max(behind, int(np.searchsorted(times_s, start_s)))
        behind = max(start, int(np.searchsorted(times_s, stop_s, side="right")))
        firsts = range(start, behind, snippet_frames)
        bounds += [(first, min(first + snippet_frames, behind), recording) for first in firsts]
    return np.array(bounds, np.int64).reshape(-1, 3)


def grouped(
    pictures: Iterator[tuple[int, Any]], wanted: Sequence[npt.NDArray[np.int64]]
) -> Iterator[tuple[int, dict[int, Any]]]:
    """Each group's number, and by position those of its pictures that came.

    Pictures come in order of position; one is held for as long as a group may wait for it.
    """
    first = np.array([group.min(initial=END) for group in wanted], np.int64)
    last = np.array([group.max(initial=-1) for group in wanted], np.int64)
    order = np.argsort(last, kind="stable")
    least = np.minimum.accumulate(first[order][::-1])[::-1]  # of what a group and later ones want
    held: dict[int, Any] = {}
    done = 0
    for at, picture in itertools.chain(pictures, [(END, None)]):
        while done < len(order) and last[order[done]] < at:
            group = int(order[done])
            positions = wanted[group].tolist()
            yield group, {position: held[position] for position in positions if position in held}
            done += 1
            needed = least[done] if done < len(order) else END
            held = {position: kept for position, kept in held.items() if position >= needed}
        held[at] = picture
