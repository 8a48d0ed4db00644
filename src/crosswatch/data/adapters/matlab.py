"""MATLAB 7.3 files (HDF5), in which every axis order is reversed, read a piece at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.errors import BadBatchError

BLOCK_BYTES = 16 * 2**20
"""What is held of a dataset at once, unless one of its own chunks is larger."""
ADVICE = "Take the file as FMF-Benchmark distributes it."


class Stack:
    """A dataset whose first axis (MATLAB's last) counts pictures or rows."""

    def __init__(self, path: Path, name: str, *, axes: int) -> None:
        self.path = path
        self.name = name
        with _opened(path) as file:
            dataset = _dataset(file, path, name)
            self.shape = tuple(map(int, dataset.shape))
            self.is_bytes = dataset.dtype == np.uint8
            numeric = dataset.dtype.kind in "biuf"
            if len(self.shape) != axes or not numeric or 0 in self.shape:
                raise BadBatchError(
                    f"{path.name}: {name!r} is {dataset.dtype} {self.shape} (as HDF5 shows it); "
                    f"expected numbers in {axes} dimensions. {ADVICE}"
                )

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Position of the first row, and rows: as many as BLOCK_BYTES hold, whole chunks."""
        with _opened(self.path) as file:
            dataset = _dataset(file, self.path, self.name)
            row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(self.shape[1:])))
            chunk = dataset.chunks[0] if dataset.chunks else 1
            rows = max(1, BLOCK_BYTES // row_bytes // chunk) * chunk
            for at in range(0, len(self), rows):
                try:
                    block = dataset[at : at + rows]
                except OSError as error:
                    raise _unreadable(self.path, error) from error
                yield at, block

    def whole(self) -> npt.NDArray[np.float64]:
        """All of a small one."""
        return np.concatenate([block.astype(np.float64) for _, block in self.blocks()])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    try:
        file = h5py.File(path, "r")
    except PermissionError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield file


def _dataset(file: Any, path: Path, name: str) -> Any:
    """A dataset that lies in this very file: links and external storage could name any other."""
    import h5py

    if name not in file:
        found = ", ".join(map(repr, list(file)[:8])) or "none"
        raise BadBatchError(f"{path.name}: holds no {name!r}; found {found}. {ADVICE}")
    here = isinstance(file.get(name, getlink=True), h5py.HardLink)
    if not here or not isinstance(file[name], h5py.Dataset) or _outside(file[name]):
        raise BadBatchError(f"{path.name}: {name!r} is no array of its own. {ADVICE}")
    return file[name]


def _outside(dataset: Any) -> bool:
    return dataset.external is not None or dataset.is_virtual


def _unreadable(path: Path, error: OSError) -> BadBatchError:
    reason = " ".join(str(error).split())[:160]
    return BadBatchError(
        f"{path.name}: cannot be read as a MATLAB 7.3 (HDF5) file ({path.stat().st_size} bytes): "
        f"{reason}. {ADVICE}"
    )
