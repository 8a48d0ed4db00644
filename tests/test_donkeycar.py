"""A tub as donkeycar writes it: pictures and controls a record, without labels."""

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from crosswatch.data.adapters.donkeycar import DonkeycarAdapter
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.layouts import DonkeycarConfig
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.errors import UserError

REAL = Path("../shared/data/donkeycar_tub/tub.tar.gz")
COUNT = 200


def config(**changes: Any) -> IngestConfig:
    return IngestConfig(adapter="donkeycar", frame_px=16, donkeycar=DonkeycarConfig(**changes))


def record(at: int) -> dict[str, Any]:
    return {
        "_index": at,
        "_timestamp_ms": 1_600_000_000_000 + 3 * at,  # as a conversion leaves it: no time
        "cam/image_array": f"{at}_cam_image_array_.jpg",
        "user/angle": at / COUNT,
        "user/throttle": 0.5,
        "user/mode": "user",
    }


def tub(folder: Path, *, deleted: tuple[int, ...] = (), records: list[Any] | None = None) -> Path:
    (folder / "images").mkdir(parents=True)
    for at in range(COUNT):
        picture = np.full((24, 32, 3), (at, 0, 255), np.uint8)  # OpenCV's order: red is last
        cv2.imwrite(str(folder / "images" / f"{at}_cam_image_array_.jpg"), picture)
    lines = [json.dumps(each) for each in records or map(record, range(COUNT))]
    (folder / "catalog_0.catalog").write_text("\n".join(lines[: COUNT // 2]) + "\n")
    (folder / "catalog_1.catalog").write_text("\n".join(lines[COUNT // 2 :]) + "\n")
    paths = ["catalog_0.catalog", "catalog_1.catalog"]
    manifest(folder, {"paths": paths, "current_index": COUNT, "deleted_indexes": list(deleted)})
    return folder


def manifest(folder: Path, last: Any) -> None:
    lines = [["cam/image_array"], ["image_array"], {}, {"created_at": 1.6e9}, last]
    (folder / "manifest.json").write_text("\n".join(map(json.dumps, lines)))


def only(source: Path, **changes: Any):
    adapter = DonkeycarAdapter(config(**changes))
    (arrival,) = adapter.find(source).arrivals
    return adapter.read(arrival)


def test_a_record_is_a_picture_and_a_sample_at_its_number(tmp_path: Path) -> None:
    raw = only(tub(tmp_path / "run one"), rate_hz=10.0)
    assert re.fullmatch(r"run-one-[0-9a-f]{8}", raw.id)
    np.testing.assert_allclose(raw.video.times_s, np.arange(COUNT) / 10)
    np.testing.assert_array_equal(raw.video.times_s, raw.signal.times_s)
    np.testing.assert_allclose(raw.signal.values[:, 0], np.arange(COUNT) / COUNT)
    assert (raw.signal.columns, raw.signal.unit) == (("angle", "throttle"), "1")
    assert (raw.events, raw.keyframes, raw.masks) == ((), (), None)
    seen = dict(raw.video.pictures)
    assert list(seen) == list(range(COUNT))
    for at, picture in seen.items():
        np.testing.assert_allclose(picture.mean(axis=(0, 1)), (255, 0, at), atol=6)


def test_clocks_are_apart_unless_they_are_known_to_be_one(tmp_path: Path) -> None:
    tub(tmp_path)
    apart, together = only(tmp_path), only(tmp_path, one_clock=True)
    assert (apart.video.clock, apart.signal.clock) == ("camera", "control")
    assert together.video.clock == together.signal.clock


def test_deleted_records_are_left_out_and_the_others_keep_their_time(tmp_path: Path) -> None:
    raw = only(tub(tmp_path, deleted=(0, 7, 150)))
    kept = [at for at in range(COUNT) if at not in (0, 7, 150)]
    np.testing.assert_allclose(raw.video.times_s, np.array(kept) / 20)
    np.testing.assert_allclose(raw.signal.values[:, 0], np.array(kept) / COUNT)


def test_contents_are_the_digest(tmp_path: Path) -> None:
    adapter = DonkeycarAdapter(config())
    tub(tmp_path / "one")
    tub(tmp_path / "two", deleted=(3,))
    first, second = adapter.find(tmp_path).arrivals
    assert first.digest != second.digest
    assert adapter.find(tmp_path / "one").arrivals == (first,)
    (tmp_path / "one" / "images" / "9_cam_image_array_.jpg").write_bytes(b"")
    assert adapter.find(tmp_path / "one").arrivals[0].digest != first.digest


def test_a_broken_picture_repeats_the_one_before(tmp_path: Path) -> None:
    tub(tmp_path / "tub")
    (tmp_path / "tub" / "images" / "9_cam_image_array_.jpg").write_bytes(b"no picture")
    (tmp_path / "tub" / "images" / "10_cam_image_array_.jpg").unlink()
    raw = only(tmp_path / "tub", one_clock=True)
    (tmp_path / "out").mkdir()
    ingest = config(one_clock=True)
    summary = write_batch(raw, tmp_path / "out", ingest=ingest, sync=SyncConfig())
    frames = np.load(tmp_path / "out" / "frames.npy")
    assert summary.counts["frames_repaired"] == 2
    np.testing.assert_array_equal(frames[9], frames[8])
    np.testing.assert_array_equal(frames[10], frames[8])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "catalog": (lambda t: (t / "catalog_1.catalog").unlink(), r"'catalog_1\.catalog': is missing"),
    "manifest": (lambda t: manifest(t, {"paths": "x"}), r"its last line has to name the catalogs"),
    "text": (lambda t: (t / "manifest.json").write_text("{"), r"manifest\.json: row 1 is not JSON"),
    "out": (lambda t: manifest(t, {"paths": ["../x"]}), r"'\.\./x': is no file name inside"),
    "picture": (
        lambda t: (t / "catalog_1.catalog").write_text(
            json.dumps({"_index": 1, "cam/image_array": "../../x.jpg"})
        ),
        r"is no file name inside",
    ),
    "number": (
        lambda t: (t / "catalog_1.catalog").write_text('{"_index": "a"}\n'),
        r"catalog_1\.catalog: row 1: has no number _index",
    ),
    "line": (
        lambda t: (t / "catalog_1.catalog").write_text('\n[1, 2\n'),
        r"catalog_1\.catalog: row 2 is not JSON",
    ),
    "twice": (
        lambda t: (t / "catalog_1.catalog").write_text(json.dumps(record(5))),
        r"row 1: record 5 comes twice",
    ),
    "all deleted": (
        lambda t: manifest(
            t, {"paths": ["catalog_0.catalog"], "deleted_indexes": list(range(COUNT))}
        ),
        r"0 of 100 records are not deleted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_one_line(tmp_path: Path, fault: str) -> None:
    cause, words = FAULTS[fault]
    cause(tub(tmp_path / "tub"))
    found = DonkeycarAdapter(config()).find(tmp_path)
    assert not found.arrivals
    assert re.search(words, found.unreadable["tub"]), found.unreadable["tub"]
    assert "\n" not in found.unreadable["tub"]


def test_a_reading_that_is_missing_is_no_number(tmp_path: Path) -> None:
    records = [record(at) for at in range(COUNT)]
    del records[4]["user/throttle"]
    records[5]["user/angle"] = None
    raw = only(tub(tmp_path, records=records))
    assert np.argwhere(np.isnan(raw.signal.values)).tolist() == [[4, 1], [5, 0]]


def test_a_folder_without_a_tub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no donkeycar tub\. .* unpack an archive first"):
        DonkeycarAdapter(config()).find(tmp_path)
    with pytest.raises(UserError, match="rate_hz is 0"):
        config(rate_hz=0.0)


@pytest.mark.skipif(not REAL.is_file(), reason="../shared/data/donkeycar_tub is absent")
def test_a_real_tub_is_read_whole(tmp_path: Path) -> None:
    with tarfile.open(REAL) as archive:
        archive.extractall(tmp_path, filter="data")
    raw = only(tmp_path / "tub", one_clock=True)
    (tmp_path / "out").mkdir()
    ingest = config(one_clock=True)
    summary = write_batch(raw, tmp_path / "out", ingest=ingest, sync=SyncConfig())
    assert (summary.counts["frames"], summary.counts["samples"]) == (1000, 1000)
    assert summary.counts["frames_repaired"] == 0
