"""Small objects obey the same laws in a bucket and in a folder; artifacts come back unchanged."""

import concurrent.futures
import hashlib
import json
import os
import shutil
import threading
import time
import types
from pathlib import Path

import pytest

from crosswatch import artifacts
from crosswatch.data.store import s3
from crosswatch.data.store.objects import Objects, object_key
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.stored import Store, mirror
from crosswatch.errors import ResourceError, UserError
from tests.faulty_proxy import FaultyProxy

CONFIG = TransferConfig(part_mib=5, patience_s=20, read_timeout_s=5)
HASTY = TransferConfig(part_mib=5, patience_s=0.5, read_timeout_s=2)


@pytest.fixture(params=["bucket", "folder"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return open_objects(tmp_path / "store", CONFIG)
    return open_objects(request.getfixturevalue("bucket"), CONFIG)


def make_artifact(folder: Path, files: dict[str, bytes]) -> Path:
    with artifacts.create(folder, kind="test") as draft:
        for name, data in files.items():
            (draft / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_is_put_is_listed_and_got_until_it_is_deleted(objects: Objects) -> None:
    names = ["a.b", "a/b", "a/c/d", "ab", "z ü%+&?#"]
    for name in reversed(names):
        objects.put(name, name.encode())
    assert [info.key for info in objects.list()] == names
    assert [info.key for info in objects.list("a/")] == ["a/b", "a/c/d"]
    assert [info.key for info in objects.list("a/c/d")] == ["a/c/d"]
    assert list(objects.list("none/such")) == []
    for info in objects.list():
        assert objects.get(info.key).data == info.key.encode()
        assert objects.find(info.key) == info
    objects.delete("a/b")
    objects.delete("a/b")
    assert objects.get("a/b") is None
    assert objects.find("a/b") is None


def test_an_object_is_created_once(objects: Objects) -> None:
    assert objects.create("claim", b"mine")
    assert not objects.create("claim", b"theirs")
    assert not objects.create("claim", b"mine")
    assert objects.get("claim").data == b"mine"


def test_only_the_version_that_was_read_is_replaced(objects: Objects) -> None:
    objects.put("claim", b"1")
    tag = objects.get("claim").tag
    assert objects.replace("claim", b"2", tag=tag)
    assert not objects.replace("claim", b"3", tag=tag)
    assert objects.get("claim").data == b"2"
    assert not objects.replace("other", b"3", tag=tag)
    assert objects.get("other") is None


@pytest.mark.parametrize("way", ["create", "replace"])
def test_of_many_that_race_one_wins(objects: Objects, way: str) -> None:
    objects.put("replaced", b"before")
    tag = objects.get("replaced").tag
    gate = threading.Barrier(8)

    def run(number: int) -> bool:
        gate.wait(20)
        data = f"run {number}".encode()
        if way == "create":
            return objects.create("created", data)
        return objects.replace("replaced", data, tag=tag)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(run, range(8)))
    assert sum(won) == 1
    assert objects.get(f"{way}d").data == f"run {won.index(True)}".encode()


def test_a_listing_is_complete_beyond_a_page(bucket: Bucket) -> None:
    import boto3

    client = boto3.client("s3")
    keys = [f"{number:04}" for number in range(1003)]
    for key in keys:
        client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}", Body=b"")
    client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/marker/", Body=b"")
    client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}-other/x", Body=b"")
    assert [info.key for info in open_objects(bucket, CONFIG).list()] == keys


def test_all_users_of_a_bucket_share_the_server_s_clock(bucket: Bucket, monkeypatch) -> None:
    monkeypatch.setattr(s3, "time", types.SimpleNamespace(time=lambda: 0.0))
    assert abs(open_objects(bucket, CONFIG).now() - time.time()) < 60


@pytest.mark.parametrize("fault", ["refuse", "drop_request", "lose_answer", "flip_request"])
def test_a_disturbed_write_is_won_once(bucket: Bucket, proxy: FaultyProxy, fault: str) -> None:
    """Above all: an answer that was lost does not make the winner a loser."""
    objects = open_objects(bucket, CONFIG)
    proxy.times(fault, 2, lambda request: request.method == "PUT")
    assert objects.create("claim", b"with a nonce, 1")
    proxy.times(fault, 2, lambda request: request.method == "PUT")
    assert objects.replace("claim", b"with a nonce, 2", tag=objects.get("claim").tag)
    assert objects.get("claim").data == b"with a nonce, 2"
    proxy.times(fault, 1, lambda request: request.method == "PUT")
    assert not objects.create("claim", b"with a nonce, 3")


