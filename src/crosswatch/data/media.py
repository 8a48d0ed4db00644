"""Files of pictures or sound, as FFmpeg opens them."""

from pathlib import Path
from typing import Any, Literal

from crosswatch.errors import ADVICE, BadBatchError


def open_media(path: Path, kind: Literal["audio", "video"]) -> Any:
    """A container that holds at least one stream of this kind.

    Raises:
        BadBatchError: FFmpeg cannot open it, or finds no such stream in it.
    """
    import av

    what = {"audio": "sound", "video": "a video"}[kind]
    if path.stat().st_size == 0:
        raise BadBatchError(f"{path.name}: is empty (0 bytes). {ADVICE}")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise BadBatchError(
            f"{path.name}: cannot be opened as {what}: {reason(error)}. The file is truncated or "
            f"no {what.removeprefix('a ')} ({path.stat().st_size} bytes). {ADVICE}"
        ) from error
    if not getattr(container.streams, kind):
        container.close()
        raise BadBatchError(f"{path.name}: holds no {kind} stream. {ADVICE}")
    return container


def reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
