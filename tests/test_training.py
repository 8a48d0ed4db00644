"""Training on real windows: it learns, resumes exactly, and workers agree with one process."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from deliveries import Scene, deliver
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made import TINY, deliver_with_events

from crosswatch import artifacts, config, experiment, stages
from crosswatch.annotation.refine import UNKNOWN
from crosswatch.errors import UserError
from crosswatch.examples.example import Example
from crosswatch.examples.facts import facts_of
from crosswatch.examples.opening import Sources
from crosswatch.models.detector import (
    SignalStatistics,
    load_detector,
    selected_on_evaluation,
    statistics_of,
)
from crosswatch.models.fmformer import Scores
from crosswatch.models.tokens import Target, Tokens
from crosswatch.training import augment, checkpoint, distributed, learner
from crosswatch.training.losses.fmformer import joint_loss
from crosswatch.training.settings import OptimConfig


def resolved(*settings: str) -> experiment.Experiment:
    return experiment.resolve("fmformer-furnace", experiment.over(None, [*TINY, *settings]))


def run(stage: str, *settings: str, **paths: Path) -> None:
    stages.run(stage, values=config.plain(resolved(*settings)), paths=paths)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with deliveries, the batch set and the labels."""
    folder = tmp_path_factory.mktemp("data")
    deliver_with_events(folder / "arrivals")
    run("ingest", arrivals=folder / "arrivals", out=folder / "batches", known=None)
    run("refine", batches=folder / "batches", out=folder / "labels")
    return folder


def train(data: Path, out: Path, *settings: str, checkpoints: Path | None = None) -> None:
    paths = {"batches": data / "batches", "labels": data / "labels"}
    run("train", *settings, **paths, out=out, checkpoints=checkpoints)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_detector(folder).module.state_dict()


def largest_difference(first: Path, second: Path) -> float:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    return max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in ours)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    data: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(data, tmp_path / name, f"train.seed={seed}", "train.epochs=1")
    assert largest_difference(tmp_path / "a", tmp_path / "b") == 0
    assert largest_difference(tmp_path / "a", tmp_path / "c") > 1e-3


# Kills the process the moment its first epoch's checkpoint stands.
KILLED = """
import os, signal, sys
from pathlib import Path
from crosswatch.training import checkpoint
sys.path.insert(0, sys.argv[1])
from test_training import train
save = checkpoint.save
def save_and_die(*args, **kwargs):
    save(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save = save_and_die
data, out = Path(sys.argv[2]), Path(sys.argv[3])
train(data, out, checkpoints=out.parent / "checkpoints")
"""


def test_killed_behind_an_epoch_it_ends_with_the_weights_of_the_undisturbed_run(
    data: Path, tmp_path: Path
) -> None:
    train(data, tmp_path / "whole")
    out = tmp_path / "killed" / "out"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(data), str(out)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    assert not out.exists()
    train(data, out, checkpoints=out.parent / "checkpoints")
    history = artifacts.read_json(out / "curves.json")
    assert [row["epoch"] for row in history] == [1, 2]
    assert history == artifacts.read_json(tmp_path / "whole" / "curves.json")
    assert largest_difference(out, tmp_path / "whole") == 0
    assert not any((out.parent / "checkpoints").iterdir())


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"

    class StopError(Exception):
        pass

    real = checkpoint.save

    def save(folder: Path, reached: checkpoint.Progress, **states) -> None:
        real(folder, reached, **states)
        if reached.epoch == 2:
            raise StopError

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(StopError):
        train(data, tmp_path / "out", "train.epochs=3", checkpoints=kept)
    (folder,) = kept.iterdir()
    newest = checkpoint.newest(folder)
    assert newest.name == "epoch-00002"
    damaged = newest / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert checkpoint.newest(folder).name == "epoch-00001"


def test_two_workers_under_ray_train_end_where_one_process_does(data: Path, tmp_path: Path) -> None:
    """The shares of a mini-batch are weighted, so that the mean gradient is the same."""
    settings = ("train.epochs=1", "train.precision=fp32", "train.augment.flip_probability=0.0")
    settings += ("model.pixel_head=false", "train.batch_size=7")
    train(data, tmp_path / "one", *settings)
    train(data, tmp_path / "two", *settings, "train.workers=2")
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 2e-3
    one, two = (artifacts.read_json(tmp_path / name / "curves.json")[0] for name in ("one", "two"))
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-3)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.1)


def test_every_window_is_seen_once_an_epoch_whatever_the_workers(data: Path) -> None:
    facts = stages_train_facts(data)
    for world in (1, 2, 3):
        seen: list[int] = []
        for number in range(world):
            made = learner.Learner(
                job(data, facts), FakeGroup(learner.Rank(number=number, world=world))
            )
            for chunk in made._chunks(0):
                seen += chunk[number::world].tolist()
        assert sorted(seen) == list(range(len(made.training)))


