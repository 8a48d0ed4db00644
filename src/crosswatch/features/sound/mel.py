"""How loud each band of the sound is, and how much it changes: 200 numbers without weights."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from crosswatch.features.encoder import Encoded, Identity, Input, Rows, Spans, Values, Vector
from crosswatch.features.settings import MelConfig
from crosswatch.features.sound import log_mel
from crosswatch.features.sound.stretches import (
    RATE_HZ,
    Sound,
    Windows,
    is_silent,
    sound_of,
    windows_of,
)
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of

WIDTH = 5 * log_mel.BANDS
LEVEL_DB = 100.0  # FLOOR_DB to that much above it becomes 0 to 1
SPREAD_DB = 20.0  # of a standard deviation
STEP_DB = 10.0  # from one column to the next; white noise steps by 1 to 4 dB


@dataclasses.dataclass(frozen=True)
class MelEncoder:
    """A row is a window of the sound; the last one may be half as long.

    Its modality `mel` has, of the columns that lie in the window, each band's mean, standard
    deviation, minimum, maximum, and mean absolute step from column to column, in this order.
    A window that stays below `silence_dbfs` is not valid.
    """

    config: MelConfig

    @property
    def identity(self) -> Identity:
        scales = {"level_db": LEVEL_DB, "spread_db": SPREAD_DB, "step_db": STEP_DB}
        return Identity(
            name="mel",
            weights="",
            preprocessing=log_mel.described() | scales | dataclasses.asdict(self.config),
            version=version_of(__name__, packages=("numpy", "scipy", "transformers")),
        )

    def spans_s(self, source: Source) -> Spans:
        sound = sound_of(source)
        return sound.spans_s(self._windows(sound))

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input]:
        sound = sound_of(source)
        windows = self._windows(sound)
        for row in rows:
            first, until = (int(edge) for edge in windows[row])
            samples = sound.read(first - 1, until)
            audible = not is_silent(samples[1:], self.config.silence_dbfs)
            values = statistics(log_mel.log_mel(samples)) if audible else _NONE
            yield Input(row=int(row), values={"statistics": values, "audible": audible})

    def load(self, device: str) -> "MelModel":
        return MelModel()

    def _windows(self, sound: Sound) -> Windows:
        window = round(self.config.window_s * RATE_HZ)
        least = max(-(-window // 2), log_mel.COLUMN)
        hop = self.config.hop_s * RATE_HZ
        return windows_of(len(sound), window=window, hop=hop, least=least)


class MelModel:
    """Nothing is left to compute where models are: the numbers are smaller than the sound."""

    def __call__(self, inputs: Sequence[Values]) -> list[Encoded]:
        return [
            {"mel": Vector(values=given["statistics"], valid=np.asarray(given["audible"]))}
            for given in inputs
        ]


def statistics(columns: log_mel.Columns) -> npt.NDArray[np.float32]:
    """(WIDTH,) of columns (C, BANDS) with C at least 1."""
    level = (columns - log_mel.FLOOR_DB) / LEVEL_DB
    steps = np.abs(np.diff(columns, axis=0)).sum(axis=0) / max(len(columns) - 1, 1)
    parts = (
        level.mean(axis=0),
        columns.std(axis=0) / SPREAD_DB,
        level.min(axis=0),
        level.max(axis=0),
        steps / STEP_DB,
    )
    return np.concatenate(parts).astype(np.float32)


_NONE = np.zeros(WIDTH, np.float32)
