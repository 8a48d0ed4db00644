"""Folds by group, seeds, and what is made of them together."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import batch
from test_index import clip, index

from crosswatch import artifacts, experiment, progress
from crosswatch.crossvalidate import _Progress, crossvalidate
from crosswatch.data.batches import BatchSet, open_set
from crosswatch.data.folds import CrossvalidateConfig, before, deal
from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import block_bootstrap
from crosswatch.evaluation.measure import measure
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.seeds import compare_seeds, measure_seeds
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.records import Event

SOURCES = [f"s{number}" for number in range(6)]
SMALL = (
    "ingest.frame_px=16",
    "ingest.index.label=label",
    "ingest.index.root=.",
    "features.encoders=[image]",
    "caption.source=none",
    "model.visual=[image]",
    "model.text=[image]",
    "model.hidden=8",
    "model.heads=2",
    "train.epochs=1",
    "train.batch_size=4",
    "train.workers=0",
    "train.threads=1",
    "evaluate.samples=40",
    "crossvalidate.folds=3",
    "crossvalidate.seeds=2",
)
EVALUATE = EvaluateConfig(unit="batch", samples=200)


def resolved(*settings: str) -> experiment.Experiment:
    return experiment.resolve("fight-cmaf", experiment.over(None, [*SMALL, *settings]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sources of one to three clips, half of which are fights."""
    folder, rows = tmp_path_factory.mktemp("clips"), []
    for source in SOURCES:
        for number in range(1 + SOURCES.index(source) % 3):
            path, label = f"{source}-{number}.mp4", (number + SOURCES.index(source)) % 2
            clip(folder / path, rate_hz=10, seconds=0.6 + 0.2 * label)
            rows.append((path, str(label), source))
    return index(folder, rows)


@pytest.fixture(scope="module")
def study(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("study")
    return out, crossvalidate(clips, out, resolved())


def scored(out: Path) -> dict[int, Predictions]:
    files = sorted((out / "predictions").glob("*.parquet"))
    return {int(file.stem.removeprefix("seed-")): Predictions.load(file) for file in files}


# Dealing


def batch_set(groups: list[list[int]]) -> BatchSet:
    """A batch a group, a recording of 1 s an entry, of the class that it names."""
    names = ("normal", "fight", "fire")
    batches = []
    for number, classes in enumerate(groups):
        spans = tuple((2.0 * at, 2.0 * at + 1) for at in range(len(classes)))
        events = tuple(
            Event(class_name=names[k], onset_s=a, apex_s=a, offset_s=b)
            for k, (a, b) in zip(classes, spans, strict=True)
        )
        made = batch(seconds=1.0, batch_id=f"b{number}", segments=spans, events=events)
        batches.append(made)
    return BatchSet(digest="d", batches=tuple(batches), classes=names, ranges=(), evaluation_set={})


GROUPS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=9)


@given(GROUPS, st.integers(2, 5), st.integers(0, 9))
def test_every_batch_is_in_one_fold_and_no_fold_is_empty(
    groups: list[list[int]], folds: int, seed: int
) -> None:
    made, settings = batch_set(groups), CrossvalidateConfig(folds=folds, seed=seed)
    counts = np.bincount([k for classes in groups for k in classes])
    if folds > min(len(groups), counts.max()):
        with pytest.raises(UserError, match=r"crossvalidate\.folds is"):
            deal(made, settings)
        return
    dealt = deal(made, settings)
    assert len(dealt) == folds
    assert sorted(name for fold in dealt for name in fold) == [b.id for b in made.batches]
    assert all(dealt)
    assert dealt == deal(made, settings)
    for number, fold in enumerate(dealt):
        assert not {*fold} & {*before(dealt, number)}


