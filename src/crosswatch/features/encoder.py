"""What an encoder is: which rows a batch gives, what each row looks at, and a model over them.

An encoder is cheap to make and to send to another process; its model is loaded where it works.
Rows are numbered before anything is decoded, so that batch size, number of processes and order
change no result, and a run that was killed goes on with the rows that are missing.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts
from crosswatch.features.source import Source

Spans = npt.NDArray[np.float64]
"""(N, 2) from and until when a row tells of the batch, in s on the reference clock."""
Rows = npt.NDArray[np.int64]
Values = Mapping[str, Any]
"""What the model is given for one row: numpy arrays, text and numbers by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    row: int
    values: Values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failed:
    """A row that could not be read or encoded; recorded, and counted against the limit."""

    row: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vector:
    """One row of one modality.

    Attributes:
        values: float32 (..., D); where not valid, zero.
        valid: bool (...,): false for padding, silence, and what was not there.
    """

    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


Encoded = Mapping[str, Vector]
"""One row by modality."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a feature depends on beside the bytes that were looked at."""

    name: str
    weights: str  # SHA-256; empty: needs none
    preprocessing: Mapping[str, Any]  # every setting that changes a result
    version: str  # of the code and of the libraries that compute

    @property
    def digest(self) -> str:
        return artifacts.digest_of(dataclasses.asdict(self))


class Model(Protocol):
    def __call__(self, inputs: Sequence[Values]) -> Sequence[Any]:
        """What each row becomes: `Encoded`, or of a captioner `Said`.

        A row that cannot be encoded may be answered by an exception of its own (an instance,
        not raised); what is raised fails the whole call.
        """
        ...


class Encoder(Protocol):
    @property
    def identity(self) -> Identity:
        """Reads the weights' bytes.

        Raises:
            UserError: they are missing, or not those that were asked for.
        """
        ...

    def spans_s(self, source: Source) -> Spans:
        """One row each; none where the batch lacks what the encoder looks at."""
        ...

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input | Failed]:
        """What the model needs for these rows (rising), each once, in any order.

        Raises:
            BadBatchError: the batch's originals are gone or broken as a whole.
        """
        ...

    def load(self, device: str) -> Model:
        """
        Raises:
            UserError: the weights are of another architecture.
        """
        ...