class FakeGroup(learner.Alone):
    def __init__(self, rank: learner.Rank) -> None:
        self.rank = rank


def stages_train_facts(data: Path):
    settings = resolved()
    sources = Sources.open(data / "batches", data / "labels", None)
    return facts_of(sources, settings.windows, settings.clips, settings.model)


def job(data: Path, facts) -> learner.Job:
    return learner.Job(
        batches=data / "batches",
        labels=data / "labels",
        features=None,
        checkpoints=data / "none",
        facts=facts,
        train=resolved().train,
    )


def test_pixels_without_a_known_class_teach_nothing() -> None:
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    scores = Scores(class_BK=None, pixel_BKHW=logits)
    mask = torch.zeros(2, 4, 4, dtype=torch.long)
    mask[1] = UNKNOWN
    joint_loss(scores, torch.zeros(2, dtype=torch.long), mask, alpha=1.0).backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0
    nothing = torch.full_like(mask, UNKNOWN)
    assert joint_loss(scores, torch.zeros(2, dtype=torch.long), nothing, alpha=1.0).item() == 0


def example() -> Example:
    video = torch.randint(0, 256, (3, 2, 6, 5, 3), dtype=torch.uint8)
    classes = torch.nn.functional.one_hot(torch.zeros(3, dtype=torch.long), 2).float()
    mask = torch.randint(0, 2, (3, 6, 5))
    return Example(
        inputs=(video, torch.randn(3, 4, 2)),
        target=Target(torch.zeros(3, dtype=torch.long), classes, mask),
    )


def test_a_mirrored_example_is_mirrored_in_every_frame_and_in_its_mask() -> None:
    made, which = example(), torch.tensor([True, False, True])
    flipped = augment.flipped(made, which)
    for at, is_flipped in enumerate(which):
        columns = [4, 3, 2, 1, 0] if is_flipped else slice(None)
        video = made.inputs[0][at][:, :, columns]
        assert torch.equal(flipped.inputs[0][at], video)
        assert torch.equal(flipped.target.mask_BHW[at], made.target.mask_BHW[at][:, columns])


@given(by=st.lists(st.tuples(st.integers(-7, 7), st.integers(-7, 7)), min_size=3, max_size=3))
def test_a_shifted_picture_and_its_mask_move_together(by: list[tuple[int, int]]) -> None:
    made = example()
    shifted = augment.shifted(made, torch.tensor(by))
    for at, (down, right) in enumerate(by):
        for row in range(6):
            for column in range(5):
                source = min(max(row - down, 0), 5), min(max(column - right, 0), 4)
                here = shifted.inputs[0][at, :, row, column]
                assert torch.equal(here, made.inputs[0][at, :, source[0], source[1]])
                assert shifted.target.mask_BHW[at, row, column] == made.target.mask_BHW[at][source]


def test_a_dropped_signal_is_at_its_mean_and_the_others_stay() -> None:
    made = example()
    dropped = augment.without_signal(made, torch.tensor([False, True, False])).inputs[1]
    assert not dropped[1].any()
    assert torch.equal(dropped[[0, 2]], made.inputs[1][[0, 2]])


def streams(valid_SBL: np.ndarray) -> Example:  # noqa: N803
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(
        Tokens(torch.randn(*valid_BL.shape, 2, generator=generator), torch.from_numpy(valid_BL))
        for valid_BL in valid_SBL
    )
    labels = torch.zeros(valid_SBL.shape[1], dtype=torch.long)
    classes = torch.nn.functional.one_hot(labels, 2).float()
    return Example(inputs=inputs, target=Target(labels, classes))


