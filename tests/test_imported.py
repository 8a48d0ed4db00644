"""Published feature sets go through the stages: from an import to a batch set, labels, captions
and features, without a picture."""

import hashlib
import json
import pickle
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_msrvtt import clip
from test_vadclip import RATE_HZ, annotated, deliver
from test_word2vec import some_vectors, write

from crosswatch import artifacts, stages
from crosswatch.annotation.propagate import propagate
from crosswatch.data.adapters import imported_sets
from crosswatch.data.adapters.imported import ImportedAdapter
from crosswatch.data.adapters.imported_labels import Told
from crosswatch.data.adapters.imported_sets import open_imported
from crosswatch.data.batches import Batch, open_set
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.layouts import ImportedConfig
from crosswatch.data.splits import SplitConfig
from crosswatch.data.windows import WindowConfig, window_table
from crosswatch.errors import UserError
from crosswatch.features import schema
from crosswatch.features.captioning.captions import read_captions
from crosswatch.features.exchange.msrvtt import CATEGORIES, import_msrvtt
from crosswatch.features.exchange.vadclip import VadclipConfig, import_vadclip
from crosswatch.features.imported import identity_of
from crosswatch.features.schema import Feature, open_features, write_feature

XD = ("A", "B1", "B2", "G")
XD_TEST = {"t1_label_B1-B2-0": "B1-B2-0", "t2_label_A": "A"}
XD_TEXT = "t1_label_B1-B2-0 B1 5 20 B2 10 47\n"
Sections = Mapping[str, Mapping[str, Any]]
VADCLIP: Sections = {
    "ingest": {"adapter": "imported", "classes": XD},
    "split": {"by": "given"},
    "refine": {"masks": "none"},
    "caption": {"source": "none"},
    "features": {"encoders": ["imported"]},
}
MSRVTT: Sections = {
    **VADCLIP,
    "ingest": {"adapter": "imported", "classes": CATEGORIES},
    "caption": {"source": "imported"},
    "features": {"encoders": ["imported", "hashed"]},
}


def call(name: str, sections: Sections, **paths: Path) -> None:
    stages.call(name, values=sections, paths=paths)


def changed(sections: Sections, section: str, **values: Any) -> Sections:
    return {**sections, section: {**sections.get(section, {}), **values}}


def vadclip(
    place: Path, out: Path, videos: Mapping[str, str], *, text: str | None = None, **given: Any
) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    crops = {name: given.pop(name) for name in ("crops", "snippets") if name in given}
    listing = deliver(place, videos, **crops)
    annotations = None if text is None else annotated(place, text)
    facts = {"frame_rate_hz": RATE_HZ, "root": place / "files", "annotations": annotations}
    import_vadclip(listing, out, VadclipConfig(**facts | given))
    return out


def msrvtt(place: Path, out: Path, clips: Sequence[Mapping[str, Any]]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "clips.pkl").write_bytes(pickle.dumps(list(clips), 4))
    import_msrvtt(place / "clips.pkl", out)
    return out


@pytest.fixture
def xd(tmp_path: Path) -> Path:
    """Two imports: 24 training videos with ten crops, two of test with one."""
    training = {f"v{at}_label_{label}": label for at in range(12) for label in ("A", "G-B2-0")}
    vadclip(
        tmp_path / "lists/train", tmp_path / "sets/train", training, crops=range(10), split="train"
    )
    vadclip(
        tmp_path / "lists/test", tmp_path / "sets/test", XD_TEST, text=XD_TEXT, crops=(0,),
        split="test",
    )  # fmt: skip
    return tmp_path / "sets"


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    given = [
        clip("video7", category=3, audio=None),
        clip("video6600", caption=["one", "two"]),
        clip("video7010", category=19, caption=[], columns=45),
    ]
    return msrvtt(tmp_path / "pickles", tmp_path / "clips", given)


def ingested(source: Path, out: Path, sections: Sections, **paths: Path) -> dict[str, Batch]:
    call("ingest", sections, arrivals=source, out=out, **paths)
    return {batch.id: batch for batch in open_set(out).batches}


