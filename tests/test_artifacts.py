"""A folder with a manifest is whole, whatever happened while it was written."""

import errno
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosswatch import artifacts
from crosswatch.errors import UserError

# Writes an artifact of two files and kills itself at the step that it is told.
WRITER = """
import os, signal, sys
from pathlib import Path
from crosswatch import artifacts

out, step, text = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def die_at(name, *, after):
    real = getattr(artifacts, name)
    def wrapped(*args, **kwargs):
        if not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(artifacts, name, wrapped)

if step == "between renames":
    real = Path.replace
    def replace(self, target):
        result = real(self, target)
        if str(target).endswith(".old"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    Path.replace = replace
elif step != "never" and step != "while writing":
    when, name = step.split(" ")
    die_at(name, after=when == "after")
with artifacts.create(out, kind="thing", config={"text": text}) as draft:
    (draft / "a.txt").write_text(text)
    if step == "while writing":
        os.kill(os.getpid(), signal.SIGKILL)
    (draft / "sub/b.txt").write_text(text * 2)
"""
STEPS = (
    "while writing",
    "before _describe",
    "after _describe",
    "after _write_synced",
    "before take_name",
    "after take_name",
    "between renames",
)


def write(out: Path, step: str, text: str) -> int:
    command = [sys.executable, "-c", WRITER, str(out), step, text]
    return subprocess.run(command, check=False, timeout=60).returncode


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "replacing"])
def test_killed_at_any_step_nothing_half_written_is_found(
    tmp_path: Path, step: str, is_second: bool
) -> None:
    out = tmp_path / "out"
    if is_second:
        assert write(out, "never", "old") == 0
    killed = write(out, step, "new")
    if step == "between renames" and not is_second:
        assert killed == 0
    else:
        assert killed == -signal.SIGKILL
    if out.exists():
        manifest = artifacts.open_artifact(out, kind="thing")
        assert (out / "a.txt").read_text() == manifest.config["text"]
    assert write(out, "never", "newest") == 0
    assert artifacts.open_artifact(out).config["text"] == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_exception_leaves_the_old_artifact_and_no_trace(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write(out, "never", "old") == 0

    def fail_half_way() -> None:
        with artifacts.create(out, kind="thing") as draft:
            (draft / "a.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert artifacts.open_artifact(out).config["text"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=64), at=st.integers(0), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path: Path, content: bytes, at: int, bit: int) -> None:
    out = tmp_path / "out"
    with artifacts.create(out, kind="thing") as draft:
        (draft / "data.bin").write_bytes(content)
    artifacts.open_artifact(out)
    damaged = bytearray(content)
    damaged[at % len(content)] ^= 1 << bit
    (out / "data.bin").write_bytes(bytes(damaged))
    with pytest.raises(UserError, match=r"data.bin: its SHA-256 differs"):
        artifacts.open_artifact(out)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with artifacts.create(out, kind="thing") as draft:
        (draft / "data.bin").write_bytes(b"12345")
    with pytest.raises(UserError, match="is a thing artifact; a checkpoint artifact is needed"):
        artifacts.open_artifact(out, kind="checkpoint")
    (out / "data.bin").write_bytes(b"123")
    with pytest.raises(UserError, match="has 3 bytes; the manifest says 5"):
        artifacts.open_artifact(out)
    (out / "data.bin").unlink()
    with pytest.raises(UserError, match="is missing though the manifest lists it"):
        artifacts.open_artifact(out)
    with pytest.raises(UserError, match=r"holds no manifest.json"):
        artifacts.open_artifact(tmp_path / "elsewhere")
    (out / artifacts.MANIFEST).write_text('{"kind": ')
    with pytest.raises(UserError, match=r"is damaged.*Run the stage again"):
        artifacts.open_artifact(out)


def test_a_folder_that_is_no_artifact_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with (
        pytest.raises(UserError, match="exists and is not an artifact"),
        artifacts.create(tmp_path / "mine", kind="thing"),
    ):
        pass
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


def test_a_target_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(UserError, match="cannot be written"),
        artifacts.create(tmp_path / "file" / "out", kind="thing"),
    ):
        pass


def test_the_digest_follows_contents_parents_and_settings(tmp_path: Path) -> None:
    def digest(content: bytes, parent: str, setting: int) -> str:
        out = tmp_path / "out"
        parents, config = {"batches": parent}, {"x": setting}
        with artifacts.create(out, kind="thing", config=config, parents=parents) as draft:
            (draft / "data").write_bytes(content)
            draft.counts["seconds"] = os.times().elapsed
        return artifacts.open_artifact(out).digest

    base = digest(b"a", "p", 1)
    assert digest(b"a", "p", 1) == base
    assert len({base, digest(b"b", "p", 1), digest(b"a", "q", 1), digest(b"a", "p", 2)}) == 4


def test_linked_trees_share_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "x").write_text("data")
    artifacts.link_tree(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b" / "sub" / "x").samefile(tmp_path / "a" / "sub" / "x")


def test_a_link_is_copied_where_there_can_be_none_and_never_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    with pytest.raises(FileExistsError):
        artifacts.link_file(tmp_path / "a", tmp_path / "b")

    def refuse(code: int) -> None:
        def link(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "link", link)

    for code in (errno.EXDEV, errno.EPERM, errno.EMLINK):
        refuse(code)
        with pytest.raises(FileExistsError):
            artifacts.link_file(tmp_path / "a", tmp_path / "b")
        copied = tmp_path / f"copy-{code}"
        artifacts.link_file(tmp_path / "a", copied)
        assert copied.read_text() == "new"
    refuse(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        artifacts.link_file(tmp_path / "a", tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert (tmp_path / "b").read_text() == "old"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", ".."])
@pytest.mark.parametrize("verify", [True, False])
def test_files_outside_of_an_artifact_are_refused(tmp_path: Path, name: str, verify: bool) -> None:
    with artifacts.create(tmp_path / "out", kind="thing") as draft:
        (draft / "a..b/..c").write_text("x")  # these are plain names
    values = artifacts.read_json(tmp_path / "out" / artifacts.MANIFEST)
    artifacts.open_artifact(tmp_path / "out", verify=verify)
    values["files"][name] = values["files"]["a..b/..c"]
    (tmp_path / "evil").write_text("x")
    artifacts.write_json(tmp_path / "out" / artifacts.MANIFEST, values)
    with pytest.raises(UserError, match="which is outside of its folder"):
        artifacts.open_artifact(tmp_path / "out", verify=verify)


def test_no_file_says_nan(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": (None, "NaN")}
    expected = {"a": None, "b": [1.5, None, {"c": None}], "d": [None, "NaN"]}
    path = tmp_path / "x.json"
    artifacts.write_json(path, value)
    assert artifacts.read_json(path) == expected
    artifacts.replace_json(path, value)
    assert artifacts.read_json(path) == expected
    assert artifacts.create_exclusively(tmp_path / "y.json", value)
    assert artifacts.read_json(tmp_path / "y.json") == expected
    with artifacts.create(tmp_path / "out", kind="thing", config=value) as draft:
        draft.counts["loss"] = math.nan
    assert "NaN," not in (tmp_path / "out" / artifacts.MANIFEST).read_text()
    assert artifacts.open_artifact(tmp_path / "out").config == expected


def test_one_succeeds_where_links_are_refused(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert artifacts.create_exclusively(tmp_path / "x.json", {"first": True})
    assert not artifacts.create_exclusively(tmp_path / "x.json", {"first": False})
    assert artifacts.read_json(tmp_path / "x.json") == {"first": True}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_foreign_manifest_is_refused_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with artifacts.create(out, kind="thing"):
        pass
    values = artifacts.read_json(out / artifacts.MANIFEST)
    newer = {**values, "schema_version": artifacts.SCHEMA_VERSION + 1, "signature": "x"}
    artifacts.write_json(out / artifacts.MANIFEST, newer)
    with pytest.raises(
        UserError, match=r"schema version 2; this Crosswatch reads up to 1\. Update"
    ):
        artifacts.open_artifact(out)
    for foreign in ([], {"name": "web app"}, {**values, "files": ["a"]}):
        artifacts.write_json(out / artifacts.MANIFEST, foreign)
        with pytest.raises(UserError, match="is no manifest of Crosswatch"):
            artifacts.open_artifact(out)
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        artifacts.open_artifact(out / artifacts.MANIFEST)


def test_what_another_host_is_writing_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=30)
    monkeypatch.setattr(artifacts.socket, "gethostname", lambda: "node-a.plant")
    mine = artifacts._hidden_beside(tmp_path / "out", "partial")
    theirs = tmp_path / f".out.{process.pid}@node-b.abc123.partial"
    dead = tmp_path / f".out.{process.pid}@node-a-plant.abc123.partial"
    theirs.mkdir()
    dead.mkdir()
    artifacts.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, theirs}
