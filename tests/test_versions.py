"""A revision of the data is complete at the remote before it has a name."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from crosswatch.data.versions.clone import open_registry
from crosswatch.errors import ResourceError, UserError
from tests.registries import World, contents, deliver, dvc, flip, objects_of, overwrite, run, sign


def test_many_small_files_become_few_objects_and_a_tag(archived: World) -> None:
    assert len(objects_of(archived.remote)) == 6  # of each: a video, a shard, DVC's list of both
    assert archived.tags() == ["v1"]
    assert archived.git("status", "--porcelain") == ""
    tracked = archived.git("ls-files", "batches").split()
    assert set(tracked) == {"batches/.gitignore"} | {
        f"batches/{name}/{file}"
        for name in ("batch-a", "batch-b")
        for file in ("raw.dvc", "index.json")
    }


def test_plain_dvc_brings_the_same_bytes(archived: World, tmp_path: Path) -> None:
    run("git", "clone", "-q", str(archived.clone), str(archived.root / "other"), cwd=tmp_path)
    dvc("pull", "-q", cwd=archived.root / "other")
    raw = archived.root / "other/batches/batch-a/raw"
    found = {path.name: path.read_bytes() for path in (raw / "files").iterdir()}
    with tarfile.open(raw / "shards/00000.tar") as archive:
        found |= {each.name: archive.extractfile(each).read() for each in archive}
    assert found == contents(archived.source / "batch-a")


def test_the_same_again_is_nothing_new(archived: World) -> None:
    head = archived.git("rev-parse", "HEAD")
    done = archived.commit(tag="v1")
    assert (done.added, done.unchanged) == ((), ("batch-a", "batch-b"))
    assert archived.git("rev-parse", "HEAD") == head


def test_other_contents_are_a_new_version_and_the_old_one_stays(
    archived: World, tmp_path: Path
) -> None:
    old = contents(archived.source / "batch-a")
    deliver(archived.source, "batch-a", seed=1)
    done = archived.commit(tag="v2")
    assert (done.added, done.unchanged) == (("batch-a",), ("batch-b",))
    for revision, wanted in (("v1", old), ("v2", contents(archived.source / "batch-a"))):
        archived.fetch(archived.resolve(revision), "batch-a", tmp_path / revision)
        assert contents(tmp_path / revision) == wanted
        assert archived.verify(revision, deep=True).faults == ()


def test_what_has_not_arrived_and_what_is_not_listed_is_left_alone(empty: World) -> None:
    (empty.source / "batch-a/late.txt").write_text("came later")
    (empty.source / "batch-b/SHA256SUMS").unlink()
    done = empty.commit()
    assert done.added == ("batch-a",)
    assert done.not_arrived == ("batch-b",)
    assert done.extra == ("batch-a/late.txt",)
    assert "batch-a/late.txt" not in {piece.path for piece in empty.resolve("HEAD").files}


def test_one_broken_delivery_and_nothing_is_committed(empty: World) -> None:
    overwrite(empty.source / "batch-b/video.mp4", flip)
    with pytest.raises(UserError, match=r"1 of 2 .*batch-b: 'video.mp4': checksum mismatch") as e:
        empty.commit(tag="v1")
    assert "\n" not in str(e.value)
    assert empty.git("status", "--porcelain") == ""
    assert (empty.tags(), objects_of(empty.remote)) == ([], set())


def edit_config(world: World, text: str) -> None:
    path = world.clone / ".dvc/config"
    path.write_text(path.read_text() + text)
    world.git("commit", "-q", "-a", "-m", "Change DVC's settings")


def forget_identity(world: World) -> None:
    world.git("config", "user.name", "")


def write_foreign_file(world: World) -> None:
    (world.clone / "notes.txt").write_text("mine")


def move_inside(world: World) -> None:
    shutil.rmtree(world.clone / ".git")
    run("git", "init", "-q", cwd=world.root)


def remove_remote(world: World) -> None:
    dvc("remote", "remove", "-q", "archive", cwd=world.clone)


REFUSALS: dict[str, tuple[Callable[[World], Any], str]] = {
    "no git": (lambda world: shutil.rmtree(world.clone / ".git"), "is not a git repository"),
    "inside": (move_inside, "is inside the git repository"),
    "no DVC": (lambda world: shutil.rmtree(world.clone / ".dvc"), "has no .dvc"),
    "no remote": (remove_remote, "has no default DVC remote"),
    "links": (lambda world: edit_config(world, "[cache]\n    type = hardlink\n"), "has hardlink"),
    "cloud versions": (
        lambda world: edit_config(world, "    version_aware = true\n"),
        "is version_aware",
    ),
    "another scheme": (
        lambda world: dvc("remote", "modify", "archive", "url", "gs://b/d", cwd=world.clone),
        "gs:// is not supported",
    ),
    "dirty": (write_foreign_file, "1 files are not committed, first 'notes.txt'"),
    "nobody": (forget_identity, "git does not know who you are"),
    "tag taken": (lambda world: world.git("tag", "v1", "HEAD"), "--tag v1: exists already"),
    "nothing": (lambda world: shutil.rmtree(world.source), "is no folder"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_a_commit_needs_is_refused_in_one_line(empty: World, case: str) -> None:
    break_it, words = REFUSALS[case]
    break_it(empty)
    with pytest.raises(UserError, match=words) as error:
        empty.commit(tag="v1")
    assert "\n" not in str(error.value)
    assert objects_of(empty.remote) == set()


@pytest.mark.parametrize("tag", ["-d", "a b", "v1..v2", ""])
def test_a_tag_that_git_would_not_take_is_refused_first(empty: World, tag: str) -> None:
    with pytest.raises(UserError, match="no name that git allows"):
        empty.commit(tag=tag)


def test_a_tag_never_moves(archived: World) -> None:
    deliver(archived.source, "batch-c")
    with pytest.raises(UserError, match="a tag never moves"):
        archived.commit(tag="v1")
    assert archived.git("status", "--porcelain") == ""


# interrupted


@pytest.mark.parametrize("hook", ["pre-commit", "post-commit"])
def test_a_killed_commit_has_no_tag_and_is_completed_by_the_next(empty: World, hook: str) -> None:
    here = empty.root / "here"
    path = empty.clone / ".git/hooks" / hook
    path.write_text(f"#!/bin/sh\ntouch {here}\nexec sleep 60\n")
    path.chmod(0o755)
    arguments = ["commit", str(empty.source), "--registry", str(empty.clone), "--tag", "v1"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from crosswatch.data_commands import data; data()", *arguments],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(here.exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    path.unlink()
    assert empty.tags() == []
    if hook == "post-commit":
        faults = empty.verify().faults
        assert {fault.where for fault in faults} == {"remote"}
        assert all("committed but not pushed" in fault.what for fault in faults)
    empty.commit(tag="v1")
    assert empty.tags() == ["v1"]
    assert empty.verify("v1", deep=True).faults == ()
    assert empty.git("status", "--porcelain") == ""


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not reached():
        assert process.poll() is None, "the command ended before it was killed"
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_push_that_fails_halfway_has_no_tag_and_is_completed_by_the_next(
    archived: World,
) -> None:
    blocked = archived.remote / archived.key_of("batch-a", "video.mp4")
    shutil.rmtree(archived.remote)
    blocked.mkdir(parents=True)
    with pytest.raises(ResourceError, match=r"dvc push failed: .*Is a directory") as error:
        archived.commit(tag="v2")
    assert "\n" not in str(error.value)
    assert archived.tags() == ["v1"]
    faults = archived.verify().faults
    assert "files/video.mp4" in {fault.file for fault in faults}
    assert all("committed but not pushed" in fault.what for fault in faults)
    blocked.rmdir()
    done = archived.commit(tag="v2")
    assert (done.added, done.tag) == ((), "v2")
    assert archived.verify("v2", deep=True).faults == ()


def test_a_gap_that_dvc_is_silent_about_has_no_tag(archived: World) -> None:
    path = archived.clone / "batches/batch-a/raw.dvc"
    path.write_text(path.read_text() + "  push: false\n")
    archived.git("commit", "-q", "-a", "-m", "Keep it here")
    (archived.remote / archived.key_of("batch-a", "video.mp4")).unlink()
    with pytest.raises(ResourceError, match=r"still missing .* dvc push.*batch-a: files/video"):
        archived.commit(tag="v2")
    assert archived.tags() == ["v1"]


@pytest.mark.parametrize("lose", [Path.unlink, lambda path: overwrite(path, lambda b: b[:-1])])
def test_what_the_remote_has_lost_is_pushed_again(archived: World, lose: Any) -> None:
    lost = archived.remote / archived.key_of("batch-a", "video.mp4")
    whole = lost.read_bytes()
    lose(lost)
    archived.commit(tag="v2")
    assert lost.read_bytes() == whole
    assert archived.verify("v2", deep=True).faults == ()


def test_what_is_lost_everywhere_has_no_tag(archived: World) -> None:
    key = archived.key_of("batch-a", "video.mp4")
    (archived.remote / key).unlink()
    (archived.clone / ".dvc/cache" / key).unlink()
    before = objects_of(archived.remote)
    with pytest.raises(
        ResourceError, match=r"batch-a: files/video.mp4 .*not in this clone's cache"
    ):
        archived.commit(tag="v2")
    assert (archived.tags(), objects_of(archived.remote)) == (["v1"], before)


def test_a_damaged_cache_is_not_pushed(archived: World) -> None:
    key = archived.key_of("batch-a", "video.mp4")
    (archived.remote / key).unlink()
    overwrite(archived.clone / ".dvc/cache" / key, flip)
    with pytest.raises(ResourceError, match=r"batch-a: files/video.mp4 .*damaged in the cache"):
        archived.commit(tag="v2")
    assert not (archived.remote / key).exists()
    assert archived.tags() == ["v1"]


def test_a_delivery_mends_what_is_damaged_in_the_cache(archived: World) -> None:
    cached = archived.clone / ".dvc/cache" / archived.key_of("batch-a", "video.mp4")
    whole = cached.read_bytes()
    overwrite(cached, flip)
    copy = archived.source / "batch-c"
    shutil.copytree(archived.source / "batch-a", copy)
    archived.commit()
    assert cached.read_bytes() == whole


# RFC 6151 and its sources: two blocks that differ and have one MD5 (X. Wang and H. Yu, 2005).
ONE = (
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488"
    "832571415a085125e8f7cdc99fd91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da"
    "03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70"
)
OTHER = (
    "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b30283e488"
    "8325f1415a085125e8f7cdc99fd91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6dd53e23487da"
    "03fd02396306d248cda0e99f33420f577ee8ce54b67080280d1ec69821bcb6a8839396f965ab6ff72a70"
)


@pytest.mark.parametrize("at_once", [True, False])
def test_contents_that_share_an_md5_are_refused(empty: World, at_once: bool) -> None:
    for name, block in (("batch-a", ONE), ("batch-b", OTHER)):
        (empty.source / name / "video.mp4").write_bytes(bytes.fromhex(block) + bytes(20_000))
        sign(empty.source / name)
    if not at_once:
        empty.commit(source=empty.source / "batch-a")
    with pytest.raises(UserError, match="has the MD5 of other contents"):
        empty.commit(tag="v1")
    assert empty.tags() == []


def test_what_dvc_ignores_is_not_taken_for_archived(empty: World) -> None:
    (empty.clone / ".dvcignore").write_text("*.tar\n")
    empty.git("commit", "-q", "-a", "-m", "Ignore archives")
    with pytest.raises(UserError, match=r"1 of 2 objects, first 'shards/00000.tar'.*\.dvcignore"):
        empty.commit(tag="v1")
    (empty.clone / ".dvcignore").write_text("")
    empty.git("commit", "-q", "-a", "-m", "Do not")
    empty.commit(tag="v1")
    assert empty.verify("v1", deep=True).faults == ()


@pytest.mark.parametrize("table", ["", '{"write": {"/": {"pid": %d, "cmd": "dvc push"}}}'])
def test_locks_of_a_killed_dvc_are_cleared_away(empty: World, table: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie still
    left = empty.clone / ".dvc/tmp/rwlock"
    left.write_text(table % process.pid if table else table)
    (empty.clone / ".dvc/tmp/rwlock.lock").touch()
    assert empty.commit(tag="v1").tag == "v1"
    process.wait(timeout=30)


def test_one_commit_at_a_time(empty: World) -> None:
    scratch = open_registry(empty.clone).scratch
    scratch.mkdir(parents=True)
    with FileLock(scratch / "lock"), pytest.raises(UserError, match="another data commit"):
        empty.commit()