def test_an_import_goes_from_ingest_to_features(xd: Path, tmp_path: Path) -> None:
    batches = ingested(xd, tmp_path / "batches", VADCLIP)
    places = {"batches": tmp_path / "batches"}
    call("refine", VADCLIP, **places, out=tmp_path / "labels")
    call("caption", VADCLIP, **places, out=tmp_path / "captions")
    for source in ("template", "imported"):
        asked = changed(VADCLIP, "caption", source=source)
        call("caption", asked, **places, out=tmp_path / "said")
        assert not artifacts.open_artifact(tmp_path / "said").counts["captions"], "nobody described"
    seeing = changed(VADCLIP, "features", encoders=["imported", "motion", "mel", "image"])
    places["captions"] = tmp_path / "captions"
    call("extract", seeing, **places, out=tmp_path / "features")
    manifest = artifacts.open_artifact(tmp_path / "batches")
    assert (len(batches), dict(manifest.quarantined), manifest.warnings) == (26, {}, ())
    features = open_features(tmp_path / "features")
    assert features.batches == tuple(batches)
    assert list(features.modalities) == ["clip"], "nobody invents pictures"
    for part in ("train", "test"):
        given = open_features(xd / part)
        for name in given.batches:
            ours, theirs = features.feature(name, "clip"), given.feature(name, "clip")
            assert ours is not None
            assert theirs is not None
            assert ours.values.ndim == (3 if part == "train" else 2)
            for file in ("clip.npy", "clip_valid.npy", "clip_spans.npy"):
                linked, original = features.folder / name / file, xd / part / name / file
                assert linked.stat().st_ino == original.stat().st_ino
            assert len(ours) * 16 == len(np.load(tmp_path / "labels" / name / "classes.npy"))
    facts = json.loads((features.folder / "t2_label_A" / "imported.json").read_text())
    assert facts["parents"]["import"] == artifacts.open_artifact(xd / "test").digest
    assert features.modalities["clip"]["digest"] == identity_of("vadclip", "").digest


def test_a_batch_of_an_import_is_times_and_events_alone(xd: Path, tmp_path: Path) -> None:
    batches = ingested(xd, tmp_path / "batches", VADCLIP)
    test = batches["t1_label_B1-B2-0"]
    assert (test.frames, test.signal, test.audio, test.masks) == (None, None, None, None)
    assert test.is_bare
    assert test.frame_times is not None
    np.testing.assert_array_equal(test.frame_times, np.arange(48) / RATE_HZ)
    assert test.video_rate_hz == RATE_HZ
    assert test.span_s == (0.0, 48 / RATE_HZ)
    assert test.segments == ((0.0, 48 / RATE_HZ),)
    assert [(event.class_name, *frames_of(test, event)) for event in test.events] == [
        ("B1", 5, 20),
        ("B2", 10, 47),
    ], "both at once"
    assert batches["t2_label_A"].events == ()
    weak = batches["v3_label_G-B2-0"]
    assert [(event.class_name, *frames_of(weak, event)) for event in weak.events] == [
        ("G", 0, 48),
        ("B2", 0, 48),
    ]
    table = window_table(test, WindowConfig(frames=2, stride=3, signal_s=0, per_second=10))
    assert len(table) == 15
    assert (test.frame_times[table.last_frame] == table.end_s).all()


def frames_of(batch: Batch, event: Any) -> list[int]:
    assert batch.frame_times is not None
    found: list[int] = np.searchsorted(batch.frame_times, [event.onset_s, event.offset_s]).tolist()
    return found


@settings(deadline=None)
@given(
    count=st.integers(2, 5000), rate_hz=st.sampled_from([10.0, 24.0, 25.0, 29.97, 30.0]),
    spans=st.lists(st.tuples(st.integers(0, 5100), st.integers(1, 300)), max_size=4),
)  # fmt: skip
def test_an_event_holds_its_frames_and_no_others(
    count: int, rate_hz: float, spans: list[tuple[int, int]]
) -> None:
    segments = [(start, start + length) for start, length in spans]
    record = {"labels": ["B1"], "frames": count, "split": None, "segments": segments,
              "segment_labels": ["B1"] * len(segments)}  # fmt: skip
    events, behind = Told.read(record).events(count, rate_hz)
    truth = np.zeros(count, np.uint8)
    for start, stop in segments:
        truth[start:stop] = 1
    times_s = np.arange(count) / rate_hz
    found = propagate(times_s, events, (), ("A", "B1")).classes
    np.testing.assert_array_equal(found, truth)
    half_open = np.zeros(count, np.uint8)
    for event in events:
        half_open[(times_s >= event.onset_s) & (times_s < event.offset_s)] = 1
        assert event.onset_s < event.apex_s < event.offset_s
    np.testing.assert_array_equal(half_open, truth)
    assert behind == sum(start >= count for start, _ in segments)


