"""A batch's sound as encoders hear it: 16 kHz, a stretch at a time, on the reference clock."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch
from crosswatch.features.encoder import Spans
from crosswatch.features.source import Source

RATE_HZ = 16_000
FULL_SCALE = 32_768
Samples = npt.NDArray[np.float32]
"""(S,) of -1 to 1 at RATE_HZ."""
Windows = npt.NDArray[np.int64]
"""(N, 2) first sample and the one after the last, at RATE_HZ from the sound's beginning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound:
    """Samples at RATE_HZ, whatever rate is stored; never more than is asked for is in memory.

    Sample k is the same in whichever stretch it is read: as if the whole sound were resampled.
    """

    batch: Batch

    def __len__(self) -> int:
        """Samples at RATE_HZ."""
        stored = 0 if self.batch.audio is None else len(self.batch.audio)
        up, down = self._ratio
        return -(-stored * up // down)

    def read(self, first: int, until: int) -> Samples:
        """Samples from `first` to before `until`; silence before and after the sound."""
        inside = self._heard(max(first, 0), min(until, len(self)))
        samples = np.zeros(until - first, np.float32)
        begins = max(-first, 0)
        samples[begins : begins + len(inside)] = inside
        return samples

    def spans_s(self, windows: Windows) -> Spans:
        """When they begin and end on the reference clock, to the nearest stored sample."""
        if not len(windows):
            return np.zeros((0, 2), np.float64)
        up, down = self._ratio
        return self.batch.audio_times_s(np.rint(windows * (down / up)).astype(np.int64))

    @property
    def _ratio(self) -> tuple[int, int]:
        rate_hz = round(self.batch.audio_rate_hz) or RATE_HZ
        common = math.gcd(RATE_HZ, rate_hz)
        return RATE_HZ // common, rate_hz // common

    def _heard(self, first: int, until: int) -> Samples:
        """Within the sound: with as many neighbours as the low-pass filter reaches to."""
        stored = self.batch.audio
        if stored is None or until <= first:
            return np.zeros(0, np.float32)
        up, down = self._ratio
        if up == down:
            return _floats(stored[first:until])
        from scipy.signal import resample_poly

        reach = 10 * max(up, down) // up + 2  # half of resample_poly's filter, in stored samples
        begins = max(first * down // up - reach, 0) // down * down  # where both rates have a sample
        ends = -(-until * down // up) + reach
        near = _floats(stored[begins:ends])
        skipped = begins // down * up
        resampled = resample_poly(near, up, down)
        return np.asarray(resampled[first - skipped : until - skipped], np.float32)


def _floats(stored: npt.NDArray[np.int16]) -> Samples:
    return stored.astype(np.float32) / np.float32(FULL_SCALE)


def sound_of(source: Source) -> Sound:
    return Sound(batch=source.batch)


def windows_of(samples: int, *, window: int, hop: float, least: int) -> Windows:
    """Stretches of `window` samples, one every `hop`, of which at least `least` are in the sound;
    they end with it."""
    count = max(math.ceil((samples - least) / hop) + 1, 0)
    begins = np.rint(np.arange(count) * hop).astype(np.int64)
    begins = begins[begins + least <= samples]
    return np.stack([begins, np.minimum(begins + window, samples)], axis=1)


def is_silent(samples: Samples, silence_dbfs: float) -> bool:
    """Whether no sample comes up to so many dB of full scale."""
    peak = float(np.abs(samples).max(initial=0.0))
    return peak < 10 ** (silence_dbfs / 20)