@given(
    valid_SBL=arrays.arrays(bool, st.tuples(*(st.integers(1, 4) for _ in range(3)))),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_streams_are_taken_whole_and_never_all_that_a_clip_has(
    valid_SBL: np.ndarray,  # noqa: N803
    probability: float,
    seed: int,
) -> None:
    made = streams(valid_SBL)
    taken = augment.without_streams(made, probability, np.random.default_rng(seed))
    left_SBL = np.stack([tokens.valid_BL.numpy() for tokens in taken.inputs])  # noqa: N806
    is_left_SB = (left_SBL == valid_SBL).all(axis=2)  # noqa: N806
    assert (is_left_SB | ~left_SBL.any(axis=2)).all(), "whole, or gone: nothing becomes valid"
    np.testing.assert_array_equal(left_SBL.any(axis=(0, 2)), valid_SBL.any(axis=(0, 2)))
    if not probability:
        np.testing.assert_array_equal(left_SBL, valid_SBL)
    for before, after in zip(made.inputs, taken.inputs, strict=True):
        assert torch.equal(before.values_BLD, after.values_BLD)
    assert taken.target is made.target


def test_streams_are_taken_independently_of_each_other_and_of_other_clips() -> None:
    made = streams(np.ones((3, 4000, 1), bool))
    taken = augment.without_streams(made, 0.3, np.random.default_rng(0))
    gone_SB = np.stack([~tokens.valid_BL.numpy()[:, 0] for tokens in taken.inputs])  # noqa: N806
    # All three would go together in 0.3^3; those clips keep all.
    np.testing.assert_allclose(gone_SB.mean(axis=1), 0.3 - 0.3**3, atol=0.03)
    np.testing.assert_allclose((gone_SB.sum(axis=0) == 2).mean(), 3 * 0.3**2 * 0.7, atol=0.03)


def test_statistics_count_each_training_sample_once(data: Path) -> None:
    from crosswatch.data.batches import open_set
    from crosswatch.data.gather import windows_of

    settings = resolved()
    windows = windows_of(open_set(data / "batches"), settings.windows, "train")
    table = windows.tables[0]
    used = np.unique(table.signal_stop[:, None] + np.arange(-table.samples, 0))
    samples = np.asarray(windows.batches[0].signal)[used]
    found = statistics_of(windows)
    np.testing.assert_allclose(found.mean, samples.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.deviation, samples.std(0), rtol=1e-3)
    normal = found.normalise(samples)
    np.testing.assert_allclose(normal.mean(0), 0, atol=1e-3)
    assert isinstance(found, SignalStatistics)


def test_the_learning_rate_warms_up_and_descends() -> None:
    optim = OptimConfig(learning_rate=1e-3, warmup_share=0.1, final_share=0.02)
    rates = [optim.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) in (9, 10)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.03e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("train.workers=17",), "workers is 17; allowed 0 .in process. to batch_size, 16"),
        (("train.epochs=0",), "epochs is 0; allowed 1 and above"),
        (("train.optim.learning_rate=0.0",), "learning_rate 0.0 .* have to be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolved(*settings)


def test_more_workers_than_the_machine_can_hold_are_refused() -> None:
    too_many = 4 * (os.cpu_count() or 1) + 1
    with pytest.raises(UserError, match=rf"train.workers is {too_many}; this machine has"):
        distributed.workers_of(too_many)


def test_a_pixel_head_without_masks_is_refused(data: Path, tmp_path: Path) -> None:
    run("refine", "refine.masks=none", batches=data / "batches", out=tmp_path / "labels")
    with pytest.raises(UserError, match=r"has no masks, which model.pixel_head=true learns from"):
        run("train", batches=data / "batches", labels=tmp_path / "labels",
            out=tmp_path / "out", checkpoints=None)  # fmt: skip


def test_labels_of_another_batch_set_are_refused(data: Path, tmp_path: Path) -> None:
    deliver_with_events(tmp_path / "arrivals", name="other", seed=5)
    run("ingest", arrivals=tmp_path / "arrivals", out=tmp_path / "batches", known=None)
    with pytest.raises(UserError, match="was made from another batch set"):
        run("train", batches=tmp_path / "batches", labels=data / "labels",
            out=tmp_path / "out", checkpoints=None)  # fmt: skip


def test_a_detector_reloads_to_the_same_scores_and_foreign_weights_are_refused(
    data: Path, tmp_path: Path
) -> None:
    from crosswatch.data.batches import open_set
    from crosswatch.data.gather import windows_of

    train(data, tmp_path / "out", "train.epochs=1")
    first, again = load_detector(tmp_path / "out"), load_detector(tmp_path / "out")
    windows = windows_of(open_set(data / "batches"), first.facts.windows, "evaluation")
    rows = np.arange(3)
    torch.testing.assert_close(
        *(each.score(each.facts.read_windows(windows, rows)).class_BK for each in (first, again)),
        rtol=0,
        atol=0,
    )
    facts = dataclasses.replace(first.facts, classes=("normal", "a", "b"))
    facts = dataclasses.replace(facts, shape=dataclasses.replace(facts.shape, classes=3))
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "model.safetensors").write_bytes((tmp_path / "out/model.safetensors").read_bytes())
    artifacts.write_json(wrong / "detector.json", {**config.plain(facts), "notes": {}})
    with pytest.raises(UserError, match=r"does not fit detector.json: size mismatch"):
        load_detector(wrong)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_weights_are_those_of_the_undisturbed_run(
    data: Path, tmp_path: Path
) -> None:
    """Ray Train starts the group again, behind the last checkpoint."""
    settings = ("train.workers=2", "train.epochs=8")
    train(data, tmp_path / "whole", *settings)
    kept = tmp_path / "kept"
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker_behind_an_epoch, args=(kept, killed))
    killer.start()
    train(data, tmp_path / "disturbed", *settings, checkpoints=kept)
    killer.join(timeout=60)
    assert len(killed) == 1
    history = artifacts.read_json(tmp_path / "disturbed" / "curves.json")
    assert [row["epoch"] for row in history] == list(range(1, 9))
    assert largest_difference(tmp_path / "whole", tmp_path / "disturbed") == 0


