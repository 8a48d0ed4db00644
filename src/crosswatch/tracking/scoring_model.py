"""The registered model as MLflow loads it: `mlflow.pyfunc.load_model("models:/NAME@champion")`.

`predict` returns class probabilities (B, K). FmFormer takes {"video": uint8 (B, T, H, W, 3),
"signal": float32 (B, S, C)}, either of which a model without that stream does not need. A model of
features takes the streams that its settings name, such as {"visual": float32 (B, L, D)}, and where
clips are padded which tokens there are, {"visual_valid": bool (B, L)}; one that is left out is
missing from every clip. Features are given as extract wrote them, joined ones side by side: the
model brings them to length 1, shortens and scales them as in evaluation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import torch

from crosswatch.errors import UserError
from crosswatch.examples.reading import Reading, readings_of
from crosswatch.models.detector import DetectorFacts, load_detector
from crosswatch.models.tokens import Tokens

Given = Mapping[str, Any]


class ScoringModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    def load_context(self, context: Any) -> None:
        self.detector = load_detector(Path(context.artifacts["checkpoint"]))

    # Untyped on purpose: MLflow reads a hint here as a schema and knows none of named arrays.
    def predict(self, context, model_input):  # type: ignore[no-untyped-def]
        facts = self.detector.facts
        of_windows = facts.model.task == "instants"
        inputs = (_windows if of_windows else _tokens)(facts, model_input)
        return self.detector.score(inputs).probability_BK().cpu().numpy()


def _windows(facts: DetectorFacts, given: Given) -> tuple[torch.Tensor | None, ...]:
    _refuse_unknown(given, ("video", "signal"))
    video = signal = None
    if facts.shape.frames:
        video = torch.from_numpy(np.asarray(given["video"], np.uint8))
    if facts.shape.signal_samples:
        raw = np.asarray(given["signal"], np.float32)
        signal = torch.from_numpy(facts.statistics.normalise(raw) if facts.statistics else raw)
    return video, signal


def _tokens(facts: DetectorFacts, given: Given) -> tuple[Tokens, ...]:
    names = [stream.name for stream in facts.streams]
    _refuse_unknown(given, [key for name in names for key in (name, f"{name}_valid")])
    counts = {len(given[name]) for name in names if name in given}
    if len(counts) != 1:
        raise UserError(
            f"the streams are of {sorted(counts) or 'no'} clips; expected one or more of "
            f"{', '.join(names)}, all of the same clips."
        )
    (count,) = counts
    return tuple(_read(reading, given, count) for reading in readings_of(facts))


def _read(reading: Reading, given: Given, count: int) -> Tokens:
    name, width = reading.stream.name, reading.width
    values_BLD = np.asarray(given.get(name, np.zeros((count, 0, width))), np.float32)
    valid_BL = _flags(given.get(f"{name}_valid"), values_BLD)
    if values_BLD.shape[2:] != (width,) or valid_BL.shape != values_BLD.shape[:2]:
        raise UserError(
            f"{name} is of shape {values_BLD.shape} and {name}_valid of {valid_BL.shape}; expected "
            f"(clips, tokens, {width}) and (clips, tokens)."
        )
    return reading.tokens(
        [values_LD[valid_L] for values_LD, valid_L in zip(values_BLD, valid_BL, strict=True)]
    )


def _flags(given: Any, values_BLD: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    if given is None:
        return np.ones(values_BLD.shape[:2], bool)
    return np.asarray(given, bool)


def _refuse_unknown(given: Given, known: "list[str] | tuple[str, ...]") -> None:
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"the model knows no {', '.join(unknown)}; it takes {', '.join(known)}.")


mlflow.models.set_model(ScoringModel())
