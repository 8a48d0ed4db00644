"""Clips one after another at a common rate: their pictures, their times and their sound."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosswatch.data.audio.clips import fault_of
from crosswatch.data.audio.source import AudioClip
from crosswatch.data.spans import Spans
from crosswatch.data.video.container import Contents, open_video, read_contents, read_pictures
from crosswatch.errors import ADVICE, BadBatchError

PAUSE_S = 1.0  # between clips; windows do not cross it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taken:
    """The pictures of a clip that are taken, each as often as it is nearest."""

    path: Path
    contents: Contents
    picked: npt.NDArray[np.int64]  # position in the clip for each picture that is taken

    @property
    def first_s(self) -> float:
        """The first picture's time in the file."""
        return float(self.contents.times_s()[0])


def take(path: Path, rate_hz: float) -> Taken:
    """Pictures at a steady rate from the clip's first on, each the nearest that it has.

    Raises:
        BadBatchError: it is no video, or has no steady rate.
    """
    contents = read_contents(path)
    if not contents.pts.size or contents.joints:
        what = "says no time of its pictures" if not contents.pts.size else "holds joined clips"
        raise BadBatchError(f"{path.name}: {what}, so it has no steady rate. {ADVICE}")
    times_s = contents.times_s()
    own_s = times_s - times_s[0]
    count = int(own_s[-1] * rate_hz + 1e-6) + 1
    middle_s = (own_s[1:] + own_s[:-1]) / 2  # from here on the next picture is nearer
    picked = np.searchsorted(middle_s, np.arange(count) / rate_hz)
    return Taken(path=path, contents=contents, picked=np.asarray(picked, np.int64))


class ClipPictures:
    """Many clips in a row."""

    def __init__(self, clips: Sequence[Taken]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return sum(len(clip.picked) for clip in self._clips)

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        before = 0
        for clip in self._clips:
            done = 0
            for at, frame in read_pictures(clip.path, clip.contents):
                first, behind = np.searchsorted(clip.picked, [at, at + 1])
                if done <= first < behind:
                    picture = frame.to_ndarray(format="rgb24", threads=1)
                    yield from ((before + place, picture) for place in range(first, behind))
                    done = behind
            before += len(clip.picked)


def one_after_another(
    counts: Sequence[int], rate_hz: float
) -> tuple[npt.NDArray[np.float64], Spans]:
    """Times of all pictures, and the span of each clip."""
    parts: list[npt.NDArray[np.float64]] = []
    start_s = 0.0
    for count in counts:
        parts.append(start_s + np.arange(count) / rate_hz)
        start_s = float(parts[-1][-1]) + PAUSE_S
    return np.concatenate(parts), tuple((float(part[0]), float(part[-1])) for part in parts)


def sound_of(clips: Sequence[Taken], spans: Spans) -> tuple[tuple[AudioClip, ...], dict[Path, str]]:
    """The tracks that can be heard, and why the others cannot.

    A clip's sound begins with its first picture and may go on until the next clip begins.
    """
    heard: list[AudioClip] = []
    faults: dict[Path, str] = {}
    for clip, (start_s, stop_s) in zip(clips, spans, strict=True):
        if not _has_sound(clip.path):
            continue
        track = AudioClip(
            path=clip.path,
            start_s=start_s - clip.first_s,
            span_s=(start_s, stop_s + PAUSE_S),
        )
        if fault := fault_of(track):
            faults[clip.path] = fault
        else:
            heard.append(track)
    return tuple(heard), faults


def _has_sound(path: Path) -> bool:
    with open_video(path) as container:
        return bool(container.streams.audio)
