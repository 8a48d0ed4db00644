"""Video files alone, and what becomes of a batch without labels."""

import json
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from deliveries import RATE_HZ, encode

from crosswatch import experiment, stages
from crosswatch.annotation.labels import open_labels
from crosswatch.config import plain
from crosswatch.data.adapters import open_adapter
from crosswatch.data.adapters.single import SingleAdapter
from crosswatch.data.batches import open_set
from crosswatch.data.ingestion import IngestConfig
from crosswatch.errors import BadBatchError, UserError

REAL = Path("../shared/data/furg_fire/house6.mp4")
ALONE = {
    "ingest": {"adapter": "single", "frame_px": 16},
    "windows": {"frames": 4, "stride": 2, "signal_s": 0.0},
    "model": {"modality": "visual"},
}


def film(path: Path, *, seconds: float = 20.0) -> Path:
    pictures = np.random.default_rng(1).integers(0, 255, (round(seconds * RATE_HZ), 32, 48, 3))
    encode(path, pictures.astype(np.uint8))
    return path


def film_with_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(30000, 1001))
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(30):
            picture = np.zeros((32, 48, 3), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), "s16", "mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def ingested(source: Path, out: Path) -> None:
    settings = experiment.resolve("fmformer-furnace", ALONE)
    stages.run("ingest", values=plain(settings), paths={"arrivals": source, "out": out / "batches"})
    stages.run(
        "refine", values=plain(settings), paths={"batches": out / "batches", "out": out / "labels"}
    )


def test_a_file_and_a_folder_of_files_are_batches_of_their_names(tmp_path: Path) -> None:
    film(tmp_path / "one.mp4")
    film(tmp_path / "Nr. 2.MKV")
    film(tmp_path / ".hidden.mp4")
    (tmp_path / "notes.txt").write_text("no video")
    adapter = open_adapter(IngestConfig(adapter="single"))
    found = adapter.find(tmp_path)
    assert [re.sub("-[0-9a-f]{8}$", "", a.id) for a in found.arrivals] == ["Nr.-2", "one"]
    assert adapter.find(tmp_path / "one.mp4").arrivals == found.arrivals[1:]
    raw = adapter.read(found.arrivals[1])
    assert (raw.video.rate_hz, raw.signal, raw.audio) == (RATE_HZ, None, None)


def test_the_rate_is_the_streams_and_its_sound_is_on_its_clock(tmp_path: Path) -> None:
    adapter = SingleAdapter()
    (arrival,) = adapter.find(film_with_sound(tmp_path / "a.mp4")).arrivals
    raw = adapter.read(arrival)
    assert raw.video.rate_hz == pytest.approx(30000 / 1001)
    assert raw.audio is not None
    assert (raw.audio.path, raw.audio.clock) == (tmp_path / "a.mp4", raw.video.clock)


def test_a_batch_without_labels_is_normal_throughout(tmp_path: Path) -> None:
    ingested(film(tmp_path / "one.mp4"), tmp_path)
    batch_set = open_set(tmp_path / "batches")
    (made,) = batch_set.batches
    labels = open_labels(tmp_path / "labels", made)
    assert len(labels.classes) == len(made.frames) == 20 * RATE_HZ
    assert not labels.classes.any()
    assert labels.masks is not None
    assert not labels.masks.any()
    told = json.loads((tmp_path / "labels" / "scores.json").read_text())
    assert (told["held_out_keyframe_iou"], told["keyframes"]) == (None, 0)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / "a.mkv").write_bytes(b"2")
    with pytest.raises(UserError, match=r"a\.mp4' and .*a\.mkv' both give a batch 'a'\. Rename"):
        SingleAdapter().find(tmp_path)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no video file and holds none\. Known are \.mp4"):
        SingleAdapter().find(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind" * 20)
    adapter = SingleAdapter()
    (arrival,) = adapter.find(tmp_path).arrivals
    with pytest.raises(BadBatchError, match=r"^a\.mp4: cannot be opened as a video: .*380 bytes"):
        adapter.read(arrival)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data/furg_fire is absent")
def test_a_real_video_is_ingested(tmp_path: Path) -> None:
    ingested(REAL, tmp_path)
    (made,) = open_set(tmp_path / "batches").batches
    assert (made.id, len(made.frames)) == ("house6", 899)
    assert made.video_rate_hz == pytest.approx(29.97, abs=0.01)
