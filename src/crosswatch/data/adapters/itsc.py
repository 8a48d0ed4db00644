"""Three-phase currents of a real motor with inter-turn short circuits, as they are distributed.

Data_ITSC.mat holds 13 recordings (healthy, and three phases at four severities), each repeated
five times. A repetition is a batch: its recordings one after another, with a pause between.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.artifacts import digest_of, sha256_of
from crosswatch.data.adapters.arrival import Arrival, Found
from crosswatch.data.ingestion import RawBatch
from crosswatch.data.signals import RawSignal
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Event

FILE = "Data_ITSC.mat"
STRUCT = "itsc"
CLASSES = ("healthy", *(f"{phase}{share}" for phase in "abc" for share in (10, 20, 30, 40)))
COLUMNS = ("phase_a", "phase_b", "phase_c")
REPETITIONS = 5
RATE_HZ = 1000.0
SHAPE = (1000, len(COLUMNS))
PAUSE_S = 1.0  # more than a model's windows could bridge unseen
ADVICE = "Take the file as github.com/ibarram/ITSC distributes it."


class ItscAdapter:
    """Signal only, labelled, one clock: nothing to synchronise."""

    def find(self, source: Path) -> Found:
        """The five repetitions.

        Raises:
            UserError: the folder does not hold Data_ITSC.mat.
        """
        path = source if source.name == FILE else source / FILE
        if not path.is_file():
            raise UserError(f"{source}: holds no {FILE}. Name the folder that holds it.")
        contents = sha256_of(path)
        return Found(
            arrivals=tuple(
                Arrival(
                    id=f"repetition-{number:02d}", digest=digest_of([contents, number]), path=path
                )
                for number in range(1, REPETITIONS + 1)
            ),
            not_arrived=(),
        )

    def read(self, arrival: Arrival) -> RawBatch:
        """One repetition's recordings, in the order of CLASSES.

        Raises:
            BadBatchError: the file is no MATLAB file, or holds something else.
        """
        number = int(arrival.id.removeprefix("repetition-"))
        recordings = _recordings(arrival.path, f"Repetition{number:02d}")
        step_s = (SHAPE[0] / RATE_HZ) + PAUSE_S
        within_s = np.arange(SHAPE[0]) / RATE_HZ
        starts_s = step_s * np.arange(len(CLASSES))
        spans = tuple((float(start), float(start + within_s[-1])) for start in starts_s)
        return RawBatch(
            id=arrival.id,
            plant="itsc-motor",
            started_at="",  # not published
            video=None,
            signal=RawSignal(
                values=np.concatenate(recordings),
                times_s=(starts_s[:, None] + within_s).reshape(-1),
                columns=COLUMNS,
                unit="A",
                rate_hz=RATE_HZ,
                name=FILE,
            ),
            events=tuple(
                Event(class_name=name, onset_s=start, apex_s=(start + stop) / 2, offset_s=stop)
                for name, (start, stop) in zip(CLASSES, spans, strict=True)
            ),
            segments=spans,
        )


def _recordings(path: Path, repetition: str) -> list[npt.NDArray[np.float64]]:
    struct = _struct(path)
    found = []
    for name in CLASSES:
        field = "ITSC_HLT" if name == "healthy" else f"ITSC_{name.upper()}"
        values = _field(_field(struct, field), repetition)
        if values is None:
            raise BadBatchError(f"{FILE}: {STRUCT}.{field}.{repetition} is missing. {ADVICE}")
        if values.shape != SHAPE or values.dtype.kind != "f":
            raise BadBatchError(
                f"{FILE}: {STRUCT}.{field}.{repetition} is {values.dtype} {values.shape}; expected "
                f"float64 {SHAPE}. {ADVICE}"
            )
        found.append(values.astype(np.float64))
    return found


def _struct(path: Path) -> Any:
    import scipy.io

    try:
        contents = scipy.io.loadmat(path)
    except Exception as error:  # scipy raises whatever a broken file trips: no list of them holds
        reason = " ".join(str(error).split())
        raise BadBatchError(f"{FILE}: is no MATLAB 5 file: {reason}. {ADVICE}") from error
    if STRUCT not in contents:
        names = ", ".join(name for name in contents if not name.startswith("__"))
        raise BadBatchError(
            f"{FILE}: holds no struct {STRUCT!r}; found {names or 'none'}. {ADVICE}"
        )
    return contents[STRUCT]


def _field(struct: Any, name: str) -> Any:
    """What a MATLAB struct of one element holds under this name, or None."""
    if struct is None or struct.dtype.names is None or name not in struct.dtype.names:
        return None
    return struct[name].flat[0] if struct.size else None
