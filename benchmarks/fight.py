"""Models of features on real clips of surveillance cameras, fight or none, against a plain floor.

python benchmarks/fight.py --data DIR crossvalidates each recipe: 5 folds by source, 3 seeds, every
clip evaluated once a seed. --quick: 1 seed, 3 folds (of 2, one would validate and none train).
Nothing is tuned here. The floor sees the same folds: statistics of the differences of successive
frames and a random forest, with the same seeds. Accuracy (at 0.5) and AUC are of all clips,
averaged over the seeds; intervals, also of the paired differences to the floor, resample sources.

The floor's 24 numbers a clip: of the absolute differences d (grey levels, 0 to 1) of successive
grey pictures of 160 px height at their own rate: mean, deviation, maximum and the percentiles 50,
75, 90, 95, 99 of d over all pixels; the same 8, with percentiles 10, 25, 50, 75, 90, of the mean of
d in each pair of pictures; and the latter times the frame rate. Its forest learns from the
validating fold, too, which the models choose their epoch by.
"""

import argparse
import contextlib
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from crosswatch import experiment, progress
from crosswatch.crossvalidate import crossvalidate
from crosswatch.data.adapters.finding import batch_id, short_hash
from crosswatch.evaluation.bootstrap import Interval
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.seeds import compare_seeds, measure_seeds
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.models.tokens import BINARY

DATA = Path("../shared/data/fight_surv")
RECIPES = ("fight-cmaf", "fight-clipfusionvad", "fight-caam", "fight-tri-modal")
METRICS = ("accuracy", "auc")
HEIGHT_PX = 160
TREES = 500
Clip = tuple[str, int]  # batch and number of the recording in it
Floats = npt.NDArray[np.float64]


def study(data: Path, recipe: str, out: Path, *, folds: int, seeds: int) -> dict[str, Any]:
    """Crossvalidate a recipe below out/recipe; ingested batches and features lie in out/known."""
    settings = [f"crossvalidate.folds={folds}", f"crossvalidate.seeds={seeds}"]
    settings += ["train.workers=0", "train.threads=1"]  # sums do not depend on the machine's cores
    resolved = experiment.resolve(recipe, experiment.over(None, settings))
    begun = time.perf_counter()
    facts = crossvalidate(data, out / recipe, resolved, known=out / "known")
    files = sorted((out / recipe / "predictions").glob("seed-*.parquet"))
    return {
        "folds": facts["folds"],
        "evaluate": resolved.evaluate,
        "seeds": {int(file.stem.partition("-")[2]): Predictions.load(file) for file in files},
        "seconds": time.perf_counter() - begun,
    }


