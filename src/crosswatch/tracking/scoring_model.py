"""The registered model as MLflow loads it: `mlflow.pyfunc.load_model("models:/NAME@champion")`.

`predict` returns class probabilities (B, K). FmFormer takes {"video": uint8 (B, T, H, W, 3),
"signal": float32 (B, S, C)}, either of which a model without that stream does not need. A model of
features takes the streams that its settings name, such as {"visual": float32 (B, L, D)}, and where
clips are padded which tokens there are, {"visual_valid": bool (B, L)}; one that is left out is
missing from every clip.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch

from crosswatch.models.detector import DetectorFacts, load_detector
from crosswatch.models.tokens import Tokens


class ScoringModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    def load_context(self, context: Any) -> None:
        self.detector = load_detector(Path(context.artifacts["checkpoint"]))

    # Untyped on purpose: MLflow reads a hint here as a schema and knows none of named arrays.
    def predict(self, context, model_input):  # type: ignore[no-untyped-def]
        facts = self.detector.facts
        of_windows = facts.model.task == "instants"
        inputs = (_windows if of_windows else _tokens)(facts, model_input)
        return self.detector.score(inputs).probability_BK().cpu().numpy()


def _windows(facts: DetectorFacts, given: Mapping[str, Any]) -> tuple[torch.Tensor | None, ...]:
    video = signal = None
    if facts.shape.frames:
        video = torch.from_numpy(np.asarray(given["video"], np.uint8))
    if facts.shape.signal_samples:
        raw = np.asarray(given["signal"], np.float32)
        signal = torch.from_numpy(facts.statistics.normalise(raw) if facts.statistics else raw)
    return video, signal


def _tokens(facts: DetectorFacts, given: Mapping[str, Any]) -> tuple[Tokens, ...]:
    count = len(next(iter(given.values())))
    found = []
    for at, (stream, width) in enumerate(zip(facts.streams, facts.shape.widths, strict=True)):
        values = np.zeros((count, 1, width), np.float32)
        valid = np.zeros((count, 1), bool)
        if stream.name in given:
            values = np.asarray(given[stream.name], np.float32)
            valid = np.asarray(given.get(f"{stream.name}_valid", np.ones(values.shape[:2])), bool)
        if facts.scales:
            values = facts.scales[at].apply(values)
        found.append(Tokens(torch.from_numpy(values), torch.from_numpy(valid)))
    return tuple(found)


mlflow.models.set_model(ScoringModel())
