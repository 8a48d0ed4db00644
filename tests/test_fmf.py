"""FMF-Benchmark in both of its layouts, written here as MATLAB and its authors write them."""

import csv
import dataclasses
import datetime
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch import experiment
from crosswatch.data.adapters import fmf_tables, open_adapter
from crosswatch.data.adapters.fmf import FmfAdapter
from crosswatch.data.batches import Batch, BatchSet, open_batch
from crosswatch.data.gather import windows_of
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.layouts import FmfConfig
from crosswatch.data.splits import SplitConfig, evaluation_set, split
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.windows import WindowConfig, window_table
from crosswatch.errors import BadBatchError, UserError

HEIGHT, WIDTH, SECONDS = 16, 24, 60
FRAMES = 25 * SECONDS
TRAIN, TEST = np.arange(0, 1000), np.arange(1100, FRAMES)  # 100 frames belong to neither
ABNORMAL = slice(1200, 1300)
START = datetime.datetime(2021, 3, 4, 5, 6, 7)
WINDOWS = WindowConfig(frames=10, stride=4, signal_s=10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Furnace:
    """In MATLAB's order; the corner at (row 1, column W) is bright in every picture."""

    video: np.ndarray  # (H, W, 3, N)
    label: np.ndarray  # (H, W, N)
    halves: np.ndarray  # (S, 3), the current of each half-second


def furnace() -> Furnace:
    video = np.zeros((HEIGHT, WIDTH, 3, FRAMES), np.uint8)
    video[:] = 10 + np.arange(FRAMES) % 60
    video[:4, -4:, 0] = 250
    label = np.zeros((HEIGHT, WIDTH, FRAMES), np.uint8)
    label[:4, -4:, ABNORMAL] = 1
    halves = np.random.default_rng(0).normal(9000, 500, (2 * SECONDS, 3))
    return Furnace(video=video, label=label, halves=halves)


def store(file: h5py.File, name: str, in_matlab: np.ndarray) -> None:
    """MATLAB's axes come out of HDF5 reversed."""
    file.create_dataset(name, data=in_matlab.transpose())


def first_release(folder: Path, made: Furnace, name: str = "furnace-1") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    index = np.full((1, FRAMES), 2, np.uint8)
    index[0, TRAIN], index[0, TEST] = 0, 1
    of_frame = np.arange(FRAMES) * 2 // 25
    with h5py.File(folder / f"{name}.mat", "w", userblock_size=512) as file:
        store(file, "video", made.video)
        store(file, "current", made.halves[of_frame].T)
        store(file, "label", made.label)
        store(file, "train_test_index", index)
    return folder


def table(path: Path, rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["timestamp", "a", "b", "c"], *rows])


def stamp(second: float) -> str:
    return str(START + datetime.timedelta(seconds=int(second)))


def second_release(folder: Path, made: Furnace, name: str = "furnace-1") -> Path:
    root = folder / "pixel-level"
    (root / "videos").mkdir(parents=True)
    with h5py.File(root / "videos" / f"{name}.mat", "w") as file:
        file.create_dataset("data", data=made.video.transpose(), chunks=(7, 3, WIDTH, HEIGHT))
        file.create_dataset("label", data=made.label.transpose())
    table(root / "timestamps" / f"{name}.csv", [[stamp(at / 25)] for at in range(FRAMES)])
    rows = [[stamp(at / 2), *map(float, amperes)] for at, amperes in enumerate(made.halves)]
    table(root / "currents" / f"{name}.csv", rows)
    for file_name, frames in (("train.json", TRAIN), ("test.json", TEST)):
        (root / file_name).write_text(json.dumps({f"{name}.mat": frames.tolist()}))
    return folder


LAYOUTS = {"first": first_release, "second": second_release}


def config(*, released: bool = False) -> IngestConfig:
    return IngestConfig(adapter="fmf", frame_px=24, fmf=FmfConfig(released=released))


def ingested(source: Path, out: Path, *, released: bool = False) -> Batch:
    adapter = open_adapter(config(released=released))
    (arrival,) = adapter.find(source).arrivals
    out.mkdir()
    write_batch(adapter.read(arrival), out, ingest=config(released=released), sync=SyncConfig())
    return open_batch(out, batch_id=arrival.id, digest=arrival.digest)


def set_of(made: Batch, split_config: SplitConfig, windows: WindowConfig = WINDOWS) -> BatchSet:
    ranges = split(made, windows=windows, config=split_config)
    return BatchSet(
        digest="s", batches=(made,), classes=("normal", "semi_molten"), ranges=ranges,
        evaluation_set=evaluation_set(ranges),
    )  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fmf")
    return {name: write(folder / name, furnace()) for name, write in LAYOUTS.items()}