def clips_of(data: Path) -> dict[Clip, Path]:
    """The file of every recording, as the adapter of indices orders them."""
    batches: dict[str, list[str]] = {}
    with (data / "index.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            path, source = row["path"], row["source"]
            alone = f"{batch_id(Path(path).stem)[:60]}-{short_hash(path)}"
            batches.setdefault(batch_id(source) if source else alone, []).append(path)
    return {
        (name, number): data / "clips_h160" / path
        for name, paths in batches.items()
        for number, path in enumerate(sorted(paths))
    }


def differences(path: Path) -> Floats:
    """The floor's numbers of one clip."""
    histogram, of_pairs, before = np.zeros(256), [], None
    with av.open(str(path)) as container:
        rate_hz = float(container.streams.video[0].average_rate)
        for frame in container.decode(video=0):
            grey = frame.to_ndarray(format="gray")
            if grey.shape[0] != HEIGHT_PX:
                width = max(1, round(grey.shape[1] * HEIGHT_PX / grey.shape[0]))
                grey = cv2.resize(grey, (width, HEIGHT_PX), interpolation=cv2.INTER_AREA)
            if before is not None:
                levels = np.bincount(cv2.absdiff(grey, before).ravel(), minlength=256)
                histogram += levels
                of_pairs.append(levels @ np.arange(256) / levels.sum() / 255)
            before = grey
    pixels = _of_histogram(histogram, (50, 75, 90, 95, 99))
    pairs = np.array(of_pairs)
    steps = np.array(
        [pairs.mean(), pairs.std(), pairs.max(), *np.percentile(pairs, (10, 25, 50, 75, 90))]
    )
    return np.concatenate([pixels, steps, steps * rate_hz])


def _of_histogram(histogram: Floats, percentiles: tuple[int, ...]) -> Floats:
    levels = np.arange(256) / 255
    share = histogram / histogram.sum()
    mean = share @ levels
    deviation = np.sqrt(share @ (levels - mean) ** 2)
    ranks = np.searchsorted(share.cumsum(), np.array(percentiles) / 100)
    return np.array([mean, deviation, levels[np.flatnonzero(histogram)[-1]], *levels[ranks]])


def floor(found: dict[str, Any], features: dict[Clip, Floats]) -> list[Predictions]:
    """What the forest says of the rows that the model scored, by seed."""
    return [
        _floor_of_seed(seed, scored, found["folds"], features)
        for seed, scored in found["seeds"].items()
    ]


def _floor_of_seed(
    seed: int, scored: Predictions, folds: list[dict[str, Any]], features: dict[Clip, Floats]
) -> Predictions:
    clips = list(zip(scored.rows["batch"], scored.rows["segment"], strict=True))
    label_of = dict(zip(clips, scored.rows["label"] > 0, strict=True))
    chance: dict[Clip, float] = {}
    for fold in folds:
        if fold["seed"] != seed:
            continue
        held_out = [clip for clip in label_of if clip[0] in fold["batches"]]
        others = [clip for clip in label_of if clip[0] not in fold["batches"]]
        forest = RandomForestClassifier(TREES, random_state=seed)
        forest.fit([features[clip] for clip in others], [label_of[clip] for clip in others])
        told = forest.predict_proba([features[clip] for clip in held_out])[:, 1]
        chance |= dict(zip(held_out, told, strict=True))
    abnormal = np.array([chance[clip] for clip in clips])
    both = np.stack([1 - abnormal, abnormal], axis=1)
    branches = {BINARY: both} if BINARY in scored.branches else {}
    return Predictions(rows=scored.rows, probability_NK=both, branches=branches)


def against(found: dict[str, Any], floors: list[Predictions]) -> dict[str, Any]:
    """A recipe's metrics, the floor's on the same clips, and the paired difference."""
    evaluate: EvaluateConfig = found["evaluate"]
    seeds = list(found["seeds"].values())
    measured = {"model": measure_seeds(seeds, evaluate), "floor": measure_seeds(floors, evaluate)}
    facts: dict[str, Any] = {
        name: {metric: _rounded(of[metric]) for metric in METRICS} for name, of in measured.items()
    }
    facts["difference"] = {
        metric: _rounded(compare_seeds(seeds, floors, metric, evaluate)[2]) for metric in METRICS
    }
    return facts | {"seconds": round(found["seconds"])}


def _rounded(interval: Interval) -> dict[str, Any]:
    told = {name: round(getattr(interval, name), 4) for name in ("estimate", "low", "high")}
    return {**told, "units": interval.units}


def table(recipes: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'':<22}" + "".join(f"{metric:<26}{'- floor':<28}" for metric in METRICS)]
    first = next(iter(recipes.values()))
    told = {"floor": {"model": first["floor"]}, **recipes}
    for name, facts in told.items():
        line = f"{name:<22}"
        for metric in METRICS:
            line += f"{_text(facts['model'][metric], ''):<26}"
            with_floor = "difference" in facts
            line += f"{_text(facts['difference'][metric], '+') if with_floor else '':<28}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _text(i: dict[str, float], sign: str) -> str:
    return f"{i['estimate']:{sign}.3f} [{i['low']:{sign}.3f}, {i['high']:{sign}.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="3 folds, 1 seed")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep and resume the study here")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    options = parser.parse_args()
    if not (options.data / "index.csv").is_file():
        sys.exit(f"{options.data}: holds no index.csv. Name the clips' folder with --data.")
    folds, seeds = (3, 1) if options.quick else (5, 3)
    quiet = contextlib.nullcontext() if options.json else progress.shown(progress.view())
    with tempfile.TemporaryDirectory(prefix="crosswatch-fight-") as temporary, quiet:
        out = options.out or Path(temporary)
        features = {clip: differences(path) for clip, path in clips_of(options.data).items()}
        recipes = {}
        for recipe in options.recipes:
            found = study(options.data, recipe, out, folds=folds, seeds=seeds)
            recipes[recipe] = against(found, floor(found, features))
    facts = {"benchmark": "fight", "clips": len(features), "folds": folds, "seeds": seeds}
    if not options.json:
        print(table(recipes))
    print(json.dumps(facts | {"recipes": recipes}))


if __name__ == "__main__":
    main()
