"""Pickles of arrays, read without running anything of them.

A pickle is a program: whatever it names is imported and called. Here each name that arrays and
tensors need leads to a stand-in of ours that checks what it is given and that nothing can be set
on; every other name is refused before anything is called. numpy's and torch's own constructors are
not reached: numpy takes a type's layout from the file, and reads memory where it points.

The file is walked once before, so that opcodes which make objects, and tables that would fill the
memory, are refused too. What a hostile file can still do is to cost time, or to end the process.
"""

import collections
import math
import mmap
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError
from crosswatch.features.exchange import opcodes
from crosswatch.features.exchange.opcodes import RefusedPickle
from crosswatch.features.exchange.pickled import ArrayInParts, makers

DEEPEST = 100  # containers in containers
PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None))
DAMAGE = (
    pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError,
    OverflowError, RecursionError,
)  # fmt: skip


def load_pickle(path: Path, *, objects: bool = False) -> Any:
    """Lists, tuples, sets and dictionaries of numbers, text and arrays.

    Written by Python 2 or 3 and numpy 1 or 2. Tensors of torch come as arrays; arrays may be
    read-only. Text of Python 2 is read as Latin-1.

    Args:
        objects: are arrays of such values (dtype object) allowed.

    Raises:
        UserError: it cannot be read, is damaged, or asks for anything else; then nothing was run.
    """
    with _opened(path) as stream:
        return _load(stream, path, objects=objects)


def load_npy(path: Path, *, objects: bool = False) -> npt.NDArray[Any]:
    """An array as numpy saves it, memory-mapped; one of objects is a pickle, and read as such.

    Raises:
        UserError: as `load_pickle`; or it is no `.npy`, or one of objects that were not allowed.
    """
    with _opened(path) as stream:
        shape, dtype = _header(stream, path)
        if not dtype.hasobject:
            return _mapped(path)
        if not objects or dtype != np.dtype(object):
            raise UserError(
                f"{path}: is an array of Python objects ({dtype}), which is a pickle. Give one of "
                "numbers."
            )
        loaded = _load(stream, path, objects=True)
    if not isinstance(loaded, np.ndarray) or loaded.size != math.prod(shape):
        raise UserError(
            f"{path}: its header tells of an array {shape}, its contents are none. Give it again."
        )
    return loaded.reshape(shape)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from error


def _header(stream: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise ValueError(f"version {version} of the format is not read here")
        shape, _, dtype = readers[version](stream)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: is no array of numpy (.npy): {reason}.") from error
    return shape, dtype


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: is no whole array of numpy (.npy): {reason}.") from error


def _load(stream: IO[bytes], path: Path, *, objects: bool) -> Any:
    names = makers(objects=objects)
    try:
        start = stream.tell()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            opcodes.check(data, start, allowed=names)
        stream.seek(start)
        return _finished(_Unpickler(stream, names).load(), {}, 0)
    except RefusedPickle as refusal:
        raise UserError(f"{path}: {refusal}") from refusal
    except MemoryError as error:
        raise UserError(
            f"{path}: asks for more memory than there is. Read it on a larger machine, or give it "
            "in parts."
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: is damaged, or no pickle: {reason}. Get it again.") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: IO[bytes], names: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(stream, encoding="latin1")
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        found = self._names.get(f"{module}.{name}")
        if found is None:
            raise opcodes.asks_for(module, name)
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedPickle("refers to objects outside of it. Refused; nothing of it was run.")


def _finished(value: Any, seen: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """The value with arrays where stand-ins for them are; what is shared stays shared."""
    if type(value) in PLAIN:
        return value
    if id(value) in seen:
        known = seen[id(value)][1]
        if known is seen:
            raise RefusedPickle("holds a list that holds itself; expected plain values.")
        return known
    if depth > DEEPEST:
        raise RefusedPickle(f"is nested more than {DEEPEST} deep; expected plain values.")
    seen[id(value)] = (value, seen)  # the value too, or its id could be another's
    finished = _finish(value, lambda item: _finished(item, seen, depth + 1))
    seen[id(value)] = (value, finished)
    return finished


def _finish(value: Any, inner: Callable[[Any], Any]) -> Any:
    kind = type(value)
    if kind is ArrayInParts:
        return value.array(inner)
    if kind in (list, tuple):
        return kind(inner(item) for item in value)
    if kind in (dict, collections.OrderedDict):
        return {_key(key): inner(item) for key, item in value.items()}
    if kind in (set, frozenset):
        return kind(_key(item) for item in value)
    raise RefusedPickle("holds a constructor where a value should be. Get it again.")


def _key(value: Any) -> Any:
    if type(value) not in PLAIN:
        raise RefusedPickle("has a key that is neither number nor text; expected plain values.")
    return value
