"""The pictures behind a stored batch: which they are, how they look, and where they are found."""

import concurrent.futures
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from deliveries import RATE_HZ, Scene, deliver, edit_json, seal
from hypothesis import given, settings
from hypothesis import strategies as st
from test_deliveries import put
from test_index import ROWS, clip, index

from crosswatch.artifacts import sha256_of
from crosswatch.config import plain
from crosswatch.data import originals
from crosswatch.data.adapters.index import IndexAdapter
from crosswatch.data.adapters.single import CLOCK
from crosswatch.data.batches import Batch, open_set
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.originals import Original, OriginalPlace, open_original, rgb
from crosswatch.data.raw import RawBatch
from crosswatch.data.splits import SplitConfig
from crosswatch.data.store.place import Bucket, Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.video.container import LATE, in_order
from crosswatch.data.video.decode import Pictures, RawVideo
from crosswatch.data.video.shrink import Shrinker
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import BadBatchError, UserError
from crosswatch.stages.ingest import ingest

ASSETS = Path(__file__).parents[1].parent / "shared" / "data" / "decode_assets"
TRANSFER = TransferConfig(concurrency=2, patience_s=5.0)
KINDS = {
    "yuv420p": ("v.mp4", "libx264", "yuv420p", (64, 48)),
    "odd yuv444p": ("v.mp4", "libx264", "yuv444p", (35, 51)),
    "odd yuv420p": ("v.mkv", "ffv1", "yuv420p", (35, 51)),
    "10 bits": ("v.mp4", "libx264", "yuv420p10le", (64, 48)),
    "full range": ("v.avi", "mjpeg", "yuvj420p", (50, 38)),
    "grey": ("v.mkv", "ffv1", "gray", (33, 17)),
    "planar rgb": ("v.avi", "utvideo", "gbrp", (33, 17)),
    "packed rgb": ("v.mov", "qtrle", "rgb24", (33, 17)),
    "stamps as coded": ("v.avi", "libx264", "yuv420p", (64, 48)),
}


