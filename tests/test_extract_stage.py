"""Captions and features of simulated batches: computed once, kept, and refused with a reason."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from deliveries import seal
from tiny_bert import make_tiny_bert
from tiny_blip import write_tiny_blip
from tiny_clip import save_folder

from crosswatch import artifacts, config, experiment, progress, stages
from crosswatch.data.batches import open_set
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import read_captions
from crosswatch.features.schema import aligned, open_features

SMALL = (
    "simulate.batches=2",
    "simulate.minutes=1.0",
    "simulate.frame_px=64",
    "simulate.events_min=1",
    "simulate.events_max=2",
    "sync.estimate=given",
    "ingest.frame_px=32",
    "windows.signal_s=6",
    "caption.source=template",
    "features.encoders=[motion, mel, hashed]",
)


def call(name: str, *overrides: str, **paths: Path) -> None:
    resolved = experiment.resolve("fmformer-furnace", experiment.over(None, [*SMALL, *overrides]))
    stages.call(name, values=config.plain(resolved), paths=paths)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with arrivals and the batch set made of them."""
    folder = tmp_path_factory.mktemp("simulated")
    call("simulate", out=folder / "arrivals", truth=folder / "truth")
    call("ingest", arrivals=folder / "arrivals", out=folder / "batches")
    call("caption", batches=folder / "batches", out=folder / "captions")
    return folder


def extract(simulated: Path, out: Path, *overrides: str, known: Path | None = None) -> Path:
    places = {"batches": simulated / "batches"}
    if (simulated / "captions").exists():
        places["captions"] = simulated / "captions"
    call("extract", *overrides, **places, out=out, known=known or out.parent / "known")
    return out


def inodes(features: Path) -> dict[str, int]:
    return {str(path.relative_to(features)): path.stat().st_ino for path in features.rglob("*.npy")}


@pytest.fixture(scope="module")
def extracted(simulated: Path) -> Path:
    return extract(simulated, simulated / "features")


def test_every_batch_has_captions_that_tile_its_time(simulated: Path) -> None:
    for batch in open_set(simulated / "batches").batches:
        said = read_captions(simulated / "captions" / batch.id / "captions.parquet")
        assert len(said) > 5
        assert all(caption.caption and caption.source == "template" for caption in said)
        assert all(a.until_s <= b.time_s for a, b in itertools.pairwise(said))
        assert batch.frame_times is not None
        assert [batch.frame_times[caption.frame] for caption in said] == [
            caption.time_s for caption in said
        ]


def test_every_modality_has_times_and_masks_and_says_how_it_was_made(extracted: Path) -> None:
    found = open_features(extracted)
    assert set(found.modalities) == {"motion", "mel", "hashed", "hashed_tokens"}
    assert all(facts["weights"] == "" for facts in found.modalities.values())
    for batch in open_set(extracted.parent / "batches").batches:
        features = {name: found.feature(batch.id, name) for name in found.modalities}
        start_s, stop_s = batch.span_s
        for name, feature in features.items():
            assert feature is not None, name
            assert np.isfinite(feature.values).all()
            assert feature.valid.mean() > (0.1 if name == "hashed_tokens" else 0.9)
            assert (np.diff(feature.spans_s[:, 0]) >= 0).all()
            assert feature.spans_s.min() > start_s - 2
            assert feature.spans_s.max() < stop_s + 2
        at_s = np.linspace(start_s, stop_s, 20)
        together = aligned({name: f for name, f in features.items() if f}, at_s, within_s=1.0)
        assert all(len(feature) == 20 for feature in together.values())
        assert together["motion"].valid.mean() > 0.9


def test_the_manifest_names_its_parents(extracted: Path) -> None:
    manifest = artifacts.open_artifact(extracted)
    assert manifest.parents == {
        "batches": artifacts.open_artifact(extracted.parent / "batches").digest,
        "captions": artifacts.open_artifact(extracted.parent / "captions").digest,
    }
    (told,) = {path.name for path in extracted.glob("*/motion.json")}
    facts = json.loads(next(extracted.glob(f"*/{told}")).read_text())
    assert set(facts["parents"]) == {"batch", "arrival"}


