"""Small real deliveries for tests: encoded videos, CSV tables, notes and checksums."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE_HZ = 10.0
SIGNAL_HZ = 2.0


def encode(path: Path, pictures: np.ndarray, *, index_first: bool = False) -> None:
    """Encode (T, H, W, 3) uint8 pictures as H.264, every eighth a keyframe."""
    options = {"movflags": "faststart"} if index_first else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=round(RATE_HZ))
        stream.width, stream.height = pictures.shape[2], pictures.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "12", "g": "8", "threads": "1"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sums(folder: Path) -> None:
    """As `sha256sum * > SHA256SUMS` does."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}"
        for path in sorted(folder.iterdir())
        if path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def seal(folder: Path, change: Callable[[Path], None]) -> Path:
    """Change a delivery and sign it again: a fault that happened before it was sent."""
    change(folder)
    write_sums(folder)
    return folder


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A flame that follows the current, filmed by a camera whose clock is off."""

    seconds: float = 90.0
    size_px: int = 32
    offset_s: float = 0.7
    seed: int = 0


def current_course(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """A lively current (N,) at 20 Hz of the control system's clock, and its instants."""
    rng = np.random.default_rng(scene.seed)
    times_s = np.arange(-5.0, scene.seconds + 5.0, 0.05)
    kernel = np.exp(-np.arange(0, 6, 0.05) / 1.5)
    noise = np.convolve(rng.standard_normal(times_s.size), kernel)[: times_s.size]
    return times_s, 10_000 + 300 * noise / noise.std()


def film(scene: Scene, camera_s: np.ndarray) -> np.ndarray:
    """Pictures whose middle burns with the current of the moment."""
    rng = np.random.default_rng(scene.seed + 1)
    times_s, current = current_course(scene)
    light = 120 + (np.interp(camera_s + scene.offset_s, times_s, current) - 10_000) / 10
    size = scene.size_px
    pictures = np.full((camera_s.size, size, size, 3), 60.0, np.float32)
    middle = slice(size // 4, 3 * size // 4)
    pictures[:, middle, middle] = light[:, None, None, None]
    pictures += rng.normal(0, 3, (camera_s.size, size, size, 1))
    return np.clip(pictures, 0, 255).astype(np.uint8)


def deliver(
    source: Path,
    *,
    name: str = "batch-1",
    scene: Scene | None = None,
    camera_s: np.ndarray | None = None,
    change: Mapping[str, Any] | None = None,
) -> Path:
    """Write one whole delivery below `source`; `change` replaces top keys of batch.json."""
    scene = scene or Scene()
    folder = source / name
    folder.mkdir(parents=True)
    if camera_s is None:
        camera_s = np.arange(round(scene.seconds * RATE_HZ)) / RATE_HZ
    encode(folder / "video.mp4", film(scene, camera_s))
    rows = "".join(f"{at},{time_s:.6f}\n" for at, time_s in enumerate(camera_s))
    (folder / "video_times.csv").write_text("frame,time_s\n" + rows)
    write_signal(folder / "signal.csv", scene)
    (folder / "annotations.json").write_text(json.dumps(notes(scene)))
    (folder / "batch.json").write_text(json.dumps({**description(name), **(change or {})}))
    write_sums(folder)
    return folder


def write_signal(path: Path, scene: Scene) -> None:
    times_s, current = current_course(scene)
    at_s = np.arange(round(scene.seconds * SIGNAL_HZ)) / SIGNAL_HZ
    values = np.interp(at_s, times_s, current)
    rows = "".join(
        f"{t:.4f},{v:.1f},{v * 1.02:.1f},{v * 0.98:.1f}\n"
        for t, v in zip(at_s, values, strict=True)
    )
    path.write_text("time_s,phase_a,phase_b,phase_c\n" + rows)


def description(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "plant": "test-plant",
        "started_at": "2025-01-06T06:00:00Z",
        "streams": {
            "video": {
                "file": "video.mp4",
                "clock": "camera",
                "rate_hz": RATE_HZ,
                "unit": "rgb",
                "times": "video_times.csv",
            },
            "signal": {
                "file": "signal.csv",
                "clock": "control",
                "rate_hz": SIGNAL_HZ,
                "unit": "A",
                "columns": ["phase_a", "phase_b", "phase_c"],
            },
        },
        "annotations": "annotations.json",
    }


def notes(scene: Scene) -> dict[str, Any]:
    size = scene.size_px
    return {
        "clock": "control",
        "frame_width_px": size,
        "frame_height_px": size,
        "events": [{"class": "semi_molten", "onset_s": 20.0, "apex_s": 24.0, "offset_s": 30.0}],
        "keyframes": [
            {"time_s": 22.0, "class": "semi_molten", "box_xywh_px": [size / 4, size / 2, 4, 8]}
        ],
    }
