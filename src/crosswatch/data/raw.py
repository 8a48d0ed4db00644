"""A delivery as an adapter hands it over, whatever its layout was."""

import dataclasses

from crosswatch.data.audio.decode import RawAudio
from crosswatch.data.signals import RawSignal
from crosswatch.data.spans import Spans
from crosswatch.data.video.decode import Pictures, RawVideo
from crosswatch.records import Block, Event, Keyframe


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawBatch:
    """What an adapter understood of a delivery; the video is not decoded yet."""

    id: str
    plant: str
    started_at: str
    video: RawVideo | None
    signal: RawSignal | None
    audio: RawAudio | None = None
    events: tuple[Event, ...] = ()
    keyframes: tuple[Keyframe, ...] = ()
    masks: Pictures | None = None  # class index of every pixel (H, W) of every picture
    blocks: tuple[tuple[Block, float, float], ...] = ()  # a published split, on the reference clock
    released: bool = False  # as a published loader reads it: windows and splits follow it
    labels_clock: str = "control"
    frame_size_px: tuple[int, int] | None = None  # pictures that the keyframes were drawn on
    segments: Spans = ()  # recordings on the reference clock; empty: found from gaps
    warnings: tuple[str, ...] = ()
