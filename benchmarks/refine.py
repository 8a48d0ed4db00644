"""What refinement gains: propagated boxes and refined masks against the simulator's true masks.

python benchmarks/refine.py [--quick] [--json] simulates batches, ingests them, and compares every
abnormal frame that has a box. The unit of the interval is the event: frames of one event look
alike. The simulator was shaped so that the filter has edges to follow (docs/simulator.md), so the
figure shows that the stage works, not how much it would gain at a plant.
"""

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np

from crosswatch.annotation.propagate import propagate
from crosswatch.annotation.refine import RefineConfig, box_mask, refine_mask
from crosswatch.annotation.score import mask_iou
from crosswatch.data.adapters.arrival import ArrivalAdapter
from crosswatch.data.batches import open_batch
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.evaluation.bootstrap import block_bootstrap
from crosswatch.synthetic import SimulateConfig, read_truth, simulate_batch

EVERY = 12  # frames; the two a second at which windows end


def overlaps(folder: Path, sync: SyncConfig) -> np.ndarray:
    """(N, 3) of the one batch in `folder`: event's number, IoU of the box, IoU of the mask."""
    (arrival,) = ArrivalAdapter().find(folder / "arrivals").arrivals
    out = folder / "batch"
    out.mkdir()
    ingest = IngestConfig()
    write_batch(ArrivalAdapter().read(arrival), out, ingest=ingest, sync=sync)
    batch = open_batch(out, batch_id=arrival.id, digest=arrival.digest)
    truth = read_truth(folder / "truth" / arrival.id)
    times = np.asarray(batch.frame_times)
    boxes = propagate(times, batch.events, batch.keyframes, ingest.classes)
    rows = []
    for frame in range(0, len(times), EVERY):
        at = int(np.argmin(np.abs(truth.control_s - times[frame])))
        if np.isnan(boxes.corners[frame, 0]) or not truth.masks[at].any():
            continue
        height, width = batch.frames.shape[1:3]
        share = cv2.resize(
            truth.masks[at].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
        )
        true = (share >= 0.5).astype(np.uint8)
        coarse = box_mask(boxes.corners[frame], height, width)
        fine = refine_mask(batch.frames[frame], boxes.corners[frame], RefineConfig())
        rows.append((truth.event[at], mask_iou(coarse, true), mask_iou(fine, true)))
    return np.array(rows)


def measure(batches: int, seed: int) -> dict:
    found, units = [], []
    for index in range(batches):
        with tempfile.TemporaryDirectory(prefix="crosswatch-refine-") as temporary:
            folder = Path(temporary)
            simulate_batch(
                SimulateConfig(seed=seed),
                index,
                arrivals=folder / "arrivals",
                truth=folder / "truth",
            )
            rows = overlaps(folder, SyncConfig())
        found.append(rows)
        units += [f"{index}:{int(event)}" for event in rows[:, 0]]
    _, coarse, fine = np.concatenate(found).T
    gain = block_bootstrap(units, lambda drawn: (drawn @ (fine - coarse)) / drawn.sum(1))
    return {
        "benchmark": "refine",
        "batches": batches,
        "frames": len(coarse),
        "events": gain.units,
        "box_iou": round(float(coarse.mean()), 3),
        "refined_iou": round(float(fine.mean()), 3),
        "gain": round(gain.estimate, 3),
        "gain_low": round(gain.low, 3),
        "gain_high": round(gain.high, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one batch instead of six")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--seed", type=int, default=3000)
    options = parser.parse_args()
    result = measure(1 if options.quick else 6, options.seed)
    if not options.json:
        print(f"boxes {result['box_iou']}, refined {result['refined_iou']}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
