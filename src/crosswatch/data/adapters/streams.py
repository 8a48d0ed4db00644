"""The streams of a delivery, read as its batch.json declares them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.adapters.declared import (
    FRAME_COLUMN,
    Description,
    SignalEntry,
    VideoEntry,
)
from crosswatch.data.audio.decode import RawAudio
from crosswatch.data.signals import RawSignal
from crosswatch.data.tables import FIRST_ROW, read_table
from crosswatch.data.times.stamps import read_stamps, rising_edges
from crosswatch.data.times.unfold import Stamps
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import ADVICE, BadBatchError

Table = Mapping[str, npt.NDArray[Any]]
Files = Mapping[str, Path]  # by the name that batch.json gives them
Warnings = tuple[str, ...]


def read_video(
    told: Description, files: Files, *, max_reordered_share: float
) -> tuple[RawVideo | None, Warnings]:
    entry = told.streams.video
    if entry is None:
        return None, ()
    path = files[entry.file]
    if entry.times is None:
        return RawVideo(path=path, times_s=None, rate_hz=entry.rate_hz, clock=entry.clock), ()
    table = _read_table(files[entry.times], entry, (FRAME_COLUMN,))
    _check_numbers(table[FRAME_COLUMN], name=entry.times)
    stamps = read_stamps(
        table[entry.time.column],
        entry.time,
        rate_hz=entry.rate_hz,
        started_at=told.start,
        name=entry.times,
        max_reordered_share=max_reordered_share,
    )
    raw = RawVideo(
        path=path,
        times_s=stamps.times_s,
        rate_hz=entry.rate_hz,
        clock=entry.clock,
        times_name=entry.times,
        pieces=stamps.pieces if stamps.resets else None,
        triggers_s=_triggers(table, entry, stamps, entry.times),
        reordered=stamps.reordered,
        rollovers=stamps.rollovers,
    )
    return raw, _rolled_over(stamps, entry, entry.times)


def read_signal(
    told: Description, files: Files, *, max_reordered_share: float
) -> tuple[RawSignal | None, Warnings]:
    """The signal by order of time: nothing but its rows has to be moved.

    Its clock is the batch's reference; a reset of it would leave what follows without a time.
    """
    entry = told.streams.signal
    if entry is None:
        return None, ()
    table = _read_table(files[entry.file], entry, entry.columns)
    stamps = read_stamps(
        table[entry.time.column],
        entry.time,
        rate_hz=entry.rate_hz,
        started_at=told.start,
        name=entry.file,
        max_reordered_share=max_reordered_share,
        with_resets=False,
    )
    values = np.stack([table[name] for name in entry.columns], axis=1)
    raw = RawSignal(
        values=values[stamps.order] if stamps.reordered else values,
        times_s=stamps.times_s[stamps.order],
        columns=entry.columns,
        unit=entry.unit,
        rate_hz=entry.rate_hz,
        clock=entry.clock,
        name=entry.file,
        triggers_s=_triggers(table, entry, stamps, entry.file),
        reordered=stamps.reordered,
        rollovers=stamps.rollovers,
    )
    return raw, _rolled_over(stamps, entry, entry.file)


def read_audio(told: Description, files: Files, video: RawVideo | None) -> RawAudio | None:
    """The sound; a video's own begins with its first frame."""
    entry = told.streams.audio
    if entry is None:
        return None
    start_s = entry.start_s
    if start_s is None and told.streams.sound_of_video and video is not None:
        start_s = None if video.times_s is None else float(video.times_s[0])
    return RawAudio(
        path=files[entry.file],
        rate_hz=entry.rate_hz,
        clock=told.streams.audio_clock,
        start_s=start_s or 0.0,
    )


def _read_table(path: Path, entry: VideoEntry | SignalEntry, columns: tuple[str, ...]) -> Table:
    trigger = () if entry.trigger is None else (entry.trigger,)
    names = (*columns, entry.time.column, *trigger)
    return read_table(path, names, kinds={entry.time.column: entry.time.cells})


def _check_numbers(frames: npt.NDArray[np.float64], *, name: str) -> None:
    wrong = np.flatnonzero(frames != np.arange(frames.size))
    if wrong.size:
        at = int(wrong[0])
        raise BadBatchError(
            f"{name}: row {at + FIRST_ROW}: frame is {frames[at]:g}; {at} was expected: frames are "
            f"numbered from 0 without a hole. {ADVICE}"
        )


def _triggers(
    table: Table, entry: VideoEntry | SignalEntry, stamps: Stamps, name: str
) -> npt.NDArray[np.float64] | None:
    if entry.trigger is None:
        return None
    return rising_edges(table[entry.trigger], stamps, name=name, column=entry.trigger)


def _rolled_over(stamps: Stamps, entry: VideoEntry | SignalEntry, name: str) -> Warnings:
    if not stamps.rollovers:
        return ()
    return (f"{name}: its counter of {entry.time.bits} bits rolled over {stamps.rollovers} times",)
