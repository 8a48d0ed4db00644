"""A revision is verified, resolved and fetched, in the end without git and without DVC."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch import data_commands
from crosswatch.data.versions import revision as revisions
from crosswatch.data.versions.clone import open_registry
from crosswatch.data.versions.records import parse_revision, revision_text
from crosswatch.errors import UserError
from tests.registries import CONFIG, World, contents, deliver, flip, objects_of, overwrite, sign


def test_a_sound_revision_is_verified(archived: World) -> None:
    found = archived.verify("v1", deep=True)
    assert (found.deliveries, found.objects, found.in_cache, found.faults) == (2, 6, 6, ())


def test_a_clone_without_a_cache_verifies_the_remote(archived: World) -> None:
    shutil.rmtree(archived.clone / ".dvc/cache")
    found = archived.verify("v1", deep=True)
    assert (found.objects, found.in_cache, found.faults) == (6, 0, ())


def test_a_damaged_cache_names_the_delivery_and_the_file(archived: World) -> None:
    cache = archived.clone / ".dvc/cache"
    overwrite(cache / archived.key_of("batch-a", "video.mp4"), flip)
    pieces = revisions.deliveries(archived.resolve())["batch-b"]
    still = next(piece for piece in pieces if piece.path == "stills/007.json")
    overwrite(
        cache / still.object,
        lambda data: data[: still.offset] + b"!" + data[still.offset + 1 :],
    )
    found = archived.verify("v1").faults
    assert {(fault.delivery, fault.file.split()[0], fault.where) for fault in found} == {
        ("batch-a", "video.mp4", "cache"),
        ("batch-b", "stills/007.json", "cache"),
    }


def test_each_fault_of_the_remote_is_named(archived: World) -> None:
    (archived.remote / archived.key_of("batch-a", "video.mp4")).unlink()
    overwrite(archived.remote / archived.key_of("batch-b", "video.mp4"), lambda data: data[:100])
    overwrite(archived.remote / archived.key_of("batch-a", "stills/000.json"), flip)
    listings = {path for path in objects_of(archived.remote) if path.endswith(".dir")}
    overwrite(archived.remote / min(listings), lambda data: data.replace(b"video", b"vide0"))
    plain = {(fault.delivery, fault.file) for fault in archived.verify("v1").faults}
    assert plain == {("batch-a", "files/video.mp4"), ("batch-b", "files/video.mp4")}
    found = archived.verify("v1", deep=True).faults
    assert len(found) == 4
    assert {fault.where for fault in found} == {"remote"}
    words = " ".join(fault.what for fault in found)
    assert "is missing" in words
    assert "has 100 bytes, 30000 were committed" in words
    assert words.count("other contents than were committed") == 2


def test_the_manifest_at_the_store_is_compared(archived: World, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert [fault.where for fault in archived.verify("v1", store=str(store)).faults] == ["store"]
    where = revisions.put_revision(archived.resolve(), str(store))
    assert archived.verify("v1", store=str(store)).faults == ()
    overwrite(Path(where), lambda data: data[:-2])
    assert "damaged" in archived.verify("v1", store=str(store)).faults[0].what


# resolve and fetch


def test_a_revision_is_resolved_without_touching_the_clone(archived: World) -> None:
    head = archived.git("rev-parse", "HEAD").strip()
    deliver(archived.source, "batch-c")
    archived.commit()
    notes = archived.clone / "batches/batch-a/index.json"
    notes.write_text("being edited")
    found = {name: archived.resolve(name) for name in ("v1", head, "main~1")}
    assert {each.commit for each in found.values()} == {head}
    assert {each.files for each in found.values()} == {found["v1"].files}
    assert set(revisions.deliveries(found["v1"])) == {"batch-a", "batch-b"}
    assert set(revisions.deliveries(archived.resolve("main"))) == {"batch-a", "batch-b", "batch-c"}
    assert notes.read_text() == "being edited"


def test_every_delivered_file_is_listed_with_its_sha256(archived: World) -> None:
    revision = archived.resolve()
    for batch_id, pieces in revisions.deliveries(revision).items():
        delivered = contents(archived.source / batch_id)
        assert {piece.path: (piece.bytes, piece.sha256) for piece in pieces} == {
            path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in delivered.items()
        }
        sums = delivered["SHA256SUMS"]
        assert revision.sha256sums_digest(batch_id) == hashlib.sha256(sums).hexdigest()


@pytest.mark.parametrize("name", ["v9", "-h", "--all", "HEAD:batches", "v1\nv1", ""])
def test_an_unknown_revision_is_one_line(archived: World, name: str) -> None:
    with pytest.raises(UserError, match="knows no such tag, branch or commit"):
        archived.resolve(name)


def test_an_index_that_dvc_s_file_contradicts_is_refused(archived: World) -> None:
    path = archived.clone / "batches/batch-a/raw.dvc"
    path.write_text(path.read_text().replace("md5: ", "md5: 0", 1))
    archived.git("commit", "-q", "-a", "-m", "By hand")
    with pytest.raises(UserError, match=r"raw.dvc: names .* index.json beside it"):
        archived.resolve("HEAD")


def test_a_manifest_is_all_that_a_fetch_needs(archived: World, tmp_path: Path) -> None:
    revisions.write_revision(archived.resolve(), tmp_path / "v1.json")
    shutil.rmtree(archived.clone)
    revision = revisions.read_revision(tmp_path / "v1.json")
    for _ in range(2):  # the second finds it there
        archived.fetch(revision, "batch-a", tmp_path / "fetched" / "batch-a")
        assert contents(tmp_path / "fetched") == {
            f"batch-a/{path}": data for path, data in contents(archived.source / "batch-a").items()
        }
    with pytest.raises(UserError, match="exists and is not this delivery"):
        archived.fetch(revision, "batch-b", tmp_path / "fetched" / "batch-a")
    with pytest.raises(UserError, match="'batch-z': is no delivery of revision 'v1'"):
        archived.fetch(revision, "batch-z", tmp_path / "fetched" / "batch-z")
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == ["batch-a"]


def test_a_fetch_of_damaged_bytes_leaves_nothing_under_the_name(
    archived: World, tmp_path: Path
) -> None:
    revision = archived.resolve()
    path = archived.remote / archived.key_of("batch-a", "stills/000.json")
    overwrite(path, flip)
    with pytest.raises(UserError, match="SHA-256"):
        archived.fetch(revision, "batch-a", tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
    overwrite(path, flip)
    archived.fetch(revision, "batch-a", tmp_path / "fetched")
    assert contents(tmp_path / "fetched") == contents(archived.source / "batch-a")


def test_files_of_equal_contents_share_an_object(empty: World, tmp_path: Path) -> None:
    folder = empty.source / "batch-a"
    shutil.copy(folder / "video.mp4", folder / "again.mp4")
    sign(folder)
    empty.commit(tag="v1")
    assert empty.key_of("batch-a", "video.mp4") == empty.key_of("batch-a", "again.mp4")
    empty.fetch(empty.resolve(), "batch-a", tmp_path / "fetched")
    assert contents(tmp_path / "fetched") == contents(folder)
    assert empty.verify("v1", deep=True).faults == ()


ODD = [
    "",
    "..",
    "../x",
    "/etc/passwd",
    "a\x00b",
    "\ud800",
    None,
    -1,
    2**70,
    True,
    1.5,
    [],
    {},
    "g" * 64,
]


@pytest.fixture(scope="module")
def manifest(archived_master: Path) -> dict[str, Any]:
    return json.loads(revision_text(World(root=archived_master).resolve()))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_manifest_that_was_changed_is_refused(manifest: dict[str, Any], data: Any) -> None:
    changed = json.loads(json.dumps(manifest))
    where = data.draw(st.sampled_from(["top", "objects", "files"]))
    row = changed if where == "top" else data.draw(st.sampled_from(changed[where]))
    key = data.draw(st.sampled_from(sorted(row)))
    if data.draw(st.booleans()):
        del row[key]
    else:
        row[key] = data.draw(st.sampled_from(ODD).filter(lambda odd: odd != row[key]))
    with pytest.raises(UserError) as error:
        parse_revision(json.dumps(changed), where="v1.json")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"schema": 2}', "\xff", "null"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "v1.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"v1\.json: "):
        revisions.read_revision(path)
    with pytest.raises(UserError, match="there is no such manifest"):
        revisions.read_revision(tmp_path / "v2.json")


# S3, and the command line


def test_a_bucket_is_a_remote_too(
    empty: World, bucket: Any, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # .dvc/config alone knows it
    config = empty.clone / ".dvc/config"
    text = config.read_text().replace("../../remote", str(bucket))
    config.write_text(f"{text}    endpointurl = {s3_url}\n")
    empty.git("commit", "-q", "-a", "-m", "Move to a bucket")
    assert empty.commit(tag="v1").objects == 6
    assert empty.verify("v1", deep=True).faults == ()
    revision = empty.resolve()
    assert revision.remote == str(bucket)

    registry = open_registry(empty.clone)
    key = empty.key_of("batch-a", "video.mp4")
    remote = registry.open_remote(CONFIG)
    remote.put(key, flip(remote.get(key).data))
    remote.delete(empty.key_of("batch-b", "video.mp4"))
    assert [fault.file for fault in empty.verify("v1").faults] == ["files/video.mp4"]
    faults = empty.verify("v1", deep=True).faults
    assert {fault.delivery for fault in faults} == {"batch-a", "batch-b"}
    remote.delete(key)
    empty.commit(tag="v2")
    assert empty.verify("v2", deep=True).faults == ()

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)  # where there is no .dvc/config
    stored = revisions.put_revision(revision, f"{bucket}/store")
    found = revisions.read_revision(stored)
    assert found == revision
    empty.fetch(found, "batch-a", tmp_path / "fetched")
    assert contents(tmp_path / "fetched") == contents(empty.source / "batch-a")


def test_the_commands_end_with_one_json_object(archived: World, tmp_path: Path) -> None:
    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        given = [*arguments, "--registry", str(archived.clone), "--json"]
        ended = CliRunner().invoke(data_commands.data, given)
        return ended.exit_code, json.loads(ended.stdout.splitlines()[-1])

    assert call("commit", str(archived.source), "--pack-below", "10kB")[1]["added"] == []
    out = tmp_path / "v1.json"
    code, found = call("resolve", "v1", "--out", str(out), "--store", str(tmp_path / "store"))
    assert code == 0
    assert revisions.read_revision(out) == revisions.read_revision(found["stored"])
    assert call("verify", "v1", "--deep")[0] == 0
    (archived.remote / archived.key_of("batch-a", "video.mp4")).unlink()
    code, found = call("verify")
    assert code == 1
    assert [fault["delivery"] for fault in found["faults"]] == ["batch-a"]


@pytest.mark.parametrize("size", ["-1", "1XB", "lots", "1e3", ""])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    ended = CliRunner().invoke(
        data_commands.data, ["commit", "x", "--registry", "y", "--pack-below", size]
    )
    assert ended.exit_code == 2
    assert "is no size; write 500kB, 1MB or 2GiB" in " ".join(ended.output.split())
