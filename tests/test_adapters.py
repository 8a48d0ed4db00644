"""Deliveries: what is accepted, and every fault caused on real files."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.io
from deliveries import RATE_HZ, Scene, deliver, edit_json, encode, film, seal, write_sums
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.adapters import ADAPTERS
from crosswatch.data.adapters import arrival as arrival_module
from crosswatch.data.adapters.arrival import ArrivalAdapter, safe_path
from crosswatch.data.adapters.itsc import CLASSES, ItscAdapter
from crosswatch.data.batches import open_batch
from crosswatch.data.ingestion import IngestConfig, RawBatch, write_batch
from crosswatch.data.sync import SyncConfig
from crosswatch.data.video import plan_frames
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


def notes_on_audio(folder: Path) -> None:
    (folder / "audio.wav").write_bytes(b"RIFF")
    audio = {"file": "audio.wav", "clock": "recorder", "rate_hz": 16_000.0}
    in_description(lambda told: told["streams"].update(audio=audio))(folder)
    in_notes(lambda told: told.update(clock="recorder"))(folder)


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
        r"signal\.columns: a, b, a: a name comes twice",
    ),
    "huge number": (
        in_description(lambda told: told["streams"]["video"].update(rate_hz=10**400)),
        r"video\.rate_hz: a whole number of 1329 bits is too large",
    ),
    "endless number": (
        edit("batch.json", lambda text: text.replace("10.0", "9" * 5000, 1)),
        r"batch\.json: is not JSON: Exceeds the limit",
    ),
    "notes on the sound's clock": (notes_on_audio, r"no stream has the clock 'recorder'"),
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
    assert batch.sync["method"] == "one stream, nothing to align"
    assert batch.keyframes == ()


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
    adapter = ADAPTERS["itsc"]
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
