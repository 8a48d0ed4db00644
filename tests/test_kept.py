"""What is kept by its key is found again, here and on other machines, and only if it is whole."""

from pathlib import Path

import pytest

from crosswatch import artifacts
from crosswatch.data.kept import Kept, open_kept
from crosswatch.data.store.settings import TransferConfig


def keep(kept: Kept, key: str, text: str) -> None:
    with artifacts.create(kept.place(key), kind=kept.kind) as draft:
        (draft / "said.txt").write_text(text)
    kept.publish(key)


def test_what_was_kept_is_found_by_its_key_alone(tmp_path: Path) -> None:
    kept = Kept(root=tmp_path, kind="thing")
    assert kept.find("a" * 64) is None
    keep(kept, "a" * 64, "hello")
    found = kept.find("a" * 64)
    assert found is not None
    assert (found / "said.txt").read_text() == "hello"
    assert kept.find("b" * 64) is None


def test_what_is_damaged_counts_as_not_there(tmp_path: Path) -> None:
    kept = Kept(root=tmp_path, kind="thing")
    keep(kept, "a" * 64, "hello")
    (tmp_path / ("a" * 64) / "said.txt").write_text("hullo")
    assert kept.find("a" * 64) is None


def test_another_machine_finds_it_in_the_store(tmp_path: Path) -> None:
    here, there = (
        open_kept(tmp_path / name, kind="thing", store=tmp_path / "s", transfer=TransferConfig())
        for name in ("here", "there")
    )
    keep(here, "a" * 64, "hello")
    found = there.find("a" * 64)
    assert found == tmp_path / "there" / ("a" * 64)
    assert (found / "said.txt").read_text() == "hello"


def test_a_damaged_one_is_mended_from_the_store(tmp_path: Path) -> None:
    kept = open_kept(
        tmp_path / "here", kind="thing", store=tmp_path / "s", transfer=TransferConfig()
    )
    keep(kept, "a" * 64, "hello")
    (kept.place("a" * 64) / "said.txt").write_text("hullo")
    found = kept.find("a" * 64)
    assert found is not None
    assert (found / "said.txt").read_text() == "hello"


@pytest.mark.parametrize("name", ["folder", "file"])
def test_two_never_hold_one_name_at_once(tmp_path: Path, name: str) -> None:
    from filelock import FileLock, Timeout

    kept = Kept(root=tmp_path, kind="thing")
    with kept.held(name), pytest.raises(Timeout):
        FileLock(tmp_path / f".{name}.lock", timeout=0).acquire()
    FileLock(tmp_path / f".{name}.lock", timeout=0).acquire()
