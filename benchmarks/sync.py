"""How well the clocks are found: simulated batches with random clocks, through the real ingest.

`python benchmarks/sync.py --trials 20` simulates batches of eight minutes, each with an offset of
up to 2 s, a drift of up to 100 ppm, jitter, dropped and doubled frames and one gap, ingests them
with the default settings and compares sync.json with the simulator's truth. The pictures are
smaller than a plant's (64 px) so that the trials are quick; the flame covers the same share.
The last line is one JSON object:

    inside               trials whose true offset at mid-batch lies inside the stated 95 % bound
    refused              trials whose clocks could not be found (they count as not inside)
    median_half_width_s  of the bound
    median_error_s, max_error_s, mean_error_s   estimate minus truth (the mean is signed: a bias)
    ingest_s             median time to read and write one batch
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from crosswatch import artifacts
from crosswatch.data.adapters import ADAPTERS
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.sync import SyncConfig
from crosswatch.errors import BadBatchError
from crosswatch.synthetic.plant import SimulateConfig, simulate_batch

FIRST_SEED = 2000


def try_once(seed: int, frame_px: int, folder: Path) -> dict[str, Any]:
    """Simulate, ingest and compare one batch."""
    config = SimulateConfig(seed=seed, frame_px=frame_px)
    simulate_batch(config, 0, arrivals=folder / "arrivals", truth=folder / "truth")
    (arrival,) = ADAPTERS["arrival"].find(folder / "arrivals").arrivals
    truth = artifacts.read_json(folder / "truth" / arrival.id / "truth.json")["clock"]
    out = folder / "out"
    out.mkdir()
    begun = time.perf_counter()
    try:
        raw = ADAPTERS["arrival"].read(arrival)
        write_batch(raw, out, ingest=IngestConfig(), sync=SyncConfig())
    except BadBatchError as error:
        return {"seed": seed, "refused": str(error)}
    ingest_s = time.perf_counter() - begun
    found = artifacts.read_json(out / "sync.json")
    bound, true_s = found["camera_offset_bound_s"], truth["mid_batch_offset_s"]
    return {
        "seed": seed,
        "inside": bound["low"] <= true_s <= bound["high"],
        "half_width_s": bound["half_width"],
        "error_s": found["camera_offset_s"] - true_s,
        "ingest_s": ingest_s,
    }


def summarise(trials: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    found = [trial for trial in trials if "refused" not in trial]
    errors_s = [trial["error_s"] for trial in found]
    summary: dict[str, Any] = {
        "trials": len(trials),
        "inside": sum(trial["inside"] for trial in found),
        "refused": len(trials) - len(found),
    }
    if found:
        summary |= {
            "median_half_width_s": statistics.median(trial["half_width_s"] for trial in found),
            "median_error_s": statistics.median(map(abs, errors_s)),
            "max_error_s": max(map(abs, errors_s)),
            "mean_error_s": statistics.fmean(errors_s),
            "ingest_s": statistics.median(trial["ingest_s"] for trial in found),
        }
    rounded = {key: round(value, 4) for key, value in summary.items()}
    return {**rounded, "seconds": round(seconds, 1)}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="five trials")
    parser.add_argument("--frame-px", type=int, default=64, help="size of the simulated pictures")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    given = parser.parse_args(arguments)
    begun = time.perf_counter()
    trials = []
    for number in range(5 if given.quick else given.trials):
        folder = Path(tempfile.mkdtemp(prefix="crosswatch-sync-"))
        try:
            trials.append(try_once(FIRST_SEED + number, given.frame_px, folder))
        finally:
            shutil.rmtree(folder)
        if not given.json:
            print(trials[-1], flush=True)
    print(json.dumps(summarise(trials, time.perf_counter() - begun)))


if __name__ == "__main__":
    main(sys.argv[1:])