def test_the_published_split_holds_and_some_training_videos_validate(
    xd: Path, tmp_path: Path
) -> None:
    ingested(xd, tmp_path / "batches", changed(VADCLIP, "split", validation_videos_share=0.3))
    ranges = open_set(tmp_path / "batches").ranges
    assert len(ranges) == 26, "none is cut"
    blocks = {item.batch: item.block for item in ranges}
    assert {name for name, block in blocks.items() if block == "evaluation"} == set(XD_TEST)
    assert 3 <= Counter(blocks.values())["validation"] <= 12
    ingested(xd, tmp_path / "fewer", VADCLIP)
    fewer = {item.batch for item in open_set(tmp_path / "fewer").ranges
             if item.block == "validation"}  # fmt: skip
    drawn = {name for name, block in blocks.items() if block == "validation"}
    assert fewer < drawn, "a video that was drawn stays"
    ingested(xd, tmp_path / "none", changed(VADCLIP, "split", validation_videos_share=0.0))
    assert {item.block for item in open_set(tmp_path / "none").ranges} == {"train", "evaluation"}
    for share in (-0.1, 1.0):
        with pytest.raises(UserError, match="validation_videos_share is"):
            SplitConfig(validation_videos_share=share)


def test_videos_published_for_validation_are_the_only_ones(clips: Path, tmp_path: Path) -> None:
    most = changed(MSRVTT, "split", validation_videos_share=0.999)
    ingested(clips, tmp_path / "batches", most)
    assert {item.batch: item.block for item in open_set(tmp_path / "batches").ranges} == {
        "video7": "train", "video6600": "validation", "video7010": "evaluation"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"by": "time"}, "split.by=time would cut videos such as v0_label_A, .*Set split.by to"),
        ({"by": "given"}, "was imported without a split, .*--split train or test"),
    ],
)
def test_a_split_that_an_import_does_not_allow_is_refused(
    tmp_path: Path, split: dict[str, str], words: str
) -> None:
    sets = vadclip(
        tmp_path / "list", tmp_path / "sets", {f"v{at}_label_A": "A" for at in range(12)}
    )
    with pytest.raises(UserError, match=words) as refused:
        ingested(sets, tmp_path / "batches", {**VADCLIP, "split": split})
    assert "\n" not in str(refused.value)
    assert str(refused.value).count("--split") <= 9, "twelve reasons would be no line"
    by_source = {**VADCLIP, "split": {"by": "source"}}
    assert len(ingested(sets, tmp_path / "batches", by_source)) == 12


