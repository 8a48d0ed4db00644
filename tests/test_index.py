"""Labelled clips of an index.csv: a batch a source, all at one rate."""

import csv
import dataclasses
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import batch

from crosswatch import experiment
from crosswatch.data.adapters.arrival import RESERVED
from crosswatch.data.adapters.finding import batch_id, short_hash
from crosswatch.data.adapters.index import IndexAdapter
from crosswatch.data.batches import Batch, open_batch
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.layouts import IndexConfig
from crosswatch.data.splits import SplitConfig, split
from crosswatch.data.sums import ID_PATTERN
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.windows import WindowConfig, window_table
from crosswatch.errors import BadBatchError, UserError

REAL = Path("../shared/data/fight_surv")
CLASSES = ("calm", "fight")
WINDOWS = WindowConfig(frames=10, stride=1, signal_s=0.0, per_second=5.0)
CODEC = 2  # grey levels that the encoder may be off


def clip(path: Path, *, rate_hz: int, seconds: float, size: tuple[int, int] = (32, 48)) -> None:
    """Grey level 20 + 60 * t at time t, so that a picture tells when it was taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate_hz)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "4", "threads": "1"}
        for at in range(round(seconds * rate_hz)):
            picture = np.full((*size, 3), round(20 + 60 * at / rate_hz), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def index(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    with (folder / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("bytes", "path", "label", "source")])
        csv.writer(stream).writerows([("1", *row) for row in rows])
    return folder


ROWS = [
    ("a/slow.mp4", "0", "src 1"),
    ("a/fast.mp4", "fight", "src 1"),
    ("b/film.mp4", "1", "src2"),
    ("b/alone.mp4", "calm", ""),
    ("c/alone.mp4", "1", ""),
]
RATES = dict(zip((path for path, _, _ in ROWS), (10, 30, 25, 12, 30), strict=True))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for at, (path, rate_hz) in enumerate(RATES.items()):
        clip(folder / path, rate_hz=rate_hz, seconds=1.5 + 0.5 * at, size=(32, 48 + 16 * (at % 2)))
    return index(folder, ROWS)


CONFIG = IngestConfig(adapter="index", frame_px=16, classes=CLASSES)


def ingested(source: Path, out: Path, config: IngestConfig = CONFIG) -> dict[str, Batch]:
    adapter = IndexAdapter(config)
    made = {}
    for arrival in adapter.find(source).arrivals:
        folder = out / arrival.id
        folder.mkdir()
        write_batch(adapter.read(arrival), folder, ingest=config, sync=SyncConfig())
        made[arrival.id] = open_batch(folder, batch_id=arrival.id, digest=arrival.digest)
    return made


def test_a_batch_is_a_source_and_each_clip_of_unknown_source_is_one(source: Path) -> None:
    found = IndexAdapter(CONFIG).find(source)
    names = [arrival.id for arrival in found.arrivals]
    assert len(names) == len(set(names)) == 4
    assert "src2" in names
    assert sum(name.startswith("src-1-") for name in names) == 1
    assert sum(name.startswith("alone-") for name in names) == 2
    assert all(ID_PATTERN.fullmatch(name) for name in names)


def test_names_and_digests_do_not_depend_on_other_rows_or_their_order(
    source: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    index(copy, ROWS[3::-1])
    known = {a.id: a.digest for a in IndexAdapter(CONFIG).find(source).arrivals}
    fewer = {a.id: a.digest for a in IndexAdapter(CONFIG).find(copy).arrivals}
    assert len(fewer) == 3
    assert fewer.items() <= known.items()
    index(copy, [("a/slow.mp4", "1", "src 1"), *ROWS[1:]])
    changed = {a.id: a.digest for a in IndexAdapter(CONFIG).find(copy).arrivals}
    assert [name for name in known if changed[name] != known[name]] == [
        name for name in known if name.startswith("src-1")
    ]


@given(st.text(max_size=120), st.text(max_size=120))
def test_any_text_gives_a_safe_name_and_two_give_two(one: str, other: str) -> None:
    for text in (one, other):
        name = batch_id(text)
        assert ID_PATTERN.fullmatch(name)
        assert name.lower() not in RESERVED
        assert batch_id(name) == name
    if one not in (other, batch_id(other)) and other != batch_id(one):
        assert batch_id(one) != batch_id(other)


def test_pictures_are_the_nearest_at_the_common_rate(source: Path, tmp_path: Path) -> None:
    seconds = dict(zip(RATES, 1.5 + 0.5 * np.arange(5), strict=True))
    found = ingested(source, tmp_path)
    for path, _, film in ROWS:
        name = batch_id(film) if film else f"alone-{short_hash(path)}"
        made, mates = found[name], sorted(p for p, _, f in ROWS if (f or p) == (film or path))
        start, stop = made.segments[mates.index(path)]
        inside = (made.frame_times >= start) & (made.frame_times <= stop)
        own_s = made.frame_times[inside] - start
        count = int(10 * (seconds[path] - 1 / RATES[path]) + 1e-6) + 1
        np.testing.assert_allclose(own_s, np.arange(count) / 10, atol=1e-9)
        taken_s = np.round(np.arange(count) / 10 * RATES[path] - 1e-6) / RATES[path]
        grey = made.frames[inside].mean(axis=(1, 2, 3))
        np.testing.assert_allclose(grey, 20 + 60 * taken_s, atol=CODEC)
        assert made.video_rate_hz == 10.0


def test_each_clip_is_a_segment_of_its_class_behind_a_pause(source: Path, tmp_path: Path) -> None:
    made = next(b for name, b in ingested(source, tmp_path).items() if name.startswith("src-1-"))
    assert [event.class_name for event in made.events] == ["fight", "calm"]  # by name: fast, slow
    assert [(e.onset_s, e.offset_s) for e in made.events] == list(made.segments)
    assert made.segments[1][0] - made.segments[0][1] == pytest.approx(1.0)
    table = window_table(made, WINDOWS)
    assert set(table.segment) == {0, 1}
    for number, (start, stop) in enumerate(made.segments):
        frames = made.frame_times[table.frames[table.segment == number]]
        assert frames.min() >= start
        assert frames.max() <= stop


def test_another_rate_and_other_columns_are_settings(source: Path, tmp_path: Path) -> None:
    text = (source / "index.csv").read_text().replace("path,label,source", "file,what,film")
    (tmp_path / "there").symlink_to(source.resolve())
    (tmp_path / "index.csv").write_text(text)
    columns = IndexConfig(root="there", path="file", label="what", source="film", rate_hz=5.0)
    with pytest.raises(UserError, match=r"column 'path' is missing; found bytes, file, what, film"):
        IndexAdapter(CONFIG).find(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    config = dataclasses.replace(CONFIG, index=columns)
    made = ingested(tmp_path, out, config)["src2"]
    assert made.video_rate_hz == 5.0
    np.testing.assert_allclose(np.diff(made.frame_times), 0.2, atol=1e-9)


FAULTS: dict[str, tuple[list[tuple[str, str, str]], str]] = {
    "missing": ([("a/gone.mp4", "0", "s")], r"^'a/gone.mp4': is missing though index\.csv lists"),
    "out": ([("../../etc/passwd", "0", "s")], r"is no file name inside"),
    "absolute": ([("/etc/passwd", "0", "s")], r"is no file name inside"),
    "label": ([("a/slow.mp4", "2", "s")], r"has label '2'; ingest\.classes are calm, fight"),
    "word": ([("a/slow.mp4", "Fight\n", "s")], r"has label 'Fight'"),
    "twice": ([("a/slow.mp4", "0", "s"), ("a/slow.mp4", "1", "s")], r"lists 'a/slow.mp4' twice"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_out_its_source_alone(source: Path, tmp_path: Path, fault: str) -> None:
    rows, words = FAULTS[fault]
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    found = IndexAdapter(CONFIG).find(index(tmp_path, [*rows, ("b/film.mp4", "0", "good")]))
    assert [arrival.id for arrival in found.arrivals] == ["good"]
    assert re.search(words, found.unreadable["s"]), found.unreadable["s"]
    assert "\n" not in found.unreadable["s"]


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda at: None, "holds no index.csv"),
        (lambda at: (at / "index.csv").write_text(""), "column 'path' is missing; found none"),
        (lambda at: (at / "index.csv").write_text("path,label,source\n"), "lists no clip"),
        (lambda at: index(at, [("", "0", "s")]), "row 2 names no clip"),
    ],
)
def test_an_index_that_is_none_is_refused(
    tmp_path: Path, write: Callable[[Path], object], words: str
) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=words):
        IndexAdapter(CONFIG).find(tmp_path)


def test_a_clip_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video" * 9)
    adapter = IndexAdapter(CONFIG)
    (arrival,) = adapter.find(index(tmp_path, [("x.mp4", "0", "s")])).arrivals
    with pytest.raises(BadBatchError, match=r"x\.mp4: cannot be opened as a video"):
        adapter.read(arrival)


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/fight_surv is absent")
def test_the_real_clips_split_by_source_within_reason() -> None:
    values = {"ingest": {"index": {"root": "clips_h160", "label": "label_fight"}}}
    recipe = experiment.resolve("clips", values)
    adapter = IndexAdapter(recipe.ingest)
    found = adapter.find(REAL)
    assert (len(found.arrivals), dict(found.unreadable)) == (32 + 25, {})
    with (REAL / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    clips = Counter(batch_id(row["source"]) for row in rows if row["source"])
    weights, count = [], Counter[str]()
    for arrival in found.arrivals:
        made = batch(batch_id=arrival.id, signal_hz=0.0)
        (span,) = split(made, windows=recipe.windows, config=recipe.split)
        weights.append(clips.get(arrival.id, 1))
        count[span.block] += weights[-1]
    assert sum(weights) == 222
    for block, share in (("train", 0.60), ("validation", 0.15), ("evaluation", 0.25)):
        drawn_apart = (share * (1 - share) * np.square(weights).sum()) ** 0.5  # one deviation
        assert abs(count[block] - 222 * share) < 2.5 * drawn_apart


def test_the_recipe_splits_by_source() -> None:
    recipe = experiment.resolve("clips", {})
    assert (recipe.ingest.adapter, recipe.split) == ("index", SplitConfig(by="source"))
    assert (recipe.model.modality, recipe.evaluate.pool) == ("visual", "segment")
