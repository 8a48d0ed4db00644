"""A donkeycar tub: what a small car saw and how it was steered, a record at a time.

manifest.json names the catalogs, JSON lines of records; their pictures lie in images/. A record's
number is its time: stamps that a conversion of the format left are not.
"""

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.artifacts import digest_of, sha256_of
from crosswatch.data.adapters.arrival import Arrival, Found, safe_path
from crosswatch.data.adapters.finding import batch_id, found_of
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.raw import RawBatch
from crosswatch.data.signals import RawSignal
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import BadBatchError, UserError

MANIFEST, IMAGES = "manifest.json", "images"
PICTURE = "cam/image_array"
COLUMNS = {"angle": "user/angle", "throttle": "user/throttle"}
LEAST = 2
ADVICE = "Take the tub as donkeycar wrote it."


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Record:
    index: int
    picture: Path
    values: tuple[float, ...]


class DonkeycarAdapter:
    """Pictures, steering and throttle without labels, on two clocks unless it is said otherwise."""

    def __init__(self, config: IngestConfig) -> None:
        self._config = config.donkeycar

    def find(self, source: Path) -> Found:
        """One tub, or the tubs in a folder.

        Raises:
            UserError: there is none.
        """
        folders = sorted(path.parent for path in source.glob(f"[!.]*/{MANIFEST}"))
        if (source / MANIFEST).is_file():
            folders = [source]
        if not folders:
            raise UserError(
                f"{source}: holds no donkeycar tub. A tub is a folder with {MANIFEST} and "
                f"{IMAGES}/; unpack an archive first."
            )
        return found_of(
            (batch_id(tub.resolve().name), tub, partial(_digest, tub)) for tub in folders
        )

    def read(self, arrival: Arrival) -> RawBatch:
        """The records that were not deleted, each at its number's time.

        Raises:
            BadBatchError: a catalog is missing or no JSON, or too few records are left.
        """
        records = _records(arrival.path)
        times_s = np.array([record.index for record in records]) / self._config.rate_hz
        return RawBatch(
            id=arrival.id,
            plant="donkeycar",
            started_at="",  # stamps of converted tubs are not times
            video=RawVideo(
                path=arrival.path,
                times_s=times_s,
                rate_hz=self._config.rate_hz,
                clock="control" if self._config.one_clock else "camera",
                times_name=MANIFEST,
                pictures=_Stills([record.picture for record in records]),
            ),
            signal=RawSignal(
                values=np.array([record.values for record in records]),
                times_s=times_s,
                columns=tuple(COLUMNS),
                unit="1",
                rate_hz=self._config.rate_hz,
                name=MANIFEST,
            ),
        )


class _Stills:
    """Pictures in files of their own; one that cannot be read is left out."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        import cv2

        for at, path in enumerate(self._paths):
            if not path.is_file():  # OpenCV would warn on the terminal
                continue
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is not None:
                yield at, np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _digest(tub: Path) -> str:
    catalogs, deleted = _manifest(tub)
    pictures = [record.picture for record in _records(tub)]
    files = [*catalogs, *(path for path in pictures if path.is_file())]
    return digest_of([{str(path.name): sha256_of(path) for path in files}, sorted(deleted)])


def _manifest(tub: Path) -> tuple[list[Path], set[int]]:
    """The catalogs, and the records that were deleted; the last line says it."""
    lines = list(_json_lines(tub / MANIFEST))
    told = lines[-1][1] if lines else None
    names = told.get("paths") if isinstance(told, dict) else None
    deleted = told.get("deleted_indexes", []) if isinstance(told, dict) else None
    if not _all(names, str) or not _all(deleted, int):
        raise BadBatchError(
            f"{MANIFEST}: its last line has to name the catalogs (paths) and the deleted records "
            f"(deleted_indexes). {ADVICE}"
        )
    catalogs = [safe_path(tub, name) for name in names or ()]
    for path in catalogs:
        if not path.is_file():
            raise BadBatchError(
                f"{path.name[:100]!r}: is missing though {MANIFEST} names it. {ADVICE}"
            )
    return catalogs, set(deleted or ())


def _records(tub: Path) -> list[_Record]:
    """In order of their numbers, each number once."""
    catalogs, deleted = _manifest(tub)
    found: dict[int, _Record] = {}
    for path in catalogs:
        for row, told in _json_lines(path):
            record = _record(told, tub, where=f"{path.name}: row {row}")
            if record.index in found:
                raise BadBatchError(
                    f"{path.name}: row {row}: record {record.index} comes twice. {ADVICE}"
                )
            found[record.index] = record
    kept = [found[index] for index in sorted(found) if index not in deleted]
    if len(kept) < LEAST:
        raise BadBatchError(
            f"{MANIFEST}: {len(kept)} of {len(found)} records are not deleted; at least {LEAST} "
            "are needed."
        )
    return kept


def _record(told: Any, tub: Path, *, where: str) -> _Record:
    fields = told if isinstance(told, dict) else {}
    index, name = fields.get("_index"), fields.get(PICTURE)
    if type(index) is not int or not 0 <= index < 2**31 or not isinstance(name, str):
        raise BadBatchError(
            f"{where}: has no number _index from 0 or no picture {PICTURE!r}. {ADVICE}"
        )
    values = [fields.get(key) for key in COLUMNS.values()]
    return _Record(
        index=index,
        picture=safe_path(tub / IMAGES, name),
        values=tuple(_number(value) for value in values),
    )


def _number(value: Any) -> float:
    try:
        return float(value) if type(value) in (int, float) else float("nan")
    except OverflowError:  # a whole number of hundreds of digits
        return float("nan")


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8", errors="replace") as stream:
        for row, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    yield row, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise BadBatchError(
                        f"{path.name}: row {row} is not JSON: {error}. {ADVICE}"
                    ) from error


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
