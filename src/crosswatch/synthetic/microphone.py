"""What the furnace sounds like: the arc's hum, gas, falling charge and crackle, as 16-bit PCM.

All of it happens on the control system's clock; the recorder's own clock says when a sample is
taken. Its zero is the instant of the first sample, so a recorder switched on late is an offset.
"""

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosswatch.synthetic import difficulty
from crosswatch.synthetic.clocks import DeviceClock
from crosswatch.synthetic.current import Arc, feeding, trace
from crosswatch.synthetic.noise import FloatArray, TimeArray, power_law_series, relaxing_noise
from crosswatch.synthetic.schedule import Schedule, mist_surges

STEP = 160
"""Samples over which everything but the sound itself is a straight line."""
BLOCK = 1600 * STEP
"""Samples made at a time, so that memory does not grow with the batch."""
MAINS_HZ = 50.0
HARMONICS = (1.0, 0.5, 0.35, 0.25, 0.15, 0.12, 0.08, 0.05)
"""Shares of the hum at 100 Hz, the rate at which the arc's power swings, and its multiples."""
WAVE_POINTS = 4096
HISS_HZ = (700.0, 5_000.0)
KNOCK_SHAPES = 12
KNOCK_S = 0.3
FULL_SCALE = 32_767


@dataclass(frozen=True, kw_only=True)
class Strikes:
    """Sounds that begin at an instant; arrays have one entry a strike, in order of time."""

    at: NDArray[np.int64]
    """Sample."""
    peak: FloatArray


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Everything about a recording that is drawn before a sample is made."""

    rate_hz: int
    samples: int
    waves: TimeArray
    """Waves of the hum's lowest tone so far; this and the next two have a value every STEP."""
    hum: TimeArray
    hiss: TimeArray
    wave: FloatArray
    """One wave of the hum (WAVE_POINTS,)."""
    knock_shapes: FloatArray
    """(KNOCK_SHAPES, samples)."""
    knocks: Strikes
    crackles: Strikes


