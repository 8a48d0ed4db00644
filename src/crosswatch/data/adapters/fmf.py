"""FMF-Benchmark: a fused magnesium furnace on video and in three-phase current, with pixel labels.

Two layouts are distributed. The first release is one .mat a batch, everything per frame. The second
("V2") keeps the control system's own rate: videos/, currents/ and timestamps/ of one name, and
train.json and test.json. Camera and control system are triggered together: one clock.
"""

import dataclasses
import datetime
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.artifacts import digest_of, sha256_of
from crosswatch.data.adapters import fmf_tables
from crosswatch.data.adapters.arrival import Arrival, Found
from crosswatch.data.adapters.finding import batch_id, found_of
from crosswatch.data.adapters.fmf_tables import CURRENT_HZ, FRAME_HZ, Currents
from crosswatch.data.adapters.matlab import ADVICE, Stack
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.raw import RawBatch
from crosswatch.data.signals import RawSignal
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Block, Event

LEVEL = "pixel-level"
VIDEOS, CURRENTS, TIMESTAMPS = "videos", "currents", "timestamps"
CLOCK = "control"
COLUMNS = ("phase_a", "phase_b", "phase_c")
Frames = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Delivery:
    """What both layouts say, whichever way."""

    video: Stack
    label: Stack
    times_s: npt.NDArray[np.float64]  # of the frames, since the batch's first second
    current: Currents
    split: dict[Block, Frames]  # frames of the published lists
    started_at: str


class FmfAdapter:
    """Video, current and masks on one clock; where it was published, the split too."""

    def __init__(self, config: IngestConfig) -> None:
        if len(config.classes) != 2:
            raise UserError(
                f"ingest.adapter=fmf tells normal from abnormal; ingest.classes names "
                f"{len(config.classes)}. Name two."
            )
        self._released = config.fmf.released
        self._abnormal = config.classes[1]

    def find(self, source: Path) -> Found:
        """Batches in order of their names, in either layout.

        Raises:
            UserError: there is no .mat file, or two give one batch.
        """
        files = _files(source)
        if not files:
            raise UserError(
                f"{source}: holds no FMF batch. Name the folder of the .mat files, or the one that "
                f"holds {VIDEOS}/, {CURRENTS}/ and {TIMESTAMPS}/."
            )
        return found_of((batch_id(path.stem), path, partial(_digest, path)) for path in files)

    def read(self, arrival: Arrival) -> RawBatch:
        """Everything but the pictures and masks, which are read while they are stored.

        Raises:
            BadBatchError: a file is missing, is no MATLAB 7.3 file, or two do not fit each other.
        """
        told = _read_v2(arrival.path) if _is_v2(arrival.path) else _read_first(arrival.path)
        name = arrival.path.name
        return RawBatch(
            id=arrival.id,
            plant="fmf-benchmark",
            started_at=told.started_at,
            video=RawVideo(
                path=arrival.path,
                times_s=told.times_s,
                rate_hz=FRAME_HZ,
                clock=CLOCK,
                times_name=name,
                pictures=_Pictures(told.video, as_stored=self._released),
            ),
            signal=RawSignal(
                values=told.current.values,
                times_s=told.current.times_s,
                columns=COLUMNS,
                unit="A",
                rate_hz=CURRENT_HZ,
                clock=CLOCK,
                name=name,
                reordered=told.current.reordered,
            ),
            events=_events(_abnormal(told.label), told.times_s, self._abnormal),
            masks=_Masks(told.label, as_stored=self._released),
            blocks=_blocks(told.split, told.times_s),
            released=self._released,
            labels_clock=CLOCK,
        )


class _Pictures:
    """RGB of every frame; as stored, rows and columns are exchanged."""

    def __init__(self, stack: Stack, *, as_stored: bool) -> None:
        self._stack = stack
        self._axes = (1, 2, 0) if as_stored else (2, 1, 0)

    def __len__(self) -> int:
        return len(self._stack)

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        for at, block in self._stack.blocks():
            for place, picture in enumerate(block, start=at):
                yield place, np.ascontiguousarray(picture.transpose(self._axes))


class _Masks(_Pictures):
    """1 where a pixel is abnormal."""

    def __init__(self, stack: Stack, *, as_stored: bool) -> None:
        super().__init__(stack, as_stored=as_stored)
        self._axes = (0, 1) if as_stored else (1, 0)  # type: ignore[assignment]

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        for at, mask in super().__iter__():
            yield at, (mask != 0).astype(np.uint8)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    for folder in (source / VIDEOS, source / LEVEL / VIDEOS, source):
        if folder.is_dir():
            return sorted(path for path in folder.glob("*.mat") if not path.name.startswith("."))
    return []


def _is_v2(path: Path) -> bool:
    return path.parent.name == VIDEOS


def _tables(path: Path) -> tuple[Path, Path]:
    """A V2 batch's currents and timestamps."""
    currents, timestamps = (
        path.parent.parent / folder / f"{path.stem}.csv" for folder in (CURRENTS, TIMESTAMPS)
    )
    for table in (currents, timestamps):
        if not table.is_file():
            raise BadBatchError(f"{table.parent.name}/{table.name}: is missing. {ADVICE}")
    return currents, timestamps


