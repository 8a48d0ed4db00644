"""Pictures to frames: what a stored pixel is, which picture a frame shows, and in which order."""

import dataclasses
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.sync.evidence import Brightness
from crosswatch.data.video import decode as video
from crosswatch.data.video.container import read_contents
from crosswatch.data.video.decode import Decoded, Plan, RawVideo
from crosswatch.data.video.masks import UNKNOWN, write_masks
from crosswatch.data.video.shrink import Shrinker
from crosswatch.errors import BadBatchError

ASSETS = Path(__file__).parents[1].parent / "shared" / "data" / "decode_assets"
EXACTLY = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
CLOSE = 1.0  # grey levels: what rounding in between and edges that fall inside a pixel may cost
MS = Fraction(1, 1000)


def scene(width: int, height: int) -> np.ndarray:
    """Structure of all sizes, as photographs have it."""
    rng = np.random.default_rng(5)
    picture = np.full((height, width, 3), 120.0)
    for size_px, strength in ((2, 3), (8, 9), (32, 15), (128, 22)):
        coarse = rng.standard_normal((height // size_px + 2, width // size_px + 2, 3))
        size = (width, height)
        picture += strength * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


def coded(picture: np.ndarray, pix_fmt: str) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format=pix_fmt, interpolation=EXACTLY
    )


def as_rgb(frame: av.VideoFrame) -> np.ndarray:
    return frame.reformat(format="rgb24", interpolation=EXACTLY, threads=1).to_ndarray()


def area_mean(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(float)


def shrink(
    picture: av.VideoFrame | np.ndarray, *, px: int = 96, crop: tuple[int, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    frame, grey = Shrinker(frame_px=px, crop_xywh_px=crop, name="v")(picture, grey=True)
    assert grey is not None
    return frame, grey


FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "gray", "gbrp")
SIZES = ((1280, 720), (1920, 1080), (640, 480), (333, 241), (702, 578))


@pytest.mark.parametrize("size", SIZES)
def test_a_stored_pixel_is_the_mean_of_its_area_at_every_size(size: tuple[int, int]) -> None:
    frame = coded(scene(*size), "yuv420p")
    error = shrink(frame)[0] - area_mean(as_rgb(frame), 96, 96)
    assert np.abs(error).mean() < CLOSE
    assert np.abs(error.mean((0, 1))).max() < 0.5


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_a_stored_pixel_is_the_mean_of_its_area_in_every_format(pix_fmt: str) -> None:
    frame = coded(scene(960, 600), pix_fmt)
    assert np.abs(shrink(frame, px=64)[0] - area_mean(as_rgb(frame), 64, 64)).mean() < CLOSE


@pytest.mark.parametrize("crop", [(320, 160, 600, 500), (101, 53, 333, 401), (1, 1, 1279, 719)])
def test_a_crop_is_the_crop_of_the_whole(crop: tuple[int, ...]) -> None:
    frame = coded(scene(1280, 720), "yuv420p")
    x, y, width, height = crop
    expected = area_mean(as_rgb(frame)[y : y + height, x : x + width], 64, 64)
    small, grey = shrink(frame, px=64, crop=crop)
    assert np.abs(small - expected).mean() < CLOSE
    np.testing.assert_array_equal(grey, shrink(frame)[1])


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (1001, 333), (100, 60)])
def test_grey_is_the_whole_picture_with_its_longer_side_at_160(size: tuple[int, int]) -> None:
    frame = coded(scene(*size), "yuv420p")
    scale = min(1.0, 160 / max(size))
    width, height = (round(scale * side) for side in size)
    luma = frame.to_ndarray()[: size[1]] if size[0] % 2 == 0 else as_luma(frame)
    grey = shrink(frame)[1]
    assert grey.shape == (height, width)
    assert np.abs(grey - area_mean(luma, width, height)).mean() < CLOSE


def as_luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width]


