"""Stacks on disk: pictures, samples and features that never lie in memory as a whole."""

import math
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt


class RowWriter:
    """Append rows to a .npy file whose length is known only at the end."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._stream = path.open("wb")
        self._start = self._write_header()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.seek(0)
        assert self._write_header() == self._start, "numpy pads headers so that they can grow"
        self._stream.close()

    def extend(self, rows: npt.NDArray[Any]) -> None:
        assert rows.shape[1:] == self._shape
        assert rows.dtype == self._dtype
        self._stream.write(np.ascontiguousarray(rows).data)
        self._count += len(rows)

    def _write_header(self) -> int:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._count, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._stream, header)
        return self._stream.tell()


class Rows:
    """The rows of a .npy file whose number is known, in whatever order they come."""

    def __init__(self, stream: IO[bytes], shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._stream = stream
        self._shape = shape
        self._dtype = np.dtype(dtype)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(stream, header)
        self._start = stream.tell()
        self._row_bytes = self._dtype.itemsize * math.prod(shape[1:])
        self._next = 0  # row that the stream stands before; seeking would empty its buffer

    def put(self, at: int, row: npt.NDArray[Any]) -> None:
        assert row.shape == self._shape[1:]
        assert row.dtype == self._dtype
        self._seek(at)
        self._stream.write(np.ascontiguousarray(row).data)
        self._next = at + 1

    def repeat(self, at: int, source: int) -> None:
        """Make row `at` the same as row `source`."""
        self._seek(source)
        row = self._stream.read(self._row_bytes)
        self._next = source + 1
        self._seek(at)
        self._stream.write(row)
        self._next = at + 1

    def mapped(self) -> np.memmap[Any, Any]:
        """The rows as they lie in the file, which may have no name any more."""
        self._stream.flush()
        return np.memmap(
            self._stream, dtype=self._dtype, mode="r+", offset=self._start, shape=self._shape
        )

    def _seek(self, at: int) -> None:
        assert 0 <= at < self._shape[0]
        if at != self._next:
            self._stream.seek(self._start + at * self._row_bytes)
            self._next = at
