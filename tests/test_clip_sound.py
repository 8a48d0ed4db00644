"""The sound of labelled clips stands where their pictures stand."""

import csv
import dataclasses
import fractions
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.adapters.clips import PAUSE_S
from crosswatch.data.adapters.index import IndexAdapter
from crosswatch.data.batches import Batch, open_batch
from crosswatch.data.ingestion import BatchSummary, IngestConfig, write_batch
from crosswatch.data.sync.estimate import SyncConfig

CONFIG = IngestConfig(adapter="index", frame_px=16, classes=("calm", "fight"))
BEEP_S = 0.06
QUIET = 0.01 * 32_767
TOLERANCE_S = 0.0011  # a stamp of pictures and one of sound, each rounded to a millisecond


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound:
    beep_s: float = 0.5  # middle of the beep, after the clip's first picture
    seconds: float = 1.0
    begins_s: float = 0.0  # after the clip's first picture
    rate_hz: int = 16_000
    codec: str = "aac"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    seconds: float = 1.0
    rate_hz: int = 10
    first_s: float = 0.0  # the first picture's time in the file
    sound: Sound | None = None


def beep(times_s: np.ndarray) -> np.ndarray:
    """A short sweep around 0, so that its time is one at any rate."""
    swing = np.sin(2 * np.pi * (1_000 + 6_000 * times_s) * times_s)
    return 0.6 * swing * np.cos(np.pi * np.clip(times_s / BEEP_S, -0.5, 0.5)) ** 2


def write(path: Path, film: Film) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=film.rate_hz)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        video.codec_context.time_base = fractions.Fraction(1, 1_000 * film.rate_hz)
        video.options = {"preset": "ultrafast", "threads": "1"}
        sound = None
        if film.sound is not None:
            sound = container.add_stream(film.sound.codec, rate=film.sound.rate_hz, layout="mono")
        for at in range(round(film.seconds * film.rate_hz)):
            picture = np.full((32, 48, 3), 20 + at, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = video.codec_context.time_base
            frame.pts = round(film.first_s * 1_000 * film.rate_hz) + 1_000 * at
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if film.sound is not None:
            write_sound(container, sound, film.sound, film.first_s)
    return path


def write_sound(container: av.container.OutputContainer, stream, told: Sound, zero_s: float):
    times_s = told.begins_s + np.arange(round(told.seconds * told.rate_hz)) / told.rate_hz
    values = beep(times_s - told.beep_s)
    kind, size = stream.codec_context.format.name, stream.codec_context.frame_size or 1_024
    for first in range(0, values.size, size):
        part = values[first : first + size][None].astype(np.float32)
        if kind == "s16":
            part = np.rint(part * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(part, kind, "mono")
        frame.sample_rate = told.rate_hz
        frame.time_base = fractions.Fraction(1, told.rate_hz)
        frame.pts = round((zero_s + told.begins_s) * told.rate_hz) + first
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def index(folder: Path, names: list[str]) -> Path:
    with (folder / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "source")])
        csv.writer(stream).writerows((name, "0", "s") for name in names)
    return folder


def ingested(source: Path) -> tuple[Batch, BatchSummary]:
    adapter = IndexAdapter(CONFIG)
    (arrival,) = adapter.find(source).arrivals
    out = source / "out"
    out.mkdir()
    summary = write_batch(adapter.read(arrival), out, ingest=CONFIG, sync=SyncConfig())
    return open_batch(out, batch_id="s", digest="0" * 64), summary


def suffix_of(film: Film) -> str:
    """MP4 holds no plain samples; Matroska holds all, with stamps rounded to milliseconds."""
    return ".mp4" if film.sound is None or film.sound.codec == "aac" else ".mkv"


def made_of(folder: Path, films: list[Film]) -> tuple[Batch, BatchSummary]:
    """Listed backwards; by name they are in order."""
    names = [f"{at}{suffix_of(film)}" for at, film in enumerate(films)]
    for name, film in zip(names, films, strict=True):
        write(folder / name, film)
    return ingested(index(folder, names[::-1]))


