"""Sound becomes columns, statistics or states that do not depend on how it was cut or batched."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from tiny_speech import COLUMNS, WIDTH, make_tiny_ast, make_tiny_wav2vec2

from crosswatch import artifacts
from crosswatch.data.adapters.single import SingleAdapter
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.originals import OriginalPlace
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.sync.clocks import ClockMap
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.errors import UserError
from crosswatch.features.encoder import Encoded, Encoder
from crosswatch.features.settings import AudioConfig, MelConfig
from crosswatch.features.sound import log_mel
from crosswatch.features.sound.audio import AudioEncoder
from crosswatch.features.sound.mel import WIDTH as MEL_WIDTH
from crosswatch.features.sound.mel import MelEncoder, statistics
from crosswatch.features.sound.stretches import RATE_HZ, sound_of
from crosswatch.features.source import Source
from crosswatch.records import WeightsConfig

REAL = Path(__file__).parents[1].parent / "shared" / "data" / "fight_surv" / "clips_h160"
PLACE = OriginalPlace(ingest={}, fetched=Path("nowhere"), transfer=TransferConfig())
LOG_MEL = AudioEncoder(AudioConfig(window_s=1.0))
MEL = MelEncoder(MelConfig())
quick = settings(max_examples=40, deadline=None)


def source_of(
    folder: Path,
    sound: np.ndarray | None,
    *,
    rate_hz: int = RATE_HZ,
    start_s: float = 0.0,
    clock: ClockMap | None = None,
) -> Source:
    """A stored batch with this sound of -1..1, as ingest writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    streams = {}
    if sound is not None:
        pcm = np.rint(np.clip(sound, -1, 1) * 32_767).astype(np.int16)
        np.save(folder / "audio.npy", pcm)
        told = (clock or ClockMap(method="shared")).described()
        streams = {"audio": told | {"start_s": start_s, "rate_hz": rate_hz}}
    labels = {"events": [], "keyframes": [], "segments": []}
    artifacts.write_json(folder / "labels.json", labels)
    sync = {"video_rate_hz": 10.0, "signal_rate_hz": 0.0, "streams": streams}
    artifacts.write_json(folder / "sync.json", sync)
    return Source(batch_id="b", batch_digest="d" * 64, folder=folder, place=PLACE)


def noise(seconds: float, *, level: float = 0.1, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, round(seconds * rate_hz))


def sine(hz: float, seconds: float, *, level: float = 0.5, rate_hz: int = RATE_HZ) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def encoded(encoder: Encoder, source: Source, rows: Sequence[int] | None = None) -> list[Encoded]:
    count = len(encoder.spans_s(source))
    asked = np.arange(count) if rows is None else np.array(rows, np.int64)
    found = list(encoder.inputs(source, asked))
    assert [item.row for item in found] == asked.tolist()
    return list(encoder.load("cpu")([item.values for item in found]))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return source_of(tmp_path_factory.mktemp("noisy"), noise(7.3))


