"""Deliveries are the same wherever they lie: in a folder, in a bucket, in a data revision."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from deliveries import Scene, deliver
from registries import World, contents
from test_index import clip, index

from crosswatch.data.deliveries import Deliveries, open_deliveries, reopen_deliveries
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket, Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.versions import revision as revisions
from crosswatch.errors import BadBatchError, UserError

CONFIG = TransferConfig(concurrency=2, patience_s=5.0)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delivered")
    for name in ("batch-1", "batch-2"):
        deliver(folder, name=name, scene=Scene(seconds=4.0))
    return folder


def put(folder: Path, place: Bucket) -> None:
    objects = open_objects(place, CONFIG)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            objects.put(path.relative_to(folder).as_posix(), path.read_bytes())


@dataclasses.dataclass(frozen=True)
class Site:
    """Where deliveries of other places are brought to."""

    fetched: Path
    ingest: IngestConfig = dataclasses.field(default_factory=IngestConfig)

    def open(self, source: Place | None, revision: Place | None = None) -> Deliveries:
        return open_deliveries(
            source, revision, ingest=self.ingest, fetched=self.fetched, transfer=CONFIG
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "fetched")


def ids(deliveries: Deliveries) -> list[str]:
    return [arrival.id for arrival in deliveries.find().arrivals]


def test_a_bucket_holds_what_the_folder_holds(site: Site, bucket: Bucket, delivered: Path) -> None:
    put(delivered, bucket)
    here, there = site.open(delivered), site.open(bucket)
    found = there.find()
    assert not site.fetched.exists(), "finding fetches nothing"
    for mine, other in zip(here.find().arrivals, found.arrivals, strict=True):
        assert (mine.id, mine.digest) == (other.id, other.digest)
        assert dataclasses.replace(here.read(mine), video=None, signal=None) == dataclasses.replace(
            there.read(other), video=None, signal=None
        )
        assert contents(mine.path) == contents(other.path)


def test_one_batch_may_be_named_and_is_found_again(
    site: Site, bucket: Bucket, delivered: Path
) -> None:
    put(delivered / "batch-1", bucket / "deep" / "batch-1")
    deliveries = site.open(bucket / "deep" / "batch-1")
    (arrival,) = deliveries.find().arrivals
    assert arrival.id == "batch-1"
    again = reopen_deliveries(
        deliveries.source_of(arrival), ingest=site.ingest, fetched=site.fetched, transfer=CONFIG
    )
    assert again.find().arrivals == (arrival,)


def test_what_is_still_arriving_or_oddly_named_in_a_bucket_is_told(
    site: Site, bucket: Bucket, delivered: Path
) -> None:
    put(delivered / "batch-1", bucket / "batch-1")
    put(delivered / "batch-2", bucket / "batch-2")
    objects = open_objects(bucket, CONFIG)
    objects.delete("batch-2/SHA256SUMS")
    objects.put("out\\side/SHA256SUMS", b"")
    objects.put(".hidden/SHA256SUMS", b"")
    found = site.open(bucket).find()
    assert [arrival.id for arrival in found.arrivals] == ["batch-1"]
    assert found.not_arrived == ("batch-2",)
    assert list(found.unreadable) == ["out\\side"]


def test_an_empty_prefix_is_a_mistake(site: Site, bucket: Bucket) -> None:
    with pytest.raises(UserError, match=f"{bucket}: holds no batch"):
        site.open(bucket).find()


def test_a_delivery_that_changes_while_it_is_read_is_refused(
    site: Site, bucket: Bucket, delivered: Path
) -> None:
    put(delivered, bucket)
    deliveries = site.open(bucket)
    arrival = deliveries.find().arrivals[0]
    open_objects(bucket, CONFIG).put("batch-1/SHA256SUMS", b"")
    with pytest.raises(BadBatchError, match="changed since the batch was found"):
        deliveries.read(arrival)


def test_names_that_lead_out_of_a_bucket_s_batch_are_refused(
    site: Site, bucket: Bucket, delivered: Path
) -> None:
    put(delivered / "batch-1", bucket / "batch-1")
    objects = open_objects(bucket, CONFIG)
    sums = objects.get("batch-1/SHA256SUMS")
    objects.put("batch-1/SHA256SUMS", sums.data + b"0" * 64 + b"  ../../out\n")
    objects.put("batch-1/../../out", b"")
    deliveries = site.open(bucket)
    with pytest.raises(BadBatchError, match=r"'\.\./\.\./out'"):
        deliveries.read(deliveries.find().arrivals[0])
    assert not list(site.fetched.parent.glob("out"))


def test_another_layout_is_brought_whole_and_only_once(
    tmp_path: Path, bucket: Bucket, site: Site
) -> None:
    clip(tmp_path / "clips" / "a.mp4", rate_hz=10, seconds=1.0)
    put(index(tmp_path / "clips", [("a.mp4", "0", "one")]), bucket)
    classes = ("calm", "fight")
    site = dataclasses.replace(site, ingest=IngestConfig(adapter="index", classes=classes))
    deliveries = site.open(bucket)
    (arrival,) = deliveries.find().arrivals
    assert deliveries.read(arrival).events[0].class_name == "calm"
    before = {path: path.stat().st_ctime_ns for path in site.fetched.rglob("*")}
    assert deliveries.find().arrivals == (arrival,)
    assert {path: path.stat().st_ctime_ns for path in site.fetched.rglob("*")} == before


@pytest.fixture
def revision(archived: World, delivered: Path, tmp_path: Path) -> Path:
    """A data revision of the deliveries, beside which the clone is gone."""
    archived.commit(tag="v2", source=delivered)
    revisions.write_revision(archived.resolve("v2"), tmp_path / "v2.json")
    shutil.rmtree(archived.clone)
    return tmp_path / "v2.json"


def test_a_revision_holds_what_the_folder_holds_without_git_or_dvc(
    site: Site, revision: Path, delivered: Path
) -> None:
    deliveries = site.open(None, revision)
    digests = {arrival.id: arrival for arrival in deliveries.find().arrivals}
    assert not site.fetched.exists(), "finding fetches nothing"
    for mine in site.open(delivered).find().arrivals:
        assert digests[mine.id].digest == mine.digest
        deliveries.read(digests[mine.id])
        assert contents(digests[mine.id].path) == contents(mine.path)
    again = reopen_deliveries(
        deliveries.source_of(digests["batch-1"]),
        ingest=site.ingest,
        fetched=site.fetched,
        transfer=CONFIG,
    )
    assert set(ids(again)) == set(digests)


def test_deliveries_are_held_to_a_revision(
    tmp_path: Path, site: Site, revision: Path, delivered: Path
) -> None:
    folder = Path(shutil.copytree(delivered, tmp_path / "changed"))
    deliver(folder, name="batch-3", scene=Scene(seconds=4.0))
    with (folder / "batch-2" / "SHA256SUMS").open("a") as stream:
        stream.write("0" * 64 + "  more\n")
    found = site.open(folder, revision).find()
    assert [arrival.id for arrival in found.arrivals] == ["batch-1"]
    assert "other contents" in found.unreadable["batch-2"]
    assert "no such delivery there" in found.unreadable["batch-3"]


def test_a_revision_and_another_layout_do_not_go_together(site: Site, revision: Path) -> None:
    site = dataclasses.replace(site, ingest=IngestConfig(adapter="single"))
    with pytest.raises(UserError, match="holds deliveries of the arrival layout"):
        site.open(None, revision)


def test_no_deliveries_at_all_are_a_mistake(site: Site) -> None:
    with pytest.raises(UserError, match="no deliveries are named"):
        site.open(None)
