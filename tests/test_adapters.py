"""Deliveries: what is accepted, and every fault caused on real files."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.io
from deliveries import RATE_HZ, Scene, deliver, edit_json, encode, film, seal, write_sums
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.adapters import arrival as arrival_module
from crosswatch.data.adapters.arrival import ArrivalAdapter, safe_path
from crosswatch.data.adapters.itsc import CLASSES, ItscAdapter
from crosswatch.data.batches import open_batch
from crosswatch.data.ingestion import IngestConfig, RawBatch, write_batch
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.video.decode import plan_frames
from crosswatch.errors import BadBatchError, UserError

GIVEN = SyncConfig(estimate="given", camera_lag_s=0.7)
REAL_ITSC = Path(__file__).parents[1].parent / "shared" / "data" / "itsc_motor_current"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deliver(tmp_path_factory.mktemp("original"), scene=Scene(seconds=40.0))


@pytest.fixture
def delivery(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "arrivals" / original.name))


def read(folder: Path) -> RawBatch:
    (arrival,) = ArrivalAdapter().find(folder).arrivals
    return ArrivalAdapter().read(arrival)


def ingest(folder: Path, out: Path) -> RawBatch:
    """All of what the ingest stage does with one delivery."""
    raw = read(folder)
    out.mkdir()
    write_batch(raw, out, ingest=IngestConfig(frame_px=16), sync=GIVEN)
    return raw


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(change((folder / name).read_text()))

    return apply


def edit_row(name: str, row: int, text: str | None) -> Callable[[Path], None]:
    """Replace a row, counted from 1 with the header as the first; None removes it."""

    def change(content: str) -> str:
        lines = content.splitlines()
        lines[row - 1 : row] = [] if text is None else [text]
        return "\n".join(lines) + "\n"

    return edit(name, change)


def blank_column(folder: Path) -> None:
    lines = (folder / "signal.csv").read_text().splitlines()
    rows = [",".join([*line.split(",")[:2], "nan", line.split(",")[3]]) for line in lines[1:]]
    (folder / "signal.csv").write_text("\n".join([lines[0], *rows]) + "\n")


def cut(name: str, share: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return apply


def cut_behind_index(folder: Path) -> None:
    """A video that can be played while it loads, half loaded."""
    pictures = film(Scene(seconds=40.0), np.arange(400) / RATE_HZ)
    encode(folder / "video.mp4", pictures, index_first=True)
    cut("video.mp4", 0.6)(folder)


def wreck(folder: Path) -> None:
    """Overwrite the middle half of the compressed pictures."""
    data = bytearray((folder / "video.mp4").read_bytes())
    start = data.index(b"mdat") + 64
    stop = data.index(b"moov") - 8
    data[start:stop] = os.urandom(stop - start)
    (folder / "video.mp4").write_bytes(bytes(data))


def in_description(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "batch.json", lambda told: change(told) and None)


def in_notes(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "annotations.json", lambda told: change(told) and None)


def with_sound(folder: Path, **entry: object) -> None:
    (folder / "audio.wav").write_bytes(b"RIFF")
    audio = {"file": "audio.wav", "rate_hz": 16_000.0} | entry
    in_description(lambda told: told["streams"].update(audio=audio))(folder)


def in_stream(name: str, **values: object) -> Callable[[Path], None]:
    return in_description(lambda told: told["streams"][name].update(values))


FAULTS = {
    "video missing": (
        lambda folder: (folder / "video.mp4").unlink(),
        r"video\.mp4: batch\.json names it, but SHA256SUMS does not",
    ),
    "video empty": (cut("video.mp4", 0.0), r"video\.mp4: is empty \(0 bytes\)"),
    "video truncated": (cut("video.mp4", 0.6), r"video\.mp4: cannot be opened.*truncated"),
    "video truncated behind its index": (
        cut_behind_index,
        r"video\.mp4: is truncated: \d+ of the 400 frames that it announces are there; 99 %",
    ),
    "video undecodable": (wreck, r"video\.mp4: \d+ of 400 frames cannot be decoded; allowed 4"),
    "no video": (
        lambda folder: (folder / "video.mp4").write_text("no video " * 50),
        r"video\.mp4: cannot be opened as a video",
    ),
    "video shorter than its times": (
        edit(
            "video_times.csv",
            lambda text: text + "".join(f"{n},{n / 10:.4f}\n" for n in range(400, 440)),
        ),
        r"video\.mp4: is shorter than its times file: 400 frames, 440 times; a difference of 4",
    ),
    "signal empty": (cut("signal.csv", 0.0), r"signal\.csv: is empty \(0 bytes\)"),
    "signal without rows": (
        edit("signal.csv", lambda text: text.splitlines()[0] + "\n"),
        r"signal\.csv: has a header and no rows",
    ),
    "signal header": (
        edit_row("signal.csv", 1, "time_s,phase_a,phase_x,phase_c"),
        r"signal\.csv: wrong header: column 'phase_b' is missing; found time_s, phase_a, phase_x",
    ),
    "times header": (
        edit_row("video_times.csv", 1, "frame,t"),
        r"video_times\.csv: wrong header: column 'time_s' is missing; found frame, t",
    ),
    "signal unparsable": (
        edit_row("signal.csv", 7, "2.5,1.0,abc,3.0"),
        r"signal\.csv: row 7, column phase_b: 'abc' is not a number",
    ),
    "signal ragged": (
        edit_row("signal.csv", 9, "3.5,1.0"),
        r"signal\.csv: row 9 has 2 cells where the header has 4",
    ),
    "time unparsable": (
        edit_row("video_times.csv", 30, "28,soon"),
        r"video_times\.csv: row 30, column time_s: 'soon' is not a number",
    ),
    "time missing": (
        edit_row("signal.csv", 5, ",1.0,2.0,3.0"),
        r"signal\.csv: row 5: time_s is no finite number",
    ),
    "signal time backwards": (
        edit_row("signal.csv", 12, "0.25,1.0,2.0,3.0"),
        r"signal\.csv: time runs backwards at row 12: 4\.500 s, then 0\.250 s",
    ),
    "video time backwards": (
        edit_row("video_times.csv", 52, "50,1.0"),
        r"video_times\.csv: time runs backwards at row 52: 4\.900 s, then 1\.000 s",
    ),
    "frame numbers": (
        edit_row("video_times.csv", 20, "77,1.8"),
        r"video_times\.csv: row 20: frame is 77; 18 was expected",
    ),
    "all NaN": (blank_column, r"signal\.csv: column phase_b: all samples are NaN"),
    "many NaN": (
        edit(
            "signal.csv",
            lambda text: "\n".join(
                line.rsplit(",", 1)[0] + ",nan" if 5 <= at < 15 else line
                for at, line in enumerate(text.splitlines())
            ),
        ),
        r"column phase_c: 12\.5% of the samples are NaN \(first at row 6\); allowed 5\.0%",
    ),
    "wrong rate": (
        in_description(lambda told: told["streams"]["signal"].update(rate_hz=5.0)),
        r"signal\.csv: its times say 2 Hz, batch\.json declares 5 Hz",
    ),
    "not JSON": (edit("batch.json", lambda text: text[:-4]), r"batch\.json: is not JSON"),
    "not an object": (edit("batch.json", lambda _: "[1]"), r"batch\.json: expected a section"),
    "unknown key": (
        in_description(lambda told: told.update(annotation=told.pop("annotations"))),
        r"batch\.json: unknown key 'annotation'.*Did you mean 'annotations'",
    ),
    "missing key": (in_description(lambda told: told.pop("plant")), r"batch\.json: lacks plant"),
    "wrong type": (
        in_description(lambda told: told["streams"]["video"].update(rate_hz="25")),
        r"batch\.json\.streams\.video\.rate_hz: expected float, found str",
    ),
    "zero rate": (
        in_description(lambda told: told["streams"]["video"].update(rate_hz=0)),
        r"streams\.video\.rate_hz: 0 is no rate",
    ),
    "no streams": (
        in_description(lambda told: told.update(streams={})),
        r"declares neither video nor signal",
    ),
    "no columns": (
        in_description(lambda told: told["streams"]["signal"].update(columns=[])),
        r"columns: is empty",
    ),
    "other id": (
        in_description(lambda told: told.update(id="batch-2")),
        r"batch\.json: id 'batch-2' does not fit the folder 'batch-1'",
    ),
    "local time": (
        in_description(lambda told: told.update(started_at="2025-01-06T06:00:00+02:00")),
        r"started_at: 2025-01-06T06:00:00\+02:00 is not UTC",
    ),
    "no date": (
        in_description(lambda told: told.update(started_at="yesterday")),
        r"started_at: 'yesterday' is no ISO date",
    ),
    "unlisted stream": (
        in_description(lambda told: told["streams"]["signal"].update(file="other.csv")),
        r"other\.csv: batch\.json names it, but SHA256SUMS does not",
    ),
    "unknown class": (
        in_notes(lambda told: told["events"][0].update({"class": "molten"})),
        r"annotations: unknown class 'molten'; ingest\.classes are normal, semi_molten",
    ),
    "event backwards": (
        in_notes(lambda told: told["events"][0].update(offset_s=3.0)),
        r"annotations\.json\.events\[0\]: onset 20 s, apex 24 s, offset 3 s",
    ),
    "empty box": (
        in_notes(lambda told: told["keyframes"][0].update(box_xywh_px=[1, 1, 0, 4])),
        r"annotations\.json\.keyframes\[0\].*with an area",
    ),
    "doubled column": (
        edit_row("signal.csv", 1, "time_s,phase_a,phase_b,phase_c,phase_b"),
        r"signal\.csv: wrong header: column 'phase_b' is there 2 times; once is allowed",
    ),
    "doubled declaration": (
        in_description(lambda told: told["streams"]["signal"].update(columns=["a", "b", "a"])),
        r"signal\.columns: a, b, a, time_s: a name comes twice",
    ),
    "huge number": (
        in_description(lambda told: told["streams"]["video"].update(rate_hz=10**400)),
        r"video\.rate_hz: a whole number of 1329 bits is too large",
    ),
    "endless number": (
        edit("batch.json", lambda text: text.replace("10.0", "9" * 5000, 1)),
        r"batch\.json: is not JSON: Exceeds the limit",
    ),
    "unknown key of a time": (
        in_stream("signal", time={"resolution": 1}),
        r"streams\.signal\.time: unknown key 'resolution'.*Did you mean 'resolution_s'",
    ),
    "unknown kind of time": (
        in_stream("signal", time={"kind": "locale"}),
        r"streams\.signal\.time\.kind: 'locale' is not one of .*Did you mean 'local'",
    ),
    "time that contradicts itself": (
        in_stream("video", time={"zone": "Europe/Berlin"}),
        r"streams\.video\.time: zone belongs to kind local; kind is seconds",
    ),
    "time of no table": (
        lambda folder: (
            in_description(lambda told: told["streams"]["video"].pop("times"))(folder)
            or in_stream("video", trigger="flash")(folder)
        ),
        r"streams\.video: time and trigger say how the table `times` is to be read",
    ),
    "trigger that is a value": (
        in_stream("signal", trigger="phase_a"),
        r"signal\.columns: phase_a, phase_b, phase_c, time_s, phase_a: a name comes twice",
    ),
    "trigger that is missing": (
        in_stream("signal", trigger="flash"),
        r"signal\.csv: wrong header: column 'flash' is missing",
    ),
    "trigger that is no trigger": (
        in_stream("signal", columns=["phase_a", "phase_b"], trigger="phase_c"),
        r"signal\.csv: row 2, column phase_c: \d+\.?\d* is neither 0 nor 1 \(80 such rows\)",
    ),
    "ticks that are no whole numbers": (
        in_stream("signal", time={"kind": "ticks", "tick_hz": 1000}),
        r"signal\.csv: row 2, column time_s: '0\.0000' is no whole number",
    ),
    "dates that are numbers": (
        in_stream("signal", time={"kind": "utc"}),
        r"signal\.csv: row 2, column time_s: '0\.0000' is no such date; write dates as 2025-",
    ),
    "rate of sound": (
        lambda folder: with_sound(folder, rate_hz=0),
        r"streams\.audio\.rate_hz: 0 is no rate",
    ),
    "start of sound": (
        edit(
            "batch.json",
            lambda text: text.replace(
                '"signal": {',
                '"audio": {"file": "video.mp4", "rate_hz": 8000, "start_s": NaN}, "signal": {',
            ),
        ),
        r"streams\.audio\.start_s: nan is no time",
    ),
    "sound outside of the folder": (
        lambda folder: with_sound(folder, file="../audio.wav"),
        r"\.\./audio\.wav: batch\.json names it, but SHA256SUMS does not",
    ),
    "foreign clock": (
        in_notes(lambda told: told.update(clock="wall")),
        r"annotations\.json\.clock: no stream has the clock 'wall'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_leaves_the_delivery_untouched(
    fault: str, delivery: Path, tmp_path: Path
) -> None:
    change, message = FAULTS[fault]
    seal(delivery, change)
    before = contents(delivery)
    with pytest.raises(BadBatchError, match=message) as caught:
        ingest(delivery, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert contents(delivery) == before


def test_a_sound_delivery_is_read_and_left_untouched(delivery: Path, tmp_path: Path) -> None:
    before = contents(delivery)
    raw = ingest(delivery, tmp_path / "out")
    assert contents(delivery) == before
    assert (raw.id, raw.plant, raw.warnings) == ("batch-1", "test-plant", ())
    assert raw.signal is not None
    assert raw.signal.values.shape == (80, 3)
    assert raw.video is not None
    assert raw.video.times_s is not None
    assert raw.video.times_s.shape == (400,)
    assert [event.class_name for event in raw.events] == ["semi_molten"]
    assert raw.frame_size_px == (32, 32)


def test_a_changed_byte_is_a_checksum_mismatch(delivery: Path) -> None:
    edit_row("signal.csv", 4, "1.0,1,2,3")(delivery)
    with pytest.raises(BadBatchError, match=r"signal\.csv: checksum mismatch: .*SHA256SUMS row 3"):
        read(delivery)


def test_a_listed_file_that_is_gone_is_named(delivery: Path) -> None:
    (delivery / "video.mp4").unlink()
    with pytest.raises(BadBatchError, match=r"video\.mp4: is missing though SHA256SUMS lists it"):
        read(delivery)


def test_a_fault_of_the_disk_is_no_fault_of_the_batch(delivery: Path, monkeypatch) -> None:
    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    (arrival,) = ArrivalAdapter().find(delivery).arrivals
    monkeypatch.setattr("crosswatch.data.adapters.arrival.sha256_of", fail)
    with pytest.raises(OSError, match="Input/output error"):
        ArrivalAdapter().read(arrival)


def test_sums_that_may_not_be_read_cost_only_their_batch(delivery: Path, monkeypatch) -> None:
    other = Path(shutil.copytree(delivery, delivery.with_name("batch-2")))
    real = arrival_module.sha256_of

    def refuse(path: Path) -> str:
        if path.parent == other:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(arrival_module, "sha256_of", refuse)
    found = ArrivalAdapter().find(delivery.parent)
    assert [arrival.id for arrival in found.arrivals] == ["batch-1"]
    assert "SHA256SUMS: cannot be read: Permission denied" in found.unreadable["batch-2"]


@pytest.mark.parametrize("name", ["set.json", "Manifest.json", "scores.json"])
def test_an_id_that_is_a_files_name_is_refused(original: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(original, tmp_path / name))
    seal(folder, in_description(lambda told: told.update(id=name)))
    with pytest.raises(BadBatchError, match="is a name that Crosswatch keeps for itself"):
        read(folder)


def test_a_title_in_a_strange_alphabet_does_not_matter(delivery: Path) -> None:
    shutil.move(delivery / "video.mp4", delivery / "plain.mp4")
    with (
        av.open(str(delivery / "plain.mp4")) as source,
        av.open(str(delivery / "video.mp4"), "w") as target,
    ):
        target.metadata["title"] = "Furnace"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    (delivery / "plain.mp4").unlink()
    data = (delivery / "video.mp4").read_bytes()
    assert data.count(b"Furnace") == 1
    (delivery / "video.mp4").write_bytes(data.replace(b"Furnace", b"\xd6fen \xff1"))
    write_sums(delivery)
    raw = read(delivery)
    assert raw.video is not None
    assert plan_frames(raw.video, max_bad_share=0.01).times_s.size == 400


def test_late_extra_files_are_a_warning(delivery: Path) -> None:
    (delivery / "operator.txt").write_text("all calm")
    assert read(delivery).warnings == ("late extra file operator.txt: not in SHA256SUMS, not read",)


def test_what_has_not_arrived_is_named_and_left_alone(delivery: Path) -> None:
    waiting = Path(shutil.copytree(delivery, delivery.with_name("batch-2")))
    (waiting / "SHA256SUMS").unlink()
    delivery.with_name(".upload").mkdir()
    found = ArrivalAdapter().find(delivery.parent)
    assert [arrival.id for arrival in found.arrivals] == ["batch-1"]
    assert found.not_arrived == ("batch-2",)


def test_one_batch_folder_is_a_source_too(delivery: Path) -> None:
    alone, among = ArrivalAdapter().find(delivery), ArrivalAdapter().find(delivery.parent)
    assert alone.arrivals == among.arrivals


def test_the_digest_follows_the_contents(delivery: Path) -> None:
    (before,) = ArrivalAdapter().find(delivery).arrivals
    seal(delivery, edit_row("signal.csv", 4, "1.0,1,2,3"))
    (after,) = ArrivalAdapter().find(delivery).arrivals
    assert before.digest != after.digest


def test_a_source_without_batches_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        ArrivalAdapter().find(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no batch"):
        ArrivalAdapter().find(tmp_path)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/../../b", "a\\b", "a\0b", "", "."]
)
def test_names_never_lead_out_of_the_folder(delivery: Path, name: str) -> None:
    (delivery.parent / "secret").write_text("x")
    with pytest.raises(BadBatchError, match="no file name inside"):
        safe_path(delivery, name)


def test_a_link_out_of_the_folder_is_refused(delivery: Path) -> None:
    outside = delivery.parent / "signal.csv"
    shutil.move(delivery / "signal.csv", outside)
    (delivery / "signal.csv").symlink_to(outside)
    with pytest.raises(BadBatchError, match=r"'signal\.csv': is no file name inside"):
        read(delivery)


def test_a_hostile_sums_file_is_refused(delivery: Path) -> None:
    (delivery / "SHA256SUMS").write_text(f"{'0' * 64}  ../../../../etc/hostname\n")
    with pytest.raises(BadBatchError, match="no file name inside"):
        read(delivery)
    (delivery / "SHA256SUMS").write_text("surprise\n")
    with pytest.raises(
        BadBatchError, match=r"SHA256SUMS: row 1: 'surprise' is no line of sha256sum"
    ):
        read(delivery)


@pytest.mark.parametrize("name", [".batch", "batch 1", "-rf", "b" * 101, "bätch"])
def test_an_id_that_is_no_safe_folder_name_is_refused(
    original: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(original, tmp_path / name))
    seal(folder, in_description(lambda told: told.update(id=name)))
    with pytest.raises(BadBatchError, match="does not fit the folder"):
        read(folder)


@settings(max_examples=60, deadline=None)
@given(name=st.text(max_size=30))
def test_any_name_stays_inside_or_is_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        path = safe_path(folder, name)
    except BadBatchError:
        return
    assert path.resolve().is_relative_to(folder.resolve())


def test_a_parquet_signal_reads_as_its_csv_does(delivery: Path) -> None:
    from pyarrow import csv, parquet

    expected = read(delivery).signal

    def convert(folder: Path) -> None:
        parquet.write_table(csv.read_csv(folder / "signal.csv"), folder / "signal.parquet")
        edit_json(
            folder / "batch.json",
            lambda told: told["streams"]["signal"].update(file="signal.parquet"),
        )

    found = read(seal(delivery, convert)).signal
    assert expected is not None
    assert found is not None
    np.testing.assert_array_equal(found.values, expected.values)
    seal(delivery, lambda folder: (folder / "signal.parquet").write_text("none"))
    with pytest.raises(BadBatchError, match=r"signal\.parquet: is no Parquet file"):
        read(delivery)


def test_a_stream_that_is_not_declared_is_simply_absent(delivery: Path, tmp_path: Path) -> None:
    seal(delivery, in_description(lambda told: told["streams"].pop("video")))
    ingest(delivery, tmp_path / "out")
    batch = open_batch(tmp_path / "out", batch_id="batch-1", digest="d")
    assert batch.frames is None
    assert batch.video_rate_hz == 0.0
    assert batch.sync["streams"]["signal"]["method"] == "one stream, nothing to align"
    assert batch.keyframes == ()


def restamp(folder: Path, name: str, stamps: Sequence[object], **time: object) -> Path:
    """Rewrite the last part of a delivery's declaration and the times that it is about."""
    table = {"video": "video_times.csv", "signal": "signal.csv"}[name]
    header, *rows = (folder / table).read_text().splitlines()
    at = header.split(",").index("time_s")
    cells = [row.split(",") for row in rows]
    lines = [
        ",".join([*row[:at], str(stamp), *row[at + 1 :]])
        for row, stamp in zip(cells, stamps, strict=True)
    ]
    (folder / table).write_text("\n".join([header, *lines]) + "\n")
    in_stream(name, time=time)(folder)
    write_sums(folder)
    return folder


