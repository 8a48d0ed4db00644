"""How loud each band of a sound is, fifty times a second: what clocks are aligned by.

Shapes: (N,) samples, (M,) windows, (F,) frequencies, (BANDS,) bands from low to high.
"""

import numpy as np
import numpy.typing as npt

BANDS = 8
LOWEST_HZ, HIGHEST_HZ = 50.0, 6_000.0
"""Even on a logarithmic scale, so that the second band holds an arc's hum (100 or 120 Hz) and the
first the mains themselves."""
HOP_S = 0.02
WINDOW_S = 0.064  # tells 100 Hz from 50, and still follows an arc that flickers
FLOOR_DB = -100.0  # below it, 16 bits hold nothing but their own rounding


class LoudnessMeter:
    """Takes a sound piece by piece; keeps no more of it than one window."""

    def __init__(self, rate_hz: int) -> None:
        from scipy.fft import next_fast_len

        self.rate_hz = rate_hz
        self.hop = round(HOP_S * rate_hz)
        self.window = next_fast_len(round(WINDOW_S * rate_hz), real=True)
        taper = np.hanning(self.window + 1)[:-1]
        self._taper = (taper / (32_768.0 * np.sqrt((taper**2).sum()))).astype(np.float32)
        self._bank_FB = _bank(self.window, rate_hz)
        self._left = np.zeros(0, np.int16)
        self._levels: list[npt.NDArray[np.float32]] = []

    def feed(self, samples: npt.NDArray[np.int16]) -> None:
        from scipy.fft import rfft

        samples = np.concatenate([self._left, samples])
        windows = max(0, (samples.size - self.window) // self.hop + 1)
        self._left = samples[windows * self.hop :].copy()
        if windows:
            view = np.lib.stride_tricks.sliding_window_view(samples, self.window)
            spectrum = rfft(view[:: self.hop][:windows] * self._taper, axis=1)
            power = spectrum.real**2 + spectrum.imag**2
            self._levels.append(
                10.0 * np.log10(power @ self._bank_FB + np.float32(10.0 ** (FLOOR_DB / 10.0)))
            )

    def levels_db(self) -> npt.NDArray[np.float32]:
        """(M, BANDS), relative to full scale; of all windows that the sound fills."""
        return np.concatenate([np.zeros((0, BANDS), np.float32), *self._levels])

    def first_samples(self) -> npt.NDArray[np.int64]:
        """Where each window begins (M,)."""
        return np.arange(sum(map(len, self._levels)), dtype=np.int64) * self.hop


def edges_hz(rate_hz: int) -> npt.NDArray[np.float64]:
    """Borders of the bands (BANDS + 1,); a low rate squeezes them together."""
    return np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, 0.45 * rate_hz), BANDS + 1)


def _bank(window: int, rate_hz: int) -> npt.NDArray[np.float32]:
    """Mean over each band's frequencies (F, BANDS)."""
    frequency_hz = np.arange(window // 2 + 1) * rate_hz / window
    band = np.searchsorted(edges_hz(rate_hz), frequency_hz, side="right") - 1
    bank = (band[:, None] == np.arange(BANDS)).astype(np.float32)
    return np.asarray(bank / bank.sum(axis=0), np.float32)