def test_grey_outlives_the_next_picture() -> None:
    shrinker = Shrinker(frame_px=16, crop_xywh_px=None, name="v")
    dark, light = (np.full((200, 200, 3), level, np.uint8) for level in (40, 200))
    _, grey = shrinker(coded(dark, "yuv420p"), grey=True)
    assert grey is not None
    before = grey.copy()
    shrinker(coded(light, "yuv420p"), grey=True)
    np.testing.assert_array_equal(grey, before)


@pytest.mark.parametrize(
    ("colorspace", "full", "yuv", "rgb"),
    [
        (1, False, (63, 102, 240), (255, 1, 0)),  # BT.709's red
        (5, False, (81, 90, 240), (254, 0, 0)),  # BT.601's red
        (5, False, (235, 128, 128), (255, 255, 255)),
        (5, True, (235, 128, 128), (235, 235, 235)),
        (1, True, (54, 99, 255), (254, 0, 0)),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (1280, 720)])
def test_colours_follow_matrix_and_range_of_the_video(
    colorspace: int,
    full: bool,
    yuv: tuple[int, int, int],
    rgb: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    frame = av.VideoFrame(*size, "yuv420p")
    for plane, level in zip(frame.planes, yuv, strict=True):
        plane.update(bytes([level]) * plane.buffer_size)
    frame.colorspace, frame.color_range = colorspace, 2 if full else 1
    for crop in (None, (16, 16, 32, 32)):
        assert np.abs(shrink(frame, px=16, crop=crop)[0] - np.array(rgb)).max() <= 2


@pytest.mark.skipif(not ASSETS.is_dir(), reason="../shared/data/decode_assets is absent")
@pytest.mark.parametrize(
    ("name", "photographed"),
    [
        ("av1_video.mkv", False),
        ("bt601_limited_range.mp4", False),
        ("discard_first_keyframe.mp4", False),
        ("h264_10bits.mp4", True),
        ("h265_video.mp4", True),
        ("nasa_13013.mp4", True),
    ],
)
def test_real_videos_keep_their_colours(name: str, photographed: bool, tmp_path: Path) -> None:
    stored, decoded = ingest(RawVideo(path=ASSETS / name, times_s=None, rate_hz=25.0), tmp_path)
    with av.open(str(ASSETS / name)) as container:
        pictures = [as_rgb(frame) for frame in container.decode(video=0)]
    for frame, source in zip(stored, decoded.sources, strict=True):
        error = frame - area_mean(pictures[source], 32, 32)
        assert np.abs(error.mean((0, 1))).max() < 2.5  # a wrong range or matrix is off by 10
        # at the edges of a test pattern's pure colours each way of interpolating them differs
        assert not photographed or np.abs(error).mean() < CLOSE


def numbered(count: int, *, size_px: int = 64) -> np.ndarray:
    """Pictures that say which they are: see `numbers_of`."""
    levels = 30 + (np.arange(count) * 5) % 200
    return np.broadcast_to(levels[:, None, None, None], (count, size_px, size_px, 3)).astype(
        np.uint8
    )


def numbers_of(frames: np.ndarray) -> list[int]:
    return np.rint((frames.mean((1, 2, 3)) - 30) / 5).astype(int).tolist()


def encode(
    path: Path, stamps_ms: list[int] | np.ndarray, *, container: str | None = None, depth: int = 2
) -> Path:
    """Numbered pictures with stamps of their own, `depth` of them coded out of order."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = MS
        stream.options = {"crf": "6", "g": "10", "bf": str(depth), "threads": "1"}
        for picture, stamp in zip(numbered(len(stamps_ms)), stamps_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = int(stamp), MS
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def ingest(
    raw: RawVideo, folder: Path, *, max_bad_share: float = 0.01, frame_px: int = 32
) -> tuple[np.ndarray, Decoded]:
    plan = video.plan_frames(raw, max_bad_share=max_bad_share)
    decoded = video.decode(
        raw,
        plan,
        folder / "frames.npy",
        frame_px=frame_px,
        crop_xywh_px=None,
        max_bad_share=max_bad_share,
        progress=lambda done, total: None,
        feature=Brightness(),
    )
    frames = np.load(folder / "frames.npy")
    assert decoded.series is not None
    assert frames.shape == (len(decoded.times_s), frame_px, frame_px, 3)
    assert len(decoded.series) == len(decoded.sources) == len(decoded.pieces) == len(frames)
    return frames, decoded


EVEN_MS = np.arange(40) * 40


def test_irregular_stamps_of_a_video_are_the_frames_times(tmp_path: Path) -> None:
    stamps_ms = np.cumsum(np.random.default_rng(0).integers(12, 400, 40))
    path = encode(tmp_path / "v.mkv", stamps_ms)
    frames, decoded = ingest(RawVideo(path=path, times_s=None, rate_hz=25.0), tmp_path)
    np.testing.assert_allclose(decoded.times_s, stamps_ms / 1000, atol=1e-9)
    assert numbers_of(frames) == decoded.sources.tolist() == list(range(40))


def test_a_leap_of_the_stamps_is_a_gap_and_costs_no_frame(tmp_path: Path) -> None:
    stamps_ms = EVEN_MS + 3_600_000 * (EVEN_MS >= 800)
    path = encode(tmp_path / "v.mkv", stamps_ms)
    frames, decoded = ingest(RawVideo(path=path, times_s=None, rate_hz=25.0), tmp_path)
    np.testing.assert_allclose(decoded.times_s, stamps_ms / 1000, atol=1e-9)
    assert numbers_of(frames) == list(range(40))
    assert decoded.repaired == 0


def test_frames_lie_in_the_order_of_their_times(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", EVEN_MS)
    order = np.arange(40)
    order[10:14], order[30:32] = [12, 10, 13, 11], [31, 30]
    times_s = np.empty(40)
    times_s[order] = EVEN_MS / 1000
    frames, decoded = ingest(RawVideo(path=path, times_s=times_s, rate_hz=25.0), tmp_path)
    np.testing.assert_allclose(decoded.times_s, EVEN_MS / 1000)
    assert numbers_of(frames) == decoded.sources.tolist() == order.tolist()
    assert decoded.series is not None
    luma = 16 + frames.mean((1, 2, 3)) * 219 / 255
    np.testing.assert_allclose(decoded.series.mean(1), luma, atol=1.0)


def test_a_reset_clock_keeps_its_pieces_one_behind_the_other(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", EVEN_MS)
    times_s = np.concatenate([EVEN_MS[:25], EVEN_MS[:15]]) / 1000
    times_s[[27, 28]] = times_s[[28, 27]]
    pieces = np.repeat([0, 1], [25, 15])
    raw = RawVideo(path=path, times_s=times_s, rate_hz=25.0, pieces=pieces)
    frames, decoded = ingest(raw, tmp_path)
    np.testing.assert_array_equal(decoded.pieces, pieces)
    assert numbers_of(frames) == [*range(27), 28, 27, *range(29, 40)]


def test_recordings_joined_in_one_file_are_pieces(tmp_path: Path) -> None:
    one = encode(tmp_path / "one.ts", EVEN_MS).read_bytes()
    (tmp_path / "v.ts").write_bytes(one * 3)
    raw = RawVideo(path=tmp_path / "v.ts", times_s=None, rate_hz=25.0)
    frames, decoded = ingest(raw, tmp_path)
    np.testing.assert_array_equal(decoded.pieces, np.repeat([0, 1, 2], 40))
    np.testing.assert_allclose(
        decoded.times_s - decoded.times_s[0], np.tile(EVEN_MS, 3) / 1000, atol=1e-4
    )
    assert numbers_of(frames) == 3 * list(range(40))
    timed = dataclasses.replace(raw, times_s=np.arange(120) / 25)
    assert numbers_of(ingest(timed, tmp_path)[0]) == 3 * list(range(40))


def test_equal_stamps_are_one_frame_or_two_as_the_times_file_says(tmp_path: Path) -> None:
    stamps_ms = EVEN_MS.copy()
    stamps_ms[[7, 20]] = stamps_ms[[6, 19]]
    path = encode(tmp_path / "v.flv", stamps_ms, depth=0)
    frames, decoded = ingest(RawVideo(path=path, times_s=None, rate_hz=25.0), tmp_path)
    assert numbers_of(frames) == [at for at in range(40) if at not in (7, 20)]
    assert decoded.repaired == 0
    timed = RawVideo(path=path, times_s=EVEN_MS / 1000, rate_hz=25.0)
    assert numbers_of(ingest(timed, tmp_path)[0]) == list(range(40))


@pytest.mark.parametrize(("container", "known"), [("h264", 0), ("matroska", 37)])
def test_frames_without_a_stamp_need_a_times_file(
    container: str, known: int, tmp_path: Path
) -> None:
    path = tmp_path / "v"
    encode(tmp_path / "whole.mkv", EVEN_MS, container=container)
    if known:
        with_stamps_below_zero(tmp_path / "whole.mkv", path, by=3)
    else:
        shutil.move(tmp_path / "whole.mkv", path)
    told = f"v: {40 - known} of 40 frames have no presentation time; each needs one"
    with pytest.raises(BadBatchError, match=told):
        video.plan_frames(RawVideo(path=path, times_s=None, rate_hz=25.0), max_bad_share=0.1)
    timed = RawVideo(path=path, times_s=EVEN_MS / 1000, rate_hz=25.0)
    assert numbers_of(ingest(timed, tmp_path)[0]) == list(range(40))


def with_stamps_below_zero(source: Path, path: Path, *, by: int) -> None:
    """Matroska says nothing of stamps below zero."""
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as whole, av.open(str(path), "w", "matroska", options) as out:
        stream = whole.streams.video[0]
        target = out.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.size]
        for packet in packets:
            packet.pts -= 40 * by
            packet.dts = None if packet.dts is None else packet.dts - 40 * by
            packet.stream = target
            out.mux(packet)


def test_stamps_in_the_order_of_coding_do_not_mix_up_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "6", "bf": "3", "b-adapt": "0", "threads": "1"}
        for picture in numbered(40):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps), "AVI stamps pictures as they are coded"
    frames, decoded = ingest(RawVideo(path=path, times_s=None, rate_hz=25.0), tmp_path)
    assert numbers_of(frames) == list(range(40))
    np.testing.assert_allclose(np.diff(decoded.times_s), 0.04)


def test_times_below_zero_are_times(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", EVEN_MS)
    times_s = EVEN_MS / 1000 - 0.8
    _, decoded = ingest(RawVideo(path=path, times_s=times_s, rate_hz=25.0), tmp_path)
    np.testing.assert_array_equal(decoded.times_s, times_s)


def test_a_broken_picture_shows_the_frame_before_it_in_time(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", EVEN_MS, depth=0)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    start, size = packets[39].pos, packets[39].size
    data[start + 4 : start + size] = b"\xff" * (size - 4)
    path.write_bytes(bytes(data))
    times_s = EVEN_MS / 1000
    times_s[[38, 39]] = times_s[[39, 38]]
    raw = RawVideo(path=path, times_s=times_s, rate_hz=25.0)
    frames, decoded = ingest(raw, tmp_path)
    assert decoded.repaired == 1
    assert numbers_of(frames) == decoded.sources.tolist() == [*range(38), 37, 38]
    assert decoded.series is not None
    np.testing.assert_array_equal(decoded.series[38], decoded.series[37])


@dataclasses.dataclass(frozen=True)
class Stills:
    """Pictures that lie in an array, some of which cannot be read."""

    pictures: np.ndarray
    broken: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return ((k, p) for k, p in enumerate(self.pictures) if k not in self.broken)


def stills(count: int, times_s: np.ndarray, *, broken: frozenset[int] = frozenset()) -> RawVideo:
    pictures = Stills(numbered(count, size_px=48), broken)
    return RawVideo(path=Path("stills"), times_s=times_s, rate_hz=10.0, pictures=pictures)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.1, 0.1, 0.1, 0.0, 0.001, -0.1, 0.35]), min_size=3),
    broken=st.frozensets(st.integers(0, 30), max_size=3),
    resets=st.frozensets(st.integers(1, 30), max_size=2),
    off=st.integers(-1, 1),
)
def test_every_frame_shows_the_picture_that_it_names(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[float],
    broken: frozenset[int],
    resets: frozenset[int],
    off: int,
) -> None:
    times_s = np.cumsum(steps)
    pieces = np.cumsum([at in resets for at in range(times_s.size)])
    raw = stills(times_s.size + off, times_s, broken=broken)
    raw = dataclasses.replace(raw, pieces=pieces)
    timed = min(times_s.size, times_s.size + off)
    lost = sum(at < timed for at in broken)
    plan = video.plan_frames(raw, max_bad_share=0.3)
    none_left = set(plan.sources.tolist()) <= broken
    if lost > max(1, int(0.3 * timed)) or none_left:
        told = f"{timed if none_left else lost} of {timed} frames cannot be decoded"
        with pytest.raises(BadBatchError, match=told):
            ingest(raw, tmp_path_factory.mktemp("v"), max_bad_share=0.3)
        return
    frames, decoded = ingest(raw, tmp_path_factory.mktemp("v"), max_bad_share=0.3)
    assert numbers_of(frames) == decoded.sources.tolist()
    assert not broken & set(decoded.sources.tolist())
    assert decoded.repaired == lost
    rises = np.diff(decoded.times_s)[np.diff(decoded.pieces) == 0]
    assert (rises >= 0.25 / 10).all()
    assert (np.diff(decoded.pieces) >= 0).all()
    np.testing.assert_array_equal(decoded.times_s, times_s[plan.sources])
    assert plan.doubled == timed - len(frames)
    same = plan.sources == decoded.sources
    assert set(plan.sources[~same].tolist()) <= broken


def test_pictures_beyond_the_times_and_times_beyond_the_pictures(tmp_path: Path) -> None:
    for count, missing in ((201, 0), (199, 1)):
        raw = stills(count, np.arange(200) / 10)
        assert video.plan_frames(raw, max_bad_share=0.01).missing == missing
        frames, decoded = ingest(raw, tmp_path)
        assert numbers_of(frames[:20]) == list(range(20))
        assert len(frames) == min(count, 200)
        assert decoded.repaired == 0
    with pytest.raises(BadBatchError, match="stills: is shorter than its times file: 190 frames"):
        ingest(stills(190, np.arange(200) / 10), tmp_path)
    with pytest.raises(BadBatchError, match="stills: holds 1 frames; at least 2"):
        ingest(stills(1, np.zeros(1)), tmp_path)


def test_masks_follow_the_frames(tmp_path: Path) -> None:
    times_s = np.arange(12) / 10
    times_s[[4, 5]], times_s[8] = times_s[[5, 4]], times_s[7]
    raw = stills(12, times_s)
    plan: Plan = video.plan_frames(raw, max_bad_share=0.1)
    levels = np.repeat(np.arange(12, dtype=np.uint8), 48 * 48).reshape(12, 48, 48)
    write_masks(
        Stills(levels, frozenset({2})),
        plan,
        tmp_path / "masks.npy",
        size_px=(48, 48),
        frame_px=16,
        crop_xywh_px=(8, 8, 32, 32),
        classes=12,
    )
    masks = np.load(tmp_path / "masks.npy")
    expected = [UNKNOWN if at == 2 else at for at in (0, 1, 2, 3, 5, 4, 6, 7, 9, 10, 11)]
    assert masks.shape == (11, 16, 16)
    assert [np.unique(mask).tolist() for mask in masks] == [[level] for level in expected]


def test_a_plan_knows_the_pictures_before_one_is_decoded(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mkv", EVEN_MS)
    contents = read_contents(path)
    assert contents.count == 40
    np.testing.assert_array_equal(contents.pts, EVEN_MS)