def utc_stamps(count: int, rate_hz: float, *, zone: str = "UTC") -> list[str]:
    """As `started_at` of tests/deliveries.py has it, on the hour of another zone."""
    start = np.datetime64("2025-01-06T06:00:00", "ms")
    hours = {"UTC": 0, "Europe/Berlin": 1, "Asia/Tokyo": 9}[zone]
    steps_ms = (np.arange(count) * 1000 / rate_hz).astype(int) + hours * 3_600_000
    return [str(start + np.timedelta64(int(step_ms), "ms")) for step_ms in steps_ms]


TIMES_S = np.arange(80) / 2.0
WRITTEN = {
    "seconds": (TIMES_S + 5, {}, TIMES_S + 5),
    "ticks": (np.arange(80) * 500, {"kind": "ticks", "tick_hz": 1000}, TIMES_S),
    "ticks that roll over": (
        (np.arange(80) * 500 + 65_000) % 65_536,
        {"kind": "ticks", "tick_hz": 1000.0, "bits": 16},
        TIMES_S + 65.0,
    ),
    "utc": (utc_stamps(80, 2.0), {"kind": "utc"}, TIMES_S),
    "utc with Z": ([f"{text}Z" for text in utc_stamps(80, 2.0)], {"kind": "utc"}, TIMES_S),
    "utc with an offset": (
        [f"{text}+09:00" for text in utc_stamps(80, 2.0, zone="Asia/Tokyo")],
        {"kind": "utc"},
        TIMES_S,
    ),
    "local": (
        [text.replace("T", " ") for text in utc_stamps(80, 2.0, zone="Europe/Berlin")],
        {"kind": "local", "zone": "Europe/Berlin"},
        TIMES_S,
    ),
    "whole seconds": (
        [text[:19] for text in utc_stamps(80, 2.0)],
        {"kind": "utc", "resolution_s": 1},
        TIMES_S,
    ),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("parquet", [False, True], ids=["csv", "parquet"])
def test_times_are_read_as_they_are_written(written: str, parquet: bool, delivery: Path) -> None:
    stamps, time, expected = WRITTEN[written]
    restamp(delivery, "signal", stamps, **time)
    if parquet:
        seal(delivery, as_parquet)
    raw = read(delivery)
    assert raw.signal is not None
    np.testing.assert_allclose(raw.signal.times_s, expected, rtol=0, atol=1e-9)
    rolled = ("its counter of 16 bits rolled over 1 times",) if "roll" in written else ()
    assert tuple(text.partition(": ")[2] for text in raw.warnings) == rolled


def as_parquet(folder: Path) -> None:
    """Dates become timestamps there, with their zone where they have one."""
    from pyarrow import csv, parquet

    parquet.write_table(csv.read_csv(folder / "signal.csv"), folder / "signal.parquet")
    in_stream("signal", file="signal.parquet")(folder)


BAD_DATES = {
    "2025-02-30T00:00:00": r"row 4, column time_s: '2025-02-30T00:00:00' is no such date",
    "2025-01-06T06:00:60": r"row 4, column time_s: '2025-01-06T06:00:60' is no such date",
    "06.01.2025 06:00:01": r"row 4, column time_s: '06\.01\.2025 06:00:01' is no such date",
    "0001-01-01T00:00:00": r"row 4, column time_s: '0001-01-01T00:00:00' is no such date",
    "": r"row 4, column time_s: '' is no such date",
    "2025-01-06T06:00:01Z": r"row 4, .* is written in another way than '2025-01-06T06:00:00",
    "2025-01-06 06:00:01": r"row 4, .* is written in another way .* \(1 such rows\)",
}


@pytest.mark.parametrize("text", BAD_DATES)
def test_a_date_that_is_none_or_written_otherwise_is_refused_with_its_row(
    text: str, delivery: Path
) -> None:
    stamps = utc_stamps(80, 2.0)
    stamps[2] = text
    with pytest.raises(BadBatchError, match=r"signal\.csv: " + BAD_DATES[text]):
        read(restamp(delivery, "signal", stamps, kind="utc"))


def test_a_zone_in_the_stamps_of_a_local_clock_is_refused(delivery: Path) -> None:
    stamps = [f"{text}Z" for text in utc_stamps(80, 2.0)]
    berlin = {"kind": "local", "zone": "Europe/Berlin"}
    with pytest.raises(BadBatchError, match=r"row 2, column time_s: .*only where batch\.json says"):
        read(restamp(delivery, "signal", stamps, **berlin))
    seal(delivery, as_parquet)
    with pytest.raises(BadBatchError, match=r"time_s has the zone 'UTC' already; declare it as"):
        read(delivery)


def test_another_column_may_hold_the_times(delivery: Path) -> None:
    seal(delivery, edit("signal.csv", lambda text: text.replace("time_s", "clock", 1)))
    seal(delivery, in_stream("signal", time={"column": "clock"}))
    raw = read(delivery)
    assert raw.signal is not None
    np.testing.assert_allclose(raw.signal.times_s, TIMES_S)


def test_rows_of_a_signal_that_came_late_are_put_in_order(delivery: Path) -> None:
    before = read(delivery).signal

    def swap(text: str) -> str:
        lines = text.splitlines()
        lines[20], lines[21] = lines[21], lines[20]
        return "\n".join(lines) + "\n"

    found = read(seal(delivery, edit("signal.csv", swap))).signal
    assert before is not None
    assert found is not None
    assert found.reordered == 1
    np.testing.assert_array_equal(found.times_s, before.times_s)
    np.testing.assert_array_equal(found.values, before.values)


def test_a_signal_whose_clock_was_reset_is_refused(delivery: Path) -> None:
    stamps = np.where(np.arange(80) < 40, TIMES_S + 7.0, TIMES_S - 10.0)
    message = r"signal\.csv: time runs backwards at row 42: .* Split the delivery where the clock"
    with pytest.raises(BadBatchError, match=message):
        read(restamp(delivery, "signal", stamps))


def test_a_video_keeps_its_rows_and_learns_of_resets_and_late_ones(delivery: Path) -> None:
    times_s = np.arange(400) / 10.0
    stamps = np.where(np.arange(400) < 250, times_s, times_s - 25.0)
    stamps[[100, 101]] = stamps[[101, 100]]
    raw = read(restamp(delivery, "video", stamps))
    assert raw.video is not None
    assert raw.video.pieces is not None
    np.testing.assert_array_equal(raw.video.pieces, np.arange(400) >= 250)
    np.testing.assert_allclose(raw.video.times_s, stamps)
    assert raw.video.reordered == 1


def test_a_delivery_in_civil_time_and_ticks_becomes_the_batch_that_seconds_make(
    delivery: Path, tmp_path: Path
) -> None:
    """Camera ticks that roll over, late rows in both tables, and a control system in Berlin."""
    ingest(delivery, tmp_path / "plain")
    plain = open_batch(tmp_path / "plain", batch_id="batch-1", digest="d")
    ticks = np.arange(400) * 9000 % (1 << 20)
    stamps = utc_stamps(80, 2.0, zone="Europe/Berlin")
    restamp(delivery, "video", ticks, kind="ticks", tick_hz=90_000, bits=20)
    restamp(delivery, "signal", stamps, kind="local", zone="Europe/Berlin")

    def swap(text: str) -> str:
        lines = text.splitlines()
        lines[70], lines[71] = lines[71], lines[70]
        return "\n".join(lines) + "\n"

    seal(delivery, edit("signal.csv", swap))
    raw = ingest(delivery, tmp_path / "out")
    assert raw.warnings == ("video_times.csv: its counter of 20 bits rolled over 3 times",)
    batch = open_batch(tmp_path / "out", batch_id="batch-1", digest="d")
    assert batch.sync["streams"]["signal"]["counts"]["samples_reordered"] == 1
    for name in ("frame_times", "signal_times", "signal", "frames"):
        np.testing.assert_allclose(getattr(batch, name), getattr(plain, name), rtol=0, atol=1e-6)


def test_pictures_that_came_late_are_stored_by_their_time(tmp_path: Path) -> None:
    scene, camera_s = Scene(seconds=40.0), np.arange(400) / RATE_HZ
    late_s = camera_s.copy()
    late_s[[100, 200]], late_s[[103, 201]] = late_s[[103, 201]], late_s[[100, 200]]
    plain = deliver(tmp_path, name="plain", scene=scene, camera_s=camera_s)
    late = deliver(tmp_path, name="late", scene=scene, camera_s=late_s)
    ingest(plain, tmp_path / "out-plain")
    assert ingest(late, tmp_path / "out-late").video.reordered == 3
    expected = open_batch(tmp_path / "out-plain", batch_id="plain", digest="d")
    found = open_batch(tmp_path / "out-late", batch_id="late", digest="d")
    np.testing.assert_array_equal(found.frame_times, expected.frame_times)
    brightness = [batch.frames[:, 6:10, 6:10].mean(axis=(1, 2, 3)) for batch in (found, expected)]
    np.testing.assert_allclose(*brightness, atol=4.0)  # noise of the camera and of the codec


def test_triggers_are_read_from_both_streams(delivery: Path) -> None:
    def add(name: str, at: set[int]) -> Callable[[Path], None]:
        def change(text: str) -> str:
            header, *rows = text.splitlines()
            flashes = [f"{row},{int(number in at)}" for number, row in enumerate(rows)]
            return "\n".join([f"{header},flash", *flashes]) + "\n"

        return edit(name, change)

    seal(delivery, add("video_times.csv", {50, 51, 120}))
    seal(delivery, add("signal.csv", {9, 24}))
    seal(delivery, in_stream("video", trigger="flash"))
    raw = read(seal(delivery, in_stream("signal", trigger="flash")))
    assert raw.video is not None
    assert raw.signal is not None
    np.testing.assert_allclose(raw.video.triggers_s, [5.0, 12.0])
    np.testing.assert_allclose(raw.signal.triggers_s, [4.5, 12.0])
    assert raw.signal.columns == ("phase_a", "phase_b", "phase_c")


def test_sound_has_its_own_clock_or_the_videos(delivery: Path) -> None:
    raw = read(seal(delivery, with_sound)).audio
    assert raw is not None
    assert raw.path == delivery / "audio.wav"
    assert (raw.rate_hz, raw.clock, raw.start_s) == (16_000.0, "microphone", 0.0)
    raw = read(seal(delivery, lambda folder: with_sound(folder, clock="desk", start_s=1.5))).audio
    assert raw is not None
    assert (raw.clock, raw.start_s) == ("desk", 1.5)
    restamp(delivery, "video", np.arange(400) / 10 + 3.0)
    raw = read(seal(delivery, lambda folder: with_sound(folder, file="video.mp4"))).audio
    assert raw is not None
    assert (raw.clock, raw.start_s) == ("camera", 3.0)


def test_notes_may_be_on_any_declared_clock(delivery: Path) -> None:
    seal(delivery, with_sound)
    assert read(delivery).warnings == ()
    raw = read(seal(delivery, in_notes(lambda told: told.update(clock="microphone"))))
    assert raw.labels_clock == "microphone"


def motor_file(folder: Path, *, samples: int = 1000, repetitions: int = 5) -> Path:
    """A small file with the published structure; each recording is constant at a number."""
    fields = {
        "ITSC_HLT" if name == "healthy" else f"ITSC_{name.upper()}": {
            f"Repetition{r:02d}": np.full((samples, 3), 10.0 * at + r)
            for r in range(1, repetitions + 1)
        }
        for at, name in reversed(list(enumerate(CLASSES)))
    }
    folder.mkdir(exist_ok=True)
    scipy.io.savemat(folder / "Data_ITSC.mat", {"itsc": fields})
    return folder


def test_a_repetition_is_a_batch_of_labelled_recordings(tmp_path: Path) -> None:
    adapter = ItscAdapter()
    arrivals = adapter.find(motor_file(tmp_path / "motor")).arrivals
    assert [arrival.id for arrival in arrivals] == [f"repetition-{r:02d}" for r in range(1, 6)]
    assert len({arrival.digest for arrival in arrivals}) == 5
    out = tmp_path / "out"
    out.mkdir()
    config = IngestConfig(adapter="itsc", classes=CLASSES)
    write_batch(adapter.read(arrivals[2]), out, ingest=config, sync=SyncConfig())
    batch = open_batch(out, batch_id="repetition-03", digest="d")
    assert batch.signal is not None
    assert batch.signal_times is not None
    assert len(batch.segments) == len(batch.events) == 13
    assert batch.signal_rate_hz == 1000.0
    for at, ((start, stop), event) in enumerate(zip(batch.segments, batch.events, strict=True)):
        inside = (batch.signal_times >= start) & (batch.signal_times <= stop)
        assert inside.sum() == 1000
        assert np.all(batch.signal[inside] == 10.0 * at + 3)
        assert event.class_name == CLASSES[at]
        assert (event.onset_s, event.offset_s) == (start, stop)
        assert event.onset_s < event.apex_s < event.offset_s


def test_motor_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no Data_ITSC\.mat"):
        ItscAdapter().find(tmp_path)
    path = motor_file(tmp_path, samples=500) / "Data_ITSC.mat"
    with pytest.raises(
        BadBatchError, match=r"ITSC_HLT\.Repetition01 is float64 \(500, 3\); expected"
    ):
        ItscAdapter().read(ItscAdapter().find(tmp_path).arrivals[0])
    motor_file(tmp_path, repetitions=4)
    with pytest.raises(BadBatchError, match=r"Repetition05 is missing"):
        ItscAdapter().read(ItscAdapter().find(tmp_path).arrivals[4])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadBatchError, match="is no MATLAB 5 file"):
        ItscAdapter().read(ItscAdapter().find(tmp_path).arrivals[0])
    scipy.io.savemat(path, {"other": np.ones(3)})
    with pytest.raises(BadBatchError, match="holds no struct 'itsc'; found other"):
        ItscAdapter().read(ItscAdapter().find(tmp_path).arrivals[0])


@pytest.mark.skipif(not REAL_ITSC.is_dir(), reason="../shared/data/itsc_motor_current is absent")
def test_the_motor_file_as_it_is_distributed() -> None:
    arrivals = ItscAdapter().find(REAL_ITSC).arrivals
    batches = [ItscAdapter().read(arrival) for arrival in arrivals]
    for batch in batches:
        assert batch.signal is not None
        assert batch.signal.values.shape == (13_000, 3)
        assert np.isfinite(batch.signal.values).all()
    first = scipy.io.loadmat(REAL_ITSC / "Data_ITSC.mat")["itsc"]["ITSC_B20"][0, 0]
    at = CLASSES.index("b20") * 1000
    assert batches[1].signal is not None
    np.testing.assert_array_equal(
        batches[1].signal.values[at : at + 1000], first["Repetition02"][0, 0]
    )


def test_batch_json_written_by_a_stranger_never_tracebacks(delivery: Path) -> None:
    for value in (None, 3, "x", [], {"video": 1}, {"video": {"file": "v"}}):
        (delivery / "batch.json").write_text(json.dumps({"id": "batch-1", "streams": value}))
        write_sums(delivery)
        with pytest.raises(BadBatchError, match=r"batch\.json"):
            read(delivery)