def test_clips_of_msrvtt_go_through_with_their_captions(clips: Path, tmp_path: Path) -> None:
    batches = ingested(clips, tmp_path / "batches", MSRVTT)
    assert [[event.class_name for event in batch.events] for batch in batches.values()] == [
        ["sports/actions"], ["music"], ["advertisement"]
    ]  # fmt: skip
    assert {name: batch.span_s[1] for name, batch in batches.items()} == pytest.approx(
        {"video7": 4.0, "video6600": 2.3, "video7010": 0.5}
    )
    weights = write(tmp_path / "words.bin", some_vectors(("sings", "song", "man"), 300))
    sections = changed(
        MSRVTT, "features", encoders=["imported", "hashed", "word2vec"],
        word2vec={"weights": {"source": str(weights)}},
    )  # fmt: skip
    places = {"batches": tmp_path / "batches"}
    call("refine", sections, **places, out=tmp_path / "labels")
    call("caption", sections, **places, out=tmp_path / "captions")
    call("extract", sections, **places, captions=tmp_path / "captions", out=tmp_path / "features")
    features = open_features(tmp_path / "features")
    assert {name: facts["width"] for name, facts in features.modalities.items()} == {
        "2d": 2048, "3d": 2048, "2d_pooled": 2048, "3d_pooled": 2048, "audio": 40,
        "hashed": 512, "hashed_tokens": 512, "word2vec_tokens": 300,
    }  # fmt: skip
    assert features.feature("video7", "audio") is None
    for name, batch in batches.items():
        number = CATEGORIES.index(batch.events[0].class_name)
        assert set(np.load(tmp_path / "labels" / name / "classes.npy")) == {number}
        (said,) = read_captions(tmp_path / "captions" / name / "captions.parquet")
        assert (said.caption, said.time_s, said.until_s) == (
            "a man sings a song", 0.0, batch.span_s[1]
        )  # fmt: skip
        assert said.source == "imported"
        assert said.explanation == "Video shows: a man sings a song"
        words = features.feature(name, "word2vec_tokens")
        assert words is not None
        assert words.values.shape == (1, 3, 300)
        assert words.valid.all()
        assert np.array_equal(
            words.values[0, 1], some_vectors(("sings", "song", "man"), 300)["sings"]
        )


@pytest.mark.parametrize(
    ("take", "expected"),
    [
        ("evaluation", {"video7": ["to test"], "video6600": ["one"], "video7010": ["to test"]}),
        ("first", {"video7": ["a man is singing"], "video6600": ["one"], "video7010": ["to test"]}),
        ("all", {"video7": ["to test", "a man is singing", "someone sings"],
                 "video6600": ["one", "two"], "video7010": ["to test"]}),
    ],
)  # fmt: skip
def test_which_captions_are_taken_can_be_said(
    tmp_path: Path, take: str, expected: dict[str, list[str]]
) -> None:
    given = [
        clip("video7", eval_caption="to test"),
        clip("video6600", eval_caption=" ", caption=["one", "two"]),
        clip("video7010", eval_caption="to test", caption=[]),
    ]
    sets = msrvtt(tmp_path / "pickles", tmp_path / "sets", given)
    ingested(sets, tmp_path / "batches", MSRVTT)
    sections = changed(MSRVTT, "caption", imported={"take": take})
    call("caption", sections, batches=tmp_path / "batches", out=tmp_path / "captions")
    for name, texts in expected.items():
        said = read_captions(tmp_path / "captions" / name / "captions.parquet")
        assert [caption.caption for caption in said] == texts


def test_the_rate_of_clips_without_one_can_be_said(clips: Path, tmp_path: Path) -> None:
    for rate_hz in (10.0, 4.0):
        sections = changed(MSRVTT, "ingest", imported={"rate_hz": rate_hz})
        batches = ingested(clips, tmp_path / f"batches{rate_hz}", sections)
        times_s = batches["video7"].frame_times
        assert times_s is not None
        np.testing.assert_allclose(times_s, np.arange(4 * rate_hz) / rate_hz)
    with pytest.raises(UserError, match="rate_hz is 0"):
        ImportedConfig(rate_hz=0)


def test_a_short_clip_is_kept_whatever_the_windows(tmp_path: Path) -> None:
    given = [clip(name, columns=3) for name in ("video1", "video7010")]
    sets = msrvtt(tmp_path / "pickles", tmp_path / "sets", given)
    windows = {"frames": 10, "stride": 4, "signal_s": 60.0}
    batches = ingested(sets, tmp_path / "batches", {**MSRVTT, "windows": windows})
    assert [len(batch.frame_times) for batch in batches.values()] == [2, 2]  # type: ignore[arg-type]


def found(source: Path, classes: Sequence[str] = XD) -> dict[str, str]:
    config = IngestConfig(adapter="imported", classes=tuple(classes))
    return {arrival.id: arrival.digest for arrival in ImportedAdapter(config).find(source).arrivals}


