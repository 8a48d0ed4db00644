"""MSR-VTT's pickles, converted once: every number at its place, and nothing else taken."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from crosswatch import artifacts
from crosswatch.data_commands import data
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import read_captions
from crosswatch.features.exchange import msrvtt
from crosswatch.features.exchange.msrvtt import CATEGORIES, import_msrvtt
from crosswatch.features.schema import FeatureSet, open_features


def clip(name: str = "video7", *, columns: int = 230, **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(abs(hash(name)) % 1000)
    return {
        "id": name,
        "2d": rng.standard_normal((4, 2048)).astype(np.float32),
        "3d": rng.standard_normal((3, 2048)),
        "2d_pooled": rng.standard_normal(2048).astype(np.float32),
        "3d_pooled": rng.standard_normal(2048).astype(np.float32),
        "audio": torch.from_numpy(rng.standard_normal((40, columns)).astype(np.float32)),
        "caption": ["a man is singing", "someone sings"],
        "eval_caption": "a man sings a song",
        "category": 0,
    } | changed


def imported(folder: Path, clips: Any, *infos: Path) -> tuple[FeatureSet, dict[str, Any]]:
    (folder / "clips.pkl").write_bytes(pickle.dumps(clips, 4))
    import_msrvtt(folder / "clips.pkl", folder / "features", infos)
    return open_features(folder / "features"), artifacts.read_json(folder / "features/labels.json")


def info(folder: Path, *videos: dict[str, Any]) -> Path:
    (folder / "videodatainfo.json").write_text(json.dumps({"videos": videos}))
    return folder / "videodatainfo.json"


def without(clips: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in clips.items() if name != key}


def test_a_pickle_becomes_features(tmp_path: Path) -> None:
    given = [clip("video7"), clip("video7010", category=np.int64(19), caption=[])]
    features, labels = imported(tmp_path, copy.deepcopy(given))
    assert features.batches == ("video7", "video7010")
    assert {name: facts["width"] for name, facts in features.modalities.items()} == {
        "2d": 2048, "3d": 2048, "2d_pooled": 2048, "3d_pooled": 2048, "audio": 40
    }  # fmt: skip
    for each in given:
        for name in ("2d", "3d"):
            feature = features.feature(each["id"], name)
            assert feature is not None
            assert np.array_equal(feature.values, each[name].astype(np.float32))
            edges_s = np.linspace(0, 2.3, len(each[name]) + 1)
            assert np.allclose(feature.spans_s, np.stack([edges_s[:-1], edges_s[1:]], axis=1))
        for name in ("2d_pooled", "3d_pooled"):
            feature = features.feature(each["id"], name)
            assert feature is not None
            assert np.array_equal(feature.values, each[name][None])
            assert feature.spans_s.tolist() == [[0.0, 2.3]]
        audio = features.feature(each["id"], "audio")
        assert audio is not None
        assert np.array_equal(audio.values, each["audio"].numpy().T[None])
        assert audio.valid.shape == (1, 230)
        assert audio.valid.all()
    assert labels == {
        "video7": {"category": 0, "class": "music", "eval_caption": "a man sings a song",
                   "split": "train"},
        "video7010": {"category": 19, "class": "advertisement",
                      "eval_caption": "a man sings a song", "split": "test"},
    }  # fmt: skip
    first, second = read_captions(tmp_path / "features" / "video7" / "captions.parquet")
    assert (first.caption, second.caption) == ("a man is singing", "someone sings")
    assert (first.time_s, first.until_s, first.frame, first.source) == (0.0, 2.3, -1, "supplied")
    assert first.explanation == "Video shows: a man is singing"
    assert first.digest == artifacts.sha256_of(tmp_path / "clips.pkl")
    assert not (tmp_path / "features" / "video7010" / "captions.parquet").exists()


@pytest.mark.parametrize("audio", [None, torch.zeros(40, 0)])
def test_a_clip_without_sound_has_none(tmp_path: Path, audio: Any) -> None:
    features, _ = imported(tmp_path, [clip("video1", audio=audio), clip("video2")])
    assert features.feature("video1", "audio") is None
    assert features.feature("video2", "audio") is not None
    by_index = features.feature("video1", "2d")
    pooled = features.feature("video1", "3d_pooled")
    assert by_index is not None
    assert pooled is not None
    assert by_index.spans_s.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert pooled.spans_s.tolist() == [[0, 4]]


def test_the_official_list_tells_what_the_pickle_does_not(tmp_path: Path) -> None:
    told = {"id": 6600, "category": 3, "start time": 10.0, "end time": 18.0}
    given = without(clip("video6600", audio=None), "category")
    features, labels = imported(tmp_path, [given], info(tmp_path, told, {"id": 1, "category": 2}))
    assert labels["video6600"]["class"] == "sports/actions"
    assert labels["video6600"]["split"] == "validation"
    rows = features.feature("video6600", "2d")
    assert rows is not None
    assert rows.spans_s.tolist() == [[0, 2], [2, 4], [4, 6], [6, 8]]


@given(number=st.integers(0, 12000))
def test_a_clip_is_in_the_split_of_its_number(number: int) -> None:
    split = msrvtt._split(f"video{number}")
    official = {"train": 6513, "validation": 497, "test": 2990}
    bounds = np.cumsum(list(official.values()))
    expected = [*official, None][int(np.searchsorted(bounds, number, side="right"))]
    assert split == expected


def test_there_are_twenty_categories() -> None:
    assert len(set(CATEGORIES)) == 20


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"2d": np.zeros((4, 2047))}, r"\(video7\): 2d: has shape \(4, 2047\); expected \(any, 2"),
        ({"3d": np.zeros(2048)}, r"3d: has shape \(2048,\)"),
        ({"2d_pooled": np.zeros((1, 2048))}, r"2d_pooled: has shape \(1, 2048\); expected \(2048"),
        ({"3d_pooled": np.full(2048, np.nan)}, "3d_pooled: 2048 of 2048 numbers are NaN or infin"),
        ({"2d": np.full((1, 2048), 1e300)}, "2d: 2048 of 2048 numbers are NaN or infinite"),
        ({"audio": torch.zeros(230, 40)}, r"audio: has shape \(230, 40\); expected \(40, any\)"),
        ({"audio": "silence"}, "audio: is str; expected numbers"),
        ({"2d": [[1.0]]}, "2d: is list; expected numbers"),
        ({"2d": np.zeros((1, 2048), "S1")}, "2d: is ndarray; expected numbers"),
        ({"category": 20}, "category is 20; expected 0 to 19"),
        ({"category": -1}, "category is -1"),
        ({"category": 1.0}, "category is 1.0"),
        ({"category": True}, "category is True"),
        ({"category": None}, "has no category. Name the official videodatainfo.json by --info"),
        ({"caption": "one"}, "caption is 'one'; expected a list of sentences"),
        ({"caption": ["one", 2]}, "caption: 2 is no text"),
        ({"caption": ["\ud800"]}, "is no text"),
        ({"eval_caption": None}, "eval_caption: None is no text"),
        ({"id": "../video7"}, "clip 0: id is '../video7'; expected up to 100 of A-Z"),
        ({"id": 7}, "clip 0: id is 7"),
        ({"id": "features.json/x"}, "clip 0: id is"),
        ({"id": "labels.json"}, "clip 0: id is 'labels.json'"),
    ],
)  # fmt: skip
def test_clips_that_are_not_as_described_are_refused(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        imported(tmp_path, [clip(**changed) if "id" not in changed else clip() | changed])
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["clips.pkl"]


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        ({}, "holds dict; expected a list of clips"),
        ([], "holds list; expected a list of clips"),
        ([7], "clip 0: is int; expected a dictionary"),
        ([clip(), clip()], r"clip 1 \(video7\): comes twice"),
        ([clip(), clip("Video7")], r"clip 1 \(Video7\): comes twice"),
        ([without(clip(), "3d")], "has no 3d. Expected id, 2d, 3d"),
        ([without(clip(), "audio")], "has no audio"),
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path: Path, clips: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        imported(tmp_path, clips)
    assert [path.name for path in tmp_path.iterdir()] == ["clips.pkl"]


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ({"id": 7, "category": 4}, "category is 0; videodatainfo.json says 4"),
        ({"id": 7, "category": 20}, "is no videodatainfo.json: ValueError category 20"),
        ({"id": 7}, "is no videodatainfo.json: KeyError 'category'"),
        ({"id": 7, "category": 0, "start time": 9, "end time": 2}, "from 9 s to 2 s"),
        (7, "is no videodatainfo.json: TypeError"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, video: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        imported(tmp_path, [clip()], info(tmp_path, video))
    assert not (tmp_path / "features").exists()


class Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch marker",)


def test_the_command_runs_nothing_of_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.pkl").write_bytes(pickle.dumps([clip(), Attack()]))
    command = ["import", "--layout", "msrvtt", "--out", "features", "--json"]
    ended = CliRunner().invoke(data, [*command, "bad.pkl"])
    assert isinstance(ended.exception, UserError)
    assert str(ended.exception).startswith("bad.pkl: asks for posix.system, which is no array")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pkl"]
    Path("good.pkl").write_bytes(pickle.dumps([without(clip(), "category")]))
    listed = info(tmp_path, {"id": 7, "category": 16})
    ended = CliRunner().invoke(data, [*command, "good.pkl", "--info", str(listed)])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "out": "features", "clips": 1, "captions": 2, "silent": 0
    }  # fmt: skip
    assert artifacts.read_json(Path("features/labels.json"))["video7"]["class"] == "food/drink"