def test_classes_are_dealt_evenly_and_in_an_order_that_the_seed_gives() -> None:
    groups = [[0, 0]] * 6 + [[1]] * 6
    orders = set()
    for seed in range(5):
        dealt = deal(batch_set(groups), CrossvalidateConfig(folds=3, seed=seed))
        orders.add(dealt)
        counts = [[groups[int(name[1:])] for name in fold] for fold in dealt]
        of_class = [[sum(group.count(k) for group in fold) for k in (0, 1)] for fold in counts]
        assert of_class == [[4, 2]] * 3
    assert len(orders) > 1


def test_without_a_number_of_folds_each_batch_is_one() -> None:
    dealt = deal(batch_set([[0], [1], [0, 1]]), CrossvalidateConfig())
    assert dealt == (("b0",), ("b1",), ("b2",))
    assert before(dealt, 0) == ("b2",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folds": 1}, r"folds is 1; allowed 0 \(each batch\) and 2 and above"),
        ({"folds": -2}, "folds is -2"),
        ({"seeds": 0}, "seeds is 0; allowed 1 and above"),
        ({"folds": 5}, r"folds is 5, and there are 4 batches: .* Set it to 4 at most"),
        ({"folds": 3}, r"folds is 3, and no class has more than 2 recordings"),
    ],
)
def test_impossible_folds_are_refused(settings: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        deal(batch_set([[0], [0], [1], [1]]), CrossvalidateConfig(**settings))


# A study


def test_every_recording_is_evaluated_once_a_seed(clips: Path, study: tuple[Path, dict]) -> None:
    out, facts = study
    listed = pd.read_csv(clips / "index.csv")
    found = scored(out)
    assert list(found) == [1, 2]
    for predictions in found.values():
        rows = predictions.rows
        assert (
            len(rows) == len(listed) == len(set(zip(rows["batch"], rows["segment"], strict=True)))
        )
        assert rows.groupby("batch")["label"].apply(sorted).to_dict() == (
            listed.groupby("source")["label"].apply(sorted).to_dict()
        )
    first, second = found.values()
    assert first.rows.equals(second.rows)
    assert not np.array_equal(first.probability_NK, second.probability_NK)
    assert [(each["evaluation"], each["seed"]) for each in facts["folds"]] == [
        (fold, seed) for fold in "123" for seed in (1, 2)
    ]


def test_no_fold_trains_or_validates_on_what_it_evaluates(study: tuple[Path, dict]) -> None:
    out, facts = study
    evaluated: list[str] = []
    for fold in facts["folds"][::2]:
        made = open_set(out / f"fold-{fold['evaluation']}" / "batches")
        blocks = {item.batch: item.block for item in made.ranges}
        assert sorted(blocks) == SOURCES
        assert {name for name, block in blocks.items() if block == "evaluation"} == {
            *fold["batches"]
        }
        assert {name for name, block in blocks.items() if block == "validation"} == {
            *fold["validation"]
        }
        evaluated += fold["batches"]
    assert sorted(evaluated) == SOURCES
    assert facts["folds"][0]["validation"] == facts["folds"][-1]["batches"]


def test_facts_are_means_over_folds_and_seeds(study: tuple[Path, dict]) -> None:
    out, facts = study
    values = np.array([fold["metrics"]["accuracy"] for fold in facts["folds"]]).reshape(3, 2)
    assert facts["metrics"]["accuracy"] == pytest.approx(values.mean())
    assert facts["deviation"]["accuracy"] == pytest.approx(values.mean(1).std(ddof=1))
    assert facts["seed_deviation"]["accuracy"] == pytest.approx(values.mean(0).std(ddof=1))
    told = facts["intervals"]["accuracy"]
    right = [
        (each.probability_NK.argmax(1) == each.rows["label"]).mean()
        for each in scored(out).values()
    ]
    assert told["estimate"] == pytest.approx(np.mean(right))
    assert told["units"] == len(SOURCES)
    assert told["low"] <= told["estimate"] <= told["high"]
    assert facts["quarantined"] == {}
    assert json.loads((out / "crossvalidation.json").read_text()) == json.loads(json.dumps(facts))


def made_at(out: Path) -> dict[str, int]:
    files = out.glob(f"fold-*/**/{artifacts.MANIFEST}")
    return {str(file.parent.relative_to(out)): file.stat().st_mtime_ns for file in files}


def changed(before_: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in after if before_.get(name) != after[name]}


def test_what_is_finished_is_not_done_again(
    clips: Path, study: tuple[Path, dict], tmp_path: Path
) -> None:
    out = shutil.copytree(study[0], tmp_path / "study")
    finished = made_at(out)
    assert crossvalidate(clips, out, resolved()) == study[1]
    assert changed(finished, made_at(out)) == set()

    (out / "fold-2/seed-1/evaluation/predictions.parquet").write_bytes(b"damaged")
    shutil.rmtree(out / "fold-3/seed-2/checkpoint")
    assert crossvalidate(clips, out, resolved()) == study[1]
    mended = made_at(out)
    assert changed(finished, mended) == {
        "fold-2/seed-1/evaluation",
        "fold-3/seed-2/checkpoint",
    } | ({"fold-3/seed-2/evaluation"} & changed(finished, mended))

    crossvalidate(clips, out, resolved("evaluate.samples=41"))
    evaluated = made_at(out)
    assert changed(mended, evaluated) == {
        f"fold-{fold}/seed-{seed}/evaluation" for fold in "123" for seed in (1, 2)
    }

    crossvalidate(clips, out, resolved("evaluate.samples=41", "crossvalidate.seeds=1"))
    assert changed(evaluated, made_at(out)) == set()
    assert list(scored(out)) == [1]


def test_another_delivery_is_another_study(
    clips: Path, study: tuple[Path, dict], tmp_path: Path
) -> None:
    out = shutil.copytree(study[0], tmp_path / "study")
    fewer = shutil.copytree(clips, tmp_path / "fewer")
    rows = (fewer / "index.csv").read_text().splitlines()
    (fewer / "index.csv").write_text("\n".join(row for row in rows if not row.endswith("s5")))
    with pytest.raises(UserError, match=r"knows s5, which .*fewer does not deliver"):
        crossvalidate(fewer, out, resolved())


def test_two_folds_cannot_validate(clips: Path, study: tuple[Path, dict], tmp_path: Path) -> None:
    known = study[0] / "known"
    with pytest.raises(UserError, match=r"2 folds: one evaluates and one validates"):
        crossvalidate(clips, tmp_path, resolved("crossvalidate.folds=2"), known=known)
    with pytest.raises(UserError, match=r"folds is 7, and there are 6 batches"):
        crossvalidate(clips, tmp_path, resolved("crossvalidate.folds=7"), known=known)


def test_a_batch_that_cannot_be_read_is_told_and_the_others_are_studied(
    clips: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(clips, tmp_path / "copy")
    (copy / "s3-0.mp4").write_bytes(b"no video" * 9)
    settings = ("train.select=last", "crossvalidate.folds=2", "crossvalidate.seeds=1")
    facts = crossvalidate(copy, tmp_path / "out", resolved(*settings))
    assert list(facts["quarantined"]) == ["s3"]
    assert sorted(name for fold in facts["folds"] for name in fold["batches"]) == [
        name for name in SOURCES if name != "s3"
    ]
    assert all(fold["validation"] == [] for fold in facts["folds"])


def test_the_command_refuses_in_one_line(clips: Path) -> None:
    command = [sys.executable, "-m", "crosswatch", "crossvalidate", "--batches", str(clips)]
    ended = subprocess.run(
        [*command, "--set", "crossvalidate.seeds=0"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "crosswatch crossvalidate: configuration.crossvalidate: seeds is 0; allowed 1 and above"
    )


# Intervals over seeds


def predictions(seed: int, *, count: int = 60, skill: float = 1.0) -> Predictions:
    """Clips of 12 batches, the same for every seed; the scores are the seed's own."""
    label = np.random.default_rng(7).integers(0, 2, count)
    chance = np.random.default_rng(seed)
    score = 1 / (1 + np.exp(-skill * (label - 0.5) - chance.standard_normal(count)))
    rows = pd.DataFrame(
        {
            "batch": [f"b{n % 12}" for n in range(count)],
            "end_s": np.arange(count) * 2.0,
            "segment": np.arange(count),
            "start_s": np.arange(count) * 2.0 - 1,
            "label": label,
        }
    )
    return Predictions(rows=rows, probability_NK=np.stack([1 - score, score], axis=1))


def test_one_seed_or_the_same_again_is_what_it_is_alone() -> None:
    one = predictions(1)
    alone = measure(one, EVALUATE)
    for seeds in ([one], [one, one, one]):
        for name, interval in measure_seeds(seeds, EVALUATE).items():
            told, known = dataclasses.astuple(interval), dataclasses.astuple(alone[name])
            np.testing.assert_allclose(told, known, rtol=1e-12)


def test_seeds_are_averaged_within_each_resample() -> None:
    seeds = [predictions(seed) for seed in range(3)]
    right = np.stack([s.probability_NK.argmax(1) == s.rows["label"] for s in seeds], axis=1)
    interval = measure_seeds(seeds, EVALUATE)["accuracy"]
    expected = block_bootstrap(
        seeds[0].rows["batch"],
        lambda weights: weights @ right.mean(axis=1) / weights.sum(-1),
        samples=EVALUATE.samples,
    )
    np.testing.assert_allclose(dataclasses.astuple(interval), dataclasses.astuple(expected))
    assert interval.units == 12


def test_the_order_of_rows_in_a_seed_does_not_matter() -> None:
    one, other = predictions(1), predictions(2)
    shuffled = other.take(np.random.default_rng(0).permutation(len(other)))
    assert measure_seeds([one, shuffled], EVALUATE) == measure_seeds([one, other], EVALUATE)


def test_a_model_does_not_differ_from_itself_and_differs_from_a_worse_one() -> None:
    good = [predictions(seed, skill=6.0) for seed in range(3)]
    bad = [predictions(seed, skill=0.0) for seed in range(3, 5)]
    *values, none = compare_seeds(good, good, "auc", EVALUATE)
    assert values[0] == values[1] == measure_seeds(good, EVALUATE)["auc"].estimate
    assert (none.estimate, none.low, none.high) == (0, 0, 0)
    one, other, gain = compare_seeds(good, bad, "auc", EVALUATE)
    assert gain.estimate == pytest.approx(one - other)
    assert gain.low > 0
    *_, loss = compare_seeds(bad, good, "auc", EVALUATE)
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low))


def test_seeds_of_different_instants_or_without_the_metric_are_refused() -> None:
    one = predictions(1)
    fewer = one.take(np.arange(50))
    for seeds in ([one, fewer], [fewer, one]):
        with pytest.raises(UserError, match=r"different instants: 50 are shared of 60"):
            measure_seeds(seeds, EVALUATE)
    with pytest.raises(UserError, match=r"metric 'miou' is not among accuracy"):
        compare_seeds([one], [one], "miou", EVALUATE)


# What it says of itself


class Noted:
    def __init__(self) -> None:
        self.events: list[dict] = []

    def show(self, event: dict) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


def test_progress_tells_fold_seed_and_the_time_left() -> None:
    view = Noted()
    with progress.shown(view):
        shown = _Progress(2, 2)
        for lasted_s, worked in ((0.0, False), (120.0, True), (240.0, True), (0.0, True)):
            shown._since -= lasted_s
            shown.next(worked=worked)
    told = [event["text"] for event in view.events if event["event"] == "outcome"]
    assert told == [
        "1 of 2, seed 1 of 2, known",
        "1 of 2, seed 2 of 2; about 4 min left",
        "2 of 2, seed 1 of 2; about 3 min left",
        "2 of 2, seed 2 of 2",
    ]