def plan_sound(
    rng: np.random.Generator, schedule: Schedule, arc: Arc, clock: DeviceClock, *, rate_hz: int
) -> Sound:
    """Let hum and crackle follow the arc, knocks the feeding, and the hiss the mist."""
    samples = round(schedule.duration_s * rate_hz)
    steps = -(-samples // STEP)
    step_s = STEP / rate_hz
    times_s = clock.to_control(np.arange(steps + 1, dtype=np.float64) * step_s)
    restless = np.interp(times_s, arc.times_s, trace(arc.times_s, schedule.events)[1].mean(axis=0))
    stirred = feeding(times_s, schedule.feeds)[1]
    knocks_per_s = difficulty.KNOCKS_PER_S + difficulty.KNOCK_FEED_RATE_PER_S * stirred
    crackles_per_s = difficulty.CRACKLES_PER_S * (
        1.0 + difficulty.CRACKLE_TRACE_GAIN * restless + difficulty.CRACKLE_FEED_GAIN * stirred
    )
    return Sound(
        rate_hz=rate_hz,
        samples=samples,
        waves=_waves(rng, times_s),
        hum=difficulty.HUM_AMPLITUDE * arc.hum_at(times_s) * _flutter(rng, times_s.size, step_s),
        hiss=_hiss(rng, schedule, times_s, step_s),
        wave=_wave(rng),
        knock_shapes=_knock_shapes(rng, rate_hz),
        knocks=_strikes(rng, knocks_per_s[:-1] * step_s, samples, difficulty.KNOCK_PEAK),
        crackles=_strikes(rng, crackles_per_s[:-1] * step_s, samples, difficulty.CRACKLE_PEAK),
    )


def write_sound(path: Path, sound: Sound, rng: np.random.Generator) -> None:
    """Record as mono 16-bit WAV; what is louder than full scale is clipped."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate_hz)
        for block in _blocks(sound, rng):
            level = np.clip(block * np.float32(FULL_SCALE), -FULL_SCALE - 1, FULL_SCALE)
            file.writeframesraw(np.rint(level).astype("<i2").tobytes())


def _waves(rng: np.random.Generator, times_s: TimeArray) -> TimeArray:
    step_s = float(times_s[1] - times_s[0])
    wander = relaxing_noise(rng, times_s.size, tau_s=20.0, rate_hz=1.0 / step_s)[0]
    tone_hz = 2.0 * (MAINS_HZ + difficulty.MAINS_WANDER_HZ * wander)
    return np.asarray(np.cumsum(tone_hz * step_s), dtype=np.float64)


def _flutter(rng: np.random.Generator, count: int, step_s: float) -> TimeArray:
    slow = power_law_series(rng, count, exponent=1.0)
    quick = relaxing_noise(rng, count, tau_s=0.3, rate_hz=1.0 / step_s)[0]
    share = difficulty.HUM_FLUTTER_SHARE * slow + difficulty.HUM_SHIVER_SHARE * quick
    return np.asarray(np.clip(1.0 + share, 0.4, 1.6), dtype=np.float64)


def _hiss(
    rng: np.random.Generator, schedule: Schedule, times_s: TimeArray, step_s: float
) -> TimeArray:
    own = relaxing_noise(rng, times_s.size, tau_s=30.0, rate_hz=1.0 / step_s)[0]
    level = 1.0 + difficulty.HISS_FLUTTER_SHARE * own
    level += difficulty.HISS_MIST_GAIN * mist_surges(schedule, times_s)
    return np.asarray(difficulty.HISS_AMPLITUDE * np.maximum(level, 0.2), dtype=np.float64)


def _wave(rng: np.random.Generator) -> FloatArray:
    """One wave of the hum with unit standard deviation; the furnace and its hall set its phases."""
    position = np.arange(WAVE_POINTS) / WAVE_POINTS
    tones = [
        share * np.sin(2 * np.pi * (number * position + rng.uniform()))
        for number, share in enumerate(HARMONICS, start=1)
    ]
    total = np.sum(tones, axis=0)
    return np.asarray(total / total.std(), dtype=np.float32)


def _knock_shapes(rng: np.random.Generator, rate_hz: int) -> FloatArray:
    """Lumps on a steel shell: three modes that die away, each shape peaking at 1."""
    since_s = np.arange(int(KNOCK_S * rate_hz)) / rate_hz
    size = (KNOCK_SHAPES, 3, 1)
    tone_hz = rng.uniform(150.0, 1_200.0, size=size)
    fading = np.exp(-since_s / rng.uniform(0.015, 0.06, size=size))
    shapes = (
        rng.uniform(0.3, 1.0, size=size) * np.sin(2 * np.pi * tone_hz * since_s) * fading
    ).sum(1)
    return np.asarray(shapes / np.abs(shapes).max(axis=1, keepdims=True), dtype=np.float32)


def _strikes(
    rng: np.random.Generator, expected: TimeArray, samples: int, peak: tuple[float, float]
) -> Strikes:
    """Independent strikes, so many expected in each step."""
    step = np.repeat(np.arange(expected.size), rng.poisson(expected))
    at = np.sort(np.minimum(step * STEP + rng.integers(0, STEP, step.size), samples - 1))
    quiet, loud = map(float, np.log(peak))
    peaks = np.exp(rng.uniform(quiet, loud, size=at.size))
    return Strikes(at=at, peak=peaks.astype(np.float32))


def _blocks(sound: Sound, rng: np.random.Generator) -> Iterator[FloatArray]:
    """The sound, a block at a time; filter and knocks ring on into the next."""
    from scipy.signal import butter, sosfilt

    high_hz = min(HISS_HZ[1], 0.45 * sound.rate_hz)
    band = butter(2, (HISS_HZ[0], high_hz), "bandpass", fs=sound.rate_hz, output="sos")
    band = band.astype(np.float32)
    state = np.zeros((len(band), 2), np.float32)
    ringing = np.zeros(sound.knock_shapes.shape[1], np.float32)
    for first in range(0, sound.samples, BLOCK):
        last = min(first + BLOCK, sound.samples)
        steps = slice(first // STEP, -(-last // STEP) + 1)
        gas, state = sosfilt(band, _gas(sound, steps, rng), zi=state)
        block = np.concatenate([gas + _hum(sound, steps), np.zeros_like(ringing)])
        block[: ringing.size] += ringing
        _knock(block, sound, first, rng)
        ringing = block[gas.size :]
        yield block[: last - first]


def _hum(sound: Sound, steps: slice) -> FloatArray:
    begun, turned = sound.waves[steps][:-1] % 1.0, np.diff(sound.waves[steps])
    phase = _lines(begun, begun + turned)
    point = (phase * np.float32(WAVE_POINTS)).astype(np.int32) & (WAVE_POINTS - 1)
    hum = sound.hum[steps]
    return np.asarray(sound.wave[point] * _lines(hum[:-1], hum[1:]))


def _gas(sound: Sound, steps: slice, rng: np.random.Generator) -> FloatArray:
    """Hiss and crackle, before the band that both share."""
    hiss = sound.hiss[steps]
    level = _lines(hiss[:-1], hiss[1:])
    gas = level * rng.standard_normal(level.size, dtype=np.float32)
    inside = _between(sound.crackles.at, steps.start * STEP, steps.start * STEP + gas.size)
    gas[sound.crackles.at[inside] - steps.start * STEP] += sound.crackles.peak[inside]
    return gas


def _knock(block: FloatArray, sound: Sound, first: int, rng: np.random.Generator) -> None:
    length = sound.knock_shapes.shape[1]
    inside = _between(sound.knocks.at, first, first + block.size - length)
    for at, peak in zip(sound.knocks.at[inside] - first, sound.knocks.peak[inside], strict=True):
        block[at : at + length] += peak * sound.knock_shapes[rng.integers(KNOCK_SHAPES)]


def _between(at: NDArray[np.int64], first: int, last: int) -> slice:
    return slice(*np.searchsorted(at, (first, last)))


def _lines(low: TimeArray, high: TimeArray) -> FloatArray:
    """Straight lines of STEP samples each."""
    share = np.arange(STEP, dtype=np.float32) / np.float32(STEP)
    rise = (high - low).astype(np.float32)
    return np.asarray((low.astype(np.float32)[:, None] + rise[:, None] * share).ravel())
