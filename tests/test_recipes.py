"""The packaged recipes: what they say is true, and what they need is said before it is missed."""

import json
from pathlib import Path
from typing import Any

import pytest
from made import deliver_with_events
from tiny_bert import make_tiny_bert
from tiny_blip import write_tiny_blip
from tiny_clip import save_folder

from crosswatch import cli, config, experiment, stages
from crosswatch.features.encoders import ENCODERS
from crosswatch.features.exchange.msrvtt import CATEGORIES
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.needs import needs_of
from crosswatch.records import WeightsConfig
from crosswatch.stages import control

FEATURES = tuple(
    name
    for name in experiment.recipes()
    if not isinstance(experiment.resolve(name, {}).model, FmFormerConfig)
)
FURNACE = tuple(name for name in FEATURES if name.endswith("-furnace"))
FIGHT = tuple(name for name in FEATURES if name.startswith("fight-"))
UCF = ("caption.blip.weights", "features.clip.weights", "features.distilbert.weights")


def listed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[list[str], Any]:
    """The lines that `crosswatch recipes` prints, and its JSON."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["recipes", *map(str, arguments), "--json"])
    assert ended.value.code == 0
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)["recipes"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["recipes", *map(str, arguments)])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name small weights for all that cmaf-ucf needs."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "clip").mkdir()
    made = (
        write_tiny_blip(folder / "blip"),
        save_folder(folder / "clip"),
        make_tiny_bert(folder / "bert"),
    )
    return tuple(f"{option}.source={path}" for option, path in zip(UCF, made, strict=True))


def test_all_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = [f"{option}.source=/nowhere" for option in UCF]
    lines, recipes = listed(capsys, *(part for each in nowhere for part in ("--set", each)))
    assert [recipe["name"] for recipe in recipes] == list(experiment.recipes())
    assert max(map(len, lines)) <= 100
    heads = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert heads == ["recipe", *experiment.recipes()]
    for recipe in recipes:
        assert 20 < len(recipe["what"]) <= 170, recipe["name"]
        assert recipe["what"].endswith(".")
        assert recipe["data"]["layout"]
        assert "batches" not in recipe["data"]  # nobody said where they are
    states = {recipe["name"]: recipe["state"] for recipe in recipes}
    assert states["cmaf-ucf"] == "3 missing"
    assert {states[name] for name in (*FURNACE, *FIGHT, "itsc")} == {"none needed"}
    looks_at = {recipe["name"]: recipe["looks_at"] for recipe in recipes}
    assert looks_at["fmformer-furnace"] == ["video", "signal"]
    assert looks_at["tri-modal-furnace"] == ["image", "mel", "motion"]


@pytest.mark.parametrize("name", FEATURES)
def test_a_model_of_features_gets_what_it_looks_at_and_nothing_else(name: str) -> None:
    """Every encoder feeds a stream, captions are made where text is read, guards are clips long."""
    resolved = experiment.resolve(name, {})
    wanted = {
        modality.removesuffix("_tokens")
        for stream in resolved.model.streams
        for modality in stream.modalities
    }
    encoders = set(resolved.features.encoders)
    assert encoders - {"imported"} == wanted & set(ENCODERS) - ({"clip", "audio"} & wanted)
    reads = any(ENCODERS[encoder].reads_captions for encoder in encoders - {"imported"})
    assert reads == (resolved.caption.source != "none")
    assert resolved.refine.masks == "none"
    assert resolved.register.model_name == name
    if resolved.split.by == "time":
        assert resolved.windows.signal_s == resolved.clips.length_s


def test_a_furnace_s_clips_last_ten_seconds_and_its_bags_twenty() -> None:
    lengths_s = {name: experiment.resolve(name, {}).clips.length_s for name in FURNACE}
    assert lengths_s == {
        "caam-furnace": 10.0,
        "clipfusionvad-furnace": 20.0,
        "cmaf-furnace": 10.0,
        "tri-modal-furnace": 10.0,
    }


def test_published_classes_are_complete_and_in_order() -> None:
    assert experiment.resolve("caam-msrvtt", {}).ingest.classes == CATEGORIES
    for name, count in (("clipfusionvad-ucf", 14), ("clipfusionvad-xd", 7)):
        resolved = experiment.resolve(name, {})
        assert len(resolved.ingest.classes) == len(resolved.model.prompts) == count
        assert resolved.model.prompts[0] == "normal"
    ucf = experiment.resolve("clipfusionvad-ucf", {})
    assert ucf.model.prompts == tuple(each.lower() for each in ucf.ingest.classes)


def test_weights_that_are_here_are_said_to_be(
    capsys: pytest.CaptureFixture[str], weights: tuple[str, ...]
) -> None:
    given = [part for each in weights for part in ("--set", each)]
    lines, (recipe,) = listed(capsys, "cmaf-ucf", *given)
    assert recipe["state"] == "here"
    assert [need["option"] for need in recipe["weights"]] == list(UCF)
    assert {need["state"] for need in recipe["weights"]} == {"here"}
    assert sum(line.strip().startswith("here: ") for line in lines) == 3


def test_of_some_that_are_missing_only_these_are_told(
    capsys: pytest.CaptureFixture[str], weights: tuple[str, ...], tmp_path: Path
) -> None:
    blip, clip, _ = weights
    gone = f"features.distilbert.weights.source={tmp_path / 'gone'}"
    _, (recipe,) = listed(capsys, "cmaf-ucf", "--set", blip, "--set", clip, "--set", gone)
    assert recipe["state"] == "1 missing"
    why = [need["why"] for need in recipe["weights"] if need["state"] == "missing"]
    assert len(why) == 1
    assert f"there is no {tmp_path / 'gone'}" in why[0]


def test_a_name_on_the_hub_is_fetched_only_where_that_is_allowed() -> None:
    def looked(**weights: Any) -> tuple[str, str]:
        over = {"features": {"distilbert": {"weights": weights}}}
        need = needs_of(experiment.resolve("cmaf-ucf", over))[-1]
        assert need.weights == WeightsConfig(**weights)
        return need.look()

    named = "nobody/has-such-weights"
    assert looked(source=named, download=True) == ("to be fetched", "")
    state, why = looked(source=named)
    assert state == "missing"
    assert "nothing is fetched unless features.distilbert.weights.download=true" in why
    state, why = looked(source="/nowhere/model.safetensors", download=True)
    assert state == "missing"
    assert "there is no /nowhere/model.safetensors" in why


def test_two_encoders_over_the_same_weights_need_them_once() -> None:
    over = {"features": {"encoders": ["clip", "image"], "image": {"source": "clip"}}}
    (need,) = needs_of(experiment.resolve("fmformer-furnace", over))
    assert need.option == "features.clip.weights"


def test_a_run_tells_all_that_is_missing_before_it_takes_anything_in(
    capsys: pytest.CaptureFixture[str], weights: tuple[str, ...]
) -> None:
    def validated(*settings: str) -> str:
        over = experiment.over(None, settings)
        return control.validate(recipe="cmaf-ucf", overrides=json.dumps(over))

    assert json.loads(validated(*weights))["model"]["name"] == "cmaf"
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        validated(weights[0], *(f"{option}.source=/nowhere/at.all" for option in UCF[1:]))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    line = next(line for line in told.splitlines() if "lack" in line)
    assert "2 models lack their weights" in line
    assert "(1) features.clip.weights.source: there is no /nowhere/at.all" in line
    assert "(2) features.distilbert.weights.source: there is no /nowhere/at.all" in line
    assert "--set features.image.source=appearance" in line  # what needs none
    assert UCF[0] not in line


def test_batches_are_held_to_the_layout_that_a_recipe_reads(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    deliver_with_events(tmp_path / "arrivals")
    unfinished = deliver_with_events(tmp_path / "arrivals", name="unfinished")
    (unfinished / "SHA256SUMS").unlink()
    names = ("caam-furnace", "fight-caam")
    lines, recipes = listed(capsys, *names, "--batches", tmp_path / "arrivals")
    found, other = (recipe["data"]["batches"] for recipe in recipes)
    assert (found["found"], found["not_arrived"]) == (1, ["unfinished"])
    assert "holds no index.csv" in other["fault"]
    assert "    data: 1 batches; 1 still arriving" in lines


def test_mistakes_cost_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--recipe cmaf-ufc: unknown" in refused(capsys, "cmaf-ufc")
    assert "is not there" in refused(capsys, "--batches", tmp_path / "gone")
    assert "unknown key 'trian'" in refused(capsys, "--set", "trian.epochs=1")


def test_settings_that_some_recipes_refuse_are_told_of_these(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting = ("--set", "model.hidden=32")
    _, (cmaf, fmformer) = listed(capsys, "cmaf-furnace", "fmformer-furnace", *setting)
    assert cmaf["state"] == "none needed"
    assert "unknown key 'hidden' for FmFormerConfig" in fmformer["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FURNACE)
def test_a_furnace_recipe_learns_from_simulated_deliveries(name: str, tmp_path: Path) -> None:
    given = [
        "simulate.batches=1", "simulate.minutes=5", "simulate.frame_px=64", "simulate.fps=10",
        "train.workers=0", "train.epochs=3", "evaluate.samples=20",
    ]  # fmt: skip
    values = config.plain(experiment.resolve(name, experiment.over(None, given)))
    paths = {role: tmp_path / role for role in ("batches", "labels", "captions", "features")}

    def run(stage: str, **places: Path) -> None:
        known = {role: places.get(role) for role in stages.paths_of(stage)}
        stages.run(stage, values=values, paths=known)

    run("simulate", out=tmp_path / "arrivals")
    run("ingest", arrivals=tmp_path / "arrivals", out=paths["batches"])
    run("refine", batches=paths["batches"], out=paths["labels"])
    run("caption", batches=paths["batches"], out=paths["captions"])
    run("extract", batches=paths["batches"], captions=paths["captions"], out=paths["features"])
    run("train", **paths, out=tmp_path / "checkpoint")
    run("evaluate", **paths, checkpoint=tmp_path / "checkpoint", out=tmp_path / "evaluation")
    measured = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert measured["metrics"]["auc"] > 0.6