def test_a_batch_is_another_one_when_its_features_or_its_record_changed(
    xd: Path, tmp_path: Path
) -> None:
    before = found(xd)
    assert list(before)[-1] == "v11_label_G-B2-0", "in the order of the list"
    assert found(xd) == before
    assert found(xd / "test") == {name: before[name] for name in XD_TEST}
    assert found(xd / "test" / "t2_label_A") == {"t2_label_A": before["t2_label_A"]}
    batches = ingested(xd, tmp_path / "batches", VADCLIP, known=tmp_path / "known")
    assert {name: batch.digest for name, batch in batches.items()} == before
    file = tmp_path / "lists/test/files/t2_label_A__0.npy"
    np.save(file, np.load(file) + 1)
    shutil.rmtree(xd / "test")
    vadclip_again = VadclipConfig(
        frame_rate_hz=RATE_HZ, root=tmp_path / "lists/test/files", split="test",
        annotations=annotated(tmp_path / "lists/test", XD_TEXT.replace("5 20", "5 21")),
    )  # fmt: skip
    import_vadclip(tmp_path / "lists/test/list.csv", xd / "test", vadclip_again)
    after = found(xd)
    assert {name for name in before if before[name] != after[name]} == set(XD_TEST)
    again = ingested(xd, tmp_path / "again", VADCLIP, known=tmp_path / "known")
    kept = {name for name, batch in again.items() if same_file(batch, batches[name])}
    assert kept == set(before) - set(XD_TEST), "the others are not ingested again"


def same_file(one: Batch, other: Batch) -> bool:
    inodes = [(batch.folder / "frame_times.npy").stat().st_ino for batch in (one, other)]
    return inodes[0] == inodes[1]


def spoil(path: Path, data: bytes | None) -> None:
    """With other contents, of the same file system entry for nobody else."""
    path.unlink()
    if data is not None:
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        ("clip.npy", None, "clip.npy: is missing though the import lists it. Import it again."),
        ("clip_valid.npy", b"", "clip_valid.npy: has 0 bytes; the import wrote 131"),
        ("clip_spans.npy", b"x" * 176, "clip_spans.npy: its SHA-256 differs from the import's"),
    ],
)
def test_damaged_arrays_cost_their_batch_alone(
    xd: Path, tmp_path: Path, file: str, data: bytes | None, words: str
) -> None:
    spoil(xd / "test" / "t1_label_B1-B2-0" / file, data)
    batches = ingested(xd, tmp_path / "batches", VADCLIP)
    assert len(batches) == 25
    quarantined = artifacts.open_artifact(tmp_path / "batches").quarantined
    assert quarantined == {"t1_label_B1-B2-0": quarantined["t1_label_B1-B2-0"]}
    assert words in quarantined["t1_label_B1-B2-0"]


def by_hand(folder: Path, record: Any, **arrays: Any) -> Path:
    """An artifact that says that it was imported."""
    ones = np.ones((3, 4), np.float32)
    made = {"clip": ones, "clip_valid": ones[:, 0] > 0, "clip_spans": ones[:, :2].astype(float)}
    with artifacts.create(folder, kind="features", config={"layout": "ours"}) as draft:
        for name, array in (made | arrays).items():
            if array is not None:
                np.save(draft / f"v/{name}.npy", array)
        artifacts.write_json(
            draft / "features.json", {"batches": ["v"], "modalities": {"clip": {}}}
        )
        artifacts.write_json(draft / "labels.json", {} if record is None else {"v": record})
    return folder


RECORD = {"class": "G", "split": "test"}
WEAK = {"labels": ["G"], "frames": 48, "segments": None, "segment_labels": None, "split": "test"}


