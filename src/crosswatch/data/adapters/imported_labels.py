"""What a record of an import's labels.json says: classes, and what happens where."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from crosswatch.data.adapters.imported_sets import AGAIN, LABELS
from crosswatch.errors import BadBatchError
from crosswatch.records import Event

NORMAL = ("Normal", "A")  # of UCF-Crime, of XD-Violence: nothing happens
Segment = tuple[str, int, int]
"""A class, and the frames start <= f < stop that show it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What a record of labels.json says of its batch, in the words of either layout."""

    classes: tuple[str, ...]  # of all of it, without that of normal videos
    normal: str | None  # how it is called normal; empty if it is not; None: no class is normal
    split: str | None
    frames: int | None
    segments: tuple[Segment, ...] | None  # None: nobody noted what happens where

    @classmethod
    def read(cls, record: Any) -> "Told":
        """
        Raises:
            BadBatchError: it is not as import writes it.
        """
        try:
            if "class" in record:
                return cls(
                    classes=(str(record["class"]),), normal=None, split=record["split"],
                    frames=None, segments=None,
                )  # fmt: skip
            labels = [str(label) for label in record["labels"]]
            return cls(
                classes=tuple(label for label in labels if label not in NORMAL),
                normal=next((label for label in labels if label in NORMAL), ""),
                split=record["split"],
                frames=int(record["frames"]),
                segments=None if record["segments"] is None else tuple(_noted(record)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadBatchError(
                f"{LABELS}: its record is not as import writes it ({type(error).__name__}: "
                f"{error}). {AGAIN}"
            ) from error

    @property
    def named(self) -> tuple[str, ...]:
        """Every class that an event may have."""
        noted = (name for name, _, _ in self.segments or ())
        return tuple(dict.fromkeys((*self.classes, *noted)))

    def events(self, count: int, rate_hz: float) -> tuple[tuple[Event, ...], int]:
        """Of each segment, from its first frame until half a frame behind its last: that holds
        these frames and no others, whether or not an end counts. And how many segments lie behind
        the last of `count` frames.

        Without segments every class fills the whole video.
        """
        segments = self.segments
        if segments is None:
            segments = tuple((name, 0, count) for name in self.classes)
        inside = [(name, at, min(stop, count)) for name, at, stop in segments if at < count]
        events = tuple(
            Event(
                class_name=name,
                onset_s=start / rate_hz,
                apex_s=(start + stop - 0.5) / 2 / rate_hz,
                offset_s=(stop - 0.5) / rate_hz,
            )
            for name, start, stop in inside
        )
        return events, len(segments) - len(inside)


def _noted(record: Mapping[str, Any]) -> Iterator[Segment]:
    """A segment of several classes ("B1-B2") is one of each."""
    pairs = zip(record["segments"], record["segment_labels"], strict=True)
    for (start, stop), label in pairs:
        for name in classes_of(label):
            if name not in NORMAL:
                yield name, int(start), int(stop)


def classes_of(label: str) -> tuple[str, ...]:
    """("B2",) of "B2-0-0"; ("Normal",) of "Normal"."""
    return tuple(dict.fromkeys(part for part in label.split("-") if part not in ("", "0")))