def test_what_is_unchanged_is_never_computed_again(extracted: Path) -> None:
    again = extract(extracted.parent, extracted.parent / "again")
    assert inodes(again) == inodes(extracted)
    assert artifacts.open_artifact(again).digest == artifacts.open_artifact(extracted).digest


def test_a_changed_setting_makes_new_features_of_that_encoder_alone(extracted: Path) -> None:
    before = inodes(extracted)
    again = extract(extracted.parent, extracted.parent / "again", "features.motion.size_px=96")
    changed = {name for name, inode in inodes(again).items() if before[name] != inode}
    assert {Path(name).stem.partition("_")[0] for name in changed} == {"motion"}


def test_other_captions_change_the_text_alone(extracted: Path, tmp_path: Path) -> None:
    source = extracted.parent
    call(
        "caption",
        "caption.frames.every_s=5",
        batches=source / "batches",
        out=tmp_path / "captions",
    )
    places = {"batches": source / "batches", "captions": tmp_path / "captions"}
    call("extract", **places, out=source / "other", known=source / "known")
    before = inodes(extracted)
    changed = {name for name, inode in inodes(source / "other").items() if before[name] != inode}
    assert {Path(name).stem.partition("_")[0] for name in changed} == {"hashed"}


def test_a_control_reads_each_row_s_text_from_another_row(simulated: Path, tmp_path: Path) -> None:
    places = {"batches": simulated / "batches"}
    call("caption", "caption.shuffle_seed=3", **places, out=tmp_path / "captions")
    manifest = artifacts.open_artifact(tmp_path / "captions")
    assert manifest.config["caption"]["shuffle_seed"] == 3
    (warning,) = manifest.warnings
    assert warning.startswith("captions are shuffled (caption.shuffle_seed=3), as a control")
    hashed = ("features.encoders=[hashed]", "features.hashed.text=both")
    for name, captions in (("right", simulated / "captions"), ("wrong", tmp_path / "captions")):
        call("extract", *hashed, **places, captions=captions, out=tmp_path / name,
             known=tmp_path / "known")  # fmt: skip
    vector_of: dict[str, bytes] = {}
    moved = 0
    for name, captions in (("right", simulated / "captions"), ("wrong", tmp_path / "captions")):
        features = open_features(tmp_path / name)
        for batch in features.batches:
            told = read_captions(captions / batch / "captions.parquet")
            right = read_captions(simulated / "captions" / batch / "captions.parquet")
            found = features.feature(batch, "hashed")
            assert found is not None
            assert found.spans_s.tolist() == [[each.time_s, each.until_s] for each in right]
            for each, values in zip(told, found.values, strict=True):
                text = each.explanation + each.caption
                assert vector_of.setdefault(text, values.tobytes()) == values.tobytes()
            moved += sum(a.caption != b.caption for a, b in zip(told, right, strict=True))
    assert moved > 10


def test_kept_captions_stay_right_when_a_control_shuffles_them(
    simulated: Path, tmp_path: Path
) -> None:
    blip = ("caption.source=blip", "caption.frames.every_s=10", "caption.blip.max_length=9")
    blip += (f"caption.blip.weights.source={write_tiny_blip(tmp_path / 'blip')}",)
    said = []
    for number, shuffle in enumerate(((), ("caption.shuffle_seed=1",), ())):
        out = tmp_path / f"captions-{number}"
        call("caption", *blip, *shuffle, batches=simulated / "batches", out=out,
             known=tmp_path / "known")  # fmt: skip
        said.append({file.parent.name: read_captions(file) for file in out.glob("*/*.parquet")})
    for number in range(3):
        artifacts.open_artifact(tmp_path / f"captions-{number}")  # its files are as they were
    plain, shuffled, again = said
    assert again == plain
    assert shuffled != plain
    assert {name: [each.time_s for each in rows] for name, rows in shuffled.items()} == {
        name: [each.time_s for each in rows] for name, rows in plain.items()
    }