def heard(made: Batch, start_s: float, stop_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Times from `start_s` on, and samples."""
    times_s = made.audio_times_s(np.arange(len(made.audio)))
    inside = (times_s >= start_s - 1e-6) & (times_s < stop_s - 1e-6)
    return times_s[inside] - start_s, np.asarray(made.audio[inside], float)


def beep_at_s(times_s: np.ndarray, samples: np.ndarray) -> float:
    step_s = 1 / CONFIG.audio_hz
    half = round(BEEP_S / 2 / step_s)
    pattern = beep(np.arange(-half, half + 1) * step_s)
    match = np.correlate(samples, pattern, mode="same")
    return float(times_s[0] + match.argmax() * step_s)


SOUNDS = st.builds(
    Sound,
    beep_s=st.floats(0.2, 0.7),
    seconds=st.just(1.0),
    begins_s=st.floats(0.0, 0.15),
    rate_hz=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    codec=st.sampled_from(["aac", "pcm_s16le"]),
)
FILMS = st.builds(
    Film,
    seconds=st.sampled_from([0.5, 1.0, 1.4]),
    rate_hz=st.sampled_from([10, 12, 25, 30]),
    first_s=st.sampled_from([0.0, 0.4]),
    sound=st.none() | SOUNDS,
)


@given(films=st.lists(FILMS, min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_beep_is_heard_where_its_clip_stands(
    films: list[Film], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made, summary = made_of(tmp_path_factory.mktemp("clips"), films)
    assert summary.warnings == ()
    sounds = [film.sound for film in films]
    if not any(sounds):
        assert made.audio is None
        assert not (made.folder / "audio.npy").exists()
        assert list(made.sync["streams"]) == ["video"]
        return
    told = made.sync["streams"]["audio"]
    assert (told["clock"], told["offset_s"], told["drift_ppm"]) == ("camera", 0.0, 0.0)
    assert told["file_rate_hz"] == min(each.rate_hz for each in sounds if each is not None)
    assert told["counts"]["audio_lost_packets"] == 0
    for (start_s, stop_s), sound in zip(made.segments, sounds, strict=True):
        times_s, samples = heard(made, start_s, stop_s + PAUSE_S)
        if sound is None:
            assert not samples.any()
            continue
        assert beep_at_s(times_s, samples) == pytest.approx(sound.beep_s, abs=TOLERANCE_S)
        away = np.abs(times_s - sound.beep_s) > BEEP_S + 1_024 / sound.rate_hz
        assert np.abs(samples[away]).max(initial=0) < QUIET


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_a_long_sound_ends_where_the_next_clip_begins(tmp_path: Path, codec: str) -> None:
    """A second beep of the first clip would fall into the second one."""
    long = Sound(beep_s=2.3, seconds=6.0, codec=codec)
    films = [Film(sound=long), Film(), Film(sound=long)]
    made, _ = made_of(tmp_path, films)
    assert not heard(made, *made.segments[1])[1].any()
    first = heard(made, made.segments[0][0], made.segments[1][0])
    assert np.abs(first[1]).max() < QUIET
    times_s = made.audio_times_s(np.array([0, len(made.audio)]))
    assert times_s == pytest.approx([0.0, made.segments[2][1] + PAUSE_S], abs=1e-4)


def test_a_short_or_late_sound_leaves_silence(tmp_path: Path) -> None:
    films = [
        Film(seconds=2.0, sound=Sound(beep_s=0.25, seconds=0.5)),
        Film(seconds=2.0, sound=Sound(beep_s=1.5, begins_s=1.2, seconds=0.6)),
        Film(seconds=2.0, sound=Sound(beep_s=-0.3, begins_s=-0.4, seconds=0.9), first_s=0.4),
    ]
    made, _ = made_of(tmp_path, films)
    (one, _), (two, _), (three, _) = made.segments
    assert beep_at_s(*heard(made, one, two)) == pytest.approx(0.25, abs=TOLERANCE_S)
    assert beep_at_s(*heard(made, two, three)) == pytest.approx(1.5, abs=TOLERANCE_S)
    assert not heard(made, one + 0.7, two + 1.1)[1].any()
    before = heard(made, two + 2.0, three + 0.4)  # its beep came before its first picture
    assert np.abs(before[1]).max() < QUIET
    assert made.sync["streams"]["audio"]["counts"]["audio_holes"] == 2


def unknown_codec(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))


def spoil(path: Path, which: slice = slice(None)) -> None:
    """Overwrite packets of the sound in an MP4."""
    whole = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(each.pos, each.size) for each in container.demux(audio=0) if each.size]
    for at, size in packets[which]:
        whole[at : at + size] = b"\xff" * size
    path.write_bytes(whole)


def too_slow(path: Path) -> None:
    write(path, Film(sound=Sound(codec="pcm_s16le", rate_hz=1_000)))


def too_short(path: Path) -> None:
    write(path, Film(sound=Sound(codec="pcm_s16le", seconds=0.1)))


LOST: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "codec": ("0.mkv", unknown_codec, "its sound is of no known codec. Deliver"),
    "all packets": ("0.mp4", spoil, "0.00 s can be decoded; 0.2 s are needed"),
    "too slow": ("0.mkv", too_slow, "is sampled at 1000 Hz; at least 2000 Hz"),
    "too short": ("0.mkv", too_short, "0.10 s can be decoded; 0.2 s are needed"),
}


@pytest.mark.parametrize("damage", LOST)
@pytest.mark.parametrize("others", [0, 1])
def test_a_sound_that_cannot_be_used_is_told_and_costs_no_picture(
    tmp_path: Path, damage: str, others: int
) -> None:
    damaged, do, words = LOST[damage]
    names = [damaged, "1.mkv"][: 1 + others]
    for name in names:
        write(tmp_path / name, Film(sound=Sound()))
    do(tmp_path / damaged)
    made, summary = ingested(index(tmp_path, names))
    (warning,) = summary.warnings
    assert warning.startswith(f"{damaged!r}: its sound cannot be used and is silence: ")
    assert words in warning
    assert len(made.segments) == 1 + others
    assert len(made.frames) == 10 * (1 + others)
    if not others:
        assert made.audio is None
        return
    times_s, samples = heard(made, made.segments[1][0], made.segments[1][1] + PAUSE_S)
    assert beep_at_s(times_s, samples) == pytest.approx(0.5, abs=TOLERANCE_S)
    assert not heard(made, *made.segments[0])[1].any()


def test_a_lost_packet_is_silence_and_counted(tmp_path: Path) -> None:
    names = ["0.mp4", "1.mp4"]
    for name in names:
        write(tmp_path / name, Film(sound=Sound()))
    spoil(tmp_path / "0.mp4", slice(6, 12))
    made, summary = ingested(index(tmp_path, names))
    (warning,) = summary.warnings
    lost = made.sync["streams"]["audio"]["counts"]["audio_lost_packets"]
    assert warning == f"{lost} packets of sound could not be decoded and are silence"
    assert 1 <= lost <= 6
    assert not heard(made, 0.45, 0.6)[1].any()
    for (start_s, stop_s), silent in zip(made.segments, (True, False), strict=True):
        _, samples = heard(made, start_s, stop_s)
        assert (np.abs(samples).max() < QUIET) == silent
    assert json.loads((made.folder / "sync.json").read_text())["passed"]
