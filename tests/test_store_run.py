"""The main job with deliveries, artifacts and claims in a bucket, over HTTP."""

import shutil
from pathlib import Path

import pytest
from made import deliver_with_events
from plants import MODEL, Plant, facts
from registries import World

from crosswatch import artifacts
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.stored import Store
from crosswatch.data.versions.revision import write_revision
from crosswatch.stages.register import REGISTRATION
from crosswatch.stages.travel import STORED

CONFIG = TransferConfig()
PHASES = {
    "crosswatch.stages.claims:RunClaims": "claim",
    "crosswatch.data.deliveries:mirror": "ingest",
    "crosswatch.data.ingestion:write_batch": "ingest",
    "crosswatch.data.store.stored:upload": "ingest",
    "crosswatch.stages.refine:_summarise": "refine",
    "crosswatch.features.extraction:Extraction": "extract",
    "crosswatch.stages.train:_write": "train",
    "crosswatch.stages.evaluate:evaluate": "evaluate",
    "crosswatch.stages.register:register": "register",
}
"""Calls that a killed run dies in, and the task that they are part of."""
SEEING = ("--set", "caption.source=template", "--set", "features.encoders=[motion]")


def put_delivery(folder: Path, place: Bucket) -> None:
    """As a plant uploads it: SHA256SUMS last."""
    objects = open_objects(place / folder.name, CONFIG)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "SHA256SUMS"):
        objects.put(path.name, path.read_bytes())


@pytest.fixture
def arrivals(tmp_path: Path, bucket: Bucket) -> Bucket:
    place = Bucket(bucket.name, "deliveries")
    put_delivery(deliver_with_events(tmp_path / "elsewhere"), place)
    return place


def keys(place: Bucket, prefix: str) -> list[str]:
    return [info.key for info in open_objects(place, CONFIG).list(prefix)]


def travelled(workspace: Path) -> list[Path]:
    """The folders that tasks handed to each other."""
    return [path.parent for path in (workspace / "pipeline").rglob(artifacts.MANIFEST)]


def digests(store: Bucket) -> dict[str, str]:
    """What a run left in a store, by kind; a registration names its MLflow run and the time."""
    opened = Store(open_objects(store, CONFIG), CONFIG)
    found = {}
    for key in keys(store, "artifacts/"):
        digest = Path(key).stem
        manifest = opened.manifest(digest)
        assert not opened.verify(digest, rehash=True)
        if manifest.kind != REGISTRATION:
            assert manifest.kind not in found
            found[manifest.kind] = digest
    return found


def test_a_damaged_delivery_in_a_bucket_is_quarantined_by_name(
    tmp_path: Path,
    bucket: Bucket,
    arrivals: Bucket,
) -> None:
    put_delivery(deliver_with_events(tmp_path / "elsewhere", "batch-2"), arrivals)
    open_objects(arrivals, CONFIG).put("batch-2/signal.csv", b"time_s\n0\n")
    put_delivery(deliver_with_events(tmp_path / "elsewhere", "batch-3"), arrivals)
    open_objects(arrivals, CONFIG).delete("batch-3/video.mp4")
    open_objects(arrivals, CONFIG).put("batch-4/batch.json", b"{}")
    plant = Plant(tmp_path / "one", arrivals=arrivals, store=str(bucket))
    ended = plant.run(die_in="crosswatch.stages.train:train")
    found = {
        path.parent.name: artifacts.open_artifact(path.parent, verify=False)
        for path in (plant.workspace / "cache").glob(f"*/{artifacts.MANIFEST}")
    }
    assert ended.returncode == 1
    (batch_set,) = [each for each in found.values() if each.kind == "batch-set"]
    assert set(batch_set.quarantined) == {"batch-2", "batch-3"}
    assert "signal.csv" in batch_set.quarantined["batch-2"]
    assert "'video.mp4': is missing though SHA256SUMS lists it" in batch_set.quarantined["batch-3"]
    assert any("batch-4: not arrived yet" in text for text in batch_set.warnings)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a dozen whole runs
def test_a_plant_s_days_with_everything_in_a_bucket(
    tmp_path: Path, bucket: Bucket, arrivals: Bucket, archived: World
) -> None:
    """From a bucket into a bucket, on two machines, killed in every phase, from a revision."""
    store = bucket / "one"
    plant = Plant(tmp_path / "one", arrivals=arrivals, store=str(store))
    ended = plant.run(*SEEING)
    assert ended.returncode == 0, ended.stderr
    assert facts(ended)["outcome"] == "promoted"
    assert Path(facts(ended)["paths"]["checkpoint"]).is_dir()
    folders = travelled(plant.workspace)
    assert len(folders) == 7  # ingest, refine, caption, extract, train, evaluate, register
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {artifacts.MANIFEST, STORED}
    undisturbed, known = digests(store), keys(store, "batches/")
    # a batch, the set, labels, captions, one batch's features, all, checkpoint, evaluation
    assert len(undisturbed) == 8

    _is_already_done_elsewhere(tmp_path, arrivals, store)
    _ends_alike_though_killed(tmp_path, arrivals, bucket / "two", undisturbed)
    assert keys(bucket / "two", "batches/") == known
    _adds_a_revision_s_deliveries_to_what_is_known(tmp_path, archived, store)


def _is_already_done_elsewhere(tmp_path: Path, arrivals: Bucket, store: Bucket) -> None:
    """The claim is shared by all machines."""
    ended = Plant(tmp_path / "elsewhere-too", arrivals=arrivals, store=str(store)).run(*SEEING)
    assert facts(ended)["outcome"] == "already done"
    assert len(keys(store, "claims/")) == 1


def _ends_alike_though_killed(
    tmp_path: Path, arrivals: Bucket, store: Bucket, undisturbed: dict[str, str]
) -> None:
    plant = Plant(tmp_path / "killed", arrivals=arrivals, store=str(store))
    for call, stage in PHASES.items():
        ended = plant.run(*SEEING, die_in=call)
        assert ended.returncode == 1
        assert f"{stage} ended without a word (killed?)" in ended.stderr
    ended = plant.run(*SEEING)
    assert ended.returncode == 0, ended.stderr
    assert facts(ended)["version"] == "1", "killed runs registered nothing"
    assert digests(store) == undisturbed
    assert not plant.half_written()


def _adds_a_revision_s_deliveries_to_what_is_known(
    tmp_path: Path, archived: World, store: Bucket
) -> None:
    """A machine that has seen nothing takes the first batch from the store, the next from v2."""
    folder = deliver_with_events(tmp_path / "arrivals", "batch-2", seed=3).parent
    archived.commit(tag="v2", source=folder)
    revision = archived.resolve("v2")
    write_revision(revision, tmp_path / "v2.json")
    shutil.rmtree(archived.clone)
    plant = Plant(tmp_path / "revision", store=str(store))
    ended = plant.run("--data-revision", str(tmp_path / "v2.json"))
    assert ended.returncode == 3, ended.stderr
    assert sorted(facts(ended)["batches"]) == ["batch-1", "batch-2"]
    assert set(facts(ended)["quarantined"]) == {"batch-a", "batch-b"}  # bytes, no batches
    assert facts(ended)["evaluation_set"]["version"] == 2
    newest = plant.registry.client.get_model_version(MODEL, facts(ended)["version"])
    assert newest.tags["data_revision"] == f"v2@{revision.digest}"