def test_killed_in_the_middle_it_goes_on_with_the_rows_that_are_missing(
    extracted: Path, tmp_path: Path
) -> None:
    source = extracted.parent
    command = [sys.executable, "-m", "crosswatch", "extract", "--out", str(tmp_path / "features")]
    command += ["--batches", str(source / "batches"), "--captions", str(source / "captions")]
    settings = ("features.encoders=[motion]", "features.compute.shard_rows=4")
    settings += ("features.compute.batch_size=2",)
    command += [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        until = time.monotonic() + 60
        unfinished = tmp_path / ".known" / "features"
        while not any(path.is_file() for path in unfinished.glob("unfinished-*/*")):
            assert running.poll() is None, running.stderr and running.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.005)
        os.kill(running.pid, signal.SIGKILL)
    assert not (tmp_path / "features").exists()
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert " known)" in ended.stdout + ended.stderr
    whole = open_features(extracted)
    resumed = open_features(tmp_path / "features")
    for batch in whole.batches:
        expected, found = whole.feature(batch, "motion"), resumed.feature(batch, "motion")
        assert expected is not None
        assert found is not None
        np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    assert not list(unfinished.glob("unfinished-*"))


def test_a_batch_is_kept_as_soon_as_its_last_row_is_there(simulated: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "crosswatch", "extract", "--out", str(tmp_path / "features")]
    command += ["--batches", str(simulated / "batches"), "--known", str(tmp_path / "known")]
    settings = (*SMALL, "features.encoders=[motion]", "features.compute.batch_size=1")
    command += [part for setting in settings for part in ("--set", setting)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        until = time.monotonic() + 60
        while not list((tmp_path / "known").glob(f"*/{artifacts.MANIFEST}")):
            assert running.poll() is None, running.stderr and running.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.005)
        os.kill(running.pid, signal.SIGKILL)
    assert not (tmp_path / "features").exists()


def test_a_changed_weight_file_makes_new_features(simulated: Path, tmp_path: Path) -> None:
    weights = tmp_path / "clip"
    settings = ("features.encoders=[clip]", f"features.clip.weights.source={weights}")
    made = []
    for turn, seed in enumerate((0, 1, 0)):
        shutil.rmtree(weights, ignore_errors=True)
        save_folder(weights, seed=seed)
        made.append(inodes(extract(simulated, tmp_path / f"features-{turn}", *settings)))
    assert made[0] == made[2]
    assert not set(made[0].values()) & set(made[1].values())