def kill_a_worker_behind_an_epoch(kept: Path, killed: list[int]) -> None:
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if list(kept.glob("*/epoch-*/manifest.json")):
            mine = psutil.Process().children(recursive=True)
            workers = [process for process in mine if "RayTrainWorker" in process.name()]
            workers = workers or [p for p in mine if "RayTrainWorker" in " ".join(p.cmdline())]
            workers[0].kill()
            killed.append(workers[0].pid)
            return
        time.sleep(0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("workers", [1, None])
def test_trains_on_a_gpu(data: Path, tmp_path: Path, workers: int | None) -> None:
    train(data, tmp_path / "out", f"train.workers={workers or 'null'}")
    assert load_detector(tmp_path / "out")


def test_selection_survives_scores_that_are_undefined(data: Path) -> None:
    made = learner.Learner(job(data, stages_train_facts(data)), learner.Alone())
    chosen = []
    for epoch, score in enumerate((float("nan"), 0.2, float("nan"), 0.1, 0.3), start=1):
        made.reached.epoch = epoch
        made._select(score)
        chosen.append(made.reached.best_epoch)
    assert chosen == [1, 2, 2, 2, 5]


def test_selecting_the_best_epoch_needs_validation_windows(data: Path, tmp_path: Path) -> None:
    settings = ("split.by=batch", "split.evaluation=[other]")
    deliver_with_events(tmp_path / "arrivals", name="batch-1")
    deliver_with_events(tmp_path / "arrivals", name="other", seed=5)
    run("ingest", *settings, arrivals=tmp_path / "arrivals", out=tmp_path / "batches", known=None)
    run("refine", *settings, batches=tmp_path / "batches", out=tmp_path / "labels")
    paths = {"batches": tmp_path / "batches", "labels": tmp_path / "labels"}
    with pytest.raises(UserError, match=r"picks the epoch by validation windows.*select=last"):
        run("train", *settings, **paths, out=tmp_path / "out", checkpoints=None)


def test_selecting_on_the_evaluation_set_needs_windows_there(tmp_path: Path) -> None:
    settings = ("split.by=batch", "split.evaluation=[short]")
    deliver_with_events(tmp_path / "arrivals", name="batch-1")
    deliver(tmp_path / "arrivals", name="short", scene=Scene(seconds=45.0))
    run("ingest", *settings, arrivals=tmp_path / "arrivals", out=tmp_path / "batches", known=None)
    run("refine", *settings, batches=tmp_path / "batches", out=tmp_path / "labels")
    paths = {"batches": tmp_path / "batches", "labels": tmp_path / "labels"}
    with pytest.raises(UserError, match=r"windows or clips of the evaluation set.*select=last"):
        run("train", *settings, "windows.signal_s=50", "train.select=test", **paths,
            out=tmp_path / "out", checkpoints=None)  # fmt: skip


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ("best", "last epoch (auc is undefined on validation)"),
        ("test", "last epoch (auc of the evaluation set itself is undefined)"),
        ("last", "last epoch"),
    ],
)
def test_an_epoch_is_not_said_to_be_picked_by_what_is_undefined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], select: str, told: str
) -> None:
    """No batch has an event: auc is undefined everywhere."""
    deliver(tmp_path / "arrivals", name="batch-1", scene=Scene(seconds=90.0))
    run("ingest", arrivals=tmp_path / "arrivals", out=tmp_path / "batches", known=None)
    run("refine", batches=tmp_path / "batches", out=tmp_path / "labels")
    paths = {"batches": tmp_path / "batches", "labels": tmp_path / "labels"}
    run("train", f"train.select={select}", "train.metric=auc", "train.epochs=1", **paths,
        out=tmp_path / "out", checkpoints=None)  # fmt: skip
    detector = load_detector(tmp_path / "out")
    assert detector.selected_by == told
    assert selected_on_evaluation(detector.selected_by) == (select == "test")
    warnings = artifacts.open_artifact(tmp_path / "out").warnings
    assert warnings == (() if select == "last" else (f"the epoch is the {told}",))