def scenes(count: int, size: tuple[int, int]) -> np.ndarray:
    """Pictures that change all over, slowly enough for any codec."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    at = np.arange(count)[:, None, None]
    waves = [np.sin(x / 9 + at / 3), np.cos(y / 7 - at / 4), np.sin((x + y) / 11 + at / 5)]
    return np.round(127 + 100 * np.stack(np.broadcast_arrays(*waves), axis=-1)).astype(np.uint8)


def encode(path: Path, codec: str, pix_fmt: str, pictures: np.ndarray, **options: str) -> Path:
    if codec == "libx264":
        options = {"crf": "8", "g": "10", "bf": "2", "b-adapt": "0", "threads": "1", **options}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = pix_fmt
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def original_of(path: Path, pictures: Pictures | None = None) -> Original:
    video = RawVideo(path=path, times_s=None, rate_hz=25.0, clock=CLOCK, pictures=pictures)
    raw = RawBatch(id="v", plant="", started_at="", video=video, signal=None)
    return Original(raw=raw, path=path)


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def held_to(original: Original, expected: list[np.ndarray], wanted: list[int]) -> None:
    found = dict(original.pictures(np.array(wanted, np.int64)))
    assert list(found) == sorted(set(wanted))
    for at, picture in found.items():
        np.testing.assert_array_equal(picture, expected[at])
        assert picture.flags.c_contiguous
        assert picture.flags.writeable


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind, (name, codec, pix_fmt, size) in KINDS.items():
        folder = tmp_path_factory.mktemp("videos")
        made[kind] = encode(folder / name, codec, pix_fmt, scenes(36, size))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_is_the_one_that_the_decoder_gives(videos: dict[str, Path], kind: str) -> None:
    expected = decoded(videos[kind])
    original = original_of(videos[kind])
    assert original.count == len(expected) == 36
    held_to(original, expected, list(range(36)))
    width, height = KINDS[kind][3]
    error = np.abs(np.stack(expected) - scenes(36, (width, height)).astype(float)).mean()
    assert KINDS[kind][2] == "gray" or error < 12, "and it is the one that was encoded"


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), wanted=st.lists(st.integers(0, 35), max_size=6))
def test_what_else_is_wanted_changes_no_picture(
    videos: dict[str, Path], kind: str, wanted: list[int]
) -> None:
    held_to(original_of(videos[kind]), decoded(videos[kind]), wanted)


REAL = (
    "av1_video.mkv",
    "bt601_limited_range.mp4",
    "discard_first_keyframe.mp4",
    "h264_10bits.mp4",
    "h265_video.mp4",
    "nasa_13013.mp4",
)


@pytest.mark.skipif(not ASSETS.is_dir(), reason="../shared/data/decode_assets is absent")
@pytest.mark.parametrize("name", REAL)
def test_real_videos(name: str) -> None:
    expected = decoded(ASSETS / name)
    original = original_of(ASSETS / name)
    assert original.count == len(expected)
    held_to(original, expected, list(range(0, len(expected), 7)))


COLOURS = [
    (1, False, (63, 102, 240), (255, 1, 0)),  # BT.709's red
    (5, False, (81, 90, 240), (254, 0, 0)),  # BT.601's red
    (5, True, (235, 128, 128), (235, 235, 235)),
    (1, True, (54, 99, 255), (254, 0, 0)),
]


@pytest.mark.parametrize(("colorspace", "full", "yuv", "expected"), COLOURS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
def test_colours_follow_matrix_and_range_as_stored_frames_do(
    colorspace: int,
    full: bool,
    yuv: tuple[int, int, int],
    expected: tuple[int, int, int],
    pix_fmt: str,
) -> None:
    frame = av.VideoFrame(35, 51, pix_fmt)
    for plane, level in zip(frame.planes, yuv, strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    frame.colorspace, frame.color_range = colorspace, 2 if full else 1
    shown = rgb(frame)
    assert shown.shape == (51, 35, 3)
    assert np.abs(shown - np.array(expected)).max() <= 2
    stored, _ = Shrinker(frame_px=16, crop_xywh_px=None, name="v")(frame, grey=False)
    assert np.abs(stored - np.array(expected)).max() <= 2


def test_a_picture_may_be_written_to(tmp_path: Path) -> None:
    """Packed RGB is the decoder's own memory, in which it changes what the next picture changes."""
    pictures = np.repeat(scenes(1, (64, 48)), 12, axis=0)
    pictures[:, :4, :4] = scenes(12, (4, 4))
    path = encode(tmp_path / "v.mov", "qtrle", "rgb24", pictures)
    for at, picture in original_of(path).pictures(np.arange(12)):
        np.testing.assert_array_equal(picture, pictures[at])
        picture[:] = 0


def test_a_video_may_change_its_size_on_the_way(tmp_path: Path) -> None:
    parts = [
        encode(tmp_path / name, "libx264", "yuv420p", scenes(12, size))
        for name, size in (("a.h264", (64, 48)), ("b.h264", (96, 32)))
    ]
    joined = tmp_path / "v.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    expected = [picture for part in parts for picture in decoded(part)]
    held_to(original_of(joined), expected, [0, 5, 11, 12, 20, 23])


def test_a_corrupt_packet_costs_its_picture_alone(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", "libx264", "yuv420p", scenes(36, (64, 48)), g="1", bf="0")
    expected = decoded(path)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][17]
        start, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start + 4 : start + size] = b"\xff" * (size - 4)
    path.write_bytes(bytes(data))
    for wanted in (np.arange(36), np.array([3, 17, 18, 35]), np.array([16, 17])):
        found = dict(original_of(path).pictures(wanted))
        assert list(found) == [at for at in wanted if at != 17]
        for at, picture in found.items():
            np.testing.assert_array_equal(picture, expected[at])
    assert list(original_of(path).pictures(np.array([17]))) == []


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").touch()
    with pytest.raises(BadBatchError, match=r"v\.mp4: is empty \(0 bytes\)"):
        next(original_of(tmp_path / "v.mp4").pictures(np.array([0])))


