"""A trained model with all that scoring needs: window lengths, signal statistics, class names."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from crosswatch import artifacts, config
from crosswatch.data.clips import ClipsConfig
from crosswatch.data.gather import WindowSet
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import UserError
from crosswatch.models import MODELS, ModelConfig, WindowModelConfig
from crosswatch.models.settings.common import Stream
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.records import InputShape, TimeRange

WEIGHTS = "model.safetensors"
FACTS = "detector.json"
ON_EVALUATION = "of the evaluation set itself"
BRAND = "SELECTED ON THE EVALUATION SET"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalStatistics:
    """Mean and standard deviation of each channel over the training blocks."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def normalise(self, signal_BSC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        mean, deviation = (np.array(known, np.float32) for known in (self.mean, self.deviation))
        return (signal_BSC - mean) / deviation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Mean and deviation of each dimension of a stream over the training clips."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply(self, values_LD: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        mean, deviation = (np.array(known, np.float32) for known in (self.mean, self.deviation))
        return (values_LD - mean) / deviation


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorFacts:
    """Everything but the weights.

    Attributes:
        statistics: of the signal, where the model looks at one and wants it normalised.
        encoders: digests of what made each stream of features, those of joined ones by "+".
        parts: how wide each of the features is that are joined to a stream.
        scales: of each stream of features, where the model wants them standardised.
    """

    model: ModelConfig
    shape: InputShape
    windows: WindowConfig
    clips: ClipsConfig = dataclasses.field(default_factory=ClipsConfig)
    statistics: SignalStatistics | None = None
    encoders: tuple[str, ...] = ()
    parts: tuple[tuple[int, ...], ...] = ()
    scales: tuple[Scale, ...] = ()
    classes: tuple[str, ...]

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Of features; a model of windows has none."""
        return () if isinstance(self.model, WindowModelConfig) else self.model.streams

    def read_windows(
        self, windows: WindowSet, rows: npt.NDArray[np.int64]
    ) -> tuple[torch.Tensor | None, ...]:
        """Frames and normalised samples of windows, as FmFormer takes them; where a history may
        be incomplete, which samples there are."""
        video = torch.from_numpy(windows.video(rows)) if self.shape.frames else None
        if not self.shape.signal_samples:
            return video, None
        signal_BSC = windows.signal(rows)
        if self.statistics is not None:
            signal_BSC = self.statistics.normalise(signal_BSC)
        if self.windows.early != "mask":
            return video, torch.from_numpy(signal_BSC)
        return video, torch.from_numpy(signal_BSC), torch.from_numpy(windows.signal_valid(rows))

    def build(self, **resources: Any) -> torch.nn.Module:
        """A module with fresh weights; `resources` are what training alone needs beside them."""
        return self.model.build(self.shape, **resources)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detector:
    """Facts and a module with trained weights, in evaluation mode.

    Attributes:
        seen: what trained and validated it.
        threshold: of the chance that something is abnormal, chosen on validation; None where
            validation held one class only.
        selected_by: what its epoch was picked by.
    """

    facts: DetectorFacts
    module: torch.nn.Module
    seen: tuple[TimeRange, ...]
    threshold: float | None = None
    selected_by: str = ""

    @torch.inference_mode()
    def score(self, inputs: Iterable[Any]) -> Any:
        """What the module's forward gives, on its device."""
        device = next(self.module.parameters()).device
        return self.module(*(None if each is None else each.to(device) for each in inputs))


def of_other_lengths(
    detector: Detector, *, pe_resize: str | None = None, **windows: int | float | None
) -> Detector:
    """The same weights over windows with other frames, stride or signal_s; None leaves as it is.

    Raises:
        UserError: the model does not look at windows, or cannot take such.
    """
    facts = detector.facts
    changed = {name: value for name, value in windows.items() if value is not None}
    if not changed and pe_resize is None:
        return detector
    if not isinstance(facts.model, FmFormerConfig):
        raise UserError(
            f"evaluate.lengths is of FmFormer's windows, and this model is a {facts.model.name}"
        )
    model = facts.model
    if pe_resize is not None:
        model = dataclasses.replace(model, pe_resize=pe_resize)  # type: ignore[arg-type]
    told = dataclasses.replace(facts.windows, **changed)  # type: ignore[arg-type]
    facts = dataclasses.replace(facts, model=model, windows=told)
    module = facts.build()
    module.load_state_dict(detector.module.state_dict())
    device = next(detector.module.parameters()).device
    return dataclasses.replace(detector, facts=facts, module=module.eval().to(device))


def selected_on_evaluation(selected_by: str) -> bool:
    """Whether an epoch was picked by the very numbers that the model is then judged by."""
    return ON_EVALUATION in selected_by


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
        module=module.eval().to(usual_device()),
        seen=tuple(TimeRange(**item) for item in notes.get("seen", ())),
        threshold=notes.get("threshold"),
        selected_by=str(notes.get("selected_by", "")),
    )


def usual_device() -> torch.device:
    """The first GPU, where there is one."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


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
