"""What the runners share: the work that is given out, and what comes of it row by row."""

import dataclasses
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from crosswatch.errors import BadBatchError, ResourceError, UserError
from crosswatch.features.encoder import Encoder, Failed, Input, Model, Rows
from crosswatch.features.source import Source

REASON = 200
"""Longest reason of a row that failed, in characters."""

_NO_FAULT_OF_A_ROW = (UserError, ResourceError, MemoryError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    source: Source
    rows: Rows  # still missing, rising


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """A row is finished: with what the model answered, or with the reason why there is nothing."""

    job: int
    row: int
    value: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """A batch cannot be used: nothing more comes of this job."""

    job: int
    reason: str


def read(
    encoder: Encoder, number: int, job: Job
) -> Generator[Input | Failed | Refused, None, None]:
    """Each row of the job once, or some of them and the reason why no more come."""
    awaited = set(job.rows.tolist())
    if not awaited:
        return
    found: Iterator[Input | Failed] | None = None
    try:
        found = encoder.inputs(job.source, job.rows)
        for item in found:
            assert item.row in awaited, f"{encoder.identity.name} gives row {item.row} unasked"
            awaited.remove(item.row)
            yield item
    except BadBatchError as error:
        yield Refused(job=number, reason=str(error))
        return
    finally:
        if isinstance(found, Generator):
            found.close()  # and with it the decoder, at once
    assert not awaited, f"{encoder.identity.name} keeps {len(awaited)} rows back"


class CarefulModel:
    """A model that answers every row: where a call fails, it finds out whose fault it was."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._most: int | None = None  # rows at once, since the accelerator's memory ran out

    def __call__(self, inputs: Sequence[Input]) -> list[Any]:
        """One value a row, in order: what the model answered, or Failed.

        Raises:
            UserError, ResourceError, MemoryError: of the model; no row is at fault.
        """
        answers: list[Any] = []
        while len(answers) < len(inputs):
            piece = inputs[len(answers) :][: self._most]
            answers += self._answer(piece)
        return answers

    def _answer(self, piece: Sequence[Input]) -> list[Any]:
        """Of all rows of the piece; of none when it has to be smaller."""
        try:
            given = self._model([item.values for item in piece])
        except _NO_FAULT_OF_A_ROW:
            raise
        except Exception as error:
            if _is_lost(error):
                raise
            full, reason = _is_out_of_memory(error), reason_of(error)
        else:
            assert len(given) == len(piece), f"{len(given)} answers to {len(piece)} rows"
            return [_answer_of(item, value) for item, value in zip(piece, given, strict=True)]
        # Only here the failed call's tensors are free: the error held its frames.
        if full:
            _free_accelerator()
        if len(piece) == 1:
            return [Failed(row=piece[0].row, reason=reason)]
        if full:
            self._most = (len(piece) + 1) // 2
            return []
        return [answer for item in piece for answer in self._answer([item])]


def _answer_of(item: Input, value: Any) -> Any:
    if isinstance(value, Exception):
        return Failed(row=item.row, reason=reason_of(value))
    return value


def reason_of(error: BaseException) -> str:
    """One line that is not too long to be kept."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line if len(line) <= REASON else line[: REASON - 3] + "..."


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # nothing of it is raised before it is imported
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _is_lost(error: Exception) -> bool:
    """After an error of its device a process cannot use it any more: every row would fail."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.AcceleratorError)


def _free_accelerator() -> None:
    torch = sys.modules["torch"]
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def device_of(encoder: Encoder, asked: str) -> str:
    """Of this machine; an encoder without weights needs none, and does not make torch load.

    Raises:
        UserError: cuda was asked for and there is none.
    """
    if asked == "cpu" or not encoder.identity.weights:
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise UserError(
            "cuda asked for, none found: torch sees no GPU here. Set compute.device to auto or "
            "cpu, or install a torch that is built for the GPU."
        )
    return "cpu"
