"""The registered model as MLflow loads it: `mlflow.pyfunc.load_model("models:/NAME@champion")`.

`predict` takes {"video": uint8 (B, T, H, W, 3), "signal": float32 (B, S, C)}, either of which a
model without that stream does not need, and returns class probabilities (B, K).
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch

from crosswatch.models.detector import load_detector


class ScoringModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    def load_context(self, context: Any) -> None:
        self.detector = load_detector(Path(context.artifacts["checkpoint"]))

    # Untyped on purpose: MLflow reads a hint here as a schema and knows none of named arrays.
    def predict(self, context, model_input):  # type: ignore[no-untyped-def]
        facts = self.detector.facts
        video = signal = None
        if facts.shape.frames:
            video = torch.from_numpy(np.asarray(model_input["video"], np.uint8))
        if facts.shape.signal_samples:
            raw = np.asarray(model_input["signal"], np.float32)
            signal = torch.from_numpy(facts.statistics.normalise(raw) if facts.statistics else raw)
        with torch.inference_mode():
            scores = self.detector.module(video, signal)
        return scores.class_BK.float().softmax(1).numpy()


mlflow.models.set_model(ScoringModel())
