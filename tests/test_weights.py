"""Weights are found where they were named, are those that were meant, and come over no network
unless that was allowed."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub import COMMIT, REPOSITORY, Hub

from crosswatch.errors import UserError
from crosswatch.features.weights.finding import Weights, find_weights
from crosswatch.records import WeightsConfig

ASKED = {
    "option": "features.x.weights",
    "expected": "config.json and model.safetensors",
    "instead": "features.encoders=[]",
}
FILES = {"config.json": b"{}", "vocab.txt": b"red\nbox\n", "model.safetensors": b"tensors"}
DUPLICATES = {
    "README.md": b"Trained on nothing",
    ".gitattributes": b"*.bin lfs",
    "pytorch_model.bin": b"the same tensors",
    "flax_model.msgpack": b"the same tensors",
    "onnx/model.onnx": b"the same tensors",
    "onnx/config.json": b"{}",
}


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def found(source: str | Path, **others: Any) -> Weights:
    return find_weights(WeightsConfig(source=str(source), **others), **ASKED)


ELSEWHERE = """
import json, pathlib, socket, sys
from crosswatch.errors import UserError
from crosswatch.records import WeightsConfig
from crosswatch.features.weights.finding import find_weights

def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")

asked, sources, cut_off = json.loads(sys.argv[1])
if cut_off:
    socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
answers = []
for source in sources:
    try:
        weights = find_weights(WeightsConfig(**source), **asked)
        answers.append([str(weights.path), weights.sha256])
    except UserError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def found_elsewhere(
    cache: Path, *sources: dict[str, Any], url: str = "http://127.0.0.1:9", cut_off: bool = False
) -> list[Any]:
    """Path and digest, or the error, of each source in a process with a cache and a hub."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_HOME": str(cache),
        "HF_ENDPOINT": url,
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
    }
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, json.dumps([ASKED, sources, cut_off])],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_the_digest_is_of_what_counts_wherever_it_lies(tmp_path: Path) -> None:
    """Not of its place, of notes, of other formats, nor of the way a cache links it."""
    plain = folder_of(tmp_path / "plain", FILES)
    full = folder_of(tmp_path / "full", FILES | DUPLICATES)
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in FILES:
        (linked / name).symlink_to(plain / name)
    digests = {found(folder).sha256 for folder in (plain, full, linked)}
    assert len(digests) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_changes_the_digest(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "weights", FILES)
    before = found(folder).sha256
    (folder / name).write_bytes(FILES[name] + b"!")
    assert found(folder).sha256 != before


def test_older_formats_count_where_there_is_no_other(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"config.json": b"{}", "pytorch_model.bin": b"1"})
    before = found(folder).sha256
    (folder / "pytorch_model.bin").write_bytes(b"2")
    assert found(folder).sha256 != before


def test_a_file_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder_of(tmp_path, FILES) / "model.safetensors"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    digests = {found(source).sha256 for source in (file, file.name, f"~/{file.name}")}
    assert len(digests) == 1


def test_weights_are_held_to_their_digest(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, FILES)
    meant = found(folder).sha256
    assert found(folder, sha256=meant).sha256 == meant
    with pytest.raises(UserError, match=rf"sha256 is {'0' * 64}; .* has {meant}\. Name"):
        found(folder, sha256="0" * 64)


def test_no_weights_named_says_what_is_needed() -> None:
    with pytest.raises(UserError) as told:
        found("")
    assert str(told.value) == (
        "features.x.weights.source names no weights. Expected config.json and model.safetensors "
        "in a local folder, or a hub name with features.x.weights.download=true; without weights: "
        "--set features.encoders=[]."
    )


@pytest.mark.parametrize(
    "source",
    ["/no/folder", "./owner/name", "~/nothing", "owner/name.safetensors", "nothing", "a/b/c"],
)
@pytest.mark.parametrize("download", [False, True])
def test_a_path_that_is_missing_is_not_asked_of_the_hub(source: str, download: bool) -> None:
    with pytest.raises(UserError, match=r"there is no .*nor is that a hub name.* --set features"):
        found(source, download=download)


def test_a_folder_without_weights_says_what_is_looked_for(tmp_path: Path) -> None:
    folder_of(tmp_path, {"config.json": b"{}", "training_args.bin": b"no tensors"})
    with pytest.raises(UserError, match=r"holds none of \*\.safetensors, .*Expected config\.json"):
        found(tmp_path)


def test_nothing_is_fetched_unless_allowed(tmp_path: Path) -> None:
    sources = [{"source": name} for name in ("o/n", "o/n@main", "o/n:model.safetensors")]
    for told in found_elsewhere(tmp_path, *sources, cut_off=True):
        assert "nothing is fetched unless features.x.weights.download=true" in told


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path) -> None:
    """Refused at once, or never answered: the wait is bounded."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = ["http://127.0.0.1:9", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        for url in urls:
            (told,) = found_elsewhere(tmp_path, {"source": "o/n", "download": True}, url=url)
            assert "features.x.weights.source: o/n could not be fetched from the hub: " in told
            assert "\n" not in told


def test_what_was_fetched_is_what_a_folder_holds_and_stays(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    local = found(folder_of(tmp_path / "local", FILES)).sha256
    fetch = {"source": REPOSITORY, "download": True}
    file = {"source": f"{REPOSITORY}:pytorch_model.bin", "download": True}
    with Hub(FILES | DUPLICATES) as hub:
        other = fetch | {"source": "plant/nothing"}
        lacking = fetch | {"source": f"{REPOSITORY}:no.pt"}
        first, *told = found_elsewhere(cache, fetch, other, lacking, url=hub.url)
        assert hub.handed_out == set(FILES)
        assert first[1] == local
        assert "plant/nothing could not be fetched" in told[0]
        assert f"{REPOSITORY}:no.pt could not be fetched" in told[1]
        (single,) = found_elsewhere(cache, file, url=hub.url)
        assert hub.handed_out == {*FILES, "pytorch_model.bin"}
    again = [fetch | {"download": False}, {"source": f"{REPOSITORY}@{COMMIT}"}, fetch, file]
    assert found_elsewhere(cache, *again, cut_off=True) == [first, first, first, single]


def test_a_fetch_that_was_cut_short_is_not_taken_for_weights(tmp_path: Path) -> None:
    fetch = {"source": REPOSITORY, "download": True}
    with Hub(FILES) as hub:
        ((path, _),) = found_elsewhere(tmp_path, fetch, url=hub.url)
        (Path(path) / "model.safetensors").unlink()
        (told,) = found_elsewhere(tmp_path, fetch | {"download": False}, cut_off=True)
        assert "nor complete in the hub's cache" in told
        shutil.rmtree(Path(path))
        ((again, _),) = found_elsewhere(tmp_path, fetch, url=hub.url)
    assert again == path


def test_a_repository_of_older_formats_is_fetched_too(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": b"pickled", "training_args.bin": b"none"}
    with Hub(files) as hub:
        ((path, _),) = found_elsewhere(
            tmp_path, {"source": REPOSITORY, "download": True}, url=hub.url
        )
    assert {file.name for file in Path(path).iterdir()} == {"config.json", "pytorch_model.bin"}
