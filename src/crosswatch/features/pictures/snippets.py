"""So many successive frames of one recording, and the pictures that they show."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch
from crosswatch.features.encoder import Spans
from crosswatch.features.pictures.frames import recordings

END = np.iinfo(np.int64).max  # behind every picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snippets:
    """So many successive frames of a recording each; the last of a recording may hold fewer.

    Attributes:
        first: (K,) its first stored frame.
        behind: (K,) the stored frame behind its last.
        spans_s: (K, 2) until the next begins, or for a period after the recording's last frame.
    """

    first: npt.NDArray[np.int64]
    behind: npt.NDArray[np.int64]
    spans_s: Spans


def snippets_of(batch: Batch, frames: int) -> Snippets:
    """None without video."""
    first, behind, until_s = [], [], []
    times_s = np.empty(0) if batch.frame_times is None else np.asarray(batch.frame_times)
    for start, stop in recordings(batch):
        if start == stop:
            continue
        begins = np.arange(start, stop, frames)
        first.append(begins)
        behind.append(np.append(begins[1:], stop))
        end_s = times_s[stop - 1] + 1 / batch.video_rate_hz
        until_s.append(np.append(times_s[begins[1:]], end_s))
    firsts = np.concatenate([np.empty(0, np.int64), *first])
    return Snippets(
        first=firsts,
        behind=np.concatenate([np.empty(0, np.int64), *behind]),
        spans_s=np.column_stack([times_s[firsts], np.concatenate([np.empty(0), *until_s])]),
    )


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
