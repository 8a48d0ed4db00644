"""How well the clocks are found: on a simulated furnace, and on a real camera.

`python benchmarks/sync.py --trials 100` simulates batches of eight minutes, each with clocks of
its own for camera and microphone: offsets of up to 2 s, drifts of up to 100 ppm, jitter, dropped
and doubled frames and one gap. They are ingested with the default settings, and sync.json is
compared with the simulator's truth. The pictures are smaller than a plant's (64 px) so that the
trials are quick; the flame covers the same share.

`--data FOLDER` names the folder with donkeycar's tub (1000 records of a real car, 50 s): sideways
motion of its pictures against its steering. Each of 50 trials puts a camera clock on top that is
up to 3 s and 300 ppm off, with 5 ms of jitter on all stamps, and drops 2 % of pictures and of
readings. Nobody knows by how much the car turns after it was steered, so errors are relative to the
offset that is found without all that.

The last line is one JSON object with a section for `camera`, `microphone` and `donkeycar`:

    trials, refused      refused: the clock could not be found (it counts as not inside)
    inside               trials whose true offset at mid-batch lies inside the stated 95 % bound
    within_100_ms        trials whose error is at most that
    median_half_width_s  of the bound
    median_error_s, max_error_s, mean_error_s   estimate minus truth (the mean is signed: a bias)
    ingest_s             median time to read and write one batch
"""

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crosswatch import artifacts
from crosswatch.data.adapters.arrival import ArrivalAdapter
from crosswatch.data.adapters.donkeycar import DonkeycarAdapter
from crosswatch.data.ingestion import IngestConfig, RawBatch, write_batch
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.errors import BadBatchError
from crosswatch.synthetic.plant import SimulateConfig, simulate_batch

FIRST_SEED = 2000
CAR_SYNC = SyncConfig(video="motion", signal="column:angle", max_offset_s=4.0, max_drift_ppm=300.0)
JITTER_S = 0.005
DROPPED_SHARE = 0.02
Trial = dict[str, Any]


def try_furnace(seed: int, frame_px: int, folder: Path) -> dict[str, Trial]:
    """Simulate, ingest and compare one batch; one trial a clock."""
    config = SimulateConfig(seed=seed, frame_px=frame_px)
    simulate_batch(config, 0, arrivals=folder / "arrivals", truth=folder / "truth")
    (arrival,) = ArrivalAdapter().find(folder / "arrivals").arrivals
    truth = artifacts.read_json(folder / "truth" / arrival.id / "truth.json")
    begun = time.perf_counter()
    told = ingest(ArrivalAdapter().read(arrival), folder / "out", SyncConfig())
    seconds = time.perf_counter() - begun
    clocks = {"camera": ("video", "clock"), "microphone": ("audio", "microphone")}
    return {
        name: {"seed": seed, "ingest_s": seconds}
        | compared(told, stream, truth[clock]["mid_batch_offset_s"])
        for name, (stream, clock) in clocks.items()
    }


def try_car(seed: int, tub: RawBatch, undisturbed_s: float, folder: Path) -> Trial:
    """Put another camera clock on the real recording, and find it."""
    rng = np.random.default_rng([FIRST_SEED, seed])
    assert tub.video is not None
    assert tub.signal is not None
    assert tub.video.times_s is not None
    true_s, truth_s = tub.video.times_s, float(rng.uniform(-3, 3))
    drift_ppm = float(rng.uniform(-300, 300))
    seen, read = (rng.random(true_s.size) >= DROPPED_SHARE for _ in range(2))
    camera_s = true_s - truth_s
    camera_s = camera_s - 1e-6 * drift_ppm * (camera_s - camera_s.mean())
    jitter_s = rng.normal(0, JITTER_S, (2, true_s.size)).clip(-0.02, 0.02)
    raw = dataclasses.replace(
        tub,
        video=dataclasses.replace(
            tub.video,
            times_s=(camera_s + jitter_s[0])[seen],
            pictures=Some(tub.video.pictures, seen),
        ),
        signal=dataclasses.replace(
            tub.signal,
            times_s=(true_s + jitter_s[1])[read],
            values=tub.signal.values[read],
        ),
    )
    begun = time.perf_counter()
    told = ingest(raw, folder / "out", CAR_SYNC)
    seconds = time.perf_counter() - begun
    trial = compared(told, "video", undisturbed_s + truth_s)
    return {"seed": seed, "offset_s": truth_s, "drift_ppm": drift_ppm, "ingest_s": seconds} | trial


