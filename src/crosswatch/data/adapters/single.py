"""Single video files without anything beside them: each is a batch without labels."""

from functools import partial
from pathlib import Path
from typing import Any

from crosswatch.artifacts import sha256_of
from crosswatch.data.adapters.arrival import Arrival, Found
from crosswatch.data.adapters.finding import batch_id, found_of
from crosswatch.data.audio.decode import RawAudio
from crosswatch.data.raw import RawBatch
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import BadBatchError, UserError

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv",
)  # fmt: skip
CLOCK = "camera"


class SingleAdapter:
    """Reads a video file, or every video file of a folder."""

    def find(self, source: Path) -> Found:
        """Files in order of their names.

        Raises:
            UserError: there is none, or two give one batch.
        """
        files = [source] if source.is_file() else _videos(source)
        if not files:
            raise UserError(
                f"{source}: is no video file and holds none. Known are {', '.join(SUFFIXES)}."
            )
        return found_of((batch_id(path.stem), path, partial(sha256_of, path)) for path in files)

    def read(self, arrival: Arrival) -> RawBatch:
        """The file's rate, and its sound if it has any.

        Raises:
            BadBatchError: it is no video, or does not tell its rate.
        """
        import av

        path = arrival.path
        try:
            with av.open(str(path), metadata_errors="replace") as container:
                rate_hz = _rate_hz(container, path)
                audio = _audio(container, path)
        except (av.FFmpegError, OSError) as error:
            if isinstance(error, PermissionError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise BadBatchError(
                f"{path.name}: cannot be opened as a video: {reason} ({path.stat().st_size} "
                "bytes). Deliver the file again."
            ) from error
        return RawBatch(
            id=arrival.id,
            plant="",
            started_at="",
            video=RawVideo(path=path, times_s=None, rate_hz=rate_hz, clock=CLOCK),
            signal=None,
            audio=audio,
            labels_clock=CLOCK,
        )


def _videos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _rate_hz(container: Any, path: Path) -> float:
    if not container.streams.video:
        raise BadBatchError(f"{path.name}: holds no video stream. Deliver the file again.")
    rate_hz = float(container.streams.video[0].average_rate or 0)
    if not 0 < rate_hz < 1e6:
        raise BadBatchError(
            f"{path.name}: does not tell its frame rate. Write it anew, for instance with ffmpeg, "
            "or deliver it with a batch.json."
        )
    return rate_hz


def _audio(container: Any, path: Path) -> RawAudio | None:
    """The file's own track, on the clock of its pictures."""
    if not container.streams.audio:
        return None
    return RawAudio(path=path, rate_hz=None, clock=CLOCK)
