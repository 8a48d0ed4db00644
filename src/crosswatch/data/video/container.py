"""Reading a video file: what it holds before the first picture is decoded, and its pictures."""

import contextlib
import ctypes
import dataclasses
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.media import open_media
from crosswatch.errors import ADVICE, BadBatchError

RESET_S = 0.25
"""Decoding times only rise; where they fall by more, another recording was joined on."""
M_MMAP_THRESHOLD = -3  # of glibc's mallopt
LATE = 16
"""Pictures that a codec may hold back (H.264 and H.265): none comes later than so many others."""
PROBED = 64
"""Pictures that are decoded to learn whether their stamps are those of presentation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """The pictures of a file in order of presentation."""

    count: int
    unstamped: int = 0
    pts: npt.NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    """Rising over the whole file; empty unless every picture has one."""
    keyframes: npt.NDArray[np.int64] = dataclasses.field(
        default_factory=lambda: np.empty(0, np.int64)
    )
    """Rising positions of the pictures that were coded on their own."""
    tells_order: bool = False  # decoded pictures come in the order of `pts`
    joints: tuple[tuple[int, int], ...] = ()  # where recordings were joined: from which pts, shift
    unit_s: float = 0.0

    def pieces(self) -> npt.NDArray[np.int64]:
        """Recordings joined on before each picture."""
        begins = np.array([begin for begin, _ in self.joints], np.int64)
        return np.searchsorted(begins, self.pts, side="right").astype(np.int64)

    def times_s(self) -> npt.NDArray[np.float64]:
        """Each recording on its own clock."""
        if not self.joints:
            return np.asarray(self.pts * self.unit_s, np.float64)
        shifts = np.array([0, *(shift for _, shift in self.joints)], np.int64)
        return np.asarray((self.pts - shifts[self.pieces()]) * self.unit_s, np.float64)


def read_contents(path: Path) -> Contents:
    """Read the whole file without decoding.

    Raises:
        BadBatchError: it is no video, or holds fewer pictures than it announces.
    """
    stamps, keys = array("q"), array("q")
    found = hidden = unstamped = 0
    with open_video(path) as container:
        stream = container.streams.video[0]
        expected, unit_s = int(stream.frames), float(stream.time_base or 0)
        packets = _Packets(container, stream)
        for packet in packets:
            if not packet.size:
                continue
            found += 1
            if packet.is_discard:  # an edit list hides it
                hidden += 1
                continue
            if packet.is_keyframe:
                keys.append(found - hidden - 1)
            if packet.pts is None:
                unstamped += 1
            else:
                stamps.append(packet.pts)
    if found == hidden:
        raise BadBatchError(f"{path.name}: holds no frames. {ADVICE}")
    if found < 0.99 * expected:
        raise BadBatchError(
            f"{path.name}: is truncated: {found} of the {expected} frames that it announces "
            f"are there; 99 % are needed. {ADVICE}"
        )
    keyframes = np.frombuffer(keys, np.int64)  # as coded: right where nothing tells the order
    if unstamped:
        return Contents(count=found - hidden, unstamped=unstamped, keyframes=keyframes)
    pts = np.frombuffer(stamps, np.int64)  # not copied: there may be many
    as_coded = bool((pts[1:] >= pts[:-1]).all())
    key_pts = pts[keyframes]
    pts.sort()
    return Contents(
        count=found - hidden,
        pts=pts,
        keyframes=keyframes if as_coded else np.unique(np.searchsorted(pts, key_pts)),
        tells_order=not as_coded or _stamps_rise(path),
        joints=tuple(packets.joints),
        unit_s=unit_s,
    )


def read_pictures(path: Path, contents: Contents) -> Iterator[tuple[int, Any]]:
    """Position and decoded frame of every picture that can be decoded, each position once."""
    import av

    seen = np.zeros(contents.count, np.bool_)
    last = -1
    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for packet in _Packets(container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:  # what is lost shows as a position that is never reached
                continue
            for frame in frames:
                at = _position(frame.pts, contents, seen, last)
                if at is not None and not frame.is_corrupt:
                    seen[at] = True
                    last = at
                    yield at, frame


def in_order(
    pictures: Iterable[tuple[int, Any]], wanted: npt.NDArray[np.int64], *, late: int = LATE
) -> Iterator[tuple[int, Any]]:
    """Those wanted (rising) as soon as none before them can come any more.

    Behind damage a decoder may be late with a picture, though not by more than `late` others.
    """
    held: dict[int, Any] = {}
    is_wanted = np.zeros(wanted[-1] + 1, np.bool_)
    is_wanted[wanted] = True
    due, front = 0, -1
    for at, picture in pictures:
        front = max(front, at)
        if at < is_wanted.size and is_wanted[at] and at >= wanted[due]:
            held[at] = picture
        while int(wanted[due]) in held or wanted[due] <= front - late:
            if (position := int(wanted[due])) in held:
                yield position, held.pop(position)
            due += 1
            if due == wanted.size:
                return
    yield from sorted(held.items())


def open_video(path: Path) -> Any:
    """
    Raises:
        BadBatchError: FFmpeg cannot open it, or finds no video in it.
    """
    _give_memory_back()
    return open_media(path, "video")


def _give_memory_back() -> None:
    """Have glibc return large blocks to the system as soon as they are freed.

    FFmpeg builds an MP4's index from tables as long as the video. After the first of them is freed
    glibc would keep the room of all that follow, twice over where they grow.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)


def _stamps_rise(path: Path) -> bool:
    """Whether pictures come out of the decoder in the order of their stamps.

    Some containers (AVI) know no times of presentation and stamp pictures as they are coded.
    """
    import av

    last = None
    with open_video(path) as container, contextlib.suppress(av.FFmpegError):
        stream = container.streams.video[0]
        if not stream.codec_context.has_b_frames:
            return True
        for _, frame in zip(range(PROBED), container.decode(stream), strict=False):
            if last is not None and frame.pts is not None and frame.pts < last:
                return False
            last = frame.pts
    return True


class _Packets:
    """The packets up to the first that cannot be read.

    Files joined end to end begin to count anew in their middle. Their stamps are shifted, whenever
    the file is read, so that the order of stamps is the order of presentation.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self._container = container
        self._stream = stream
        self.joints: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Any]:
        import av

        reset = int(RESET_S / (self._stream.time_base or 1))
        last: int | None = None
        end = shift = 0
        with contextlib.suppress(av.FFmpegError):
            for packet in self._container.demux(self._stream):
                if packet.dts is not None:
                    if last is not None and packet.dts < last - reset:
                        shift = end + 1 - packet.dts
                        self.joints.append((end + 1, shift))
                    last = packet.dts
                if packet.pts is not None:
                    packet.pts += shift
                    end = max(end, packet.pts)
                yield packet


def _position(
    stamp: int | None, contents: Contents, seen: npt.NDArray[np.bool_], last: int
) -> int | None:
    """Where a decoded frame belongs: the first free place of its stamp."""
    if not contents.tells_order or stamp is None:
        return last + 1 if last + 1 < seen.size else None
    at = last + 1
    if at < seen.size and contents.pts[at] == stamp and not seen[at]:
        return at
    at = int(np.searchsorted(contents.pts, stamp))
    while at < seen.size and seen[at] and contents.pts[at] == stamp:
        at += 1
    return at if at < seen.size and contents.pts[at] == stamp else None