class Some:
    """The pictures of a recording that were not lost."""

    def __init__(self, pictures: Any, kept: np.ndarray) -> None:
        self._pictures = pictures
        self._kept = kept

    def __len__(self) -> int:
        return int(self._kept.sum())

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        place = np.cumsum(self._kept) - 1
        for at, picture in self._pictures:
            if self._kept[at]:
                yield int(place[at]), picture


def ingest(raw: RawBatch, out: Path, sync: SyncConfig) -> Trial:
    """sync.json, or why there is none."""
    out.mkdir()
    try:
        write_batch(raw, out, ingest=IngestConfig(), sync=sync)
    except BadBatchError as error:
        return {"refused": str(error)}
    return dict(artifacts.read_json(out / "sync.json"))


def compared(told: Trial, stream: str, true_s: float) -> Trial:
    if told["refused"]:
        return {"refused": told["refused"]}
    found = told["streams"][stream]
    if found.get("left_out"):
        return {"refused": found["left_out"]}
    bound = found["bound_s"]
    return {
        "inside": bound["low"] <= true_s <= bound["high"],
        "half_width_s": bound["half_width"],
        "error_s": found["offset_s"] - true_s,
    }


def summarise(trials: list[Trial]) -> dict[str, Any]:
    found = [trial for trial in trials if "refused" not in trial]
    errors_s = [trial["error_s"] for trial in found]
    summary: dict[str, Any] = {
        "trials": len(trials),
        "inside": sum(trial["inside"] for trial in found),
        "within_100_ms": sum(abs(error_s) <= 0.1 for error_s in errors_s),
        "refused": len(trials) - len(found),
    }
    if found:
        summary |= {
            "median_half_width_s": statistics.median(trial["half_width_s"] for trial in found),
            "median_error_s": statistics.median(map(abs, errors_s)),
            "max_error_s": max(map(abs, errors_s)),
            "mean_error_s": statistics.fmean(errors_s),
            "ingest_s": statistics.median(trial["ingest_s"] for trial in trials),
        }
    return {key: round(value, 4) for key, value in summary.items()}


def furnace_trials(count: int, frame_px: int, *, show: bool) -> dict[str, Any]:
    trials: dict[str, list[Trial]] = {"camera": [], "microphone": []}
    for number in range(count):
        with tempfile.TemporaryDirectory(prefix="crosswatch-sync-") as folder:
            found = try_furnace(FIRST_SEED + number, frame_px, Path(folder))
        for name, trial in found.items():
            trials[name].append(trial)
        if show:
            print(found, flush=True)
    return {name: summarise(each) for name, each in trials.items()}


def car_trials(count: int, data: Path, *, show: bool) -> dict[str, Any]:
    """Trials on the real tub, or why there are none."""
    archive = data / "tub.tar.gz"
    if not archive.is_file():
        return {"skipped": f"{archive}: is absent"}
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="crosswatch-tub-") as name:
        folder = Path(name)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        adapter = DonkeycarAdapter(IngestConfig(adapter="donkeycar"))
        tub = adapter.read(adapter.find(folder).arrivals[0])
        undisturbed = ingest(tub, folder / "undisturbed", CAR_SYNC)["streams"]["video"]
        for number in range(count):
            trials.append(try_car(number, tub, undisturbed["offset_s"], folder))
            shutil.rmtree(folder / "out")
            if show:
                print(trials[-1], flush=True)
    told = {"undisturbed_offset_s": undisturbed["offset_s"]}
    told |= {"undisturbed_half_width_s": undisturbed["bound_s"]["half_width"]}
    return {**summarise(trials), **{key: round(value, 4) for key, value in told.items()}}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="of the simulated furnace")
    parser.add_argument("--car-trials", type=int, default=50, help="of the tub in --data")
    parser.add_argument("--quick", action="store_true", help="at most five trials of each")
    parser.add_argument("--data", type=Path, help="folder with donkeycar's tub.tar.gz")
    parser.add_argument("--frame-px", type=int, default=64, help="size of the simulated pictures")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    given = parser.parse_args(arguments)
    begun = time.perf_counter()
    counts = [min(5, n) if given.quick else n for n in (given.trials, given.car_trials)]
    result: dict[str, Any] = {}
    if given.data is not None:
        result["donkeycar"] = car_trials(counts[1], given.data, show=not given.json)
    if counts[0]:
        result |= furnace_trials(counts[0], given.frame_px, show=not given.json)
    print(json.dumps({**result, "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main(sys.argv[1:])
