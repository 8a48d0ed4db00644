"""A growing stack of pictures on disk."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt


class FrameWriter:
    """Append pictures to a .npy file whose length is known only at the end."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._shape = shape
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

    def append(self, frame: npt.NDArray[np.uint8]) -> None:
        assert frame.shape == self._shape
        assert frame.dtype == np.uint8
        self._stream.write(np.ascontiguousarray(frame).data)
        self._count += 1

    def _write_header(self) -> int:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self._count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._stream, header)
        return self._stream.tell()
