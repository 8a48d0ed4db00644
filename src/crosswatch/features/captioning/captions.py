"""Sentences about a batch, each with the time that it holds for."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from crosswatch import artifacts
from crosswatch.errors import UserError

CAPTIONS = "captions"
FILE = "captions.parquet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caption:
    """A row of captions.parquet, in order of time.

    Attributes:
        time_s: from when it holds, on the reference clock.
        until_s: until when: the next one that was looked for, or the end of the recording.
        frame: of the stored frames; -1 for one that was not made from a picture.
        explanation: "Video shows: ..." as ExVAD words it, with the last other caption.
        score: mean log-probability of its tokens; NaN where nothing was estimated.
        source: template, blip or supplied.
        digest: of the captioner, or of the table that it stands in.
    """

    time_s: float
    until_s: float
    frame: int
    caption: str
    explanation: str
    score: float
    source: str
    digest: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """What a captioner's model answers for one picture."""

    text: str
    score: float  # mean log-probability of its tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioned:
    captions: tuple[Caption, ...]
    left_out: int = 0  # sentences that hold at no time of the batch


def write_captions(path: Path, captions: Sequence[Caption]) -> None:
    columns = {
        field.name: [getattr(caption, field.name) for caption in captions]
        for field in dataclasses.fields(Caption)
    }
    dtypes = {"time_s": "float64", "until_s": "float64", "frame": "int64", "score": "float64"}
    frame = pd.DataFrame(columns).astype(dict.fromkeys(columns, "str") | dtypes)
    frame.to_parquet(path, index=False)


def read_captions(path: Path) -> tuple[Caption, ...]:
    rows = pd.read_parquet(path).to_dict(orient="records")
    return tuple(Caption(**{str(key): value for key, value in row.items()}) for row in rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionSet:
    """The captions artifact: a folder a batch."""

    digest: str
    folder: Path
    hashes: Mapping[str, str]  # SHA-256 of the captions.parquet of each batch that has one

    def file_of(self, batch_id: str) -> Path | None:
        return self.folder / batch_id / FILE if batch_id in self.hashes else None


def open_captions(path: Path, *, batch_set_digest: str) -> CaptionSet:
    """
    Raises:
        UserError: not a captions artifact, damaged, or of another batch set.
    """
    manifest = artifacts.open_artifact(path, kind=CAPTIONS)
    if manifest.parents["batches"] != batch_set_digest:
        raise UserError(f"{path}: holds captions of another batch set. Run caption again.")
    hashes = {
        Path(name).parent.name: entry["sha256"]
        for name, entry in manifest.files.items()
        if Path(name).name == FILE
    }
    return CaptionSet(digest=manifest.digest, folder=path, hashes=hashes)
