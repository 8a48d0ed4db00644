"""How fast, in how much memory and how often a video is read: one real ingest against bare PyAV.

`python benchmarks/ingest.py` makes a video of 10 minutes (1280x720, 25 Hz, H.264, 4 Mbit/s; a
textured scene that the camera pans over, with a flickering flame and grain; one minute is encoded
and its packets are joined ten times) and

- ingests it to frames of 96 px through `write_batch`, in turns with a loop that only decodes:
  `for frame in container.decode(video=0): pass`, `thread_type` AUTO;
- ingests, in a process of its own each, 10 and 100 minutes of the same scene with the camera at
  rest (which decodes faster), as MP4 and, whose index does not grow with the length, as Matroska;
- runs `crosswatch ingest` twice on the same delivery.

`--quick` has a minute where the above says ten. The last line is one JSON object:

    ratio                frames/s of ingest over those of the bare loop, median over the turns
    ratio_feature        the same with the picture feature that aligns clocks computed as well
    ingest_hz, bare_hz   frames/s, medians
    memory_ratio         peak memory of ingest for 100 minutes of MP4, over that for 10
    memory_ratio_mkv     the same of Matroska
    memory_ratio_bare    of the bare loop over MP4: the index that FFmpeg holds
    peak_mib, peak_10x_mib   of ingest, MP4
    reingest_s           the second `crosswatch ingest`, start of Python included
    first_ingest_s       the first
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from crosswatch.data.ingestion import IngestConfig, RawBatch, write_batch
from crosswatch.data.sync import evidence
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.video import decode as video
from crosswatch.data.video.decode import RawVideo

RATE_HZ = 25
FRAME_PX = 96
BIT_RATE = 4_000_000
MINUTE_S = 60


def encode_clip(path: Path, *, seconds: int, pans: bool = True) -> None:
    """A camera that pans over a textured scene with a flame in it."""
    width, height = 1280, 720
    rng = np.random.default_rng(0)
    scene = texture(rng, 2 * height, 2 * width)
    grain = rng.integers(0, 9 if pans else 1, (8, height, width, 1), dtype=np.uint8)
    at_s = np.arange(seconds * RATE_HZ) / RATE_HZ * pans
    across = ((1 + np.sin(at_s / 2.4)) * width / 2).astype(int)
    down = ((1 + np.sin(at_s / 1.9)) * height / 2).astype(int)
    flame = np.cumsum(rng.integers(-6, 7, at_s.size)) % 80
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {
            "preset": "veryfast",
            "b": str(BIT_RATE if pans else BIT_RATE // 20),
            "maxrate": str(BIT_RATE * 5 // 4),
            "bufsize": str(BIT_RATE * 2),
            "g": "50",
            "threads": "2",
        }
        for at in range(at_s.size):
            picture = (
                scene[down[at] : down[at] + height, across[at] : across[at] + width]
                + (grain[at % len(grain)])
            )
            burning = picture[height // 3 : 2 * height // 3, width // 3 : width // 2]
            burning += flame[at].astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Structure of all sizes, as surfaces have it; bright enough to leave room for the flame."""
    import cv2

    scene = np.full((height, width, 3), 90.0, np.float32)
    for size_px, strength in ((4, 6), (16, 12), (64, 18), (256, 20)):
        coarse = rng.standard_normal((height // size_px + 2, width // size_px + 2, 3))
        size = (width, height)
        scene += strength * cv2.resize(
            coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC
        )
    return np.clip(scene, 0, 160).astype(np.uint8)


def join_clips(clip: Path, path: Path, times: int) -> None:
    """The clip's packets several times over, without encoding them again."""
    with av.open(str(path), "w") as joined:
        template = av.open(str(clip))
        target = joined.add_stream_from_template(template.streams.video[0])
        template.close()
        for number in range(times):
            with av.open(str(clip)) as source:
                stream = source.streams.video[0]
                shift = number * stream.duration
                for packet in source.demux(stream):
                    if packet.size:
                        packet.pts += shift
                        packet.dts += shift
                        packet.stream = target
                        joined.mux(packet)


def decode_barely(path: Path) -> int:
    count = 0
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for _ in container.decode(video=0):
            count += 1
    return count


def ingest(path: Path, *, frame_px: int) -> int:
    raw = RawBatch(
        id="b",
        plant="p",
        started_at="2025-01-06T06:00:00Z",
        video=RawVideo(path=path, times_s=None, rate_hz=float(RATE_HZ)),
        signal=None,
    )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        done = write_batch(
            raw, Path(folder), ingest=IngestConfig(frame_px=frame_px), sync=SyncConfig()
        )
    return done.counts["frames"]


def decode_with_feature(path: Path, *, frame_px: int) -> int:
    """What a batch costs whose clocks have to be found in its pictures."""
    raw = RawVideo(path=path, times_s=None, rate_hz=float(RATE_HZ))
    plan = video.plan_frames(raw, max_bad_share=0.0)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        decoded = video.decode(
            raw,
            plan,
            Path(folder) / "frames.npy",
            frame_px=frame_px,
            crop_xywh_px=None,
            max_bad_share=0.0,
            progress=lambda done, total: None,
            feature=evidence.Brightness(),
        )
    return len(decoded.times_s)


def measure_speed(path: Path, *, turns: int, say: Callable[[str], None]) -> dict[str, float]:
    kinds: dict[str, Callable[[], int]] = {
        "bare": lambda: decode_barely(path),
        "ingest": lambda: ingest(path, frame_px=FRAME_PX),
        "feature": lambda: decode_with_feature(path, frame_px=FRAME_PX),
    }
    found_hz: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(turns):
        for kind, run in kinds.items():
            begun = time.perf_counter()
            count = run()
            found_hz[kind].append(count / (time.perf_counter() - begun))
        say(f"turn {turn + 1}: " + ", ".join(f"{k} {v[-1]:.0f}/s" for k, v in found_hz.items()))

    def ratio(kind: str) -> float:
        return statistics.median(
            ours / bare for ours, bare in zip(found_hz[kind], found_hz["bare"], strict=True)
        )

    return {
        "ratio": ratio("ingest"),
        "ratio_feature": ratio("feature"),
        "ingest_hz": statistics.median(found_hz["ingest"]),
        "bare_hz": statistics.median(found_hz["bare"]),
    }


def measure_memory(folder: Path, *, seconds: int) -> dict[str, float]:
    clip = folder / "still.mp4"
    encode_clip(clip, seconds=MINUTE_S, pans=False)
    found: dict[str, list[float]] = {}
    for suffix in ("mp4", "mkv"):
        for times in (1, 10):
            path = folder / f"long.{suffix}"
            join_clips(clip, path, times * seconds // MINUTE_S)
            found.setdefault(suffix, []).append(peak_mib(path, "ingest"))
            if suffix == "mp4":
                found.setdefault("bare", []).append(peak_mib(path, "bare"))
            path.unlink()
    ratios = {kind: ten / one for kind, (one, ten) in found.items()}
    return {
        "memory_ratio": ratios["mp4"],
        "memory_ratio_mkv": ratios["mkv"],
        "memory_ratio_bare": ratios["bare"],
        "peak_mib": found["mp4"][0],
        "peak_10x_mib": found["mp4"][1],
    }


def peak_mib(path: Path, kind: str) -> float:
    """Peak memory of a process that does nothing else."""
    command = [sys.executable, __file__, "--peak", kind, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def print_peak(kind: str, path: str) -> None:
    if kind == "bare":
        decode_barely(Path(path))
    else:
        ingest(Path(path), frame_px=32)
    # not getrusage: its maximum outlives exec, so that a child begins with its parent's
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def measure_reingest(path: Path, folder: Path) -> dict[str, float]:
    """Twice the command of a user; the second finds everything unchanged."""
    delivery = folder / "arrivals" / "batch-1"
    delivery.mkdir(parents=True)
    path.rename(delivery / "video.mp4")
    description: dict[str, Any] = {
        "id": "batch-1",
        "plant": "p",
        "started_at": "2025-01-06T06:00:00Z",
        "streams": {
            "video": {"file": "video.mp4", "clock": "camera", "rate_hz": RATE_HZ, "unit": "rgb"}
        },
    }
    (delivery / "batch.json").write_text(json.dumps(description))
    rows = [
        f"{hashlib.sha256((delivery / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("batch.json", "video.mp4")
    ]
    (delivery / "SHA256SUMS").write_text("".join(rows))
    places = {"arrivals": folder / "arrivals", "out": folder / "set", "known": folder / "known"}
    command = [str(Path(sys.executable).with_name("crosswatch")), "ingest"]
    command += [word for name, place in places.items() for word in (f"--{name}", str(place))]
    changed = (f"ingest.frame_px={FRAME_PX}", "windows.signal_s=0", "model.modality=visual")
    command += [word for change in changed for word in ("--set", change)]
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - begun)
    return {"first_ingest_s": seconds[0], "reingest_s": seconds[1]}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one minute instead of ten")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the last line only")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.peak is not None:
        print_peak(*given.peak)
        return

    def say(text: str) -> None:
        if not given.json:
            print(text, flush=True)

    begun = time.perf_counter()
    seconds = MINUTE_S if given.quick else 10 * MINUTE_S
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="crosswatch-ingest-") as name:
        folder = Path(name)
        clip, path = folder / "clip.mp4", folder / "video.mp4"
        encode_clip(clip, seconds=MINUTE_S)
        join_clips(clip, path, seconds // MINUTE_S)
        mbit_s = 8e-6 * path.stat().st_size / seconds
        say(f"{seconds} s of video, {mbit_s:.1f} Mbit/s")
        found |= {"seconds_of_video": seconds, "mbit_s": mbit_s}
        found |= measure_speed(path, turns=given.turns, say=say)
        say("memory")
        found |= measure_memory(folder, seconds=seconds)
        say("the same delivery twice")
        found |= measure_reingest(path, folder)
    found["seconds"] = time.perf_counter() - begun
    print(json.dumps({key: round(value, 3) for key, value in found.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
