"""What a delivery says about itself: batch.json and the expert's notes, taken at their word only
after a check of every name, type and number."""

import dataclasses
import datetime
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from crosswatch import config
from crosswatch.data.times.stamps import TimeEntry
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Event, Keyframe

DESCRIPTION = "batch.json"
FRAME_COLUMN = "frame"  # of a video's times
Section = TypeVar("Section")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoEntry:
    file: str
    rate_hz: float
    clock: str = "camera"
    unit: str = "rgb"
    times: str | None = None  # a table with a row a frame
    time: TimeEntry = dataclasses.field(default_factory=TimeEntry)  # of that table
    trigger: str | None = None  # its column that is 1 while a trigger fires, else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalEntry:
    file: str
    rate_hz: float
    columns: tuple[str, ...]
    unit: str
    clock: str = "control"
    time: TimeEntry = dataclasses.field(default_factory=TimeEntry)
    trigger: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioEntry:
    """`file` may be the video's: then its sound is meant, and the clock is the video's."""

    file: str
    rate_hz: float
    clock: str | None = None
    unit: str = "pcm"
    start_s: float | None = None  # of the first sample on that clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamEntries:
    video: VideoEntry | None = None
    signal: SignalEntry | None = None
    audio: AudioEntry | None = None

    @property
    def sound_of_video(self) -> bool:
        return (
            self.audio is not None and self.video is not None and self.audio.file == self.video.file
        )

    def clocks(self) -> list[str]:
        entries = (self.video, self.signal)
        clocks = [entry.clock for entry in entries if entry is not None]
        return clocks if self.audio is None else [*clocks, self.audio_clock]

    @property
    def audio_clock(self) -> str:
        if self.audio is not None and self.audio.clock is not None:
            return self.audio.clock
        return self.video.clock if self.video is not None and self.sound_of_video else "microphone"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """batch.json."""

    id: str
    plant: str
    started_at: str
    streams: StreamEntries
    annotations: str | None = None

    @property
    def start(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.started_at)

    def files(self) -> list[str]:
        """Every file that is declared, and so has to be there."""
        entries = (self.streams.video, self.streams.signal, self.streams.audio)
        names = [entry.file for entry in entries if entry is not None]
        if self.streams.video is not None and self.streams.video.times is not None:
            names.append(self.streams.video.times)
        return names + ([] if self.annotations is None else [self.annotations])


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotedEvent:
    class_name: str
    onset_s: float
    apex_s: float
    offset_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class NotedKeyframe:
    class_name: str
    time_s: float
    box_xywh_px: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notes:
    """annotations.json."""

    clock: str = "control"
    frame_width_px: int | None = None
    frame_height_px: int | None = None
    events: tuple[NotedEvent, ...] = ()
    keyframes: tuple[NotedKeyframe, ...] = ()

    @property
    def frame_size_px(self) -> tuple[int, int] | None:
        if self.frame_width_px is None or self.frame_height_px is None:
            return None
        return self.frame_width_px, self.frame_height_px

    def known_events(self) -> tuple[Event, ...]:
        return tuple(Event(**dataclasses.asdict(event)) for event in self.events)

    def known_keyframes(self) -> tuple[Keyframe, ...]:
        return tuple(
            Keyframe(
                class_name=keyframe.class_name,
                time_s=keyframe.time_s,
                box_xywh_px=(x, y, width, height),
            )
            for keyframe in self.keyframes
            for x, y, width, height in [keyframe.box_xywh_px]
        )


def read_description(path: Path) -> Description:
    """batch.json, checked.

    Raises:
        BadBatchError: no JSON, an unknown or missing key, a wrong type, no rate or no date.
    """
    told = _section(Description, _json(path), where=path.name)
    try:
        started = told.start
    except ValueError as error:
        raise BadBatchError(
            f"{path.name}.started_at: {told.started_at[:40]!r} is no ISO date; write it as "
            "2025-01-06T06:00:00Z."
        ) from error
    if started.utcoffset() != datetime.timedelta(0):
        raise BadBatchError(f"{path.name}.started_at: {told.started_at} is not UTC; end it with Z.")
    streams = told.streams
    if streams.video is None and streams.signal is None:
        raise BadBatchError(
            f"{path.name}.streams: declares neither video nor signal; one is needed."
        )
    entries = {"video": streams.video, "signal": streams.signal, "audio": streams.audio}
    for name, entry in entries.items():
        if entry is not None and not 1e-6 <= entry.rate_hz <= 1e6:
            raise BadBatchError(
                f"{path.name}.streams.{name}.rate_hz: {entry.rate_hz:g} is no rate; expected "
                "0.000001 to 1000000 Hz."
            )
    _check_streams(streams, where=f"{path.name}.streams")
    return told


