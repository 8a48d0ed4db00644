"""Whatever happens on the way, files arrive whole, once, and nowhere else than they should."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crosswatch.data.store.landing import CorruptError
from crosswatch.data.store.names import check_paths
from crosswatch.data.store.objects import Objects
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket
from crosswatch.data.store.settings import MIB, TransferConfig
from crosswatch.data.store.transfer import Outgoing, Wanted, download, upload
from crosswatch.errors import ResourceError, UserError
from tests.faulty_proxy import FaultyProxy, Request

PART = 5 * MIB
CONFIG = TransferConfig(part_mib=5, patience_s=20, read_timeout_s=5)
HASTY = TransferConfig(part_mib=5, patience_s=0.5, read_timeout_s=1)
DOWN_FAULTS = ["refuse", "truncate", "lose_answer", "flip_answer", "trickle"]
UP_FAULTS = ["refuse", "drop_request", "lose_answer", "flip_request", "flip_answer"]
BOUND_S = 60.0


def some_bytes(count: int, seed: int = 0) -> bytes:
    return hashlib.shake_256(str(seed).encode()).digest(count)


FILES = {
    "large": some_bytes(2 * PART + 12345),
    "sub/exact": some_bytes(PART, 1),
    "small": b"s",
    "empty": b"",
}


def stored(objects: Objects, files: dict[str, bytes]) -> None:
    for key, data in files.items():
        objects.put(key, data)


def wanted(objects: Objects, *, with_hashes: bool = True) -> list[Wanted]:
    return [
        Wanted(
            key=info.key,
            path=info.key,
            bytes=info.bytes,
            tag=info.tag,
            sha256=_hash(objects.get(info.key).data) if with_hashes else None,
        )
        for info in objects.list()
    ]


def outgoing(folder: Path, files: dict[str, bytes]) -> list[Outgoing]:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return [
        Outgoing(key=name, path=folder / name, bytes=len(data), sha256=_hash(data))
        for name, data in files.items()
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def listed(objects: Objects) -> dict[str, bytes]:
    return {info.key: objects.get(info.key).data for info in objects.list()}


def soon(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture(params=["bucket", "folder"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return open_objects(tmp_path / "store", CONFIG)
    return open_objects(request.getfixturevalue("bucket"), CONFIG)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("with_hashes", [True, False])
def test_what_goes_up_comes_down(objects: Objects, tmp_path: Path, with_hashes: bool) -> None:
    seen: list[tuple[int, int]] = []
    sent = outgoing(tmp_path / "sent", FILES)
    upload(objects, sent, config=CONFIG, meter=lambda *at: seen.append(at))
    assert seen[-1] == (sum(map(len, FILES.values())),) * 2
    seen.clear()
    for _ in range(2):
        download(
            objects,
            wanted(objects, with_hashes=with_hashes),
            tmp_path / "got",
            config=CONFIG,
            meter=lambda *at: seen.append(at),
        )
        assert contents(tmp_path / "got") == FILES
        assert seen[-1] == (sum(map(len, FILES.values())),) * 2
    assert not (tmp_path / ".got.arriving").exists()


@pytest.mark.parametrize("fault", DOWN_FAULTS)
def test_a_disturbed_download_ends_with_the_same_bytes(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path, fault: str
) -> None:
    objects = open_objects(bucket, CONFIG)
    stored(objects, FILES)
    asked = wanted(objects)
    proxy.requests.clear()
    proxy.times(fault, 1 if fault == "flip_answer" else 3, lambda request: request.is_data)
    download(objects, asked, tmp_path / "got", config=CONFIG)
    assert contents(tmp_path / "got") == FILES


def test_a_part_that_broke_off_goes_on_at_the_byte_it_reached(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    objects = open_objects(bucket, CONFIG)
    stored(objects, {"large": FILES["large"]})
    asked = wanted(objects, with_hashes=False)
    proxy.requests.clear()
    proxy.times("truncate", 1, lambda request: request.is_data)
    download(objects, asked, tmp_path / "got", config=CONFIG)
    starts = [int(request.range.split("=")[1].split("-")[0]) for request in proxy.requests]
    (again,) = [start for start in starts if start % PART]
    assert again > PART // 4
    assert len(starts) == 4
    assert contents(tmp_path / "got")["large"] == FILES["large"]


@pytest.mark.parametrize("fault", UP_FAULTS)
def test_a_disturbed_upload_ends_with_the_same_bytes(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path, fault: str
) -> None:
    objects = open_objects(bucket, CONFIG)
    proxy.times(fault, 3, lambda request: request.method == "PUT")
    upload(objects, outgoing(tmp_path, FILES), config=CONFIG)
    assert listed(objects) == FILES
    proxy.times(fault, 2, lambda request: request.method == "POST")
    again = {"other": FILES["large"]}
    upload(objects, outgoing(tmp_path, again), config=CONFIG)
    assert listed(objects) == FILES | again


CHILD = """
import json, sys
from pathlib import Path
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.transfer import Outgoing, Wanted, download, upload
way, place, values, into = sys.argv[1:]
config = TransferConfig(part_mib=5, patience_s=20, read_timeout_s=30)
objects = open_objects(parse_place(place), config)
if way == "down":
    download(objects, [Wanted(**json.loads(values))], Path(into), config=config)
