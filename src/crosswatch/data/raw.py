"""A delivery as an adapter hands it over, whatever its layout was."""

import dataclasses

import numpy as np
import numpy.typing as npt

from crosswatch.data.audio.decode import RawAudio
from crosswatch.data.signals import RawSignal
from crosswatch.data.spans import Spans
from crosswatch.data.video.decode import Pictures, RawVideo
from crosswatch.records import Block, Event, Keyframe


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawTimes:
    """When pictures were taken that nobody delivers."""

    times_s: npt.NDArray[np.float64]
    rate_hz: float
    clock: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawBatch:
    """What an adapter understood of a delivery; the video is not decoded yet."""

    id: str
    plant: str
    started_at: str
    video: RawVideo | None
    signal: RawSignal | None
    audio: RawAudio | None = None
    times: RawTimes | None = None  # in place of all streams: its features were imported
    events: tuple[Event, ...] = ()
    keyframes: tuple[Keyframe, ...] = ()
    masks: Pictures | None = None  # class index of every pixel (H, W) of every picture
    blocks: tuple[tuple[Block, float, float], ...] = ()  # a published split, on the reference clock
    undivided: bool = False  # a split gives it to one block as a whole
    released: bool = False  # as a published loader reads it: windows and splits follow it
    labels_clock: str = "control"
    frame_size_px: tuple[int, int] | None = None  # pictures that the keyframes were drawn on
    segments: Spans = ()  # recordings on the reference clock; empty: found from gaps
    warnings: tuple[str, ...] = ()
