"""Current-only, visual-only and cross-modal FmFormer on simulated batches, compared in pairs.

python benchmarks/quality.py --quick trains each once on 3 batches; without --quick on 12 batches
with 3 seeds (hours on a laptop). All three see the same instants; the evaluation blocks are read
once, behind training. Differences are paired over time blocks. Figures on simulated data are no
benchmark results: they say whether the furnace and the models behave.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from crosswatch import config, experiment, stages
from crosswatch.evaluation.measure import measure
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.seeds import compare

VARIANTS = {
    "current": ("model.modality=current", "model.pixel_head=false"),
    "visual": ("model.modality=visual",),
    "cross_modal": ("model.modality=cross_modal",),
}
METRICS = ("f1", "accuracy", "auc")


def resolved(*settings: str) -> experiment.Experiment:
    return experiment.resolve("fmformer-furnace", experiment.over(None, settings))


def run(stage: str, settings: tuple[str, ...], **paths: Path) -> None:
    stages.run(stage, values=config.plain(resolved(*settings)), paths=paths)


def predictions_of(variant: str, seed: int, folder: Path, settings: tuple[str, ...]) -> Predictions:
    """Train one variant with one seed and score the evaluation blocks."""
    settings = (*settings, *VARIANTS[variant], f"train.seed={seed}")
    out = folder / f"{variant}-{seed}"
    data = {"batches": folder / "batches", "labels": folder / "labels"}
    run("train", settings, **data, out=out / "checkpoint", checkpoints=None)
    run("evaluate", settings, **data, checkpoint=out / "checkpoint", out=out / "evaluation")
    return Predictions.load(out / "evaluation" / "predictions.parquet")


def averaged(found: list[Predictions]) -> Predictions:
    """One set of predictions: the mean of the seeds' probabilities."""
    first = found[0]
    chance = np.mean([each.probability_NK for each in found], axis=0)
    pixels = first.pixels_NKK if len(found) == 1 else None
    return Predictions(rows=first.rows, probability_NK=chance, pixels_NKK=pixels)


def study(batches: int, seeds: int, settings: tuple[str, ...]) -> dict:
    begun = time.perf_counter()
    settings = (*settings, f"simulate.batches={batches}")
    evaluate = resolved(*settings).evaluate
    with tempfile.TemporaryDirectory(prefix="crosswatch-quality-") as temporary:
        folder = Path(temporary)
        run("simulate", settings, out=folder / "arrivals", truth=folder / "truth")
        run("ingest", settings, arrivals=folder / "arrivals", out=folder / "batches", known=None)
        run("refine", settings, batches=folder / "batches", out=folder / "labels")
        each = {
            name: [predictions_of(name, seed, folder, settings) for seed in range(1, seeds + 1)]
            for name in VARIANTS
        }
    together = {name: averaged(found) for name, found in each.items()}
    return {
        "benchmark": "quality",
        "batches": batches,
        "seeds": seeds,
        "instants": len(together["visual"]),
        "variants": {
            name: {
                metric: _rounded(interval) for metric, interval in measure(found, evaluate).items()
            }
            for name, found in together.items()
        },
        "f1_of_each_seed": {
            name: [round(measure(one, evaluate)["f1"].estimate, 4) for one in found]
            for name, found in each.items()
        },
        "paired": {
            f"{second} - {first}": {
                metric: _rounded(compare(together[second], together[first], metric, evaluate)[2])
                for metric in METRICS
            }
            for first, second in itertools.combinations(VARIANTS, 2)
        },
        "seconds": round(time.perf_counter() - begun),
    }


def _rounded(interval) -> dict:
    return {
        "estimate": round(interval.estimate, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "excludes_zero": bool(interval.excludes_zero),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 batches, 1 seed")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    options = parser.parse_args()
    result = study(3 if options.quick else 12, 1 if options.quick else 3, tuple(options.set))
    if not options.json:
        for name, found in result["variants"].items():
            print(name, {metric: found[metric]["estimate"] for metric in METRICS})
        for pair, found in result["paired"].items():
            print(pair, found["f1"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