@pytest.mark.parametrize("fault", ["refuse", "truncate", "lose_answer", "flip_answer", "trickle"])
def test_a_disturbed_read_gets_what_stands_there(
    bucket: Bucket,
    proxy: FaultyProxy,
    fault: str,
) -> None:
    objects = open_objects(bucket, CONFIG)
    data = os.urandom(300_000)
    objects.put("pointer", data)
    proxy.times(fault, 2, lambda request: request.method == "GET")
    assert objects.get("pointer").data == data


def test_a_server_that_stays_away_is_given_up(bucket: Bucket, proxy: FaultyProxy) -> None:
    proxy.fault_of = lambda request: "refuse"
    with pytest.raises(ResourceError, match=r"SlowDown.*Gave up after failing for 0\.5 s"):
        open_objects(bucket, HASTY).get("any")


def test_an_address_where_nobody_listens_is_given_up(bucket: Bucket, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1:1.*Gave up"):
        list(open_objects(bucket, HASTY).list())


def test_what_a_user_can_mend_is_said_at_once(bucket: Bucket, monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"NoSuchBucket.*Create the bucket"):
        list(open_objects(Bucket("no-such-bucket"), CONFIG).list())
    with pytest.raises(UserError, match="Create the bucket"):
        open_objects(Bucket("no-such-bucket"), CONFIG).now()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"credentials were found\. Set AWS_ACCESS_KEY_ID"):
        open_objects(bucket, CONFIG).get("any")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match="nobody"):
        open_objects(bucket, CONFIG)


def test_nothing_of_a_folder_lies_outside_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    folder = tmp_path / "store"
    (folder / "sub").mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (folder / "file").symlink_to(tmp_path / "secret")
    objects = open_objects(folder, CONFIG)
    for key in (
        "../secret",
        "out/secret",
        "file",
        "/etc/passwd",
        "a/../../secret",
        ".crosswatch/x",
    ):
        for act in (
            objects.get,
            objects.find,
            objects.delete,
            lambda key: objects.put(key, b""),
            lambda key: objects.create(key, b""),
            lambda key: objects.replace(key, b"", tag=""),
        ):
            with pytest.raises(UserError):
                act(key)
    assert list(objects.list()) == []
    assert (tmp_path / "secret").read_bytes() == b"s"


def test_an_artifact_comes_back_as_it_was(objects: Objects, tmp_path: Path) -> None:
    files = {"a.npy": os.urandom(12 * 2**20), "sub/b": b"b", "same": b"b", "empty": b""}
    folder = make_artifact(tmp_path / "made", files)
    store = Store(objects, CONFIG)
    digest = store.push(folder)
    assert store.push(folder) == digest
    assert len(list(objects.list("objects/"))) == 3
    assert store.verify(digest, rehash=True) == []
    cache = tmp_path / "cache"
    for attempt in range(2):
        out = tmp_path / f"fetched-{attempt}"
        assert store.fetch(digest, out, cache=cache).digest == digest
        assert contents(out) == contents(folder)
        assert artifacts.open_artifact(out, kind="test").digest == digest
    assert (out / "a.npy").samefile(tmp_path / "fetched-0" / "a.npy")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".arriving")]


def test_a_second_fetch_takes_from_the_cache_only_what_is_unspoilt(
    bucket: Bucket,
    proxy: FaultyProxy,
    tmp_path: Path,
) -> None:
    store = Store(open_objects(bucket, CONFIG), CONFIG)
    folder = make_artifact(tmp_path / "made", {"a": b"aaaa", "b": b"bbbb"})
    digest = store.push(folder)
    store.fetch(digest, tmp_path / "one", cache=tmp_path / "cache")
    sha256 = artifacts.sha256_of(folder / "a")
    (tmp_path / "cache" / sha256).unlink()
    (tmp_path / "cache" / sha256).write_bytes(b"aaab")
    proxy.requests.clear()
    store.fetch(digest, tmp_path / "two", cache=tmp_path / "cache")
    assert contents(tmp_path / "two") == contents(folder)
    asked = [request.path for request in proxy.requests if request.is_data]
    assert [path.split("?")[0].split("/")[-1] for path in asked] == [sha256]