@dataclasses.dataclass
class Stills:
    """Pictures of an array, and how many were read."""

    pictures: np.ndarray
    broken: frozenset[int] = frozenset()
    read: int = 0

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for at, picture in enumerate(self.pictures):
            self.read += 1
            if at not in self.broken:
                yield at, picture


def test_stills_are_pictures_too_but_have_no_codec(tmp_path: Path) -> None:
    stills = Stills(scenes(20, (33, 17)), broken=frozenset({4}))
    original = original_of(tmp_path, stills)
    found = dict(original.pictures(np.array([9, 2, 4, 2])))
    assert list(found) == [2, 9]
    np.testing.assert_array_equal(found[9], stills.pictures[9])
    assert stills.read == 10, "none behind the last one wanted"
    with pytest.raises(UserError, match=r"frames\.by to uniform or scene"):
        original.keyframes()


def test_nothing_is_decoded_behind_the_last_one_wanted(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, real = [], originals.read_pictures

    def counted(*given: object) -> Iterator[tuple[int, object]]:
        for at, frame in real(*given):
            passed.append(at)
            yield at, frame

    monkeypatch.setattr(originals, "read_pictures", counted)
    original = original_of(videos["yuv420p"])
    assert [at for at, _ in original.pictures(np.array([4, 11]))] == [4, 11]
    assert passed == list(range(12))
    passed.clear()
    assert list(original.pictures(np.array([], np.int64))) == []
    assert passed == []


def test_only_what_is_wanted_is_converted_in_the_caller_s_way(videos: dict[str, Path]) -> None:
    formats = []

    def width_of(frame: av.VideoFrame) -> int:
        formats.append(frame.format.name)
        return frame.width

    found = list(original_of(videos["10 bits"]).pictures(np.array([30, 7]), convert=width_of))
    assert found == [(7, 64), (30, 64)]
    assert formats == ["yuv420p10le"] * 2


@given(
    lateness=st.lists(st.integers(0, LATE - 1), min_size=1, max_size=60),
    lost=st.sets(st.integers(0, 59)),
    wanted=st.sets(st.integers(0, 59), min_size=1),
)
def test_late_pictures_find_their_place(
    lateness: list[int], lost: set[int], wanted: set[int]
) -> None:
    """A decoder holds back at most LATE pictures."""
    count = len(lateness)
    order = sorted(range(count), key=lambda at: (at + lateness[at], at))
    there = [at for at in order if at not in lost]
    asked = np.array(sorted(at for at in wanted if at < count), np.int64)
    if asked.size:
        found = [at for at, _ in in_order(((at, None) for at in there), asked)]
        assert found == [at for at in asked if at not in lost]


def key_frames(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [at for at, frame in enumerate(container.decode(video=0)) if frame.key_frame]


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"packed rgb"}))  # qtrle's decoder never tells
def test_keyframes_are_those_of_the_codec(videos: dict[str, Path], kind: str) -> None:
    found = original_of(videos[kind]).keyframes()
    assert found.tolist() == key_frames(videos[kind])
    if KINDS[kind][1] == "libx264":
        assert found.tolist() == [0, 10, 20, 30]