@pytest.fixture(scope="module")
def batches(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Batch]:
    out = tmp_path_factory.mktemp("batches")
    made = {name: ingested(source, out / name) for name, source in sources.items()}
    made["released"] = ingested(sources["second"], out / "released", released=True)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pixel_lands_where_matlab_says(batches: dict[str, Batch], layout: str) -> None:
    made = batches[layout]
    bright = made.frames[:, :, :, 0].astype(int) > 200
    assert bright[:, :5, -3:].all()
    assert not bright[:, 8:].any()
    assert not bright[:, :, :16].any()
    assert made.masks[ABNORMAL][:, :5, -3:].all()
    assert not made.masks[ABNORMAL][:, 8:].any()


def test_as_released_pictures_and_masks_are_transposed(batches: dict[str, Batch]) -> None:
    made, right = batches["released"], batches["second"]
    assert made.released
    assert not right.released
    np.testing.assert_array_equal(made.frames, right.frames.transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(made.masks, right.masks.transpose(0, 2, 1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_is_counted_once_and_on_one_clock(
    batches: dict[str, Batch], layout: str
) -> None:
    made = batches[layout]
    assert len(made.frames) == len(made.masks) == len(made.frame_times) == FRAMES
    np.testing.assert_allclose(made.frame_times, np.arange(FRAMES) / 25, atol=1e-9)
    np.testing.assert_allclose(made.signal_times, np.arange(2 * SECONDS) / 2)
    np.testing.assert_allclose(made.signal, furnace().halves, rtol=1e-6)
    assert made.sync["streams"]["video"]["method"] == "one clock, nothing to align"
    (event,) = made.events
    assert (event.onset_s, event.offset_s) == pytest.approx((1200 / 25, 1299 / 25))
    assert [(name, a) for name, a, _ in made.blocks] == [
        ("train", 0.0), ("evaluation", pytest.approx(1100 / 25))
    ]  # fmt: skip


def test_both_layouts_of_one_content_give_one_batch(batches: dict[str, Batch]) -> None:
    first, second = batches["first"], batches["second"]
    for name in ("frames", "masks", "signal"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_allclose(first.frame_times, second.frame_times, atol=1e-9)
    np.testing.assert_allclose(first.signal_times, second.signal_times, atol=1e-9)
    for one, other in zip(first.blocks, second.blocks, strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:])


def seen(made: Batch, batch_set: BatchSet, block: str) -> tuple[set[int], set[int]]:
    """Frames and samples that the windows of a block hold."""
    found = windows_of(batch_set, WINDOWS, block)
    rows = np.arange(len(found.tables[0]))
    return set(found.tables[0].frames.flat), set(found.tables[0].sample_rows(rows).flat)


def test_no_evaluation_window_touches_training_unless_it_is_not_strict(
    batches: dict[str, Batch],
) -> None:
    windows = WINDOWS
    made = batches["second"]
    for by, touches in ((SplitConfig(by="given"), False),
                        (SplitConfig(by="given", strict=False), True)):  # fmt: skip
        batch_set = set_of(made, by, windows)
        blocks = {
            name: seen(made, batch_set, name) for name in ("train", "validation", "evaluation")
        }
        assert all(frames for frames, _ in blocks.values())
        for earlier, later in (("train", "validation"), ("train", "evaluation"),
                               ("validation", "evaluation")):  # fmt: skip
            for stream in (0, 1):
                if not touches:
                    assert not blocks[earlier][stream] & blocks[later][stream]
        assert bool(blocks["train"][1] & blocks["validation"][1]) == touches
    released = batches["released"]
    batch_set = set_of(released, SplitConfig(by="given"), windows)
    reached = seen(released, batch_set, "evaluation")[1] & (
        seen(released, batch_set, "train")[1] | seen(released, batch_set, "validation")[1]
    )
    assert reached


def test_the_published_evaluation_stays_whole_and_training_gives_validation(
    batches: dict[str, Batch],
) -> None:
    ranges = {r.block: r for r in split(batches["second"], windows=WINDOWS,
                                        config=SplitConfig(by="given"))}  # fmt: skip
    guard_s = 10.0 + 1 / 25
    assert ranges["evaluation"].start_s == pytest.approx(1100 / 25)
    assert ranges["evaluation"].stop_s == pytest.approx((FRAMES - 1) / 25, abs=1e-5)
    behind_s = 1100 / 25 - guard_s
    usable_s = behind_s - guard_s
    assert ranges["validation"].stop_s == pytest.approx(behind_s, abs=1e-5)
    length_s = ranges["validation"].stop_s - ranges["validation"].start_s
    assert length_s == pytest.approx(0.15 * usable_s, abs=1e-4)
    assert ranges["train"].stop_s == pytest.approx(ranges["validation"].start_s - guard_s, abs=1e-4)


def test_early_frames_are_random_as_released_and_the_first_where_clamped(
    batches: dict[str, Batch],
) -> None:
    early = WINDOWS.frames * WINDOWS.stride - 1
    clamped = dataclasses.replace(WINDOWS, early="clamp")
    held = window_table(batches["second"], clamped)
    first = held.end_s < WINDOWS.video_s(25.0)
    assert first.any()
    assert (held.frames[first][:, 0] == 0).all()
    assert (np.abs(batches["second"].frame_times[held.last_frame] - held.end_s) < 0.03).all()
    drawn = window_table(batches["released"], WINDOWS)
    again = window_table(batches["released"], WINDOWS)
    np.testing.assert_array_equal(drawn.frames, again.frames)
    first = drawn.end_s < (early - 1) / 25
    assert first.any()
    moved = batches["released"].frame_times[drawn.last_frame] - drawn.end_s
    assert (np.abs(moved[first]) > 1.0).any()
    assert (np.abs(moved[drawn.end_s > early / 25]) < 0.03).all()
    assert (drawn.last_frame[first] >= early).all()
    assert (drawn.last_frame[first] < len(TRAIN)).all()


def test_as_released_a_short_current_is_stretched_over_the_window(
    batches: dict[str, Batch],
) -> None:
    windows = dataclasses.replace(WINDOWS, frames=0)
    found = window_table(batches["released"], windows)
    rows = found.sample_rows(np.arange(len(found)))
    for row, stop in zip(rows[:40], found.signal_stop[:40], strict=True):
        held = min(stop, 20)
        np.testing.assert_array_equal(row, stop - held + np.linspace(0, held - 1, 20).astype(int))


def test_pictures_of_any_number_are_read_in_constant_memory(tmp_path: Path) -> None:
    count = 25_000
    with h5py.File(tmp_path / "long.mat", "w") as file:  # a hole in a file reads as zeros
        for name, shape in (
            ("video", (count, 3, 64, 64)), ("label", (count, 64, 64)),
            ("current", (count, 3)), ("train_test_index", (count, 1)),
        ):  # fmt: skip
            file.create_dataset(name, shape, np.uint8, chunks=(5, *shape[1:]))
    adapter = FmfAdapter(IngestConfig(adapter="fmf"))
    (arrival,) = adapter.find(tmp_path).arrivals
    tracemalloc.start()
    try:
        raw = adapter.read(arrival)
        read = sum(1 for _ in raw.video.pictures), sum(1 for _ in raw.masks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == (count, count)
    assert peak < 80 * 2**20 < count * 3 * 64 * 64 / 3


def test_batches_come_in_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c d"):
        first_release(tmp_path, furnace(), name)
    ids = [arrival.id for arrival in FmfAdapter(config()).find(tmp_path).arrivals]
    assert ids[:2] == ["a", "b"]
    assert ids[2].startswith("c-d-")


def without(path: Path, keep: Callable[[int], bool]) -> None:
    rows = path.read_text().splitlines()
    path.write_text("\n".join(r for at, r in enumerate(rows) if at == 0 or keep(at - 1)) + "\n")


def test_a_short_hole_of_the_current_is_filled_and_a_long_one_ends_a_stretch(
    tmp_path: Path,
) -> None:
    source = second_release(tmp_path / "source", furnace())
    currents = source / "pixel-level" / "currents" / "furnace-1.csv"
    without(currents, lambda row: row not in (21, 40, 41) and not 80 <= row < 100)
    made = ingested(source, tmp_path / "out")
    halves = furnace().halves
    at = {round(2 * t): values for t, values in zip(made.signal_times, made.signal, strict=True)}
    np.testing.assert_allclose(at[21], halves[20], rtol=1e-6)
    np.testing.assert_allclose(at[41], halves[39], rtol=1e-6)
    assert not set(range(80, 100)) & set(at)
    table_of = window_table(made, WINDOWS)
    assert not ((table_of.end_s > 39.5) & (table_of.end_s < 59.0)).any()


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(0, 2**31))
def test_frames_stay_in_their_second_and_in_order(counts: list[int], start: int) -> None:
    seconds = np.repeat(np.arange(len(counts)) + start, counts)
    if not len(seconds):
        return
    times = fmf_tables.spread_frames(seconds, name="t")
    np.testing.assert_array_equal(np.floor(times + 1e-6), seconds)
    assert (np.diff(times) > 0.02).all()


def test_a_recording_that_begins_within_a_second_begins_late_in_it() -> None:
    seconds = np.repeat([7, 8, 9, 12], [5, 25, 10, 25])
    times = fmf_tables.spread_frames(seconds, name="t")
    np.testing.assert_allclose(times[:30], 7 + (20 + np.arange(30)) / 25)
    np.testing.assert_allclose(times[30:40], 9 + np.arange(10) / 25)


def damage(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        with h5py.File(root / "videos" / "furnace-1.mat", "r+") as file:
            change(file)

    return apply


def relink(file: h5py.File) -> None:
    del file["data"]
    file["data"] = h5py.ExternalLink("/etc/passwd", "data")


def crop_label(file: h5py.File) -> None:
    del file["label"]
    file["label"] = np.zeros((FRAMES, WIDTH, HEIGHT - 1), np.uint8)


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return apply


CSV = "currents/furnace-1.csv"
STAMPS = "timestamps/furnace-1.csv"
FAULTS = {
    "no currents": (lambda r: (r / CSV).unlink(), r"^currents/furnace-1.csv: is missing"),
    "no HDF5": (
        lambda r: (r / "videos/furnace-1.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 50),
        r"cannot be read as a MATLAB 7\.3 \(HDF5\) file \(950 bytes\)",
    ),
    "cut off": (
        lambda r: (r / "videos/furnace-1.mat").write_bytes(
            (r / "videos/furnace-1.mat").read_bytes()[:40_000]
        ),
        r"cannot be read as a MATLAB 7\.3",
    ),
    "no label": (damage(lambda f: f.pop("label")), r"holds no 'label'; found 'data'"),
    "elsewhere": (damage(relink), r"'data' is no array of its own"),
    "label too small": (
        damage(crop_label),
        r"'label' is \(15, 24, 1500\) in MATLAB's order and 'data' \(16, 24, 3, 1500\)",
    ),
    "a stamp too few": (
        lambda r: without(r / STAMPS, lambda row: row != 3), r"has 1499 rows for the 1500 frames"
    ),
    "no time": (edit(STAMPS, stamp(4), "soon"), r"row 102: 'soon' is no time"),
    "backwards": (edit(STAMPS, stamp(4), stamp(1)), r"time runs backwards at row 102"),
    "no number": (edit(CSV, f"{stamp(0)},", f"{stamp(0)},x"), r"row 2: 'x\d"),
    "cells": (edit(CSV, f"{stamp(0)},", f"{stamp(0)}\n,"), r"row 2 has 1 cells"),
    "in both": (edit("test.json", "[1100", "[999"), r"frame 999 is in train\.json and in test"),
    "too far": (edit("test.json", "1499]", "1500]"), r"names frame 1500; .* ends with frame 1499"),
    "no list": (edit("test.json", "1100", '"1100"'), r"with frames counted from 0"),
    "no JSON": (edit("train.json", "{", ""), r"train\.json: is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_one_line(tmp_path: Path, sources: dict[str, Path], fault: str) -> None:
    source = second_release(tmp_path, furnace())
    cause, words = FAULTS[fault]
    cause(source / "pixel-level")
    adapter = FmfAdapter(config())
    found = adapter.find(source)
    if found.unreadable:
        message = found.unreadable["furnace-1"]
    else:
        with pytest.raises(BadBatchError) as caught:
            adapter.read(found.arrivals[0])
        message = str(caught.value)
    assert "\n" not in message
    assert re.search(words, message), message


def test_what_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no FMF batch"):
        FmfAdapter(config()).find(tmp_path)
    with pytest.raises(UserError, match=r"tells normal from abnormal; ingest.classes names 3"):
        FmfAdapter(dataclasses.replace(config(), classes=("a", "b", "c")))
    source = second_release(tmp_path, furnace())
    for name in ("train.json", "test.json"):
        (source / "pixel-level" / name).unlink()
    made = ingested(source, tmp_path / "out")
    with pytest.raises(BadBatchError, match=r"delivered without a split"):
        split(made, windows=WINDOWS, config=SplitConfig(by="given"))
    (tmp_path / "two").mkdir()
    for name in ("x.mat", "X.mat"):
        (tmp_path / "two" / name).write_bytes(b"0")
    with pytest.raises(UserError, match="both give a batch"):
        FmfAdapter(config()).find(tmp_path / "two")


def test_the_recipe_reads_it_as_the_paper_does() -> None:
    recipe = experiment.resolve("fmformer-fmf", {})
    assert (recipe.ingest.adapter, recipe.split.by) == ("fmf", "given")
    assert (recipe.windows.frames, recipe.windows.stride) == (10, 4)
    assert (recipe.windows.signal_s, recipe.windows.early) == (120.0, "clamp")
    assert not recipe.ingest.fmf.released
