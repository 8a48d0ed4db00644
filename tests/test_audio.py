"""Sound keeps its time and its pitch on the way from any file to an even row of samples."""

import fractions
import wave
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.audio.decode import LOUD, DecodedAudio, RawAudio, decode_audio
from crosswatch.data.audio.loudness import BANDS, HOP_S, LoudnessMeter, edges_hz
from crosswatch.data.audio.source import AudioClip
from crosswatch.errors import BadBatchError

RATE_HZ = 16_000
HOUSE = Path(__file__).parents[1].parent / "shared" / "data" / "furg_fire" / "house6.mp4"
RATES = st.sampled_from([4_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])


def decoded(
    path: Path, *, declared_hz: float | None = None, max_bad_share: float = 0.01, **options
) -> tuple[DecodedAudio, np.ndarray]:
    out = path.with_suffix(".npy")
    raw = RawAudio(path=path, rate_hz=declared_hz, **options)
    found = decode_audio(raw, out, rate_hz=RATE_HZ, max_bad_share=max_bad_share)
    samples = np.load(out, mmap_mode="r")
    assert (samples.dtype, samples.shape) == (np.int16, (found.samples,))
    return found, np.asarray(samples)


def write_wav(path: Path, sound: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    """Sound (N,) or (N, channels) of -1..1 as 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.rint(np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes())
    return path


def mux(
    path: Path,
    codec: str,
    pieces: Iterable[tuple[float, np.ndarray]],
    *,
    rate_hz: int = RATE_HZ,
    film_s: float = 0.0,
) -> Path:
    """Float pieces (N,), each beginning at its time in s, beside a black film where asked."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=rate_hz, layout="mono")
        if codec == "mp3":
            sound.codec_context.format = "fltp"  # it takes several kinds and begins with another
        film = container.add_stream("libx264", rate=10) if film_s else None
        if film is not None:
            film.width = film.height = 32
            for _ in range(round(film_s * 10)):
                black = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
                container.mux(film.encode(black))
            container.mux(film.encode())
        size = sound.codec_context.frame_size or 1_024
        kind = sound.codec_context.format.name
        for begins_s, piece in pieces:
            for first in range(0, piece.size, size):
                part = piece[first : first + size][None]
                if kind.startswith("s16"):
                    part = np.rint(part * 32_767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(part, kind, "mono")
                frame.sample_rate = rate_hz
                frame.time_base = fractions.Fraction(1, rate_hz)
                frame.pts = round(begins_s * rate_hz) + first
                container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def noise(seconds: float, *, seed: int = 0, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Between a hum and a hiss, so that no codec takes much of it away."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(round(seconds * rate_hz)))
    hz = np.fft.rfftfreq(round(seconds * rate_hz), 1 / rate_hz)
    spectrum[(hz < 100) | (hz > 2_000)] = 0
    sound = np.fft.irfft(spectrum, n=round(seconds * rate_hz))
    return np.asarray(0.2 * sound / sound.std(), np.float32).clip(-0.9, 0.9)


def delay_of(heard: np.ndarray, true: np.ndarray) -> int:
    """Samples by which `heard` comes after `true`."""
    size = 1 << (heard.size + true.size).bit_length()
    product = np.fft.rfft(heard, size) * np.fft.rfft(true, size).conj()
    match = np.fft.irfft(product, size)
    at = int(match.argmax())
    return at if at < size // 2 else at - size


@given(rate_hz=RATES, band=st.integers(0, BANDS - 1), onset_s=st.floats(0.3, 1.2))
@settings(max_examples=40, deadline=None)
def test_a_tone_lands_in_its_band_at_its_time(
    rate_hz: int, band: int, onset_s: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    edges = edges_hz(RATE_HZ)
    tone_hz = float(np.sqrt(edges[band] * edges[band + 1]))
    if tone_hz > 0.4 * rate_hz:
        return
    times_s = np.arange(2 * rate_hz) / rate_hz
    sound = 0.5 * np.sin(2 * np.pi * tone_hz * times_s) * (times_s >= onset_s)
    path = write_wav(tmp_path_factory.mktemp("tone") / "a.wav", sound, rate_hz)
    found, _ = decoded(path, declared_hz=rate_hz)
    during = found.loudness_s > onset_s + 0.1
    assert (found.loudness[during].argmax(axis=1) == band).all()
    power = 10 ** (found.loudness[:, band] / 10)
    half = np.flatnonzero(power >= 0.5 * np.median(power[during]))[0]
    # a window's energy is halved where its middle stands less than half a window from the onset
    assert abs(found.loudness_s[half] - onset_s) <= HOP_S + 0.5 / tone_hz


@given(rate_hz=RATES, count=st.integers(500, 60_000))
@settings(max_examples=40, deadline=None)
def test_resampling_keeps_length_and_instants(
    rate_hz: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sound = np.zeros(count)
    at = count // 3
    sound[at - 20 : at + 21] = np.hanning(41)
    path = write_wav(tmp_path_factory.mktemp("length") / "a.wav", sound, rate_hz)
    found, samples = decoded(path, declared_hz=rate_hz)
    assert abs(found.samples / RATE_HZ - count / rate_hz) <= HOP_S / 10
    centre = (samples.astype(float) ** 2 @ np.arange(samples.size)) / (
        samples.astype(float) ** 2
    ).sum()
    assert centre / RATE_HZ == pytest.approx(at / rate_hz, abs=1 / min(rate_hz, RATE_HZ))
    assert found.file_rate_hz == rate_hz
    assert found.holes == ()


def test_what_fits_already_is_written_unchanged(tmp_path: Path) -> None:
    sound = noise(3.0)
    _, samples = decoded(write_wav(tmp_path / "a.wav", sound))
    np.testing.assert_array_equal(samples, np.rint(sound * 32_767).astype(np.int16))


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = noise(1.0, seed=1), noise(1.0, seed=2)
    path = write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1))
    _, samples = decoded(path)
    np.testing.assert_allclose(samples / 32_767, (left + right) / 2, atol=2 / 32_767)


def test_a_hole_in_time_is_filled_and_told(tmp_path: Path) -> None:
    before, after = noise(2.0, seed=1), noise(3.0, seed=2)
    path = mux(tmp_path / "a.mkv", "pcm_s16le", [(0.0, before), (3.25, after)])
    found, samples = decoded(path)
    stamp = RATE_HZ // 1_000  # Matroska rounds stamps to milliseconds
    assert abs(samples.size - 6.25 * RATE_HZ) <= stamp
    (hole,) = found.holes
    assert hole == pytest.approx((2.0, 3.25), abs=0.001)
    assert abs(delay_of(samples, after) - 3.25 * RATE_HZ) <= stamp
    assert abs(delay_of(samples, before)) <= stamp
    middle = round(2.6 * RATE_HZ)
    assert not samples[middle - 1_000 : middle + 1_000].any()
    near = (found.loudness_s > hole[0] - 0.02) & (found.loudness_s < hole[1] + 0.02)
    assert not near.any()
    assert found.loudness[:, 3].min() > -60
    assert 0.15 < found.silent_share < 0.21


def test_a_sound_alone_begins_with_its_first_sample(tmp_path: Path) -> None:
    """As music players do; a file cut out of a longer one keeps the old stamps."""
    sound = noise(2.0)
    found, samples = decoded(mux(tmp_path / "a.mkv", "pcm_s16le", [(7.5, sound)]), start_s=-1.0)
    assert (found.start_s, samples.size) == (-1.0, sound.size)
    assert delay_of(samples, sound) == 0


def test_a_videos_track_begins_when_the_video_says(tmp_path: Path) -> None:
    sound = noise(2.0)
    path = mux(tmp_path / "a.mkv", "pcm_s16le", [(0.5, sound)], film_s=3.0)
    found, samples = decoded(path)
    assert found.start_s == pytest.approx(0.5, abs=0.001)
    assert found.holes == ()
    assert delay_of(samples, sound) == 0
    assert found.loudness_s[0] == pytest.approx(0.532, abs=0.001)  # middle of the first 64 ms


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [
        ("a.mp4", "aac", 16_000),
        ("a.mp4", "aac", 44_100),
        ("a.m4a", "aac", 48_000),
        ("a.flac", "flac", 16_000),
        ("a.mp3", "mp3", 44_100),
        ("a.ogg", "libopus", 48_000),
    ],
)
def test_a_compressed_sound_equals_the_plain_one(
    name: str, codec: str, rate_hz: int, tmp_path: Path
) -> None:
    sound = noise(4.0, rate_hz=rate_hz)
    film_s = 4.0 if name.endswith("mp4") else 0.0
    path = mux(tmp_path / name, codec, [(0.0, sound)], rate_hz=rate_hz, film_s=film_s)
    found, samples = decoded(path, declared_hz=rate_hz)
    _, plain = decoded(write_wav(tmp_path / "plain.wav", sound, rate_hz))
    codec_frame = 1_152 * RATE_HZ / min(rate_hz, RATE_HZ)
    assert abs(samples.size - plain.size) <= codec_frame
    assert found.start_s == 0.0
    assert abs(delay_of(samples, plain)) <= 1
    both = min(samples.size, plain.size)
    assert np.corrcoef(samples[:both], plain[:both])[0, 1] > 0.98


@given(cuts=st.lists(st.integers(0, 40_000), max_size=12))
@settings(max_examples=30, deadline=None)
def test_loudness_does_not_depend_on_the_pieces(cuts: list[int]) -> None:
    sound = np.rint(noise(2.5) * 32_767).astype(np.int16)
    whole, pieced = LoudnessMeter(RATE_HZ), LoudnessMeter(RATE_HZ)
    whole.feed(sound)
    for piece in np.split(sound, sorted(min(cut, sound.size) for cut in cuts)):
        pieced.feed(piece)
    np.testing.assert_allclose(pieced.levels_db(), whole.levels_db(), atol=1e-3)
    assert len(whole.levels_db()) == (sound.size - whole.window) // whole.hop + 1


@given(rate_hz=st.integers(8_000, 96_000))
@settings(max_examples=60, deadline=None)
def test_every_rate_gives_every_band_its_frequencies(rate_hz: int) -> None:
    """White noise is as loud in each band; a band without a frequency would be NaN."""
    meter = LoudnessMeter(rate_hz)
    white = np.random.default_rng(0).normal(0, 3_000, rate_hz * 2)
    meter.feed(white.astype(np.int16))
    levels_db = meter.levels_db()
    assert np.isfinite(levels_db).all()
    power_db = 10 * np.log10((10 ** (levels_db / 10)).mean(axis=0))
    # 97 windows of 2-300 frequencies each: the narrowest band's mean errs by about 10 %
    np.testing.assert_allclose(power_db, 20 * np.log10(3_000 / 32_768), atol=2.0)


def test_clipping_is_counted(tmp_path: Path) -> None:
    times_s = np.arange(5 * RATE_HZ) / RATE_HZ
    found, _ = decoded(write_wav(tmp_path / "a.wav", 1.5 * np.sin(2 * np.pi * 313 * times_s)))
    expected = 1 - 2 / np.pi * np.arcsin(LOUD / 32_767 / 1.5)
    assert found.clipped_share == pytest.approx(expected, abs=0.01)


def test_progress_ends_with_the_sound(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    path = mux(tmp_path / "a.flac", "flac", [(0.0, noise(5.0))])
    found = decode_audio(
        RawAudio(path=path, rate_hz=RATE_HZ),
        tmp_path / "a.npy",
        rate_hz=RATE_HZ,
        max_bad_share=0.0,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert all(done <= total for done, total in heard)
    assert heard[-1] == (found.samples, found.samples)


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def float_wav(path: Path) -> Path:
    sound = noise(1.0)
    sound[5_000] = np.nan
    return mux(path, "pcm_f32le", [(0.0, sound)])


def silent_film(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=10)
        film.width = film.height = 32
        container.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(film.encode())
    return path


def moov_first(path: Path) -> Path:
    """An m4a whose index stands before the sound, so that it opens when half of it is there."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for first in range(0, 5 * RATE_HZ, 1_024):
            part = noise(5.0)[first : first + 1_024][None]
            frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
            frame.sample_rate, frame.pts = RATE_HZ, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def joined_wrongly(path: Path) -> Path:
    """Two recordings in one file, the later one first."""
    for begins_s in (9.0, 2.0):
        part = mux(path.with_name("part.ts"), "mp2", [(begins_s, noise(1.0))])
        with path.open("ab") as whole:
            whole.write(part.read_bytes())
    return path


def tiny_rate(path: Path) -> Path:
    return write_wav(path, noise(1.0), 100)


def unknown_codec(path: Path) -> Path:
    whole = mux(path, "aac", [(0.0, noise(1.0))], film_s=1.0).read_bytes()
    path.write_bytes(whole.replace(b"A_AAC", b"A_XYZ"))
    return path


DAMAGES: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "empty": ("a.wav", lambda path: (path.write_bytes(b""), path)[1], r"is empty \(0 bytes\)"),
    "noise of bytes": (
        "a.wav",
        lambda path: (path.write_bytes(bytes(range(256)) * 9), path)[1],
        r"cannot be opened as sound: .*2304 bytes",
    ),
    "half a WAV": (
        "a.wav",
        lambda path: cut(write_wav(path, noise(3.0)), 0.5),
        r"is truncated or damaged: 47978 of the 96000 bytes that it announces .* 99% are",
    ),
    "only a header": (
        "a.wav",
        lambda path: cut(write_wav(path, noise(1.0)), 44 / 32_044),
        r"is truncated or damaged: 0 of the 32000 bytes",
    ),
    "no samples": ("a.wav", lambda path: write_wav(path, np.zeros(0)), r"holds no sound \(0"),
    "half a FLAC": (
        "a.flac",
        lambda path: cut(mux(path, "flac", [(0.0, noise(5.0))]), 0.5),
        r"is truncated or damaged: 2\.\d+ of the 5\.00 s",
    ),
    "half an M4A": (
        "a.m4a",
        lambda path: cut(moov_first(path), 0.5),
        r"is truncated or damaged: \d\.\d+ of",
    ),
    "no sound track": ("a.mp4", silent_film, r"holds no audio stream"),
    "not a number": ("a.mkv", float_wav, r"1 of the \d+ samples from 0\.\d+ s on are NaN"),
    "time backwards": ("a.ts", joined_wrongly, r"time runs backwards: 1\.\d+ s, then -\d\.\d+ s"),
    "a pause of hours": (
        "a.mkv",
        lambda path: mux(path, "pcm_s16le", [(0.0, noise(1.0)), (9_000.0, noise(1.0))]),
        r"holes of 8999 s in 1\.0 s of sound; 600 s",
    ),
    "an unknown codec": ("a.mkv", unknown_codec, r"its sound is of no known codec"),
    "a sample now and then": ("a.wav", tiny_rate, r"sampled at 100 Hz; at least 2000 Hz"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_sound_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    name, make, message = DAMAGES[damage]
    with pytest.raises(BadBatchError, match=message) as refusal:
        decoded(make(tmp_path / name))
    assert str(refusal.value).startswith(f"{name}: ")
    assert "\n" not in str(refusal.value)


def test_a_wrong_rate_is_refused_and_a_nearly_right_one_is_not(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(1.0))
    with pytest.raises(BadBatchError, match=r"at 16000 Hz, batch.json declares 16200 Hz; 1%"):
        decoded(path, declared_hz=16_200)
    decoded(path, declared_hz=16_100)


def test_a_sound_of_unknown_length_is_taken_as_it_is(tmp_path: Path) -> None:
    """A recorder that writes into a pipe cannot go back to fill in the length."""
    path = write_wav(tmp_path / "a.wav", noise(2.0))
    whole = path.read_bytes()
    for unknown in (b"\0" * 4, b"\xff" * 4):
        path.write_bytes(whole[:40] + unknown + whole[44:])
        assert decoded(path)[0].samples == 2 * RATE_HZ


def test_a_damaged_stretch_keeps_what_follows_at_its_time(tmp_path: Path) -> None:
    sound = noise(20.0)
    path = mux(tmp_path / "a.flac", "flac", [(0.0, sound)])
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 400] = bytes(400)
    path.write_bytes(whole)
    found, samples = decoded(path, max_bad_share=0.05)
    assert samples.size == sound.size
    tail = sound[-5 * RATE_HZ :]
    assert delay_of(samples, tail) == 15 * RATE_HZ
    assert found.holes
    for at in range(2_000, len(whole) - 400, 6_000):
        whole[at : at + 400] = bytes(400)
    path.write_bytes(whole)
    with pytest.raises(BadBatchError, match=r"damaged: 16\.\d+ of the 20\.00 s"):
        decoded(path, max_bad_share=0.05)


def one_of(clips: list[AudioClip], folder: Path) -> tuple[DecodedAudio, np.ndarray]:
    return decoded(folder / "index.csv", clips=tuple(clips))


@given(
    drawn=st.lists(
        st.tuples(
            st.integers(1, 4_000),  # samples that the clip's sound has
            st.integers(1, 4_000),  # and that its span has room for
            st.integers(-2_000, 2_000),  # from the span's beginning to the sound's
            st.integers(0, 3_000),  # until the next span begins
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=40, deadline=None)
def test_clips_sound_where_they_stand_and_nowhere_else(
    drawn: list[tuple[int, int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    true = np.zeros(sum(room + apart for _, room, _, apart in drawn), np.int16)
    heard = np.zeros(true.size, bool)
    clips, first = [], 0
    for number, (count, room, late, apart) in enumerate(drawn):
        sound = rng.integers(-20_000, 20_000, count) / 32_767
        path = write_wav(folder / f"{number}.wav", sound)
        span = np.arange(first, first + room)
        inside = (span >= first + late) & (span < first + late + count)
        true[span[inside]] = np.rint(sound[span[inside] - first - late] * 32_767)
        heard[span[inside]] = True
        times_s = [at / RATE_HZ for at in (first + late, first, first + room)]
        clips.append(AudioClip(path=path, start_s=times_s[0], span_s=(times_s[1], times_s[2])))
        first += room + apart
    if not heard.any():
        with pytest.raises(BadBatchError, match=r"^index\.csv: holds no sound"):
            one_of(clips, folder)
        return
    found, samples = one_of(clips, folder)
    begins, *_, ends = (*np.flatnonzero(heard), np.flatnonzero(heard)[-1])
    assert found.start_s * RATE_HZ == pytest.approx(begins)
    np.testing.assert_array_equal(samples, true[begins : ends + 1])
    for start_s, stop_s in found.holes:
        assert not heard[round(start_s * RATE_HZ) : round(stop_s * RATE_HZ)].any()
    missing = sum(stop_s - start_s for start_s, stop_s in found.holes) * RATE_HZ
    told_nothing = (~heard[begins : ends + 1]).sum() - missing  # holes too short to be told
    assert -1e-3 < told_nothing <= len(drawn) * 0.005 * RATE_HZ


def test_any_number_of_clips_may_be_silent(tmp_path: Path) -> None:
    """A file with such a hole is refused."""
    path = write_wav(tmp_path / "a.wav", noise(1.0))
    spans_s = ((0.0, 1.0), (1_300.0, 1_301.0))
    found, samples = one_of(
        [AudioClip(path=path, start_s=span[0], span_s=span) for span in spans_s], tmp_path
    )
    assert (samples.size, found.holes) == (1_301 * RATE_HZ, ((1.0, 1_300.0),))


def test_what_breaks_off_is_silence_until_the_next_clip(tmp_path: Path) -> None:
    sound = noise(2.0)
    good = write_wav(tmp_path / "good.wav", sound)
    broken = sound.copy()
    broken[RATE_HZ + 100] = np.nan
    bad = mux(tmp_path / "bad.mkv", "pcm_f32le", [(0.0, broken)])
    found, samples = one_of(
        [
            AudioClip(path=path, start_s=start_s, span_s=(start_s, start_s + 3.0))
            for path, start_s in ((bad, 0.0), (good, 3.0))
        ],
        tmp_path,
    )
    read = RATE_HZ // 1_024 * 1_024
    np.testing.assert_allclose(samples[:read] / 32_767, sound[:read], atol=1e-4)
    assert not samples[read : 3 * RATE_HZ].any()
    np.testing.assert_array_equal(samples[3 * RATE_HZ :], np.rint(sound * 32_767))
    assert found.lost_packets == -(-2 * RATE_HZ // 1_024) - read // 1_024


@pytest.mark.skipif(not HOUSE.exists(), reason=f"{HOUSE.name} of the FURG fire set is not here")
def test_the_track_of_a_real_video_is_as_long_as_the_video(tmp_path: Path) -> None:
    link = tmp_path / "house6.mp4"
    link.symlink_to(HOUSE)
    found, _ = decoded(link, declared_hz=48_000)
    assert found.samples / RATE_HZ == pytest.approx(899 / 29.97, abs=1_024 / 48_000 + 0.001)
    assert (found.start_s, found.holes, found.lost_packets) == (0.0, (), 0)
    assert found.loudness.std(axis=0).min() > 1.0
