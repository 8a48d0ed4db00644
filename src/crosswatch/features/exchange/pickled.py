"""What the names in pickles of arrays stand for: makers that check what they are given.

Nothing here hands a file's words to a constructor of numpy or torch: types are named by a letter
and a size, and an array is a view of bytes that are as many as its shape needs.
"""

import io
import math
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.features.exchange.opcodes import RefusedPickle

ADVICE = "Get it again."
NUMERIC = re.compile(r"[biufc]\d{1,2}|[SU][1-9]\d{0,5}")
LARGEST_CHARACTER = 0x10FFFF
TORCH_REFUSES = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, AttributeError, AssertionError,
)  # fmt: skip
# A tensor's storage is written in torch's first format, whose pickle of its number this is; its
# later one is an archive, which can unpack to any size.
TORCH_BEGINS = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class _Closed:
    """Nothing can be set on it by BUILD."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise RefusedPickle("sets the state of what has none. Refused; nothing of it was run.")


class _Maker(_Closed):
    """What REDUCE calls in place of a name."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        try:
            return self._make(*arguments)
        except (TypeError, ValueError, OverflowError) as error:
            raise RefusedPickle(f"is damaged: {' '.join(str(error).split())[:200]}.") from error


class _TypeInParts(_Closed):
    """numpy.dtype: its letter and size, then as state its byte order."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any) -> None:
        self._code = code if isinstance(code, str) else ""
        self._order = "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise RefusedPickle(f"is damaged: {str(state)[:80]} is no state of a type. {ADVICE}")
        if any(part is not None for part in state[2:5]):
            raise RefusedPickle("holds records, not numbers: their layout is not taken from files.")
        self._order = state[1]

    def dtype(self, *, objects: bool) -> np.dtype[Any]:
        if self._code in ("O", "O8", "O4"):
            if not objects:
                raise RefusedPickle("holds an array of Python objects; expected arrays of numbers.")
            return np.dtype(object)
        if not NUMERIC.fullmatch(self._code):
            raise RefusedPickle(f"holds an array of type {self._code[:20]!r}; expected numbers.")
        order = "=" if self._order == "|" else self._order
        return np.dtype(self._code).newbyteorder(order)  # type: ignore[arg-type]


class _NdarrayName(_Closed):
    """numpy.ndarray: named only to say what is made."""

    __slots__ = ()


class ArrayInParts(_Closed):
    """An array, first empty, then as state its shape, type and contents."""

    __slots__ = ("_objects", "_parts")

    def __init__(self, *, objects: bool) -> None:
        self._objects = objects
        self._parts: Any = None  # an array, a number, or of objects: shape, order and list

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise RefusedPickle(f"is damaged: a tuple {str(state)[:40]} is no array. {ADVICE}")
        shape, dtype, in_columns, contents = state[-4:]
        self.fill(contents, dtype, shape, "F" if in_columns else "C")

    def fill(self, contents: Any, dtype: Any, shape: Any, order: str) -> None:
        if type(dtype) is not _TypeInParts:
            raise RefusedPickle(f"is damaged: an array without a type. {ADVICE}")
        kind, shape = dtype.dtype(objects=self._objects), _sizes(shape)
        if kind == np.dtype(object):
            if not isinstance(contents, list) or len(contents) != math.prod(shape):
                raise RefusedPickle(f"is damaged: an array {shape} of other contents. {ADVICE}")
            self._parts = (shape, order, contents)
            return
        data = contents.encode("latin1") if isinstance(contents, str) else contents
        if not isinstance(data, bytes | bytearray):
            raise RefusedPickle(f"is damaged: an array without contents. {ADVICE}")
        if len(data) != math.prod(shape) * kind.itemsize:
            raise RefusedPickle(
                f"is damaged: an array {shape} of {kind} has {len(data)} bytes; expected "
                f"{math.prod(shape) * kind.itemsize}. {ADVICE}"
            )
        self._parts = _viewed(data, kind, shape, order)

    def hold(self, array: npt.NDArray[Any] | np.generic) -> "ArrayInParts":
        self._parts = array
        return self

    def array(self, finish: Callable[[Any], Any]) -> Any:
        """The array or number; `finish` is applied to objects in it."""
        if self._parts is None:
            raise RefusedPickle(f"is damaged: an array without contents. {ADVICE}")
        if not isinstance(self._parts, tuple):
            return self._parts
        shape, order, contents = self._parts
        flat = np.empty(len(contents), object)
        for index, item in enumerate(contents):
            flat[index] = finish(item)
        return flat.reshape(shape, order=order)


class _Storage(_Closed):
    """The numbers of a tensor, in a row."""

    __slots__ = ("flat",)

    def __init__(self, flat: npt.NDArray[Any]) -> None:
        self.flat = flat


def makers(*, objects: bool) -> Mapping[str, Any]:
    """By "module.name"; `objects`: are arrays of dtype object allowed."""

    def empty(kind: Any, shape: Any, letter: Any) -> ArrayInParts:
        if type(kind) is not _NdarrayName:
            raise RefusedPickle("holds an array of another class than numpy's. Refused.")
        return ArrayInParts(objects=objects)

    def from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> ArrayInParts:
        made = ArrayInParts(objects=objects)
        made.fill(buffer, dtype, shape, "F" if order == "F" else "C")
        return made

    def scalar(dtype: Any, contents: Any) -> ArrayInParts:
        made = ArrayInParts(objects=False)
        made.fill(contents, dtype, (), "C")
        return made.hold(made.array(lambda item: item)[()])

    numpy_names = {
        f"{core}.{name}": _Maker(make)
        for core in ("numpy.core", "numpy._core")
        for name, make in (
            ("multiarray._reconstruct", empty),
            ("multiarray.scalar", scalar),
            ("numeric._frombuffer", from_buffer),
        )
    }
    return {
        **numpy_names,
        "numpy.ndarray": _NdarrayName(),
        "numpy.dtype": _Maker(lambda code, align=0, copy=0: _TypeInParts(code)),
        "torch._utils._rebuild_tensor_v2": _Maker(_tensor),
        "torch.storage._load_from_bytes": _Maker(_storage),
        "collections.OrderedDict": _Maker(_ordered),
        "_codecs.encode": _Maker(_encoded),  # how bytes are written before protocol 3
        **{f"{module}.{name}": _Maker(make)
           for module in ("builtins", "__builtin__")
           for name, make in (("bytes", _nothing), ("bytearray", _bytearray), ("set", set),
                              ("frozenset", frozenset), ("complex", complex))},
    }  # fmt: skip


def _sizes(sizes: Any) -> tuple[int, ...]:
    whole = isinstance(sizes, tuple) and all(type(size) is int and size >= 0 for size in sizes)
    if not whole or len(sizes) > 32 or math.prod(sizes) >= 2**62:
        raise RefusedPickle(f"is damaged: {str(sizes)[:40]} is no shape. {ADVICE}")
    return tuple(sizes)


def _viewed(
    data: bytes | bytearray, kind: np.dtype[Any], shape: tuple[int, ...], order: str
) -> npt.NDArray[Any]:
    if not math.prod(shape):
        return np.zeros(shape, kind)
    flat = np.frombuffer(data, kind)
    if kind.kind == "U" and flat.view(f"{kind.str[0]}u4").max() > LARGEST_CHARACTER:
        raise RefusedPickle(f"is damaged: text with characters that do not exist. {ADVICE}")
    return flat.reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]


def _storage(data: bytes) -> _Storage:
    if not isinstance(data, bytes) or not data.startswith(TORCH_BEGINS):
        raise RefusedPickle("holds a tensor that torch did not write. Refused.")
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the class that torch itself writes
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            if not isinstance(loaded, torch.storage.TypedStorage):
                raise RefusedPickle("holds a tensor whose numbers are something else. Refused.")
            flat = torch.empty(0, dtype=loaded.dtype).set_(loaded._untyped_storage)
    except TORCH_REFUSES as error:
        reason = " ".join(str(error).split())[:200]
        raise RefusedPickle(f"holds a tensor that torch refuses to read: {reason}") from error
    return _Storage((flat.float() if flat.dtype == torch.bfloat16 else flat).numpy())


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_ignored: Any
) -> ArrayInParts:  # requires_grad, hooks, metadata
    if type(storage) is not _Storage or type(offset) is not int or offset < 0:
        raise RefusedPickle(f"is damaged: a tensor without numbers. {ADVICE}")
    shape, steps = _sizes(size), _sizes(stride)
    reach = sum((size - 1) * step for size, step in zip(shape, steps, strict=True))
    count = math.prod(shape)
    if count > len(storage.flat) or (count and offset + reach >= len(storage.flat)):
        raise RefusedPickle(
            f"is damaged: a tensor {shape} of {len(storage.flat)} numbers. {ADVICE}"
        )
    made = ArrayInParts(objects=False)
    if not count:
        return made.hold(np.zeros(shape, storage.flat.dtype))
    step_bytes = [step * storage.flat.itemsize for step in steps]
    view = np.lib.stride_tricks.as_strided(storage.flat[offset:], shape, step_bytes)
    return made.hold(np.ascontiguousarray(view).reshape(shape))


def _ordered(items: Sequence[tuple[Any, Any]] = ()) -> dict[Any, Any]:
    return dict(items)


def _encoded(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickle(f"is damaged: bytes in {str(encoding)[:20]!r}. {ADVICE}")
    return text.encode("latin1")


def _nothing() -> bytes:
    return b""


def _bytearray(contents: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    data = _encoded(contents, encoding) if isinstance(contents, str) else contents
    if not isinstance(data, bytes):
        raise RefusedPickle(f"is damaged: bytes without contents. {ADVICE}")
    return bytearray(data)
