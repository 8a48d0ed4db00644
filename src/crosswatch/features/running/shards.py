"""Finished rows on disk, so that a run that was killed goes on where it stood."""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.features.captioning.captions import Said
from crosswatch.features.encoder import Encoded, Failed, Rows, Vector

_Value = Encoded | Said | Failed

_SUFFIX = ".shard"


class Shards:
    """Rows 0 to `rows`, kept in files of `shard_rows` rows in the order in which they came.

    A file appears in one rename once it is full, so a killed run loses fewer than `shard_rows`
    rows. It is named after its bytes: one that was truncated or changed counts as not there. Rows
    of a run with another `shard_rows` are taken up.
    """

    def __init__(self, folder: Path, rows: int, shard_rows: int) -> None:
        self._folder = folder
        self._shard_rows = shard_rows
        self._pending: dict[int, _Value] = {}
        self._shards: list[_Shard] = []
        self._places = np.full((rows, 2), -1, np.int64)  # of each row: shard, position in it
        for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else ():
            if _digest(path) == path.stem:
                self._take(_Shard(path), again_where_failed=True)

    def missing(self) -> Rows:
        """Rising; one that failed in an earlier run is missing again."""
        there = self._places[:, 0] >= 0
        there[list(self._pending)] = True
        return np.flatnonzero(~there)

    def add(self, row: int, value: _Value) -> None:
        assert self._places[row, 0] < 0, f"row {row} came twice"
        assert row not in self._pending, f"row {row} came twice"
        self._pending[row] = value
        if len(self._pending) >= self._shard_rows:
            self.close()

    def close(self) -> None:
        """Write what came since the last full file; more may be added afterwards."""
        if self._pending:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take(_Shard(_write(self._folder, self._pending)))
            self._pending = {}

    def rows(self) -> Iterator[tuple[int, Any]]:
        """Every row in order, with what was added for it; one at a time is in memory."""
        self.close()
        assert not self.missing().size, f"{self.missing().size} rows are missing"
        for row, (shard, position) in enumerate(self._places.tolist()):
            yield row, self._shards[shard].value(row, position)

    def __enter__(self) -> "Shards":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, shard: "_Shard", *, again_where_failed: bool = False) -> None:
        positions = np.arange(len(shard.rows))
        if again_where_failed:
            positions = positions[~np.isin(shard.rows, shard.failed)]
        self._places[shard.rows[positions], 0] = len(self._shards)
        self._places[shard.rows[positions], 1] = positions
        self._shards.append(shard)


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A safetensors file as `_write` makes it; its arrays stay there until a row is asked for."""

    path: Path

    def value(self, row: int, position: int) -> _Value:
        if (reason := self._facts["failed"].get(str(row))) is not None:
            return Failed(row=row, reason=reason)
        if (said := self._facts["said"].get(str(row))) is not None:
            return Said(text=said[0], score=said[1])
        return {name: self._vector(name, position) for name in self._facts["modalities"]}

    def _vector(self, name: str, position: int) -> Vector:
        shapes, bounds = self._layouts[name]
        shape = shapes[position].tolist()
        start, end = bounds[position : position + 2].tolist()
        return Vector(
            values=self._slice(f"{name}/values", start[0], end[0]).reshape(shape),
            valid=self._slice(f"{name}/valid", start[1], end[1]).reshape(shape[:-1]),
        )

    def _slice(self, name: str, start: int, end: int) -> npt.NDArray[Any]:
        if start == end:  # safetensors takes nothing, not even nothing, from an empty array
            return np.empty(0, np.bool_ if name.endswith("/valid") else np.float32)
        return np.asarray(self._file.get_slice(name)[start:end])

    @cached_property
    def rows(self) -> Rows:
        return np.asarray(self._file.get_tensor("rows"))

    @property
    def failed(self) -> list[int]:
        return [int(row) for row in self._facts["failed"]]

    @cached_property
    def _file(self) -> Any:
        from safetensors import safe_open

        return safe_open(self.path, framework="numpy")

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return dict(json.loads(self._file.metadata()["facts"]))

    @cached_property
    def _layouts(self) -> Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Of each modality: the rows' shapes, and the bounds of their values and of their flags."""
        found = {}
        for name in self._facts["modalities"]:
            shapes = self._file.get_tensor(f"{name}/shapes")
            sizes = np.stack([shapes.prod(axis=1), shapes[:, :-1].prod(axis=1)], axis=1)
            found[name] = (shapes, np.pad(sizes.cumsum(axis=0), ((1, 0), (0, 0))))
        return found


def _write(folder: Path, values: Mapping[int, _Value]) -> Path:
    """Of each modality one row's numbers behind the other's; reasons and sentences as JSON."""
    from safetensors.numpy import save_file

    failed = {row: value.reason for row, value in values.items() if isinstance(value, Failed)}
    said = {row: (it.text, it.score) for row, it in values.items() if isinstance(it, Said)}
    encoded = {row: it for row, it in values.items() if not isinstance(it, Failed | Said)}
    modalities = list(next(iter(encoded.values()), ()))
    arrays = {"rows": np.array([*encoded, *said, *failed], np.int64)}  # as _Shard counts them
    for name in modalities:
        arrays |= _arrays(name, [value[name] for value in encoded.values()])
    assert all(list(value) == modalities for value in encoded.values()), "rows differ in modalities"
    facts = json.dumps({"modalities": modalities, "said": said, "failed": failed})
    temporary = folder / f".{uuid.uuid4().hex}"
    try:
        save_file(arrays, temporary, metadata={"facts": facts})
        # Not synced: after a loss of power a file without its bytes does not match its name.
        path = folder / (_digest(temporary) + _SUFFIX)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _arrays(name: str, vectors: Sequence[Vector]) -> dict[str, npt.NDArray[Any]]:
    for vector in vectors:
        told = f"{name}: {vector.values.shape} {vector.values.dtype}, valid {vector.valid.shape}"
        assert vector.values.dtype == np.float32, told
        assert vector.valid.dtype == np.bool_, told
        assert vector.valid.shape == vector.values.shape[:-1], told
    return {
        f"{name}/shapes": np.array([vector.values.shape for vector in vectors], np.int64),
        f"{name}/values": np.concatenate([vector.values.ravel() for vector in vectors]),
        f"{name}/valid": np.concatenate([vector.valid.ravel() for vector in vectors]),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
