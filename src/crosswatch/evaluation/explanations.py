"""What a model says of its own decisions, beside the captions of the clips."""

from pathlib import Path
from typing import Any

import pandas as pd

from crosswatch.data.batches import BatchSet
from crosswatch.features.captioning.captions import Caption, open_captions, read_captions

EXPLANATIONS = "explanations.parquet"
MOST_SENTENCES = 3


class Explanations:
    """Gathers them while clips are scored; models without an `explain` add nothing.

    A row a clip: batch, segment, start_s, end_s, label, score (how abnormal), explanation (the
    sentences that hold in it), and what the model tells, such as gate and cosine; attention over
    tokens as lists.
    """

    def __init__(self, captions: Path | None, batch_set: BatchSet) -> None:
        self._captions = (
            None if captions is None else open_captions(captions, batch_set_digest=batch_set.digest)
        )
        self._read: dict[str, tuple[Caption, ...]] = {}
        self._parts: list[pd.DataFrame] = []

    def digests(self) -> dict[str, str]:
        """What the sentences came from, by its role."""
        return {} if self._captions is None else {"captions": self._captions.digest}

    def hear(self, rows: pd.DataFrame, scores: Any) -> None:
        """Rows of a mini-batch of clips, and what the model's forward gave."""
        if not hasattr(scores, "explain"):
            return
        columns = {name: values.tolist() for name, values in scores.explain().items()}
        told = pd.DataFrame(columns, index=rows.index)
        times = zip(rows["batch"], rows["start_s"], rows["end_s"], strict=True)
        said = [self._sentences(str(batch), start_s, end_s) for batch, start_s, end_s in times]
        score = 1 - scores.probability_BK()[:, 0].double().cpu().numpy()
        beside = rows[["batch", "segment", "start_s", "end_s", "label"]]
        self._parts.append(pd.concat([beside.assign(score=score, explanation=said), told], axis=1))

    def save(self, path: Path) -> None:
        """Nothing where no model explained anything."""
        if self._parts:
            pd.concat(self._parts, ignore_index=True).to_parquet(path, index=False)

    def _sentences(self, batch: str, start_s: float, end_s: float) -> str:
        if self._captions is None:
            return ""
        if batch not in self._read:
            file = self._captions.file_of(batch)
            self._read[batch] = () if file is None else read_captions(file)
        inside = [
            each.explanation
            for each in self._read[batch]
            if each.time_s < end_s and each.until_s > start_s
        ]
        return " ".join(list(dict.fromkeys(inside))[:MOST_SENTENCES])