def _digest(path: Path) -> str:
    if not _is_v2(path):
        return sha256_of(path)
    split = {block: frames.tolist() for block, frames in _published_split(path).items()}
    return digest_of([*(sha256_of(file) for file in (path, *_tables(path))), split])


def _published_split(path: Path) -> dict[Block, Frames]:
    return fmf_tables.read_split(path.parent.parent, path.name)


def _read_first(path: Path) -> _Delivery:
    video, label = _pictures_of(path, "video", "label")
    rows = len(video)
    current = Stack(path, "current", axes=2)
    listed = Stack(path, "train_test_index", axes=2)
    for stack, columns in ((current, 3), (listed, 1)):
        if stack.shape != (rows, columns):
            raise BadBatchError(
                f"{path.name}: {stack.name!r} is {_in_matlab(stack)} in MATLAB's order; the "
                f"{rows} frames of the video ask for {(columns, rows)}. {ADVICE}"
            )
    index = listed.whole().reshape(-1)
    return _Delivery(
        video=video,
        label=label,
        times_s=np.arange(rows) / FRAME_HZ,
        current=fmf_tables.at_half_seconds(
            (np.arange(rows) * int(CURRENT_HZ)) // int(FRAME_HZ), current.whole()
        ),
        split={"train": np.flatnonzero(index == 0), "evaluation": np.flatnonzero(index == 1)},
        started_at="",  # not published
    )


def _read_v2(path: Path) -> _Delivery:
    video, label = _pictures_of(path, "data", "label")
    currents, timestamps = _tables(path)
    seconds = fmf_tables.read_stamps(timestamps)
    if len(seconds) != len(video):
        raise BadBatchError(
            f"{TIMESTAMPS}/{timestamps.name}: has {len(seconds)} rows for the {len(video)} frames "
            f"of {path.name}; every frame has its row. {ADVICE}"
        )
    current_seconds, amperes = fmf_tables.read_currents(currents)
    first = int(min(seconds.min(), current_seconds.min()))
    split = _published_split(path)
    for frames in split.values():
        if frames.size and frames[-1] >= len(video):
            raise BadBatchError(
                f"{path.name}: its split names frame {frames[-1]}; the video ends with frame "
                f"{len(video) - 1}. {ADVICE}"
            )
    return _Delivery(
        video=video,
        label=label,
        times_s=fmf_tables.spread_frames(seconds - first, name=f"{TIMESTAMPS}/{timestamps.name}"),
        current=fmf_tables.by_second(current_seconds - first, amperes),
        split=split,
        started_at=datetime.datetime.fromtimestamp(first, datetime.UTC).isoformat()[:19],
    )


def _pictures_of(path: Path, video_name: str, label_name: str) -> tuple[Stack, Stack]:
    video, label = Stack(path, video_name, axes=4), Stack(path, label_name, axes=3)
    count, colours, *picture = video.shape
    if colours != 3 or not video.is_bytes:
        raise BadBatchError(
            f"{path.name}: {video_name!r} is {_in_matlab(video)} in MATLAB's order; expected "
            f"unsigned bytes (height, width, 3, frames). {ADVICE}"
        )
    if label.shape != (count, *picture):
        raise BadBatchError(
            f"{path.name}: {label_name!r} is {_in_matlab(label)} in MATLAB's order and "
            f"{video_name!r} {_in_matlab(video)}; every pixel of every frame has its label. "
            f"{ADVICE}"
        )
    return video, label


def _in_matlab(stack: Stack) -> tuple[int, ...]:
    return stack.shape[::-1]


def _abnormal(label: Stack) -> npt.NDArray[np.bool_]:
    """Whether any pixel of a frame is abnormal (N,)."""
    return np.concatenate([block.any(axis=(1, 2)) for _, block in label.blocks()])


def _events(
    abnormal: npt.NDArray[np.bool_], times_s: npt.NDArray[np.float64], name: str
) -> tuple[Event, ...]:
    """One event for each unbroken run of abnormal frames."""
    spans = [(float(times_s[a]), float(times_s[b])) for a, b in _runs(np.flatnonzero(abnormal))]
    return tuple(
        Event(class_name=name, onset_s=start, apex_s=(start + stop) / 2, offset_s=stop)
        for start, stop in spans
    )


def _blocks(
    split: dict[Block, Frames], times_s: npt.NDArray[np.float64]
) -> tuple[tuple[Block, float, float], ...]:
    """The published lists as spans of time, from the first to behind the last frame."""
    behind_s = 1e-6
    return tuple(
        (block, float(times_s[a]), float(times_s[b]) + behind_s)
        for block, frames in split.items()
        for a, b in _runs(frames)
    )


def _runs(at: Any) -> list[tuple[int, int]]:
    """First and last of each unbroken run of ascending numbers."""
    if not len(at):
        return []
    cuts = np.flatnonzero(np.diff(at) != 1)
    return [
        (int(a), int(b))
        for a, b in zip(at[np.append(0, cuts + 1)], at[np.append(cuts, len(at) - 1)], strict=True)
    ]
