"""Log-mel spectra of 40 bands, 100 columns a second: the sound that CAAM's network takes.

As AVLnet makes them for the MSR-VTT features that CAAM was trained on (Rouditchenko et al. 2021,
arXiv:2006.09199): 16 kHz, pre-emphasis 0.97, Hamming windows of 25 ms every 10 ms, a discrete
Fourier transform of 400 points, power in 40 bands from 20 Hz to 8 kHz on Slaney's scale with
his normalisation by area, in dB.

Three things differ, so that a column is the same wherever the sound is cut: dB are of a power of
1 (white noise of full scale is near 0 dB) and not of the file's loudest band; they end at
FLOOR_DB, just below what rounding to 16 bits leaves, and not 80 dB below the loudest; the file's
mean is not taken off. A column begins with its window instead of being its middle: 12.5 ms later.
"""

import functools

import numpy as np
import numpy.typing as npt

from crosswatch.features.sound.stretches import RATE_HZ, Samples

BANDS = 40
COLUMN = 400
"""Samples that a column is made of, and points of the transform."""
HOP = 160
LOWEST_HZ = 20.0
PRE_EMPHASIS = 0.97
FLOOR_DB = -100.0
Columns = npt.NDArray[np.float32]
"""(C, BANDS) in dB."""


def described() -> dict[str, float | str]:
    """What the columns depend on, for an encoder's identity."""
    return {
        "rate_hz": RATE_HZ,
        "bands": BANDS,
        "column": COLUMN,
        "hop": HOP,
        "lowest_hz": LOWEST_HZ,
        "pre_emphasis": PRE_EMPHASIS,
        "floor_db": FLOOR_DB,
        "window": "hamming",
        "scale": "slaney",
    }


def columns_in(samples: int) -> int:
    """How many columns so many samples hold; none is padded."""
    return max((samples - COLUMN) // HOP + 1, 0)


def log_mel(samples: Samples) -> Columns:
    """Columns of samples 1 and after; sample 0 only stands before them, for the pre-emphasis."""
    count = columns_in(len(samples) - 1)
    if not count:
        return np.zeros((0, BANDS), np.float32)
    wide = samples.astype(np.float64)
    emphasised = wide[1:] - PRE_EMPHASIS * wide[:-1]
    pieces = np.lib.stride_tricks.sliding_window_view(emphasised, COLUMN)[::HOP]
    spectra = np.fft.rfft(pieces * np.hamming(COLUMN), axis=1)
    power = (spectra.real**2 + spectra.imag**2) @ _bands()
    return (10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))).astype(np.float32)


@functools.cache
def _bands() -> npt.NDArray[np.float64]:
    """(COLUMN // 2 + 1, BANDS) share of each frequency in each band."""
    from transformers.audio_utils import mel_filter_bank  # loads no model class

    bands = mel_filter_bank(
        num_frequency_bins=COLUMN // 2 + 1,
        num_mel_filters=BANDS,
        min_frequency=LOWEST_HZ,
        max_frequency=RATE_HZ / 2,
        sampling_rate=RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.asarray(bands, np.float64)