def read_notes(path: Path, told: Description) -> Notes:
    """The expert's notes, checked.

    Raises:
        BadBatchError: as for batch.json, or an event that ends before it begins, or an empty box.
    """
    values = _json(path)
    if isinstance(values, Mapping):
        values = {
            key: _classes_named(entries) if key in ("events", "keyframes") else entries
            for key, entries in values.items()
        }
    notes = _section(Notes, values, where=path.name)
    clocks = told.streams.clocks()
    if (notes.events or notes.keyframes) and notes.clock not in clocks:
        raise BadBatchError(
            f"{path.name}.clock: no stream has the clock {notes.clock!r}; the streams have "
            f"{', '.join(clocks)}. Correct it."
        )
    for at, event in enumerate(notes.events):
        _check_event(event, where=f"{path.name}.events[{at}]")
    for at, keyframe in enumerate(notes.keyframes):
        _check_keyframe(keyframe, where=f"{path.name}.keyframes[{at}]")
    size_px = notes.frame_size_px
    if size_px is not None and min(size_px) <= 0:
        raise BadBatchError(
            f"{path.name}: frame size {size_px[0]}x{size_px[1]} px is none. Correct it."
        )
    return notes


def _check_streams(streams: StreamEntries, *, where: str) -> None:
    video, signal, audio = streams.video, streams.signal, streams.audio
    if video is not None:
        if video.times is None and (video.time != TimeEntry() or video.trigger is not None):
            raise BadBatchError(
                f"{where}.video: time and trigger say how the table `times` is to be read, and "
                "there is none. Name it, or remove them."
            )
        _check_columns((FRAME_COLUMN, *_stamp_columns(video)), where=f"{where}.video")
    if signal is not None:
        if not signal.columns:
            raise BadBatchError(f"{where}.signal.columns: is empty; name the value columns.")
        names = (*signal.columns, *_stamp_columns(signal))
        _check_columns(names, where=f"{where}.signal.columns")
    if audio is not None and not math.isfinite(audio.start_s or 0.0):
        raise BadBatchError(f"{where}.audio.start_s: {audio.start_s} is no time. Correct it.")


def _stamp_columns(entry: VideoEntry | SignalEntry) -> tuple[str, ...]:
    return (entry.time.column, *([] if entry.trigger is None else [entry.trigger]))


def _check_columns(columns: tuple[str, ...], *, where: str) -> None:
    if len(set(columns)) != len(columns):
        raise BadBatchError(f"{where}: {', '.join(columns)}: a name comes twice. Name each once.")


def _check_event(event: NotedEvent, *, where: str) -> None:
    times_s = (event.onset_s, event.apex_s, event.offset_s)
    finite = all(map(math.isfinite, times_s))
    if not finite or not event.onset_s <= event.apex_s <= event.offset_s:
        raise BadBatchError(
            f"{where}: onset {event.onset_s:g} s, apex {event.apex_s:g} s, offset "
            f"{event.offset_s:g} s; they have to be finite and in this order. Correct the notes."
        )


def _check_keyframe(keyframe: NotedKeyframe, *, where: str) -> None:
    box = keyframe.box_xywh_px
    finite = all(map(math.isfinite, (*box, keyframe.time_s)))
    if len(box) != 4 or not finite or min(box[2:]) <= 0:
        raise BadBatchError(
            f"{where}: time {keyframe.time_s:g} s, box {list(box)}; a box is [x, y, width, height] "
            "in pixels, finite, with an area. Correct the notes."
        )


def _classes_named(entries: Any) -> Any:
    """`class` is the layout's word and no name that Python allows for a field."""
    if not isinstance(entries, list):
        return entries
    return [
        {("class_name" if key == "class" else key): value for key, value in entry.items()}
        if isinstance(entry, dict)
        else entry
        for entry in entries
    ]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise BadBatchError(f"{path.name}: is not JSON: {error}. Write it again.") from error


def _section(cls: type[Section], values: Any, *, where: str) -> Section:
    try:
        return config.build(cls, values, where=where)
    except UserError as error:
        raise BadBatchError(str(error)) from error
    except TypeError as error:  # a field without a default was not given
        missing = re.findall(r"'(\w+)'", str(error))
        names = ", ".join(missing).replace("class_name", "class")
        raise BadBatchError(f"{where}: lacks {names}. Add it.") from error
