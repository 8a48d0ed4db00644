"""A trained model with all that scoring needs: window lengths, signal statistics, class names."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from crosswatch import artifacts, config
from crosswatch.data.gather import WindowSet
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import UserError
from crosswatch.models import MODELS, ModelConfig
from crosswatch.models.fmformer import Scores
from crosswatch.records import InputShape, TimeRange

WEIGHTS = "model.safetensors"
FACTS = "detector.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalStatistics:
    """Mean and standard deviation of each channel over the training blocks."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def normalise(self, signal_BSC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        mean, deviation = (np.array(known, np.float32) for known in (self.mean, self.deviation))
        return (signal_BSC - mean) / deviation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model sees of B windows; a stream that the windows leave out is None."""

    video_BTHWC: torch.Tensor | None
    signal_BSC: torch.Tensor | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorFacts:
    """Everything but the weights."""

    model: ModelConfig
    shape: InputShape
    windows: WindowConfig
    statistics: SignalStatistics | None
    classes: tuple[str, ...]

    def read(self, windows: WindowSet, rows: npt.NDArray[np.int64]) -> Inputs:
        """Gather windows and normalise their signal."""
        video = torch.from_numpy(windows.video(rows)) if self.shape.frames else None
        signal = None
        if self.shape.signal_samples:
            amperes_BSC = windows.signal(rows)
            known = self.statistics is not None
            signal = torch.from_numpy(
                self.statistics.normalise(amperes_BSC) if known else amperes_BSC  # type: ignore[union-attr]
            )
        return Inputs(video_BTHWC=video, signal_BSC=signal)

    def build(self) -> torch.nn.Module:
        return self.model.build(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detector:
    """Facts and a module with trained weights, in evaluation mode."""

    facts: DetectorFacts
    module: torch.nn.Module
    seen: tuple[TimeRange, ...]  # what trained and validated it

    @torch.inference_mode()
    def score(self, windows: WindowSet, rows: npt.NDArray[np.int64]) -> Scores:
        """Logits of classes and pixels."""
        inputs = self.facts.read(windows, rows)
        scores: Scores = self.module(inputs.video_BTHWC, inputs.signal_BSC)
        return scores


def save_detector(
    folder: Path, facts: DetectorFacts, weights: dict[str, torch.Tensor], **notes: Any
) -> None:
    """Write weights and facts into a folder; `notes` say how it was trained."""
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    artifacts.write_json(folder / FACTS, {**config.plain(facts), "notes": notes})


def load_detector(folder: Path) -> Detector:
    """Read what `save_detector` wrote.

    Raises:
        UserError: the folder holds no detector, or weights that do not fit its configuration.
    """
    if not (folder / FACTS).exists() or not (folder / WEIGHTS).exists():
        raise UserError(f"{folder}: holds no detector ({FACTS} and {WEIGHTS} are needed)")
    values = artifacts.read_json(folder / FACTS)
    notes = values.pop("notes")
    name = values["model"]["name"]
    if name not in MODELS:
        raise UserError(f"{folder / FACTS}: names model {name!r}; known: {', '.join(MODELS)}")
    facts = config.build(DetectorFacts, values, where=str(folder / FACTS))
    module = facts.build()
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise UserError(f"{folder / WEIGHTS}: does not fit {FACTS}: {first}") from error
    return Detector(
        facts=facts,
        module=module.eval(),
        seen=tuple(TimeRange(**item) for item in notes.get("seen", ())),
    )


def statistics_of(windows: WindowSet) -> SignalStatistics:
    """Per-channel statistics over the samples that the windows hold, each counted once."""
    parts = []
    for batch, table in zip(windows.batches, windows.tables, strict=True):
        if batch.signal is None or not len(table):
            continue
        used = np.zeros(len(batch.signal) + 1, np.int64)
        oldest = np.maximum(table.signal_stop - table.samples, table.signal_first)
        np.add.at(used, oldest, 1)
        np.add.at(used, table.signal_stop, -1)
        parts.append(np.asarray(batch.signal)[np.cumsum(used)[:-1] > 0])
    samples = np.concatenate(parts).astype(np.float64)
    deviation = np.maximum(samples.std(axis=0), 1e-6 * np.abs(samples).max(axis=0) + 1e-12)
    return SignalStatistics(
        mean=tuple(map(float, samples.mean(axis=0))), deviation=tuple(map(float, deviation))
    )