@pytest.fixture(scope="module")
def damaged(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One batch as it is, and one of which a packet in the middle is noise."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(simulated / "arrivals", folder / "arrivals")
    broken = sorted((folder / "arrivals").glob("furnace-*"))[0]
    seal(broken, lambda at: break_picture(at / "video.mp4", 700))
    call("ingest", arrivals=folder / "arrivals", out=folder / "batches")
    return folder


def break_picture(path: Path, at: int) -> None:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[at].pos, packets[at].size
    data = bytearray(path.read_bytes())
    data[place : place + size] = b"\xff" * size
    path.write_bytes(data)


CLIPPED = ("features.encoders=[clip]", "features.clip.take=frames")


def test_a_corrupt_picture_is_a_row_without_value_and_the_others_are_right(
    simulated: Path, damaged: Path, tmp_path: Path
) -> None:
    settings = (*CLIPPED, f"features.clip.weights.source={save_folder(tmp_path / 'clip')}")
    whole = open_features(extract(simulated, tmp_path / "whole", *settings))
    found = open_features(extract(damaged, tmp_path / "found", *settings))
    ours, expected = (set_.feature("furnace-0001", "clip") for set_ in (found, whole))
    assert ours is not None
    assert expected is not None
    lost = np.flatnonzero(~ours.valid)
    assert lost.size
    assert not ours.values[lost].any()
    facts = json.loads((found.folder / "furnace-0001/clip.json").read_text())
    assert set(facts["failed"]) == {str(row) for row in lost}
    assert "could not be decoded" in next(iter(facts["failed"].values()))
    np.testing.assert_array_equal(ours.values[: lost[0]], expected.values[: lost[0]])
    np.testing.assert_array_equal(ours.values[-60:], expected.values[-60:])
    counts = artifacts.open_artifact(found.folder).counts
    assert counts["clip_failed"] == lost.size


def test_more_failed_rows_than_allowed_leave_the_batch_out_and_a_higher_limit_takes_it(
    damaged: Path, tmp_path: Path
) -> None:
    settings = (*CLIPPED, f"features.clip.weights.source={save_folder(tmp_path / 'clip')}")
    known = tmp_path / "known"

    def manifest(share: float) -> artifacts.Manifest:
        limit = f"features.compute.max_failed_share={share}"
        return artifacts.open_artifact(
            extract(damaged, tmp_path / f"features-{share}", *settings, limit, known=known)
        )

    refused = manifest(0.0)
    assert set(refused.quarantined) == {"furnace-0001"}
    reason = refused.quarantined["furnace-0001"]
    assert "rows of clip failed; allowed 0 (compute.max_failed_share 0). The first: " in reason
    assert not manifest(0.5).quarantined
    again = manifest(0.0)
    assert "as was found before" in again.quarantined["furnace-0001"], "what is kept is held to it"


def test_features_made_without_a_store_are_published_when_there_is_one(
    simulated: Path, tmp_path: Path
) -> None:
    extract(simulated, tmp_path / "features", "features.encoders=[mel]")
    places = {"batches": simulated / "batches", "store": tmp_path / "store"}
    mel = "features.encoders=[mel]"
    call("extract", mel, **places, out=tmp_path / "again", known=tmp_path / "known")
    call("extract", mel, **places, out=tmp_path / "there", known=tmp_path / "other-machine")
    with progress.shown(_Silent()) as events:
        call("extract", mel, **places, out=tmp_path / "third", known=tmp_path / "third-machine")
        told = [json.loads(line) for line in events.read_text().splitlines()]
    (outcome,) = [event["text"] for event in told if event["event"] == "outcome"]
    rows = outcome.removeprefix("rows: mel ").split()[0]
    assert outcome == f"rows: mel {rows} ({rows} known)"


def test_an_output_that_is_an_input_is_refused_and_stays(simulated: Path, tmp_path: Path) -> None:
    shutil.copytree(simulated / "batches", tmp_path / "batches")
    with pytest.raises(UserError, match=r"another kind \(batch-set, not features\)"):
        call("extract", batches=tmp_path / "batches", out=tmp_path / "batches",
             captions=simulated / "captions")  # fmt: skip
    open_set(tmp_path / "batches")


def test_text_without_captions_is_refused(simulated: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--captions is missing, which features.encoders hashed"):
        call("extract", batches=simulated / "batches", out=tmp_path / "features")
    call("caption", "caption.source=none", batches=simulated / "batches", out=tmp_path / "none")
    with pytest.raises(UserError, match=r"none holds no captions, which features.encoders hashed"):
        call("extract", batches=simulated / "batches", captions=tmp_path / "none",
             out=tmp_path / "features")  # fmt: skip


@pytest.mark.slow
def test_actors_of_ray_give_the_same_features(simulated: Path, tmp_path: Path) -> None:
    weights = (
        "features.encoders=[clip, distilbert]",
        f"features.clip.weights.source={save_folder(tmp_path / 'clip')}",
        f"features.distilbert.weights.source={make_tiny_bert(tmp_path / 'bert')}",
    )
    many = ("features.compute.workers=2", "features.compute.batch_size=3")
    expected = open_features(extract(simulated, tmp_path / "one", *weights))
    known = tmp_path / "elsewhere"
    found = open_features(extract(simulated, tmp_path / "many", *weights, *many, known=known))
    assert found.modalities == expected.modalities
    for batch in expected.batches:
        for name in expected.modalities:
            ours, theirs = found.feature(batch, name), expected.feature(batch, name)
            assert ours is not None
            assert theirs is not None
            np.testing.assert_array_equal(ours.valid, theirs.valid)
            np.testing.assert_array_equal(ours.spans_s, theirs.spans_s)
            np.testing.assert_allclose(ours.values, theirs.values, atol=1e-6)


def test_a_recipe_that_needs_none_gets_empty_artifacts_with_the_reason(
    simulated: Path, tmp_path: Path
) -> None:
    nothing = ("caption.source=none", "features.encoders=[]")
    call("caption", *nothing, batches=simulated / "batches", out=tmp_path / "captions")
    places = {"batches": simulated / "batches", "captions": tmp_path / "captions"}
    call("extract", *nothing, **places, out=tmp_path / "features")
    assert "needs no captions" in artifacts.open_artifact(tmp_path / "captions").note
    found = open_features(tmp_path / "features")
    assert (found.batches, dict(found.modalities)) == ((), {})
    assert "needs no features" in artifacts.open_artifact(tmp_path / "features").note


def test_captions_of_another_batch_set_are_refused(simulated: Path, tmp_path: Path) -> None:
    call(
        "ingest",
        "ingest.frame_px=48",
        arrivals=simulated / "arrivals",
        out=tmp_path / "batches",
    )
    with pytest.raises(UserError, match=r"captions of another batch set. Run caption again"):
        call(
            "extract",
            batches=tmp_path / "batches",
            captions=simulated / "captions",
            out=tmp_path / "features",
        )
    assert not (tmp_path / "features").exists()


@pytest.fixture
def movable(simulated: Path, tmp_path: Path) -> Path:
    """The same deliveries in a place of their own, from which some may vanish."""
    shutil.copytree(simulated / "arrivals", tmp_path / "arrivals")
    call("ingest", arrivals=tmp_path / "arrivals", out=tmp_path / "batches")
    call("caption", batches=tmp_path / "batches", out=tmp_path / "captions")
    return tmp_path


def test_a_batch_whose_delivery_is_gone_is_left_out_with_the_reason(movable: Path) -> None:
    gone, stays = sorted(path.name for path in (movable / "arrivals").glob("furnace-*"))
    shutil.rmtree(movable / "arrivals" / gone)
    extract(movable, movable / "features")
    manifest = artifacts.open_artifact(movable / "features")
    assert set(manifest.quarantined) == {gone}
    assert manifest.quarantined[gone].startswith("motion: ")
    assert gone in manifest.quarantined[gone]
    found = open_features(movable / "features")
    assert found.feature(gone, "motion") is None
    assert found.feature(gone, "mel") is not None
    assert found.feature(stays, "motion") is not None


def test_with_every_delivery_gone_there_is_nothing_to_do(movable: Path) -> None:
    for path in (movable / "arrivals").glob("furnace-*"):
        shutil.rmtree(path)
    with pytest.raises(UserError, match=r"motion has no batch left. furnace-0001: "):
        extract(movable, movable / "features")
    assert not (movable / "features").exists()


def test_the_outcome_counts_rows_and_what_was_known(extracted: Path, tmp_path: Path) -> None:
    with progress.shown(_Silent()) as events:
        extract(extracted.parent, tmp_path / "features", known=extracted.parent / "known")
        told = [json.loads(line) for line in events.read_text().splitlines()]
    (outcome,) = [event["text"] for event in told if event["event"] == "outcome"]
    assert outcome.startswith("rows: motion ")
    assert outcome.count("known)") == 3


class _Silent:
    def show(self, event: dict) -> None: ...

    def close(self) -> None: ...
