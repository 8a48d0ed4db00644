"""Random processes and fields that several parts of the simulator draw from."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
TimeArray = NDArray[np.float64]


def relaxing_noise(
    rng: np.random.Generator, count: int, *, tau_s: float, rate_hz: float, rows: int = 1
) -> TimeArray:
    """Unit-variance first-order autoregressive noise of shape (rows, count), already settled."""
    from scipy.signal import lfilter

    keep = float(np.exp(-1.0 / (tau_s * rate_hz)))
    settle = int(6 * tau_s * rate_hz)
    white = rng.standard_normal((rows, settle + count))
    noise = lfilter([np.sqrt(1.0 - keep**2)], [1.0, -keep], white, axis=-1)
    return np.asarray(noise[:, settle:], dtype=np.float64)


def power_law_series(rng: np.random.Generator, count: int, *, exponent: float) -> TimeArray:
    """Unit-variance series whose power falls as 1 / frequency ** exponent; 1 is flicker."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.arange(spectrum.size, dtype=np.float64)
    frequency[0] = np.inf
    series = np.fft.irfft(spectrum / frequency ** (exponent / 2), n=count)
    return np.asarray(series / series.std(), dtype=np.float64)


def power_law_field(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    exponent: float,
    stretch: float = 1.0,
    coarsest: float = 0.0,
) -> FloatArray:
    """Unit-variance image that wraps at its borders.

    `stretch` above 1 makes vertical streaks; nothing has fewer than `coarsest` waves an image.
    """
    height, width = shape
    row = np.fft.fftfreq(height)[:, None] * height * stretch
    column = np.fft.rfftfreq(width)[None, :] * width
    radius = np.hypot(row, column)
    radius[radius < max(coarsest, 0.5)] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) / radius ** (exponent / 2)
    field = np.fft.irfft2(spectrum, s=shape)
    return np.asarray(field / field.std(), dtype=np.float32)


def smooth_step(position: TimeArray) -> TimeArray:
    """Rise from 0 to 1 over positions 0 to 1 without a kink at either end."""
    clipped = np.clip(position, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3.0 - 2.0 * clipped), dtype=np.float64)
