"""An encoder without weights, whose rows fail, raise and kill as they are told."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from crosswatch.data.originals import OriginalPlace
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import BadBatchError, UserError
from crosswatch.features.encoder import Encoded, Failed, Identity, Input, Rows, Vector
from crosswatch.features.running.work import Job
from crosswatch.features.source import Source

Cell = tuple[str, int]  # batch and row


def source(batch_id: str) -> Source:
    """Names nothing that is there; the encoder below opens nothing."""
    place = OriginalPlace(ingest={}, fetched=Path("/nowhere"), transfer=TransferConfig())
    return Source(batch_id=batch_id, batch_digest="d", folder=Path("/nowhere"), place=place)


def job(batch_id: str, rows: Sequence[int] | range) -> Job:
    return Job(source=source(batch_id), rows=np.array(rows, np.int64))


@dataclasses.dataclass(frozen=True)
class Toy:
    """Each row's answer follows from its batch and number alone.

    Attributes:
        unreadable: rows that `inputs` gives as Failed.
        refused: batches that are given up after so many rows.
        breaking: rows that make the model raise, and with it the rows beside them.
        answered: rows that the model answers with an exception.
        killing: rows that end the process.
        marker: of a process that was ended: the second time it lives.
        log: gets a line for every row that the model sees, and every load.
    """

    unreadable: frozenset[Cell] = frozenset()
    refused: tuple[tuple[str, int], ...] = ()
    breaking: frozenset[Cell] = frozenset()
    answered: frozenset[Cell] = frozenset()
    killing: frozenset[Cell] = frozenset()
    marker: Path | None = None
    log: Path | None = None
    broken_weights: bool = False
    weights: str = ""

    @property
    def identity(self) -> Identity:
        return Identity(name="toy", weights=self.weights, preprocessing={}, version="1")

    def spans_s(self, source: Source) -> np.ndarray:
        raise NotImplementedError

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input | Failed]:
        bounds = dict(self.refused)
        for done, row in enumerate(rows.tolist()):
            if done == bounds.get(source.batch_id):
                raise BadBatchError(f"{source.batch_id} is gone")
            if (source.batch_id, row) in self.unreadable:
                yield Failed(row=row, reason="cannot be read")
            else:
                yield Input(row=row, values=values_of(source.batch_id, row))

    def load(self, device: str) -> "ToyModel":
        if self.broken_weights:
            raise UserError("the weights are of another architecture")
        self.note(f"load {device}")
        return ToyModel(self)

    def note(self, line: str) -> None:
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(line + "\n")


@dataclasses.dataclass(frozen=True)
class ToyModel:
    toy: Toy

    def __call__(self, inputs: Sequence[dict]) -> list[Encoded | Exception]:
        for values in inputs:
            cell = (values["batch"], values["number"])
            if cell in self.toy.killing:
                self.die()
            if cell in self.toy.breaking:
                raise ValueError(f"row {cell[1]}\nis {'too ' * 100}odd")
        return [self.answer(values) for values in inputs]

    def answer(self, values: dict) -> Encoded | Exception:
        cell = (values["batch"], values["number"])
        self.toy.note(f"{cell[0]} {cell[1]}")
        if cell in self.toy.answered:
            return ValueError("not this one")
        return encoded_of(values)

    def die(self) -> None:
        if self.toy.marker is None or not self.toy.marker.exists():
            if self.toy.marker is not None:
                self.toy.marker.touch()
            os._exit(9)


def values_of(batch_id: str, row: int) -> dict:
    """Pictures of many shapes, text and a number."""
    rng = np.random.default_rng([row, *batch_id.encode()])
    picture = rng.integers(0, 256, (2 + row % 3, 4, 3), np.uint8)
    return {"picture": picture, "text": f"batch {batch_id} row {row}", "batch": batch_id} | {
        "number": row
    }


def encoded_of(values: dict) -> Encoded:
    tokens = np.frombuffer(values["text"].encode(), np.uint8).astype(np.float32)[:, None]
    mean = values["picture"].mean(axis=(0, 1), dtype=np.float32)
    return {
        "toy": Vector(values=mean, valid=np.array(True)),
        "toy_tokens": Vector(values=np.hstack([tokens, -tokens]), valid=tokens[:, 0] > 50),
    }


def expected(toy: Toy, jobs: Sequence[Job]) -> dict[Cell, object]:
    """What comes of every row of the jobs that are not refused."""
    found: dict[Cell, object] = {}
    bounds = dict(toy.refused)
    for one in jobs:
        batch_id = one.source.batch_id
        if len(one.rows) > bounds.get(batch_id, len(one.rows)):
            continue
        for row in one.rows.tolist():
            cell = (batch_id, row)
            if cell in toy.unreadable:
                found[cell] = "cannot be read"
            elif cell in toy.breaking:
                found[cell] = f"ValueError: row {row} is {'too ' * 100}odd"[:197] + "..."
            elif cell in toy.answered:
                found[cell] = "ValueError: not this one"
            else:
                found[cell] = plain(encoded_of(values_of(batch_id, row)))
    return found


def plain(value: Encoded | Failed) -> object:
    """Comparable by ==."""
    if isinstance(value, Failed):
        return value.reason
    return {name: (vector.values.tolist(), vector.valid.tolist()) for name, vector in value.items()}