def test_damage_in_the_store_is_named_and_nothing_takes_the_name(
    objects: Objects, tmp_path: Path
) -> None:
    store = Store(objects, CONFIG)
    folder = make_artifact(tmp_path / "made", {"a": b"aaaa", "b": b"bbbb", "c": b"cccc"})
    digest = store.push(folder)
    keys = {name: object_key(artifacts.sha256_of(folder / name)) for name in "abc"}
    objects.put(keys["a"], b"aaab")
    with pytest.raises(UserError, match=f"{keys['a']}: has SHA-256 .* also when fetched again"):
        store.fetch(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    objects.put(keys["b"], b"bbb")
    objects.delete(keys["c"])
    problems = store.verify(digest, rehash=True)
    assert [problem.split(":")[0] for problem in problems] == ["'a'", "'b'", "'c'"]
    for word, problem in zip(("SHA-256", "3 bytes", "missing"), problems, strict=True):
        assert word in problem
    assert len(store.verify(digest)) == 2
    store.push(folder, again=True)
    assert store.verify(digest, rehash=True) == []
    objects.put(f"artifacts/{digest}.json", b"{}")
    with pytest.raises(UserError, match="is no manifest"):
        store.fetch(digest, tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        store.fetch("0" * 64, tmp_path / "out")


def test_a_manifest_that_names_other_folders_is_refused(objects: Objects, tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "made", {"a": b"aaaa"})
    store = Store(objects, CONFIG)
    store.push(folder)
    values = json.loads((folder / "manifest.json").read_text())
    for name in ("../a", "/tmp/a", "manifest.json", "Manifest.JSON"):
        values["files"] = {name: next(iter(values["files"].values()))}
        evil = artifacts.parse_manifest(json.dumps(values).encode(), where="test")
        objects.put(f"artifacts/{evil.digest}.json", evil.as_json().encode())
        with pytest.raises(UserError):
            store.fetch(evil.digest, tmp_path / "out")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "out").exists()


def test_a_changed_file_is_not_pushed(objects: Objects, tmp_path: Path) -> None:
    for name, data in (("small", b"small"), ("large", os.urandom(11 * 2**20))):
        folder = make_artifact(tmp_path / name, {"file": data})
        (folder / "file").write_bytes(b"x" + data[1:])
        with pytest.raises(UserError, match="changed since its SHA-256 was taken"):
            Store(objects, CONFIG).push(folder)
    assert list(objects.list()) == []


def test_a_folder_that_is_no_artifact_is_not_replaced(objects: Objects, tmp_path: Path) -> None:
    store = Store(objects, CONFIG)
    digest = store.push(make_artifact(tmp_path / "made", {"a": b"a"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("precious")
    with pytest.raises(UserError, match="exists and is not an artifact"):
        store.fetch(digest, tmp_path / "out")
    assert contents(tmp_path / "out") == {"notes": b"precious"}
    shutil.rmtree(tmp_path / "out")
    store.fetch(digest, tmp_path / "out")


def test_a_delivery_is_mirrored_whole_or_not_at_all(objects: Objects, tmp_path: Path) -> None:
    files = {"video.mp4": os.urandom(6 * 2**20), "batch.json": b"{}", "notes/a.txt": b"n"}
    for name, data in files.items():
        objects.put(f"plant/batch-1/{name}", data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    del hashes["video.mp4"]
    found = list(objects.list("plant/batch-1/"))

    def bring(sha256_of: dict[str, str]) -> None:
        mirror(
            objects,
            found,
            tmp_path / "batch-1",
            prefix="plant/batch-1/",
            sha256_of=sha256_of,
            config=CONFIG,
        )

    with pytest.raises(UserError, match=r"plant/batch-1/batch\.json: has SHA-256"):
        bring({"batch.json": "0" * 64})
    assert not (tmp_path / "batch-1").exists()
    bring(hashes)
    assert contents(tmp_path / "batch-1") == files
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".arriving")]
