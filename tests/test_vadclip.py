"""VadCLIP's lists and feature files in and out, and what happens where in UCF-Crime and XD."""

import csv
import json
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosswatch import artifacts
from crosswatch.data_commands import data
from crosswatch.errors import UserError
from crosswatch.features.exchange import ground_truth
from crosswatch.features.exchange.ground_truth import Segment
from crosswatch.features.exchange.vadclip import VadclipConfig, import_vadclip
from crosswatch.features.exchange.vadclip_export import export_vadclip
from crosswatch.features.exchange.vadclip_list import read_videos
from crosswatch.features.schema import FEATURES, FeatureSet, open_features

ANNOTATIONS = Path(__file__).parents[1].parent / "shared" / "data" / "ucf_xd_annotations"
RATE_HZ = 30.0
WIDTH = 6
UCF_TEXT = (
    "Abuse028_x264.mp4  Abuse  16  40  -1  -1  \n"
    "Arson011_x264.mp4  Arson  0  20  35  47  \n"
    "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"
)
UCF = {
    "Abuse/Abuse028_x264": "Abuse",
    "Arson/Arson011_x264": "Arson",
    "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264": "Normal",
}


def deliver(
    folder: Path,
    videos: Mapping[str, str],
    *,
    crops: Mapping[str, Sequence[int]] | Sequence[int] = (5,),
    snippets: Mapping[str, int] | int = 3,
    there: str = "/home/somebody/Features",
) -> Path:
    """A list of another machine, and its files below `folder`; the list."""
    rng = np.random.default_rng(3)
    rows = []
    for video, label in videos.items():
        for crop in crops[video] if isinstance(crops, Mapping) else crops:
            file = folder / "files" / f"{video}__{crop}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            count = snippets[video] if isinstance(snippets, Mapping) else snippets
            np.save(file, rng.standard_normal((count, WIDTH)).astype(np.float16))
            rows.append((f"{there}/{video}__{crop}.npy", label))
    with (folder / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    return folder / "list.csv"


def annotated(folder: Path, text: str = UCF_TEXT) -> Path:
    (folder / "annotations.txt").write_text(text)
    return folder / "annotations.txt"


def imported(listing: Path, out: Path, **given: Any) -> tuple[FeatureSet, dict[str, Any]]:
    config = VadclipConfig(**{"frame_rate_hz": RATE_HZ, "root": listing.parent / "files"} | given)
    import_vadclip(listing, out, config)
    return open_features(out), artifacts.read_json(out / "labels.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != artifacts.MANIFEST
    }


def test_a_list_becomes_features(tmp_path: Path) -> None:
    listing = deliver(tmp_path, UCF)
    features, labels = imported(
        listing, tmp_path / "features", annotations=annotated(tmp_path), split="test"
    )
    assert features.batches == ("Abuse028_x264", "Arson011_x264", "Normal_Videos_003_x264")
    assert (features.modalities["clip"]["width"], features.modalities["clip"]["axes"]) == (WIDTH, 2)
    clip = features.feature("Abuse028_x264", "clip")
    assert clip is not None
    given = np.load(tmp_path / "files" / "Abuse" / "Abuse028_x264__5.npy")
    assert np.array_equal(clip.values, given.astype(np.float32))
    assert clip.valid.all()
    assert np.allclose(clip.spans_s, [[0, 16 / 30], [16 / 30, 32 / 30], [32 / 30, 48 / 30]])
    assert labels == {
        "Abuse028_x264": {
            "name": "Abuse028_x264", "label": "Abuse", "labels": ["Abuse"], "crops": [5],
            "frames": 48, "segments": [[16, 40]], "segment_labels": ["Abuse"], "split": "test",
        },
        "Arson011_x264": {
            "name": "Arson011_x264", "label": "Arson", "labels": ["Arson"], "crops": [5],
            "frames": 48, "segments": [[0, 20], [35, 47]], "segment_labels": ["Arson", "Arson"],
            "split": "test",
        },
        "Normal_Videos_003_x264": {
            "name": "Normal_Videos_003_x264", "label": "Normal", "labels": ["Normal"],
            "crops": [5], "frames": 48, "segments": [[0, 48]], "segment_labels": ["Normal"],
            "split": "test",
        },
    }  # fmt: skip


def test_crops_that_are_missing_are_not_valid(tmp_path: Path) -> None:
    crops = {"a": [0, 9], "b": [4]}
    listing = deliver(tmp_path, {"a": "A", "b": "B1-B2-0"}, crops=crops)
    features, labels = imported(listing, tmp_path / "features")
    for batch, there in crops.items():
        clip = features.feature(batch, "clip")
        assert clip is not None
        assert clip.values.shape == (3, 10, WIDTH)
        assert np.flatnonzero(clip.valid.all(axis=0)).tolist() == there
        assert not clip.values[~clip.valid].any()
    assert labels["b"]["labels"] == ["B1", "B2"]
    assert labels["b"]["segments"] is None
    assert labels["b"]["segment_labels"] is None


def test_names_that_are_no_safe_names_are_kept_beside(tmp_path: Path) -> None:
    names = ("v=aB#1_label_G-0-0", "v=Ab#1_label_G-0-0", "v:aB#1_label_G-0-0")
    listing = deliver(tmp_path, dict.fromkeys(names, "G-0-0"), crops=(0,))
    features, labels = imported(listing, tmp_path / "features")
    assert len(set(features.batches)) == 3
    assert [labels[batch]["name"] for batch in features.batches] == list(names)


def test_files_are_found_by_as_many_folders_as_needed(tmp_path: Path) -> None:
    for folder in ("ucf/a", "ucf/b", "xd/a", "other"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("x__0.npy", *(["y__0.npy"] if folder == "other" else [])):
            np.save(tmp_path / folder / name, np.zeros((1, 2)))
    listing = tmp_path / "list.csv"
    for wanted, found in (
        ("/far/ucf/b/x__0.npy", "ucf/b/x__0.npy"),
        ("D:\\far\\xd\\a\\x__0.npy", "xd/a/x__0.npy"),
        ("/never/heard/y__0.npy", "other/y__0.npy"),
    ):
        listing.write_text(f"path,label\n{wanted},A\n")
        (video,) = read_videos(listing, tmp_path)
        assert video.crops == {0: tmp_path / found}
    for wanted in ("/far/a/x__0.npy", "/far/c/x__0.npy", "x__0.npy"):
        listing.write_text(f"path,label\n{wanted},A\n")
        with pytest.raises(UserError, match=r"holds [24] files that may be .*x__0.npy.*--root"):
            read_videos(listing, tmp_path)


def test_without_a_root_files_lie_where_the_list_says(tmp_path: Path) -> None:
    listing = deliver(tmp_path, {"a": "A"}, there="files")
    features, _ = imported(listing, tmp_path / "features", root=None)
    assert features.batches == ("a",)
    absolute = deliver(tmp_path, {"a": "A"}, there=str(tmp_path / "files"))
    assert imported(absolute, tmp_path / "again", root=None)[0].batches == ("a",)


texts = st.text(
    st.sampled_from(string.ascii_letters + string.digits + " =#.,_-\"'éß"), min_size=1, max_size=12
)
classes = st.sampled_from(["Normal", "A", "Abuse", "B2-0-0", "G-B2-B6", "RoadAccidents"])


@st.composite
def lists(draw: st.DrawFn) -> dict[str, tuple[str, int, list[int], list[tuple[int, int]]]]:
    """Of each video its label, snippets, crops, and what happens in it."""
    names = draw(st.lists(texts, min_size=1, max_size=4, unique_by=str.casefold))
    videos = {}
    for name in names:
        label, snippets = draw(classes), draw(st.integers(1, 4))
        crops = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
        starts = draw(st.lists(st.integers(0, 70), min_size=1, max_size=3))
        spans = [(start, start + draw(st.integers(1, 20))) for start in starts]
        videos[name] = (label, snippets, crops, [] if label in ("Normal", "A") else spans)
    return videos


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(videos=lists(), is_annotated=st.booleans())
def test_an_export_imports_to_the_same(
    videos: dict[str, Any], is_annotated: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("round")
    listing = deliver(
        folder,
        {name: label for name, (label, *_) in videos.items()},
        snippets={name: snippets for name, (_, snippets, *_) in videos.items()},
        crops={name: crops for name, (_, _, crops, _) in videos.items()},
    )
    truth: dict[str, Any] = {}
    if is_annotated:
        spans = [told[3] or [(0, 16 * told[1])] for told in videos.values()]
        names = [["G"] * len(each) for each in spans]
        (folder / "segment.json").write_text(json.dumps(spans))
        (folder / "label.json").write_text(json.dumps(names))
        truth = {"segments": folder / "segment.json", "segment_labels": folder / "label.json"}
    imported(listing, folder / "first", split="test", **truth)
    out = folder / "exported"
    counts = export_vadclip(folder / "first", out)
    assert counts["annotated"] == len(videos) * is_annotated
    assert (out / "gt.npy").exists() == is_annotated
    if is_annotated:
        truth = {"segments": out / "gt_segment.json", "segment_labels": out / "gt_label.json",
                 "frame_labels": out / "gt.npy"}  # fmt: skip
    imported(out / "list.csv", folder / "second", split="test", root=None, **truth)
    assert contents(folder / "first") == contents(folder / "second")
    assert not list(folder.glob(".*"))


def test_features_of_extract_are_exported_with_given_labels(tmp_path: Path) -> None:
    listing = deliver(tmp_path, {"a": "A", "b": "A"}, crops=(2,))
    imported(listing, tmp_path / "features")
    labels = tmp_path / "mine.json"
    told = {"label": "B1-B4-0", "segments": [[8, 40]], "segment_labels": ["B4"], "more": "kept out"}
    labels.write_text(json.dumps({"b": {"label": "A"}, "a": told, "elsewhere": told}))
    export_vadclip(tmp_path / "features", tmp_path / "out", labels)
    assert (tmp_path / "out" / "list.csv").read_text() == (
        "path,label\nfeatures/b__0.npy,A\nfeatures/a__0.npy,B1-B4-0\n"
    )
    assert not (tmp_path / "out" / "gt.npy").exists()  # of b nobody says what happens
    export_vadclip(tmp_path / "features", tmp_path / "out")  # an export of before is replaced
    assert "a__2.npy" in (tmp_path / "out" / "list.csv").read_text()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"a": {"label": "A"}}, "no label for 1 of 2 batches, the first b"),
        ({"a": {"label": "A"}, "b": {}}, "b has no label"),
        ({"a": {"label": "A"}, "b": {"label": "0"}}, "label '0' names no class"),
        ({"a": {"label": "A"}, "b": {"label": "A", "name": "a"}}, "a and b have one name, 'a'"),
        ({"a": {"label": "A"}, "b": {"label": "A", "name": "../x"}}, "have to be plain text"),
        ({"a": {"label": "A"}, "b": {"label": "A", "crops": [10]}}, "allowed 0 to 9"),
        ({"a": {"label": "A", "segments": [[0, 1]]}, "b": {}}, "as many segment_labels"),
        (
            {"a": {"label": "A", "segments": [[3, 1]], "segment_labels": ["A"]}, "b": {}},
            r"segments \(\(3, 1\),\); expected \[start, end\]",
        ),
        (["a"], "no table of labels by batch"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: Any, words: str) -> None:
    imported(deliver(tmp_path, {"a": "A", "b": "A"}), tmp_path / "features")
    (tmp_path / "mine.json").write_text(json.dumps(labels))
    with pytest.raises(UserError, match=words):
        export_vadclip(tmp_path / "features", tmp_path / "out", tmp_path / "mine.json")
    assert not (tmp_path / "out").exists()


def test_rows_that_are_not_valid_are_exported_as_zero_and_counted(tmp_path: Path) -> None:
    listing = deliver(tmp_path, {"a": "A"}, crops=(0, 1))
    imported(listing, tmp_path / "features")
    with artifacts.create(tmp_path / "partly", kind=FEATURES) as draft:
        artifacts.link_tree(tmp_path / "features", draft.path)
        (draft / artifacts.MANIFEST).unlink()
        valid, values = (np.load(draft.path / "a" / f"clip{x}.npy") for x in ("_valid", ""))
        valid[1, 0], values[1, 0] = False, 0.0
        for name, array in (("clip_valid.npy", valid), ("clip.npy", values)):
            (draft.path / "a" / name).unlink()
            np.save(draft.path / "a" / name, array)
    assert export_vadclip(tmp_path / "partly", tmp_path / "out")["blank"] == 1
    assert not np.load(tmp_path / "out" / "features" / "a__0.npy")[1].any()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(3), r"has shape \(3,\) of float64; expected \(snippets, numbers a snippet\)"),
        (np.zeros((0, WIDTH)), r"has shape \(0, 6\)"),
        (np.zeros((3, WIDTH), int), "of int64"),
        (np.full((3, WIDTH), np.nan), "3 of 3 snippets hold NaN or infinity"),
        (np.full((3, WIDTH), 1e300), "3 of 3 snippets hold NaN or infinity"),
        (np.zeros((4, WIDTH)), r"has shape \(4, 6\); other crops of 'a' have \(3, 6\)"),
        (np.zeros((3, WIDTH), object), "is an array of Python objects"),
        (None, "is no array of numpy"),
    ],
)
def test_features_that_are_none_are_refused(tmp_path: Path, array: Any, words: str) -> None:
    listing = deliver(tmp_path, {"a": "A"}, crops=(0, 1))
    file = tmp_path / "files" / "a__1.npy"
    file.write_bytes(b"nothing") if array is None else np.save(file, array)
    with pytest.raises(UserError, match=f"a__1.npy: .*{words}"):
        imported(listing, tmp_path / "features")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "list.csv"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begins with 'nothing'; expected the header path,label"),
        ("a__0.npy,A\n", "begins with 'a__0.npy,A'; expected the header"),
        ("path,label\n", "lists nothing"),
        ("path,label\na__0.npy\n", "row 2: 'a__0.npy'; expected a path and a label"),
        ("path,label\n\na__0.npy,\n", "row 3: 'a__0.npy,'; expected a path and a label"),
        ("path,label\na.npy,A\n", "row 2: 'a.npy' is no name of a feature file"),
        ("path,label\na__10.npy,A\n", "a crop of 0 to 9"),
        ("path,label\na__0.npy,A\nb/a__0.npy,A\n", "lists crop 0 of 'a' twice"),
        ("path,label\na__0.npy,A\na__1.npy,B1\n", "'a' is 'A' and 'B1'. Give one label"),
        ("path,label\na__0.npy,A\nz__0.npy,A\n", "1 of 2 files are not below .* first 'z__0.npy'"),
        ("path,label\na__0.npy,A\nA__0.npy,A\n", "differ by case only"),
        ("path,label\nlabels.json__0.npy,A\n", "'labels.json' has the name of a file of ours"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "files").mkdir()
    for name in ("a__0.npy", "a__1.npy", "A__0.npy", "labels.json__0.npy"):
        np.save(tmp_path / "files" / name, np.zeros((1, 2)))
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        imported(tmp_path / "list.csv", tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_features_of_two_widths_are_refused(tmp_path: Path) -> None:
    listing = deliver(tmp_path, {"a": "A", "b": "A"})
    np.save(tmp_path / "files" / "b__5.npy", np.zeros((3, WIDTH + 1)))
    with pytest.raises(UserError, match="its features are 6, 7 wide; expected one width"):
        imported(listing, tmp_path / "features")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Abuse028_x264 Abuse 1", "row 1: 'Abuse028_x264': a start without an end: 1"),
        ("x 1 B2 2", "row 1: 'x': a start without an end before 'B2'"),
        ("x A 5 5", "segment 5 to 5; expected 0 <= start < end"),
        ("x A -1 5", "segment -1 to 5"),
        ("x 1 2\nx.mp4 1 2", "row 2: 'x' is annotated twice"),
        ("\n", "annotates nothing"),
        ("Abuse028_x264 Abuse 1 2", "'Arson011_x264' is listed as 'Arson' and has 0 annotated"),
        (UCF_TEXT.replace("Normal  -1  -1", "Arson  1  2"), "listed as 'Normal' and has 1 annot"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(tmp_path: Path, text: str, words: str) -> None:
    listing = deliver(tmp_path, UCF)
    with pytest.raises(UserError, match=words):
        imported(listing, tmp_path / "features", annotations=annotated(tmp_path, text))
    assert not (tmp_path / "features").exists()


def test_released_arrays_of_objects_are_read(tmp_path: Path) -> None:
    """Frames as text, and normal videos that are called "A": what the shipped files have."""
    listing = deliver(tmp_path, UCF)
    spans, names = np.empty(3, object), np.empty(3, object)
    spans[:] = [[["16", "40"]], [["0", "20"], ["35", "47"]], [[0, 48]]]
    names[:] = [["Abuse"], ["Arson", "Arson"], ["A"]]
    np.save(tmp_path / "gt_segment.npy", spans, allow_pickle=True)
    np.save(tmp_path / "gt_label.npy", names, allow_pickle=True)
    gt = np.zeros(3 * 48)
    for start, end in ((16, 40), (48, 68), (83, 95)):
        gt[start:end] = 1
    np.save(tmp_path / "gt.npy", gt)
    truth = {"segments": tmp_path / "gt_segment.npy", "segment_labels": tmp_path / "gt_label.npy"}
    _, labels = imported(listing, tmp_path / "features", **truth, frame_labels=tmp_path / "gt.npy")
    _, by_text = imported(listing, tmp_path / "other", annotations=annotated(tmp_path))
    assert labels == by_text
    export_vadclip(tmp_path / "features", tmp_path / "out")
    exported = np.load(tmp_path / "out" / "gt.npy", allow_pickle=False)
    assert np.array_equal(exported, gt)
    assert exported.dtype == np.float64
    gt[0] = 1
    np.save(tmp_path / "gt.npy", gt)
    imported(listing, tmp_path / "nearly", **truth, frame_labels=tmp_path / "gt.npy")
    warnings = artifacts.open_artifact(tmp_path / "nearly").warnings
    assert warnings == ("gt.npy differs for 1 frames",)
    for changed, words in ((gt[:-16], r"has shape \(128,\); the features have 144"),
                           (1 - gt, "says something else .* for 143 of 144 frames")):  # fmt: skip
        np.save(tmp_path / "gt.npy", changed)
        with pytest.raises(UserError, match=words):
            imported(listing, tmp_path / "no", **truth, frame_labels=tmp_path / "gt.npy")


@pytest.mark.parametrize(
    ("spans", "names", "words"),
    [
        ([[[0, 9]]] * 2, [["Abuse"]] * 3, "tells of 2 videos; the list has 3"),
        ([[[0, 9]], [], [[0, 48]]], [["a"], [], ["A"]], "is listed as 'Arson' and has no segment"),
        ([[[0, 9]]] * 3, [["a"]] * 3, "is normal and has 48 frames"),
        ([[[0, 9]]] * 3, [["a"], [], ["a"]], "expected a list of .start, end. and as many classes"),
        ([[[0]]] * 3, [["a"]] * 3, "expected a list of .start, end."),
        ([[["x", 9]]] * 3, [["a"]] * 3, "expected a list of .start, end."),
        ([[[9, 0]]] * 3, [["a"]] * 3, "segment 9 to 0"),
        ({}, [], "is no list"),
    ],
)
def test_segments_that_do_not_fit_are_refused(
    tmp_path: Path, spans: Any, names: Any, words: str
) -> None:
    listing = deliver(tmp_path, UCF)
    (tmp_path / "s.json").write_text(json.dumps(spans))
    (tmp_path / "l.json").write_text(json.dumps(names))
    truth = {"segments": tmp_path / "s.json", "segment_labels": tmp_path / "l.json"}
    with pytest.raises(UserError, match=words):
        imported(listing, tmp_path / "f", **truth)


@given(
    snippets=st.integers(0, 6),
    spans=st.lists(st.tuples(st.integers(0, 120), st.integers(1, 60)), max_size=4),
)
def test_a_frame_is_one_exactly_where_something_happens(
    snippets: int, spans: list[tuple[int, int]]
) -> None:
    segments = [Segment(start=start, end=start + size, label="G") for start, size in spans]
    segments.append(Segment(start=0, end=16 * snippets, label="Normal"))
    found = ground_truth.frame_truth(segments, snippets)
    assert found.tolist() == [
        float(any(start <= frame < start + size for start, size in spans))
        for frame in range(16 * snippets)
    ]


def test_segments_behind_the_last_snippet_are_told(tmp_path: Path) -> None:
    listing = deliver(tmp_path, UCF, snippets=2)
    imported(listing, tmp_path / "features", annotations=annotated(tmp_path))
    warnings = artifacts.open_artifact(tmp_path / "features").warnings
    assert warnings == ("1 segments begin behind the last snippet of their video",)


real = pytest.mark.skipif(
    not ANNOTATIONS.is_dir(), reason="../shared/data/ucf_xd_annotations is absent"
)


def shipped(listing: str, segment: str, label: str) -> tuple[dict[str, str], list[Any], list[Any]]:
    with (ANNOTATIONS / listing).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = {re.sub(r".*/|__\d\.npy$", "", row["path"]): row["label"] for row in rows}
    assert len(labels) == len(rows)
    spans, names = (artifacts.read_json(ANNOTATIONS / name) for name in (segment, label))
    return labels, spans, names


@real
@pytest.mark.parametrize(
    ("text", "files", "videos", "anomalous", "normal"),
    [
        (
            "Temporal_Anomaly_Annotation.txt",
            ("ucf_CLIP_rgbtest.csv", "gt_segment_ucf.json", "gt_label_ucf.json"),
            290, 140, "Normal",
        ),
        (
            "annotations_multiclasses.txt",
            ("xd_CLIP_rgbtest.csv", "gt_segment.json", "gt_label.json"),
            800, 500, "A",
        ),
    ],
)  # fmt: skip
def test_the_released_ground_truth_is_built_from_the_texts(
    text: str, files: tuple[str, str, str], videos: int, anomalous: int, normal: str
) -> None:
    labels, spans, names = shipped(*files)
    # Nobody but gt_segment tells how long normal videos are; of others only their gt.npy does.
    frames = [
        each[0][1] if label == normal else 16
        for label, each in zip(labels.values(), spans, strict=True)
    ]
    truth = ground_truth.truth_of(ground_truth.read_annotations(ANNOTATIONS / text), labels, frames)
    assert list(truth) == list(labels)
    assert len(truth) == videos
    found = [[[each.start, each.end] for each in segments] for segments in truth.values()]
    assert found == spans
    classes = [[each.label for each in segments] for segments in truth.values()]
    is_anomalous = [label != normal for label in labels.values()]
    assert sum(is_anomalous) == anomalous
    for mine, theirs, odd in zip(classes, names, is_anomalous, strict=True):
        assert mine == (theirs if odd else [normal])
        assert odd or theirs == ["A"]  # also in UCF-Crime, whose class is Normal
    again = ground_truth.read_truth(ANNOTATIONS / files[1], ANNOTATIONS / files[2], labels, frames)
    assert again == truth


@real
def test_the_texts_with_and_without_classes_tell_of_nearly_the_same_frames() -> None:
    plain = ground_truth.read_annotations(ANNOTATIONS / "annotations.txt")
    by_class = ground_truth.read_annotations(ANNOTATIONS / "annotations_multiclasses.txt")
    assert plain.keys() == by_class.keys()
    differing = {}
    for name, segments in plain.items():
        longest = max(each.end for each in (*segments, *by_class[name]))
        two = (
            ground_truth.frame_truth(
                [Segment(start=each.start, end=each.end, label="G") for each in told],
                longest // 16 + 1,
            )
            for told in (segments, by_class[name])
        )
        if count := int(np.count_nonzero(next(two) != next(two))):
            differing[name] = count
    assert sorted(differing.values()) == [1, 1, 1, 1, 139]
    assert differing["v=38GQ9L2meyE__#1_label_B6-0-0"] == 139  # a segment of one text only


@real
def test_the_commands_take_a_whole_released_list(tmp_path: Path) -> None:
    listing = ANNOTATIONS / "ucf_CLIP_rgbtest.csv"
    text = ground_truth.read_annotations(ANNOTATIONS / "Temporal_Anomaly_Annotation.txt")
    for name, segments in text.items():
        frames = max((each.end for each in segments), default=160)
        (tmp_path / "files").mkdir(exist_ok=True)
        np.save(tmp_path / "files" / f"{name}__5.npy", np.ones((frames // 16 + 1, 2), np.float32))
    features, out = tmp_path / "features", tmp_path / "exported"
    runner = CliRunner()
    ended = runner.invoke(
        data,
        ["import", "--layout", "vadclip", str(listing), "--root", str(tmp_path / "files"),
         "--frame-rate-hz", "30", "--annotations",
         str(ANNOTATIONS / "Temporal_Anomaly_Annotation.txt"), "--out", str(features), "--json"],
    )  # fmt: skip
    assert ended.exit_code == 0, ended.output
    counts = json.loads(ended.stdout.splitlines()[-1])
    assert (counts["videos"], counts["files"]) == (290, 290)
    ended = runner.invoke(
        data,
        ["export", "--layout", "vadclip", "--features", str(features), "--out", str(out), "--json"],
    )
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout.splitlines()[-1])["annotated"] == 290
    assert len(np.load(out / "gt.npy")) == 16 * counts["snippets"]
    happens = artifacts.read_json(out / "gt_segment.json")
    anomalous = [spans for spans, names in
                 zip(happens, artifacts.read_json(out / "gt_label.json"), strict=True)
                 if names != ["Normal"]]  # fmt: skip
    assert len(anomalous) == 140


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "l.csv", "--layout", "vadclip", "--out", "f"], "--frame-rate-hz is missing"),
        (["import", "l.csv", "--layout", "vadklip", "--out", "f"], "'vadklip' is not one of"),
        (["import", "x", "--layout", "msrvtt", "--out", "f", "--root", "r"], "--root does not bel"),
        (["import", "x", "--layout", "vadclip", "--out", "f", "--info", "i"], "--info does not"),
        (["export", "--layout", "vadclip", "--out", "f"], "Missing option '--features'"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], words: str) -> None:
    ended = CliRunner().invoke(data, arguments)
    assert ended.exit_code == 2
    assert words in ended.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"frame_rate_hz": 0.0}, "frame rate 0.0 Hz; has to be above 0"),
        ({"frame_rate_hz": float("nan")}, "has to be above 0"),
        ({"segments": Path("s")}, "segments and their labels belong together"),
        ({"frame_labels": Path("gt")}, "give these too"),
        (
            {"segments": Path("s"), "segment_labels": Path("l"), "annotations": Path("a")},
            "tell the same",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        VadclipConfig(**{"frame_rate_hz": 30.0} | given)