def test_keyframes_of_open_groups_are_counted_in_order_of_presentation(tmp_path: Path) -> None:
    groups = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=8:scenecut=0"}
    pictures = scenes(40, (64, 48))
    path = encode(tmp_path / "v.mp4", "libx264", "yuv420p", pictures, **groups)
    with av.open(str(path)) as container:
        coded = [at for at, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    found = original_of(path).keyframes().tolist()
    assert found == key_frames(path)
    assert found != coded, "pictures shown earlier are coded behind some of them"


@pytest.mark.skipif(not ASSETS.is_dir(), reason="../shared/data/decode_assets is absent")
@pytest.mark.parametrize("name", REAL)
def test_keyframes_of_real_videos(name: str) -> None:
    assert original_of(ASSETS / name).keyframes().tolist() == key_frames(ASSETS / name)


@dataclasses.dataclass(frozen=True)
class Site:
    """A stage's view: batches that were ingested, and where their deliveries are brought to."""

    folder: Path
    ingest: IngestConfig = dataclasses.field(default_factory=lambda: IngestConfig(frame_px=16))

    def batches(self, arrivals: Place) -> dict[str, Batch]:
        ingest(
            arrivals=arrivals,
            out=self.folder / "set",
            ingest=self.ingest,
            sync=SyncConfig(estimate="given", camera_lag_s=0.7),
            split=SplitConfig(),
            windows=WindowConfig(frames=2, stride=1, signal_s=0.0, per_second=5.0),
            transfer=TRANSFER,
        )
        return {batch.id: batch for batch in open_set(self.folder / "set").batches}

    def open(self, batch: Batch) -> Original:
        return open_original(
            OriginalPlace(
                ingest=plain(self.ingest), fetched=self.folder / "fetched", transfer=TRANSFER
            ),
            batch,
        )


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deliver(tmp_path_factory.mktemp("delivered"), scene=Scene(seconds=30.0))


@pytest.fixture
def arrived(delivered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(delivered, tmp_path / "arrivals" / "batch-1"))


def test_stored_frames_name_their_pictures(tmp_path: Path) -> None:
    """Doubled pictures and silences of the camera shift every frame that follows."""
    camera_s = np.delete(np.arange(330) / RATE_HZ, slice(40, 44))
    camera_s[100:] += 2.5  # a silence
    camera_s[60] = camera_s[59] + 1e-3  # a doubled picture
    deliver(tmp_path / "arrivals", scene=Scene(seconds=36.0), camera_s=camera_s)
    site = Site(tmp_path)
    batch = site.batches(tmp_path / "arrivals")["batch-1"]
    assert batch.frames is not None
    sources = np.load(batch.folder / "frame_sources.npy")
    assert 60 not in sources
    original = site.open(batch)
    assert original.path == tmp_path / "arrivals" / "batch-1"
    pictures = dict(original.pictures(sources))
    assert sorted(pictures) == sorted(set(sources.tolist()))
    for frame, at in zip(batch.frames, sources.tolist(), strict=True):
        area = pictures[at].reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
        assert np.abs(frame - area).mean() < 2


def test_a_delivery_that_is_gone_or_changed_is_named(arrived: Path, tmp_path: Path) -> None:
    site = Site(tmp_path)
    batch = site.batches(arrived.parent)["batch-1"]
    assert next(site.open(batch).pictures(np.array([3])))[0] == 3
    seal(arrived, lambda at: edit_json(at / "batch.json", lambda told: told.update(plant="b")))
    with pytest.raises(BadBatchError, match=f"{arrived} has changed since it was ingested"):
        site.open(batch)
    (arrived / "signal.csv").write_text("time_s\n")
    with pytest.raises(BadBatchError, match="has changed since"):
        site.open(batch)
    shutil.rmtree(arrived)
    with pytest.raises(BadBatchError, match=f"{arrived} is gone. Put back what was ingested"):
        site.open(batch)


def test_a_byte_that_its_checksum_does_not_vouch_for_is_noticed(
    arrived: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    batch = site.batches(arrived.parent)["batch-1"]
    site.open(batch)
    data = bytearray((arrived / "video.mp4").read_bytes())
    data[len(data) // 2] ^= 1
    (arrived / "video.mp4").write_bytes(bytes(data))
    with pytest.raises(BadBatchError, match=r"video\.mp4: checksum mismatch"):
        site.open(batch)
    (arrived / "video.mp4").unlink()
    with pytest.raises(BadBatchError, match=r"video\.mp4: is missing"):
        site.open(batch)


def test_a_batch_that_does_not_say_where_it_came_from_is_refused(
    arrived: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    batch = site.batches(arrived.parent)["batch-1"]
    for text in ("{", "{}", "[]"):
        (tmp_path / "odd").mkdir(exist_ok=True)
        (tmp_path / "odd" / "source.json").write_text(text)
        with pytest.raises(BadBatchError, match=r"its source\.json .* Ingest it again"):
            site.open(dataclasses.replace(batch, folder=tmp_path / "odd"))
    with pytest.raises(BadBatchError, match=r"its source\.json cannot be read"):
        site.open(dataclasses.replace(batch, folder=tmp_path / "nowhere"))


def test_a_delivery_without_video_still_has_its_place(arrived: Path, tmp_path: Path) -> None:
    site = Site(tmp_path)
    batch = site.batches(arrived.parent)["batch-1"]
    told = json.loads((arrived / "batch.json").read_text())
    told["streams"].pop("video")
    seal(arrived, lambda at: (at / "batch.json").write_text(json.dumps(told)) and None)
    signal_only = dataclasses.replace(batch, digest=sha256_of(arrived / "SHA256SUMS"))
    assert site.open(signal_only).path == arrived


def test_an_index_is_hashed_once_for_all_of_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, (path, _, _) in enumerate(ROWS):
        clip(tmp_path / "clips" / path, rate_hz=10 + at, seconds=3.5)
    index(tmp_path / "clips", ROWS)
    config = IngestConfig(adapter="index", frame_px=16, classes=("calm", "fight"))
    site = Site(tmp_path, config)
    batches = site.batches(tmp_path / "clips")
    looked, real = [], IndexAdapter.find

    def counted(adapter: IndexAdapter, source: Path) -> object:
        looked.append(source)
        return real(adapter, source)

    monkeypatch.setattr(IndexAdapter, "find", counted)
    for _ in range(2):
        for batch in batches.values():
            assert batch.frames is not None
            sources = np.load(batch.folder / "frame_sources.npy")
            for at, picture in site.open(batch).pictures(sources[5:7]):
                shown = batch.frames[np.flatnonzero(sources == at)[0]]
                assert np.abs(picture.mean() - shown.mean()) < 2
    assert len(batches) == 4
    assert len(looked) == 1
    changed = next(batch for batch in batches.values() if batch.id.startswith("src2"))
    clip(tmp_path / "clips" / "b/film.mp4", rate_hz=10, seconds=3.0)
    with pytest.raises(BadBatchError, match=r"index\.csv has changed since it was ingested"):
        site.open(changed)
    (tmp_path / "clips" / "b/film.mp4").unlink()
    with pytest.raises(BadBatchError, match=r"cannot be read any more: .*is missing though"):
        site.open(changed)


def test_a_delivery_in_a_bucket_is_brought_here_once(
    delivered: Path, bucket: Bucket, tmp_path: Path
) -> None:
    put(delivered.parent, bucket)
    site = Site(tmp_path)
    batch = site.batches(bucket)["batch-1"]
    original = site.open(batch)
    assert original.path.is_relative_to(tmp_path / "fetched")
    held_to(original, decoded(delivered / "video.mp4"), [0, 100, 299])
    before = {path: path.stat().st_ctime_ns for path in original.path.rglob("*")}
    forget()
    assert site.open(batch).path == original.path
    assert {path: path.stat().st_ctime_ns for path in original.path.rglob("*")} == before


def test_a_delivery_in_a_bucket_may_be_asked_for_by_several(
    delivered: Path, bucket: Bucket, tmp_path: Path
) -> None:
    put(delivered.parent, bucket)
    site = Site(tmp_path)
    batch = site.batches(bucket)["batch-1"]
    site.open(batch)
    shutil.rmtree(tmp_path / "fetched")
    originals._read.cache_clear()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(site.open, [batch] * 4))
    assert len({original.path for original in opened}) == 1


def forget() -> None:
    """As another process would, that has opened nothing yet."""
    originals._find.cache_clear()
    originals._read.cache_clear()
