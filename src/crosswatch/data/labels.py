"""An expert's notes, moved to the reference clock and to the pixels of the stored frames."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from crosswatch.errors import BadBatchError
from crosswatch.records import Event, Keyframe

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """How the pictures that the notes were drawn on became the stored frames."""

    drawn_on_px: tuple[int, int]
    size_px: tuple[int, int]  # of the delivered pictures
    crop_xywh_px: tuple[int, ...] | None  # of the delivered pictures
    frame_px: int

    def stored(self, box_xywh_px: Box) -> Box | None:
        """The box in stored pixels, cut at the frame's borders; None if it lies outside."""
        left, top, width, height = self.crop_xywh_px or (0, 0, *self.size_px)
        corners = []
        for axis, (start, length) in enumerate(((left, width), (top, height))):
            scale = self.size_px[axis] / self.drawn_on_px[axis]
            low = box_xywh_px[axis] * scale - start
            high = low + box_xywh_px[axis + 2] * scale
            corners.append(np.clip(np.array([low, high]) / length, 0.0, 1.0) * self.frame_px)
        (x, right), (y, bottom) = corners
        if right <= x or bottom <= y:
            return None
        return float(x), float(y), float(right - x), float(bottom - y)


def check_classes(
    events: Iterable[Event], keyframes: Iterable[Keyframe], classes: Sequence[str]
) -> None:
    """Hold the notes to the classes that are told apart.

    Raises:
        BadBatchError: a class is none of them.
    """
    named = [event.class_name for event in events]
    named += [keyframe.class_name for keyframe in keyframes]
    for name in named:
        if name not in classes:
            raise BadBatchError(
                f"annotations: unknown class {name!r}; ingest.classes are "
                f"{', '.join(classes)}. Correct the notes or add the class."
            )


def place_events(
    events: Iterable[Event], to_reference_s: Callable[[float], float], span_s: tuple[float, float]
) -> list[Event]:
    """Events on the reference clock; those wholly outside of the data are left out."""
    moved = [
        dataclasses.replace(
            event,
            onset_s=to_reference_s(event.onset_s),
            apex_s=to_reference_s(event.apex_s),
            offset_s=to_reference_s(event.offset_s),
        )
        for event in events
    ]
    return [event for event in moved if event.offset_s >= span_s[0] and event.onset_s <= span_s[1]]


def place_keyframes(
    keyframes: Iterable[Keyframe],
    to_reference_s: Callable[[float], float],
    span_s: tuple[float, float],
    picture: Picture,
) -> list[Keyframe]:
    """Keyframes on the reference clock and in stored pixels, without those outside of either."""
    placed = []
    for keyframe in keyframes:
        time_s, box = to_reference_s(keyframe.time_s), picture.stored(keyframe.box_xywh_px)
        if box is not None and span_s[0] <= time_s <= span_s[1]:
            placed.append(Keyframe(class_name=keyframe.class_name, time_s=time_s, box_xywh_px=box))
    return placed