else:
    values = json.loads(values)
    upload(objects, [Outgoing(**values | {"path": Path(values["path"])})], config=config)
"""


def killed_when(condition: Callable[[], bool], *arguments: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments])
    try:
        soon(condition)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(BOUND_S)


def only(count: int, which: Callable[[Request], bool]) -> Callable[[Request], str | None]:
    """Answer so many requests of a kind, and leave all others of it without an answer."""
    left = [count]

    def fault_of(request: Request) -> str | None:
        left[0] -= which(request)
        return "stall" if which(request) and left[0] < 0 else None

    return fault_of


@pytest.mark.parametrize("with_hashes", [True, False])
def test_a_killed_download_fetches_only_what_is_missing(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path, with_hashes: bool
) -> None:
    objects = open_objects(bucket, CONFIG)
    data = some_bytes(6 * PART - 99)
    stored(objects, {"large": data})
    (asked,) = wanted(objects, with_hashes=with_hashes)
    journal = tmp_path / ".got.arriving" / "journal.jsonl"
    values = json.dumps(vars(asked))
    proxy.fault_of = only(4, lambda request: request.is_data)
    killed_when(
        lambda: journal.exists() and journal.read_text().count('"part"') == 4,
        *("down", str(bucket), values, str(tmp_path / "got")),
    )
    assert not (tmp_path / "got" / "large").exists()
    first = {request.range for request in proxy.requests if request.is_data}
    assert len(first) == 6
    proxy.fault_of = lambda request: None
    proxy.requests.clear()
    download(objects, [asked], tmp_path / "got", config=CONFIG)
    second = [request.range for request in proxy.requests if request.is_data]
    assert len(second) == 2
    assert set(second) < first
    assert _hash((tmp_path / "got" / "large").read_bytes()) == _hash(data)


@pytest.mark.parametrize("with_hashes", [True, False])
def test_a_landed_part_that_was_damaged_since_is_fetched_again(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path, with_hashes: bool
) -> None:
    objects = open_objects(bucket, CONFIG)
    stored(objects, {"large": some_bytes(4 * PART)})
    (asked,) = wanted(objects, with_hashes=with_hashes)
    last = f"bytes={3 * PART}-{4 * PART - 1}"
    proxy.fault_of = lambda request: "refuse" if request.range == last else None
    with pytest.raises(ResourceError, match="what has arrived is kept"):
        download(objects, [asked], tmp_path / "got", config=HASTY)
    (staged,) = (tmp_path / ".got.arriving").glob("*.part")
    with staged.open("r+b") as file:
        file.seek(PART + 77)
        byte = file.read(1)
        file.seek(PART + 77)
        file.write(bytes([byte[0] ^ 1]))
    proxy.fault_of = lambda request: None
    proxy.requests.clear()
    download(objects, [asked], tmp_path / "got", config=HASTY)
    assert {request.range for request in proxy.requests} == {
        f"bytes={PART}-{2 * PART - 1}",
        last,
    }
    assert _hash((tmp_path / "got" / "large").read_bytes()) == _hash(some_bytes(4 * PART))


def test_a_killed_upload_sends_only_what_is_missing(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    import boto3

    data = some_bytes(6 * PART - 99)
    (sent,) = outgoing(tmp_path, {"large": data})
    values = json.dumps(vars(sent) | {"path": str(sent.path)})
    client = boto3.client("s3")
    key = f"{bucket.prefix}/large"

    def parts() -> list[dict]:
        uploads = client.list_multipart_uploads(Bucket=bucket.name).get("Uploads", [])
        return [
            part
            for entry in uploads
            for part in client.list_parts(
                Bucket=bucket.name, Key=key, UploadId=entry["UploadId"]
            ).get("Parts", [])
        ]

    proxy.fault_of = only(4, lambda request: request.is_part)
    killed_when(lambda: len(parts()) == 4, "up", str(bucket), values, "")
    objects = open_objects(bucket, CONFIG)
    assert objects.find("large") is None
    proxy.fault_of = lambda request: None
    proxy.requests.clear()
    upload(objects, [sent], config=CONFIG)
    assert len([request for request in proxy.requests if request.is_part]) == 2
    assert _hash(objects.get("large").data) == _hash(data)
    proxy.requests.clear()
    upload(objects, [sent], config=CONFIG)
    assert [request.method for request in proxy.requests] == ["HEAD"]


def test_parts_of_other_bytes_are_not_taken_for_ours(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    objects = open_objects(bucket, CONFIG)
    (other,) = outgoing(tmp_path, {"large": b"x" + FILES["large"][1:]})
    proxy.fault_of = lambda request: "refuse" if "partNumber=3" in request.path else None
    with pytest.raises(ResourceError):
        upload(objects, [other], config=HASTY)
    proxy.fault_of = lambda request: None
    upload(objects, outgoing(tmp_path, {"large": FILES["large"]}), config=CONFIG)
    assert objects.get("large").data == FILES["large"]


def test_an_object_that_changes_on_the_way_is_begun_anew(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    objects = open_objects(bucket, CONFIG)
    stored(objects, {"large": FILES["large"]})
    asked = wanted(objects, with_hashes=False)
    newer = some_bytes(3 * PART + 5, 9)

    def change(request: Request) -> str | None:
        if request.is_data and request.range.startswith(f"bytes={PART}-"):
            proxy.fault_of = lambda request: None
            open_objects(bucket, CONFIG).put("large", newer)
        return None

    proxy.fault_of = change
    proxy.lock = _NoLock()
    download(objects, asked, tmp_path / "got", config=CONFIG)
    assert (tmp_path / "got" / "large").read_bytes() == newer


class _NoLock:
    """The change passes through the proxy as well."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def test_a_wrong_hash_is_fetched_again_once_and_then_refused(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    objects = open_objects(bucket, CONFIG)
    stored(objects, {"small": b"spoilt"})
    (info,) = objects.list()
    good = _hash(b"sound!")
    asked = Wanted(key="small", path="small", bytes=6, tag=info.tag, sha256=good)
    proxy.requests.clear()
    with pytest.raises(CorruptError, match=rf"small: has SHA-256 {_hash(b'spoilt')}.* {good}"):
        download(objects, [asked], tmp_path / "got", config=CONFIG)
    assert len([request for request in proxy.requests if request.is_data]) == 2
    assert contents(tmp_path / "got") == {}


