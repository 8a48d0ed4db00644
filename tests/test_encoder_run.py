"""The whole pipeline with captions and features by neural networks, on simulated batches."""

from pathlib import Path

import pytest
from plants import MODEL, Plant, facts
from tiny_bert import make_tiny_bert
from tiny_blip import write_tiny_blip
from tiny_clip import save_folder

from crosswatch import config, experiment, stages
from crosswatch.data.batches import open_set
from crosswatch.features.captioning.captions import read_captions
from crosswatch.features.schema import open_features

SMALL = (
    "simulate.batches=2",
    "simulate.minutes=2.0",
    "simulate.frame_px=64",
    "simulate.events_min=4",
    "simulate.events_max=6",
)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    plant = Plant(tmp_path_factory.mktemp("plant"))
    resolved = experiment.resolve("fmformer-furnace", experiment.over(None, SMALL))
    places = {"out": plant.arrivals, "truth": plant.arrivals.parent / "truth"}
    stages.call("simulate", values=config.plain(resolved), paths=places)
    return plant


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    weights = tmp_path_factory.mktemp("weights")
    settings = {
        "caption.source": "blip",
        "caption.blip.weights.source": write_tiny_blip(weights / "blip"),
        "features.encoders": "[clip, distilbert, motion, mel, image]",
        "features.clip.weights.source": save_folder(weights / "clip"),
        "features.distilbert.weights.source": make_tiny_bert(weights / "bert"),
        "sync.estimate": "given",
    }
    return tuple(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))


@pytest.mark.slow
def test_captions_and_features_join_the_run(plant: Plant, options: tuple[str, ...]) -> None:
    ended = plant.run(*options)
    assert ended.returncode == 0, ended.stderr
    paths = facts(ended)["paths"]
    features = open_features(Path(paths["features"]))
    expected = {"clip", "distilbert", "distilbert_tokens", "motion", "mel", "image"}
    assert set(features.modalities) == expected
    assert features.modalities["clip"]["weights"]
    assert list((plant.workspace / "features").glob("*/clip.npy")), "they are kept for later runs"
    ingested = Path(paths["features"]).parents[1] / "ingest" / "out"
    for batch in open_set(ingested).batches:
        said = read_captions(Path(paths["captions"]) / batch.id / "captions.parquet")
        assert said
        assert {caption.source for caption in said} == {"blip"}
        for name in expected:
            assert features.feature(batch.id, name) is not None, name


@pytest.mark.slow
def test_missing_weights_end_the_run_with_one_line_that_names_the_option(
    plant: Plant, options: tuple[str, ...]
) -> None:
    before = len(plant.registry.client.search_model_versions(f"name = '{MODEL}'"))
    ended = plant.run(*options, "--set", "features.clip.weights.source=nowhere/ViT-B-16.pt")
    assert ended.returncode == 2
    versions = plant.registry.client.search_model_versions(f"name = '{MODEL}'")
    assert len(versions) == before, "nothing is trained or promoted"
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("crosswatch run: ")]
    assert "features.clip.weights.source" in line
    assert "features.encoders=[motion]" in line
    assert not plant.half_written()