@pytest.mark.parametrize(
    ("record", "arrays", "words"),
    [
        (RECORD, {"clip": None}, "v: the import holds no features of it"),
        (RECORD, {"clip_spans": None}, "clip: cannot be read: .*No such file"),
        (RECORD, {"clip": np.ones(3, np.float32)}, r"clip: is float32 \(3,\), valid bool \(3,\)"),
        (RECORD, {"clip": np.ones((3, 4))}, r"clip: is float64 \(3, 4\)"),
        (RECORD, {"clip_valid": np.ones(2, bool)}, r"valid bool \(2,\)"),
        (RECORD, {"clip_spans": np.ones((2, 2))}, r"spans float64 \(2, 2\)"),
        (RECORD, {"clip_spans": np.full((3, 2), np.nan)}, "times of its rows do not rise"),
        (RECORD, {"clip_spans": -np.arange(6.0).reshape(3, 2)}, "times of its rows do not rise"),
        (None, {}, "its record is not as import writes it"),
        ({"labels": ["G"]}, {}, "its record is not as import writes it .KeyError"),
        ({**WEAK, "frames": "many"}, {}, "its record is not as import writes it .ValueError"),
        ({**WEAK, "segments": [[1, 2]], "segment_labels": []}, {}, "not as import writes it"),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_feature_is_quarantined(
    tmp_path: Path, record: Any, arrays: dict[str, Any], words: str
) -> None:
    by_hand(tmp_path / "sets" / "hand", record, **arrays)
    training = {f"v{at}_label_A": "A" for at in range(2)}
    vadclip(tmp_path / "list", tmp_path / "sets" / "train", training, split="train")
    with pytest.raises(UserError, match=r"split.by=given leaves no evaluation block"):
        ingested(tmp_path / "sets", tmp_path / "batches", VADCLIP)
    by_name = {**VADCLIP, "split": {"by": "batch", "evaluation": ["v0_label_A"]}}
    assert set(ingested(tmp_path / "sets", tmp_path / "batches", by_name)) == set(training)
    quarantined = artifacts.open_artifact(tmp_path / "batches").quarantined
    assert set(quarantined) == {"v"}
    assert re.search(words, quarantined["v"])


def test_classes_that_are_not_known_are_refused_with_what_to_set(xd: Path, clips: Path) -> None:
    wanted = r"name B1, G; ingest.classes are A, B2. Set 'ingest.classes=\[A, B1, B2, G\]'."
    with pytest.raises(UserError, match=wanted):
        found(xd, ["A", "B2"])
    with pytest.raises(UserError, match=r"first of ingest.classes stands for normal, and is 'B1'"):
        found(xd, ["B1", "B2", "G", "A"])
    assert len(found(xd, ["normal", "B1", "B2", "G"])) == 26, "normal may be called otherwise"
    with pytest.raises(UserError, match=r"Set 'ingest.classes=\[sports/actions, music, adv"):
        found(clips, ["music"])
    assert len(found(clips, CATEGORIES)) == 3, "none of these is normal"


def test_sources_that_hold_no_import_are_refused(xd: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "lists", tmp_path / "nowhere", xd / "test" / "t3"):
        with pytest.raises(UserError, match=r"holds no imported features. Run crosswatch data imp"):
            found(source)
    with artifacts.create(tmp_path / "ours", kind="features") as draft:
        artifacts.write_json(draft / "features.json", {})
    with pytest.raises(UserError, match=r"holds features without labels.json, so they were not"):
        found(tmp_path / "ours")
    spoil(xd / "test" / "labels.json", (xd / "test" / "labels.json").read_bytes() + b" ")
    with pytest.raises(UserError, match=r"labels.json: is missing or was changed since the import"):
        found(xd)


def test_a_split_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    sets = vadclip(tmp_path / "list", tmp_path / "sets", {"a": "A"}, split="val")
    with pytest.raises(UserError, match="--split val; known are train, validation, test"):
        found(sets)


def test_one_video_in_two_imports_is_refused(xd: Path, tmp_path: Path) -> None:
    vadclip(tmp_path / "list", xd / "more", {"t2_label_A": "A"})
    with pytest.raises(UserError, match="both give a batch 't2_label_A'"):
        found(xd)


def extract(folder: Path, sections: Sections, **paths: Path) -> artifacts.Manifest:
    call("extract", sections, batches=folder / "batches", out=folder / "features", **paths)
    return artifacts.open_artifact(folder / "features")


def test_an_import_that_changed_since_is_left_out_with_the_reason(xd: Path, tmp_path: Path) -> None:
    ingested(xd, tmp_path / "batches", VADCLIP)
    spoil(xd / "test" / "t2_label_A" / "clip.npy", None)
    refused = extract(tmp_path, VADCLIP).quarantined
    assert list(refused) == ["t2_label_A"]
    assert refused["t2_label_A"].startswith("imported: clip.npy: is missing though the import")
    shutil.rmtree(xd)
    with pytest.raises(UserError, match=r"imported has no batch left. .* is gone"):
        extract(tmp_path, VADCLIP)


def test_what_two_would_write_is_refused(clips: Path, tmp_path: Path) -> None:
    ingested(clips, tmp_path / "batches", MSRVTT)
    twice = changed(VADCLIP, "features", encoders=["imported", "audio"])
    with pytest.raises(UserError, match=r"holds 'audio', which audio in features.encoders would"):
        extract(tmp_path, twice)


def test_imports_of_two_widths_are_refused(xd: Path, tmp_path: Path) -> None:
    other = Feature(
        values=np.ones((2, 9), np.float32), valid=np.ones(2, bool), spans_s=np.ones((2, 2))
    )
    write_feature(tmp_path / "other", "clip", other)
    arrays = {path.stem: np.load(path) for path in (tmp_path / "other").iterdir()}
    by_hand(xd / "wider", RECORD, **arrays)
    ingested(xd, tmp_path / "batches", VADCLIP)
    with pytest.raises(
        UserError, match=r"'clip' of .* is .* wide, that of others .*. Give imports"
    ):
        extract(tmp_path, VADCLIP)


def test_what_features_were_made_with_is_part_of_what_they_are(xd: Path, tmp_path: Path) -> None:
    ingested(xd, tmp_path / "batches", VADCLIP)
    digests = set()
    for made_with in ("", "ViT-B/16", "ViT-L/14"):
        extract(tmp_path, changed(VADCLIP, "features", imported={"made_with": made_with}))
        digests.add(open_features(tmp_path / "features").modalities["clip"]["digest"])
    assert len(digests | {identity_of("msrvtt", "").digest}) == 4


def test_other_batches_bring_neither_features_nor_captions(xd: Path, tmp_path: Path) -> None:
    ingested(xd, tmp_path / "batches", VADCLIP)
    manifest = json.loads((tmp_path / "batches" / artifacts.MANIFEST).read_text())
    manifest["config"]["ingest"]["adapter"] = "single"
    (tmp_path / "batches" / artifacts.MANIFEST).write_text(json.dumps(manifest))
    words = "names imported, and the batches were ingested with ingest.adapter=single"
    with pytest.raises(UserError, match=f"features.encoders {words}"):
        extract(tmp_path, VADCLIP)
    with pytest.raises(UserError, match=f"caption.source {words}"):
        call("caption", MSRVTT, batches=tmp_path / "batches", out=tmp_path / "captions")


@pytest.mark.parametrize(
    ("listed", "modality", "words"),
    [
        ("v1/../../evil.npy", "clip", "lists 'v1/../../evil.npy', which is outside of its folder"),
        ("/evil.npy", "clip", "lists '/evil.npy', which is outside"),
        ("v/deep/evil.npy", "clip", "'v/deep/evil.npy' is no file of a batch. Import it again"),
        ("v/clip.npy", "../../evil", "'../../evil' is no name of a modality. Import it again"),
    ],
)
def test_an_import_names_nothing_outside_of_its_batches(
    tmp_path: Path, listed: str, modality: str, words: str
) -> None:
    folder = by_hand(tmp_path / "hand", RECORD)
    artifacts.write_json(folder / "features.json", {"batches": ["v"], "modalities": {modality: {}}})
    manifest = artifacts.read_json(folder / artifacts.MANIFEST)
    index = (folder / "features.json").read_bytes()
    entry = {"bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()}
    manifest["files"] |= {"features.json": entry, listed: manifest["files"]["v/clip.npy"]}
    artifacts.write_json(folder / artifacts.MANIFEST, manifest)
    with pytest.raises(UserError, match=re.escape(words)):
        found(tmp_path)


def test_both_sides_call_the_files_of_an_import_the_same() -> None:
    assert (imported_sets.KIND, imported_sets.INDEX) == (schema.FEATURES, schema.INDEX)


def test_an_import_that_is_written_again_is_read_again(xd: Path, tmp_path: Path) -> None:
    before = open_imported(xd / "test")
    assert open_imported(xd / "test") is before, "once a process"
    shutil.rmtree(xd / "test")
    vadclip(tmp_path / "list", xd / "test", {"another": "A"}, split="test")
    assert open_imported(xd / "test").batches == ("another",)