def test_a_server_that_sends_nothing_is_given_up(
    bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    objects = open_objects(bucket, HASTY)
    stored(objects, FILES)
    asked = wanted(objects)
    proxy.fault_of = lambda request: "stall" if request.is_data else None
    with pytest.raises(ResourceError, match=r"Gave up after failing for 0\.5 s"):
        download(objects, asked, tmp_path / "got", config=HASTY)


def test_a_missing_object_is_named(objects: Objects, tmp_path: Path) -> None:
    gone = Wanted(key="gone/file", path="file", bytes=3, tag=None, sha256=_hash(b"abc"))
    with pytest.raises(UserError, match="gone/file: is not in the store"):
        download(objects, [gone], tmp_path / "got", config=CONFIG)


def test_one_process_at_a_time_fills_a_folder(objects: Objects, tmp_path: Path) -> None:
    from filelock import FileLock

    stored(objects, {"small": b"s"})
    (tmp_path / ".got.arriving").mkdir()
    with (
        FileLock(tmp_path / ".got.arriving" / "lock"),
        pytest.raises(ResourceError, match="another process is writing there"),
    ):
        download(objects, wanted(objects), tmp_path / "got", config=CONFIG)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_too_small_is_said_before(
    objects: Objects, small_disk: Path, tmp_path: Path
) -> None:
    stored(objects, {"large": some_bytes(20 * MIB)})
    with pytest.raises(ResourceError, match=r"21\.0 MB are to be fetched and 16\.\d MB are free"):
        download(objects, wanted(objects), small_disk / "got", config=CONFIG)


def test_a_disk_that_runs_full_keeps_what_has_landed(
    bucket: Bucket, proxy: FaultyProxy, small_disk: Path
) -> None:
    config = TransferConfig(part_mib=5, patience_s=20, concurrency=1)
    objects = open_objects(bucket, config)
    data = some_bytes(3 * PART - 5)
    stored(objects, {"large": data})
    asked = wanted(objects)
    other = small_disk / "other"

    def fill(request: Request) -> str | None:
        if request.is_data and not other.exists():
            other.write_bytes(bytes(4 * MIB))
        return None

    proxy.fault_of = fill
    with pytest.raises(ResourceError, match=r"No space left on device.*what has arrived is kept"):
        download(objects, asked, small_disk / "got", config=config)
    other.unlink()
    proxy.fault_of = lambda request: None
    proxy.requests.clear()
    download(objects, asked, small_disk / "got", config=config)
    assert [request.range for request in proxy.requests] == [f"bytes={2 * PART}-{len(data) - 1}"]
    assert contents(small_disk / "got") == {"large": data}


NAMES = st.text(
    st.sampled_from("aAäÄ\u0041\u0308ßẞ./\\\0 :*~é\u0065\u0301\n\ud800") | st.characters(),
    max_size=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(keys=st.lists(NAMES, min_size=1, max_size=4))
@example(keys=["../x"])
@example(keys=["/etc/x"])
@example(keys=["a", "a/b"])
@example(keys=["A", "a"])
@example(keys=["link/x"])
def test_no_key_leads_out_of_the_folder(keys: list[str], tmp_path_factory) -> None:
    """Whatever somebody named an object: it lands below the target, under its own name, or not."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "outside").mkdir()
    (folder / "into").mkdir()
    (folder / "into" / "link").symlink_to(folder / "outside")
    objects = _Anything()
    asked = [
        Wanted(key=key, path=key, bytes=len(DATA), tag=None, sha256=_hash(DATA)) for key in keys
    ]
    try:
        download(objects, asked, folder / "into", config=TransferConfig(concurrency=1))
        landed = dict.fromkeys(keys, DATA)
    except UserError:
        landed = None
    assert contents(folder / "outside") == {}
    assert {path.name for path in folder.iterdir()} <= {"into", "outside", ".into.arriving"}
    if landed is not None:
        assert contents(folder / "into") == landed


DATA = b"data"


class _Anything:
    """A store in which every name is taken."""

    url = "anything"

    def read(self, key: str, *, start: int, stop: int, size: int, tag: str | None):
        import contextlib

        return contextlib.nullcontext(_Body(DATA[start:stop]))


class _Body:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, count: int) -> bytes:
        return self._data[:count]


@pytest.mark.parametrize(
    "paths",
    [
        ["a/b", "A/B"],
        ["straße", "STRASSE"],
        ["\u00e9", "e\u0301"],
        ["a", "a/b"],
        ["x/a/b", "X/A"],
        ["same", "same"],
        ["n" * 256],
        ["nul\0"],
        ["back\\slash"],
    ],
)
def test_names_that_a_disk_confuses_are_refused(paths: list[str]) -> None:
    with pytest.raises(UserError):
        check_paths(paths)


def test_a_configuration_that_cannot_be_is_refused() -> None:
    for values in (
        {"concurrency": 0},
        {"part_mib": 4.9},
        {"patience_s": 0.0},
        {"read_timeout_s": float("nan")},
    ):
        with pytest.raises(UserError, match=next(iter(values))):
            TransferConfig(**values)
    assert TransferConfig().part_bytes(5 * 2**40) * 10_000 >= 5 * 2**40
