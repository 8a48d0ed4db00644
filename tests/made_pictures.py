"""Sources whose pictures lie in memory, and scenes that move at a known speed."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from made import batch

from crosswatch.data.originals import Original, OriginalPlace
from crosswatch.data.raw import RawBatch
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.video.decode import RawVideo
from crosswatch.features.encoder import Encoder, Failed, Input
from crosswatch.features.source import Source

Pictures = Sequence[np.ndarray]


class Stills:
    """Pictures in order of position, without those that cannot be read."""

    def __init__(self, pictures: Pictures, missing: tuple[int, ...]) -> None:
        self._pictures = pictures
        self._missing = missing

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return ((at, p) for at, p in enumerate(self._pictures) if at not in self._missing)


def source_of(
    folder: Path,
    pictures: Pictures | Path,
    *,
    rate_hz: float = 25.0,
    missing: tuple[int, ...] = (),
    segments: tuple[tuple[float, float], ...] | None = None,
    shown: Sequence[int] | None = None,
) -> Source:
    """A batch whose stored frame t shows picture t, or `shown[t]`; a path is a video of 16."""
    is_file = isinstance(pictures, Path)
    count = len(shown) if shown is not None else 16 if is_file else len(pictures)
    made = batch(seconds=count / rate_hz, video_hz=rate_hz, signal_hz=0, segments=segments)
    made = dataclasses.replace(made, folder=folder)
    np.save(folder / "frame_sources.npy", np.arange(count) if shown is None else np.array(shown))
    video = RawVideo(
        path=pictures if is_file else folder / "stills",
        times_s=None if is_file else made.frame_times,
        rate_hz=rate_hz,
        pictures=None if is_file else Stills(pictures, missing),
    )
    raw = RawBatch(id=made.id, plant="", started_at="", video=video, signal=None)
    place = OriginalPlace(ingest={}, fetched=folder, transfer=TransferConfig())
    source = Source(batch_id=made.id, batch_digest=made.digest, folder=folder, place=place)
    vars(source).update(batch=made, original=Original(raw=raw, path=folder))
    return source


def encoded(
    encoder: Encoder, source: Source, *, batch_size: int = 64
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Vectors and reasons of failure by row."""
    model = encoder.load("cpu")
    found = list(encoder.inputs(source, np.arange(len(encoder.spans_s(source)))))
    good = [item for item in found if isinstance(item, Input)]
    vectors = {}
    for start in range(0, len(good), batch_size):
        part = good[start : start + batch_size]
        for item, row in zip(part, model([item.values for item in part]), strict=True):
            (vectors[item.row],) = (vector.values for vector in row.values())
    return vectors, {item.row: item.reason for item in found if isinstance(item, Failed)}


def texture(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """RGB in 0 to 255 at places in longer sides: waves of a tenth to a third of it."""
    rng = np.random.default_rng(seed)
    value = np.zeros((*np.broadcast_shapes(x.shape, y.shape), 3))
    for _ in range(8):
        angle, phase, cycles = *rng.uniform(0, 2 * np.pi, 2), rng.uniform(3, 10)
        wave = np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        value += wave[..., None] * rng.uniform(0.5, 1, 3)
    return np.clip(127 + 40 * value, 0, 255)


def moving(
    times_s: np.ndarray,
    *,
    velocity: tuple[float, float],
    size: tuple[int, int] = (160, 96),
    disc: bool = False,
) -> list[np.ndarray]:
    """All of the picture, or a disc before what stands still, in longer sides per second."""
    width, height = size
    longer = max(size)
    x, y = np.meshgrid((np.arange(width) + 0.5) / longer, (np.arange(height) + 0.5) / longer)
    pictures = []
    for time_s in times_s:
        right, down = velocity[0] * time_s, velocity[1] * time_s
        shown = texture(x - right, y - down, seed=1)
        if disc:
            off = (x - 0.35 - right) ** 2 + (y - 0.3 - down) ** 2
            inside = np.clip((0.2 - np.sqrt(off)) * 40 + 0.5, 0, 1)[..., None]
            shown = inside * shown + (1 - inside) * texture(x, y, seed=2)
        pictures.append(np.round(shown).astype(np.uint8))
    return pictures


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