@pytest.fixture(scope="module")
def by_rate(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Source, np.ndarray]]:
    """A sound of every rate, and the whole of it at RATE_HZ."""
    found = {}
    for rate_hz in (4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000):
        folder = tmp_path_factory.mktemp("rate")
        source = source_of(folder, noise(2.0, rate_hz=rate_hz), rate_hz=rate_hz)
        samples = np.load(folder / "audio.npy").astype(np.float32) / 32_768
        common = np.gcd(RATE_HZ, rate_hz)
        found[rate_hz] = source, resample_poly(samples, RATE_HZ // common, rate_hz // common)
    return found


@given(
    rate_hz=st.sampled_from([4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    first=st.integers(-900, 33_000),
    count=st.integers(0, 20_000),
)
@quick
def test_a_sample_is_the_same_in_whichever_stretch_it_is_read(
    rate_hz: int, first: int, count: int, by_rate: dict[int, tuple[Source, np.ndarray]]
) -> None:
    source, whole = by_rate[rate_hz]
    heard = sound_of(source)
    assert len(heard) == len(whole)
    around = np.concatenate([np.zeros(900), whole, np.zeros(30_000)])[900 + first :][:count]
    np.testing.assert_allclose(heard.read(first, first + count), around, atol=2e-6)


def test_the_columns_are_those_of_the_reference() -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram

    sound = noise(1.5) + sine(440, 1.5)
    bank = mel_filter_bank(201, 40, 20.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    expected = spectrogram(
        sound[1:] - 0.97 * sound[:-1],
        np.hamming(400),
        frame_length=400,
        hop_length=160,
        power=2.0,
        center=False,
        mel_filters=bank,
        log_mel="dB",
    )
    found = log_mel.log_mel(sound.astype(np.float32))
    assert found.shape == (148, 40)
    np.testing.assert_allclose(found, expected.T, atol=2e-3)


def centres_hz() -> np.ndarray:
    """Slaney's scale: even to 1 kHz, then by a constant factor."""
    steps = np.linspace(0.3, 15 + 27 * np.log(8) / np.log(6.4), 42)[1:-1]
    return np.where(steps < 15, 200 / 3 * steps, 1_000 * 6.4 ** ((steps - 15) / 27))


@given(hz=st.floats(60, 7_600))
@quick
def test_a_sine_lights_the_band_of_its_frequency(hz: float) -> None:
    mean_db = log_mel.log_mel(sine(hz, 0.2).astype(np.float32)).mean(axis=0)
    centres = centres_hz()
    nearest = np.abs(centres - hz).argmin()
    assert abs(int(mean_db.argmax()) - int(nearest)) <= 1
    far = np.abs(centres - hz) > 0.2 * hz + 200
    assert (mean_db[far] < mean_db.max() - 20).all()


@given(gain_db=st.floats(-20, 10))
@quick
def test_louder_by_so_many_db_is_that_much_higher(gain_db: float) -> None:
    sound = noise(0.3, level=0.01).astype(np.float32)
    gained = log_mel.log_mel(sound * np.float32(10 ** (gain_db / 20)))
    np.testing.assert_allclose(gained, log_mel.log_mel(sound) + gain_db, atol=1e-3)


def test_nothing_is_below_the_floor() -> None:
    columns = log_mel.log_mel(np.zeros(2_000, np.float32))
    np.testing.assert_array_equal(columns, np.full((10, 40), log_mel.FLOOR_DB, np.float32))


@given(hops=st.integers(1, 200))
@quick
def test_shifting_by_hops_shifts_the_columns(hops: int) -> None:
    sound = noise(2.5).astype(np.float32)
    shifted = log_mel.log_mel(sound[hops * log_mel.HOP :])
    np.testing.assert_allclose(shifted, log_mel.log_mel(sound)[hops:], atol=1e-4)


def test_windows_of_log_mel_joined_are_the_columns_of_the_whole(noisy: Source) -> None:
    parts = [row["audio"] for row in encoded(LOG_MEL, noisy)]
    assert [len(part.values) for part in parts] == [100] * 7 + [28]
    assert all(part.valid.all() for part in parts)
    heard = sound_of(noisy)
    whole = log_mel.log_mel(heard.read(-1, len(heard)))
    np.testing.assert_allclose(np.concatenate([part.values for part in parts]), whole, atol=1e-4)


@given(samples=st.integers(0, 40_000))
@quick
def test_any_length_gives_the_columns_that_fit(
    samples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = source_of(tmp_path_factory.mktemp("any"), noise(3.0)[: max(samples, 1)])
    rows = encoded(LOG_MEL, source)
    assert sum(len(row["audio"].values) for row in rows) in (
        log_mel.columns_in(samples),
        log_mel.columns_in(samples - samples % RATE_HZ),  # the rest is too short for a row
    )
    spans_s = MEL.spans_s(source)
    assert (spans_s[:, 1] - spans_s[:, 0] >= 0.5).all()
    assert len(spans_s) == max((samples - 8_000) // 8_000 + 1, 0)


@pytest.mark.parametrize("encoder", [LOG_MEL, MEL], ids=["log_mel", "mel"])
@pytest.mark.parametrize("sound", [None, np.ones(1)], ids=["no sound", "one sample"])
def test_what_gives_no_window_has_no_rows(
    encoder: Encoder, sound: np.ndarray | None, tmp_path: Path
) -> None:
    source = source_of(tmp_path, sound)
    assert encoder.spans_s(source).shape == (0, 2)
    assert encoded(encoder, source) == []


@pytest.mark.parametrize("encoder", [LOG_MEL, MEL], ids=["log_mel", "mel"])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_times_follow_the_clock_of_the_sound(
    encoder: Encoder, rate_hz: int, tmp_path: Path
) -> None:
    clock = ClockMap(method="triggers", offset_s=-3.5, drift_ppm=400.0, t_mid_s=2.0)
    sound = noise(4.25, rate_hz=rate_hz)
    source = source_of(tmp_path, sound, rate_hz=rate_hz, start_s=1.25, clock=clock)
    spans_s = encoder.spans_s(source)
    step_s = 1.0 if encoder is LOG_MEL else 0.5
    begins_s = 1.25 + step_s * np.arange(len(spans_s))
    ends_s = np.minimum(begins_s + 1.0, 1.25 + 4.25)
    own_s = np.stack([begins_s, ends_s], axis=1)
    np.testing.assert_allclose(spans_s, clock.to_reference(own_s), atol=1 / rate_hz)
    assert len(spans_s) == (5 if encoder is LOG_MEL else 8)


@pytest.mark.parametrize("encoder", [LOG_MEL, MEL], ids=["log_mel", "mel"])
def test_silence_is_not_valid_and_a_click_is_heard(encoder: Encoder, tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(RATE_HZ), noise(1.0), 2e-4 * np.ones(2 * RATE_HZ)])
    sound[-RATE_HZ // 4] = 0.5
    source = source_of(tmp_path, sound)
    heard = {}
    for span_s, row in zip(encoder.spans_s(source), encoded(encoder, source), strict=True):
        (vector,) = row.values()
        heard[span_s[0]] = bool(vector.valid.any())
        assert vector.valid.all() == vector.valid.any()
        assert vector.valid.any() or not vector.values.any()
    assert {at: heard[at] for at in (0.0, 1.0, 2.0, 3.0)} == {0: False, 1: True, 2: False, 3: True}


def test_the_silence_limit_is_the_peak(tmp_path: Path) -> None:
    source = source_of(tmp_path, sine(1_000, 1.0, level=0.1))
    for limit_db, audible in ((-19.9, False), (-20.1, True)):
        encoder = MelEncoder(MelConfig(silence_dbfs=limit_db))
        assert bool(encoded(encoder, source)[0]["mel"].valid) is audible


def test_the_statistics_are_those_of_the_columns_in_the_window(noisy: Source) -> None:
    heard = sound_of(noisy)
    for row, (start_s, stop_s) in zip(encoded(MEL, noisy), MEL.spans_s(noisy), strict=True):
        vector = row["mel"]
        assert (vector.values.shape, vector.values.dtype, vector.valid.shape) == (
            (MEL_WIDTH,),
            np.float32,
            (),
        )
        columns = log_mel.log_mel(heard.read(round(start_s * RATE_HZ) - 1, round(stop_s * RATE_HZ)))
        mean, std, low, high, step = vector.values.reshape(5, 40)
        np.testing.assert_allclose(mean * 100 - 100, columns.mean(axis=0), atol=1e-2)
        np.testing.assert_allclose(std * 20, columns.std(axis=0), atol=1e-2)
        np.testing.assert_allclose(low * 100 - 100, columns.min(axis=0), atol=1e-2)
        np.testing.assert_allclose(high * 100 - 100, columns.max(axis=0), atol=1e-2)
        steps = np.abs(np.diff(columns, axis=0)).mean(axis=0)
        np.testing.assert_allclose(step * 10, steps, atol=1e-2)
        assert (vector.values >= 0).all()
        assert (vector.values <= 1.3).all()


def test_one_column_has_statistics() -> None:
    found = statistics(np.full((1, 40), -50, np.float32)).reshape(5, 40)
    np.testing.assert_allclose(found[:, 0], [0.5, 0, 0.5, 0.5, 0], atol=1e-6)


@pytest.fixture(scope="module", params=[LOG_MEL, MEL], ids=["log_mel", "mel"])
def every_row(request: pytest.FixtureRequest, noisy: Source) -> tuple[Encoder, list[Encoded]]:
    return request.param, encoded(request.param, noisy)


@given(rows=st.sets(st.integers(0, 7)).map(sorted))
@quick
def test_a_row_is_the_same_whichever_are_asked_for(
    rows: list[int], every_row: tuple[Encoder, list[Encoded]], noisy: Source
) -> None:
    encoder, everything = every_row
    for row, found in zip(rows, encoded(encoder, noisy, rows), strict=True):
        for name, vector in found.items():
            np.testing.assert_array_equal(vector.values, everything[row][name].values)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_the_stored_rate_hardly_matters(rate_hz: int, tmp_path: Path) -> None:
    """Below 3.6 kHz, where the lower rate has everything."""
    found = []
    for each_hz in (RATE_HZ, rate_hz):
        sound = sum(sine(hz, 2.0, level=0.1, rate_hz=each_hz) for hz in (200, 450, 900, 1800))
        source = source_of(tmp_path / str(each_hz), sound, rate_hz=each_hz)
        found.append(encoded(MEL, source)[1]["mel"].values[:40])
    loud = found[0] > 0.6
    assert loud.sum() >= 6
    np.testing.assert_allclose(found[1][loud], found[0][loud], atol=0.01)


WAV2VEC2S = ["wav2vec2 group", "wav2vec2 layer"]
NETWORKS = [*WAV2VEC2S, "ast"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {
        "wav2vec2 group": make_tiny_wav2vec2(folder / "group", norm="group"),
        "wav2vec2 layer": make_tiny_wav2vec2(folder / "layer", norm="layer"),
        "ast": make_tiny_ast(folder / "ast"),
    }


def listening(
    name: str, weights: dict[str, Path], precision: str = "fp32", **others: Any
) -> AudioEncoder:
    config = AudioConfig(
        source="ast" if name == "ast" else "wav2vec2",
        weights=WeightsConfig(source=str(weights[name])),
        **{"window_s": 2.0, **others},
    )
    return AudioEncoder(config, precision)


def called_directly(folder: Path, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last hidden states (L, D) of transformers on one window, and what pools them."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    extractor = AutoFeatureExtractor.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder).eval()
    taken = extractor(samples, sampling_rate=RATE_HZ, return_tensors="pt")
    with torch.no_grad():
        output = network(taken["input_values"])
    states = output.last_hidden_state[0].numpy()
    pooled = output.get("pooler_output")
    return states, states.mean(axis=0) if pooled is None else pooled[0].numpy()


def cosines(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(some, axis=-1) * np.linalg.norm(others, axis=-1)
    return np.asarray((some * others).sum(axis=-1) / lengths)


def stored_windows(source: Source, window_s: float = 2.0) -> list[np.ndarray]:
    stored = np.load(source.folder / "audio.npy").astype(np.float32) / 32_768
    size = round(window_s * RATE_HZ)
    return [stored[at : at + size] for at in range(0, len(stored), size)]


@pytest.mark.parametrize("name", NETWORKS)
def test_states_are_those_of_transformers(
    name: str, weights: dict[str, Path], noisy: Source
) -> None:
    pooled = encoded(listening(name, weights), noisy)
    sequences = encoded(listening(name, weights, pool=False), noisy)
    windows = stored_windows(noisy)
    assert len(pooled) == len(sequences) == len(windows) == 4
    for window, one, many in zip(windows, pooled, sequences, strict=True):
        states, mean = called_directly(weights[name], window)
        if name == "ast":
            states = states[2:].reshape(3, -1, WIDTH).mean(axis=0)  # 3 places in frequency
            states = states[: -(-log_mel.columns_in(len(window)) // 10)]
        assert one["audio"].values.shape == (WIDTH,)
        assert bool(one["audio"].valid)
        assert cosines(one["audio"].values, mean) >= 0.999
        assert many["audio"].values.shape == states.shape
        assert many["audio"].valid.all()
        assert cosines(many["audio"].values, states).min() >= 0.999
    assert len(sequences[0]["audio"].values) == (20 if name == "ast" else 99)
    assert len(sequences[3]["audio"].values) == (13 if name == "ast" else 64)


@pytest.mark.parametrize("name", NETWORKS)
def test_states_do_not_depend_on_the_batch(
    name: str, weights: dict[str, Path], noisy: Source
) -> None:
    encoder = listening(name, weights, pool=False)
    model = encoder.load("cpu")
    inputs = [item.values for item in encoder.inputs(noisy, np.arange(4))]
    together = model([*inputs, {}, *reversed(inputs)])
    assert not together[4]["audio"].valid.any()
    for at, given_ in enumerate(inputs):
        (alone,) = model([given_])
        for place in (at, 8 - at):
            np.testing.assert_allclose(
                together[place]["audio"].values, alone["audio"].values, atol=1e-4
            )


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_says_nearly_the_same(
    name: str, weights: dict[str, Path], noisy: Source
) -> None:
    exact, rough = (
        np.stack([row["audio"].values for row in encoded(listening(name, weights, kind), noisy)])
        for kind in ("fp32", "bf16")
    )
    assert rough.dtype == np.float32
    assert cosines(exact, rough).min() >= 0.99
    assert (exact != rough).any()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("pool", [True, False])
def test_a_model_is_not_asked_about_silence(
    name: str, pool: bool, weights: dict[str, Path], tmp_path: Path
) -> None:
    sound = np.concatenate([np.zeros(2 * RATE_HZ), noise(0.025)])
    silent, short = encoded(listening(name, weights, pool=pool), source_of(tmp_path, sound))
    assert not silent["audio"].valid.any()
    assert not silent["audio"].values.any()
    assert short["audio"].valid.all()
    assert short["audio"].values.shape == silent["audio"].values.shape
    assert short["audio"].values.any()


def test_a_pooled_adapter_is_as_wide_as_it_says(noisy: Source, tmp_path: Path) -> None:
    others = {"add_adapter": True, "output_hidden_size": 24, "num_adapter_layers": 1}
    weights = {"wav2vec2": make_tiny_wav2vec2(tmp_path / "adapter", **others)}
    encoder = listening("wav2vec2", weights)
    (heard, *_), (silent,) = encoded(encoder, noisy), encoder.load("cpu")([{}])
    assert heard["audio"].values.shape == silent["audio"].values.shape == (24,)


def test_every_setting_and_weight_that_matters_is_in_the_digest(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(weights["ast"], tmp_path / "other")
    described = other / "preprocessor_config.json"
    described.write_text(described.read_text().replace("4.5689974", "4.5"))
    encoders = [
        MEL,
        MelEncoder(MelConfig(hop_s=0.25)),
        LOG_MEL,
        AudioEncoder(AudioConfig()),
        listening("ast", weights),
        listening("ast", weights, "bf16"),
        listening("ast", weights, pool=False),
        listening("ast", {"ast": other}),
        *(listening(name, weights) for name in WAV2VEC2S),
    ]
    assert len({encoder.identity.digest for encoder in encoders}) == len(encoders)
    assert AudioEncoder(AudioConfig(window_s=1.0), "bf16").identity == LOG_MEL.identity
    copied = shutil.copytree(weights["ast"], tmp_path / "copy")
    moved = listening("ast", {"ast": copied}).identity
    assert moved.digest == listening("ast", weights).identity.digest


@pytest.mark.parametrize(
    ("source", "others", "message"),
    [
        ("wav2vec2", {}, r"is a audio-spectrogram-transformer; a wav2vec2 is needed"),
        (
            "ast",
            {"window_s": 2.6},
            r"listens to 256 columns; window_s=2\.6 gives 258\. Set .*2\.57",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    source: Any, others: dict[str, Any], message: str, weights: dict[str, Path]
) -> None:
    named = WeightsConfig(source=str(weights["ast"]))
    with pytest.raises(UserError, match=message):
        AudioEncoder(AudioConfig(source=source, weights=named, **others)).load("cpu")


def test_the_longest_window_that_is_advised_fits(weights: dict[str, Path]) -> None:
    assert COLUMNS == 256
    listening("ast", weights, window_s=2.57).load("cpu")


@pytest.mark.parametrize(
    ("name", "said", "instead", "message"),
    [
        ("ast", "16000", "8000", r"listens at 8000 Hz; 16000 Hz are made"),
        ("ast", '"max_length": 256', '"max_length": 128', r"takes 256 columns; .* makes 128"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    name: str, said: str, instead: str, message: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    changed = shutil.copytree(weights[name], tmp_path / "changed")
    described = changed / "preprocessor_config.json"
    assert said in described.read_text()
    described.write_text(described.read_text().replace(said, instead))
    with pytest.raises(UserError, match=message):
        listening(name, {name: changed}).load("cpu")


def test_convolutions_that_reach_too_far_are_refused(tmp_path: Path) -> None:
    others = {"conv_kernel": (12, 3, 3, 3, 3, 2, 2)}
    weights = {"wav2vec2": make_tiny_wav2vec2(tmp_path / "far", **others)}
    with pytest.raises(UserError, match=r"makes each state of 402 samples; at most 400"):
        listening("wav2vec2", weights).load("cpu")


@pytest.mark.parametrize("source", ["wav2vec2", "ast"])
def test_missing_weights_name_the_way_without(source: Any, tmp_path: Path) -> None:
    words = r"features\.audio\.weights\.source.*preprocessor_config.json.*audio\.source=log_mel"
    for named in ("", str(tmp_path / "none.safetensors")):
        config = AudioConfig(source=source, weights=WeightsConfig(source=named))
        with pytest.raises(UserError, match=words):
            _ = AudioEncoder(config).identity


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/fight_surv is absent")
def test_real_clips_with_and_without_sound(tmp_path: Path, weights: dict[str, Path]) -> None:
    chosen = {"fi001": "silent", "fi005": "heard", "fi077": "none"}
    encoders = (MEL, AudioEncoder(AudioConfig()), listening("wav2vec2 group", weights))
    adapter, ingest = SingleAdapter(), IngestConfig(adapter="single", frame_px=16)
    for clip, what in chosen.items():
        (arrival,) = adapter.find(REAL / "fight" / f"{clip}.mp4").arrivals
        folder = tmp_path / clip
        folder.mkdir()
        write_batch(adapter.read(arrival), folder, ingest=ingest, sync=SyncConfig())
        source = Source(batch_id=clip, batch_digest="d" * 64, folder=folder, place=PLACE)
        times_s = source.batch.frame_times
        for encoder in encoders:
            spans_s, rows = encoder.spans_s(source), encoded(encoder, source)
            valid = [vector.valid.any() for row in rows for vector in row.values()]
            if what == "none":
                assert len(spans_s) == 0
            elif what == "silent":
                assert valid
                assert not any(valid)
            else:
                assert all(valid)
                assert spans_s[0, 0] == pytest.approx(times_s[0], abs=0.1)
                assert spans_s[-1, 1] == pytest.approx(times_s[-1], abs=0.2)
