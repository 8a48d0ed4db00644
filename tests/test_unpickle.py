"""What a pickle may be made of, and that nothing else in one is ever run."""

import collections
import contextlib
import copyreg
import io
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crosswatch.errors import UserError
from crosswatch.features.exchange.unpickle import load_npy, load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PYTHON_2 = (  # cPickle of [{'id': 'video1', '2d': numpy.arange(3, dtype='f4')}, u'é'], protocol 2
    b"\x80\x02]q\x01(}q\x02(U\x02idU\x06video1U\x022dcnumpy.core.multiarray\n_reconstruct\nq\x03"
    b"cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x03\x85cnumpy\ndtype\nq\x06U\x02f4K"
    b"\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c"
    b"\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@tbuX\x02\x00\x00\x00\xc3\xa9e."
)


def written(folder: Path, data: bytes, name: str = "x.pkl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def same(left: Any, right: Any) -> bool:
    if isinstance(right, np.ndarray | np.generic):
        assert type(left) is type(right)
        kinds = [value.dtype.newbyteorder("=") for value in (left, right)]
        assert (left.shape, kinds[0]) == (right.shape, kinds[1])
        return bool(np.array_equal(left, right))
    if isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in right)
    if isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False) | st.frozensets(st.integers())
    | hnp.arrays(
        st.sampled_from(["<f4", ">f8", "i2", "u1", "bool", "U3", "S2", "c8"]),
        hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4),
        elements={"allow_nan": False},
    ),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_and_arrays_come_as_they_were(
    value: Any, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = pickle.dumps(value, protocol)
    path = written(tmp_path_factory.getbasetemp(), data, "plain.pkl")
    assert same(load_pickle(path), pickle.loads(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_numpy_and_torch_write_is_read(tmp_path: Path, protocol: int) -> None:
    shared = np.arange(6.0).reshape(2, 3)
    value = [
        {"id": "video0", "2d": shared, "again": shared, "turned": shared.T},
        collections.OrderedDict(number=np.float32(1.5), other=np.int64(7), many={1, 2}),
        (torch.arange(12.0).reshape(3, 4)[1:, ::2], torch.zeros(0, 4), torch.tensor(2)),
        torch.ones(2, 2, dtype=torch.bfloat16),
        (b"bytes", bytearray(b"more"), 1j, "text", None, True),
    ]
    loaded = load_pickle(written(tmp_path, pickle.dumps(value, protocol)))
    first, second, tensors, half, rest = loaded
    assert same(first, value[0])
    assert first["2d"] is first["again"]
    assert same(second, dict(value[1]))
    assert all(
        np.array_equal(found, made.numpy()) for found, made in zip(tensors, value[2], strict=True)
    )
    assert half.dtype == np.float32
    assert half.sum() == 4
    assert same(rest, value[4])


def test_python_2_and_numpy_1_are_read(tmp_path: Path) -> None:
    (clip, text) = load_pickle(written(tmp_path, PYTHON_2))
    assert clip["id"] == "video1"
    assert clip["2d"].tolist() == [0, 1, 2]
    assert text == "é"


class Calls:
    """Unpickles by calling what it was given."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def of_torch(*, archive: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(Calls(os.system, SHELL), stream, _use_new_zipfile_serialization=archive)
    return stream.getvalue()


SHELL, CODE = "touch marker", "open('marker', 'w').close()"
NESTED = pickle.dumps(Calls(os.system, SHELL), 2)
from_bytes = torch.storage._load_from_bytes
DTYPE = b"cnumpy\ndtype\n"
LIVE = {  # run under plain pickle, each writes the file `marker`; what their refusal names
    "reduce": (pickle.dumps(Calls(os.system, SHELL), 0), "posix.system"),
    "a name from the stack": (
        b"\x80\x04" + short("os") + short("system") + b"\x93" + short(SHELL) + b"\x85R.",
        "os.system",
    ),
    "a name from notes": (
        b"\x80\x04" + short("system") + b"\x94" + short("os") + b"h\x00\x93" + short(SHELL)
        + b"\x85R.",
        "os.system",
    ),
    "a name that is taken off again": (
        b"cos\nsystem\n(V" + SHELL.encode() + b"\ntR0]..", "os.system"
    ),
    "eval": (pickle.dumps(Calls(eval, CODE), 4), "builtins.eval"),
    "exec of Python 2": (b"c__builtin__\nexec\n(V" + CODE.encode() + b"\ntR.", "__builtin__.exec"),
    "getattr": (
        b"cbuiltins\ngetattr\n(cos\nsystem\nV__call__\ntR(V" + SHELL.encode() + b"\ntR.",
        "builtins.getattr",
    ),
    "getattr by a name from the stack": (
        b"\x80\x04" + short("builtins") + short("getattr") + b"\x93(" + short("builtins")
        + short("__import__") + b"\x93" + short("os") + b"\x85R" + short("system") + b"tR"
        + short(SHELL) + b"\x85R.",
        "builtins.getattr",
    ),
    "numpy.load": (pickle.dumps(Calls(np.load, "bomb.npy", None, True), 4), "numpy.load"),
    "numpy's own runner": (
        b"cnumpy.testing._private.utils\nrunstring\n(V" + CODE.encode() + b"\n}tR.",
        "numpy.testing._private.utils.runstring",
    ),
    "numpy's compiler": (
        b"cnumpy.f2py.crackfortran\nmyeval\n(V" + CODE.encode() + b"\ntR.", "crackfortran.myeval"
    ),
    "numpy's mapped memory": (
        pickle.dumps(Calls(np.memmap, "marker", np.uint8, "w+", 0, (4,)), 2), "numpy.memmap"
    ),
    "pickle in pickle": (pickle.dumps(Calls(pickle.loads, NESTED), 4), "_pickle.loads"),
    "pickle in a tensor": (pickle.dumps(Calls(from_bytes, NESTED), 4), "torch did not write"),
    "pickle in torch's file in a tensor": (
        pickle.dumps(Calls(from_bytes, of_torch(archive=False)), 4), "torch refuses to read: "
    ),
    "pickle in torch's archive in a tensor": (
        pickle.dumps(Calls(from_bytes, of_torch(archive=True)), 4), "torch did not write"
    ),
    "pickle in an array of objects": (
        pickle.dumps(np.array([Calls(os.system, SHELL)], object), 4), "posix.system"
    ),
    "opcode inst": (b"(V" + SHELL.encode() + b"\nios\nsystem\n.", "os.system"),
    "opcode obj": (b"(cos\nsystem\nV" + SHELL.encode() + b"\no.", "os.system"),
    "extension registry": (b"\x80\x02\x82\xf0(V" + SHELL.encode() + b"\ntR.", "EXT1"),
}  # fmt: skip
REFUSED = {  # would run nothing as they stand, or hurt in other ways
    "attribute of what is allowed": (
        b"\x80\x04" + short("numpy") + short("ndarray.tofile") + b"\x93.", "numpy.ndarray.tofile"
    ),
    "torch.load": (pickle.dumps(Calls(torch.load, "bomb.pt"), 2), "torch.serialization.load"),
    "copyreg": (pickle.dumps(collections.UserDict(), 1), "copy_?reg._recon"),
    "copy_reg of Python 2": (b"ccopy_reg\n__newobj__\n(cos\nsystem\ntR.", "copy_reg.__newobj__"),
    "masked array": (pickle.dumps(np.ma.zeros(2), 2), "numpy.ma.core._mareconstruct"),
    "opcode inst of what is allowed": (b"(inumpy\ndtype\n.", "numpy.dtype"),
    "opcode obj of what is allowed": (b"(" + DTYPE + b"o.", "OBJ"),
    "opcode newobj": (b"\x80\x02" + DTYPE + b")\x81.", "NEWOBJ"),
    "opcode newobj_ex": (b"\x80\x04" + DTYPE + b")}\x92.", "NEWOBJ_EX"),
    "persistent id": (b"Pos.system\n.", "PERSID"),
    "persistent id from the stack": (b"Vos.system\nQ.", "BINPERSID"),
    "buffer of the caller": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "state on an allowed name": (DTYPE + b"}(Vf\nNub.", "sets the state of what has none"),
    "slots on an allowed name": (DTYPE + b"N}(Vf\nNu\x86b.", "sets the state of what has none"),
    "an allowed name as a value": (b"]" + DTYPE + b"a.", "a constructor where a value should be"),
    "state on a dictionary": (b"}}(V__reduce__\nNub.", "is damaged"),
    "state on a list": (b"]N}(Vappend\nNu\x86b.", "is damaged"),
    "a type with a layout of its own": (
        pickle.dumps(np.zeros(2, [("number", "f4"), ("object", "O")]), 2), "records, not numbers"
    ),
    "objects where they are not allowed": (
        pickle.dumps(np.array([1, "a"], object), 2), "array of Python objects"
    ),
    "pointers as bytes": (
        pickle.dumps(np.zeros(2), 2).replace(b"f8", b"O8"), "array of Python objects|is damaged"
    ),
}  # fmt: skip


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in with the files that attacks name; the path of what they would write."""
    monkeypatch.chdir(tmp_path)
    np.save("bomb.npy", np.array([Calls(os.system, SHELL)], object), allow_pickle=True)
    Path("bomb.pt").write_bytes(of_torch(archive=False))
    copyreg.add_extension("os", "system", 0xF0)
    yield tmp_path / "marker"
    copyreg.remove_extension("os", "system", 0xF0)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("name", LIVE)
def test_attacks_are_real(armed: Path, name: str) -> None:
    with contextlib.suppress(Exception):
        pickle.loads(LIVE[name][0])
    assert armed.exists()


@pytest.mark.parametrize("name", [*LIVE, *REFUSED])
def test_nothing_of_an_attack_is_run(armed: Path, name: str) -> None:
    data, words = {**LIVE, **REFUSED}[name]
    if name == "extension registry":
        pickle.loads(b"\x80\x02\x82\xf0.")  # from now on it is given without being looked up
    path = written(armed.parent, data)
    for objects in (False, True)[: 1 if "objects" in words or "damaged" in words else 2]:
        with pytest.raises(UserError, match=words) as refused:
            load_pickle(path, objects=objects)
        assert str(refused.value).startswith(f"{path}: ")
        assert "\n" not in str(refused.value)
    assert not armed.exists()


def test_a_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, LIVE["a name from the stack"][0])
    with pytest.raises(UserError) as refused:
        load_pickle(path)
    assert str(refused.value) == (
        f"{path}: asks for os.system, which is no array: it may run code. Refused; nothing of it "
        "was run."
    )


def test_attacks_leave_the_allowed_names_as_they_were(tmp_path: Path) -> None:
    for name in ("state on an allowed name", "slots on an allowed name"):
        with pytest.raises(UserError):
            load_pickle(written(tmp_path, REFUSED[name][0]))
    assert load_pickle(written(tmp_path, pickle.dumps(np.arange(2), 2))).tolist() == [0, 1]


ARRAY = pickle.dumps(np.arange(4, dtype="<f8"), 2)
TENSOR = pickle.dumps(torch.arange(4.0), 2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is damaged, or no pickle"),
        (b"no pickle at all", "is damaged, or no pickle"),
        (ARRAY[:-9], "ends in the middle"),
        (ARRAY.replace(b"K\x04\x85", b"K\x05\x85"), r"array \(5,\) of float64 has 32 bytes"),
        (ARRAY.replace(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), r"\(-1,\) is no shape"),
        (TENSOR.replace(b"K\x04\x85", b"K\x05\x85"), r"tensor \(5,\) of 4 numbers"),
        (TENSOR.replace(b"K\x01\x85", b"K\x02\x85"), r"tensor \(4,\) of 4 numbers"),
        (TENSOR.replace(b"K\x00K\x04\x85", b"K\x01K\x04\x85"), r"tensor \(4,\) of 4 numbers"),
        (b"]r\xff\xff\xff\xff.", "place 4294967295 after 2 steps"),
        (b"]p99999999999\n.", "place 99999999999 after 2 steps"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "ends in the middle"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x10].", "ends in the middle"),
        (b"]" * 200 + b"a" * 199 + b".", "nested more than 100 deep"),
        (b"]q\x00h\x00a.", "holds a list that holds itself"),
        (b"}(" + DTYPE + b"(Vf4\ntRNu.", "a key that is neither number nor text"),
        (b"I" + b"1" * 5000 + b"\n.", "is damaged"),
    ],
)
def test_damage_costs_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(UserError, match=words) as refused:
        load_pickle(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_what_is_shared_is_gone_through_once(tmp_path: Path) -> None:
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]  # 2^60 ways to its end
    assert len(load_pickle(written(tmp_path, pickle.dumps(value)))) == 2


@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, len(TENSOR) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(
    at: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = TENSOR[:at] + bytes([byte]) + TENSOR[at + 1 :]
    with contextlib.suppress(UserError):
        load_pickle(written(tmp_path_factory.getbasetemp(), data, "changed.pkl"))


def test_saved_arrays_are_read(tmp_path: Path) -> None:
    numbers = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "numbers.npy", numbers)
    assert np.array_equal(load_npy(tmp_path / "numbers.npy"), numbers)
    lists = np.empty(2, object)
    lists[:] = [[["0", "16"], [3, 4]], [np.arange(2)]]
    np.save(tmp_path / "lists.npy", lists, allow_pickle=True)
    loaded = load_npy(tmp_path / "lists.npy", objects=True)
    assert (loaded.shape, loaded[0]) == ((2,), lists[0])
    assert loaded[1][0].tolist() == [0, 1]
    with pytest.raises(UserError, match=r"lists.npy: is an array of Python objects \(object\)"):
        load_npy(tmp_path / "lists.npy")


def test_saved_arrays_run_nothing(armed: Path) -> None:
    for objects, words in ((False, "array of Python objects"), (True, "asks for posix.system")):
        with pytest.raises(UserError, match=f"^bomb.npy: .*{words}"):
            load_npy(Path("bomb.npy"), objects=objects)
    assert not armed.exists()


def test_arrays_that_are_none_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros(100))
    whole = (tmp_path / "whole.npy").read_bytes()
    np.save(tmp_path / "lists.npy", np.array([None, 1], object), allow_pickle=True)
    lists = (tmp_path / "lists.npy").read_bytes()
    for data, words in (
        (b"", "is no array of numpy"),
        (b"PK\x03\x04 an archive", "is no array of numpy"),
        (whole[:-8], "is no whole array of numpy"),
        (lists.replace(b"(2,)", b"(3,)"), r"header tells of an array \(3,\)"),
        (lists[:-4], "ends in the middle"),
    ):
        with pytest.raises(UserError, match=words):
            load_npy(written(tmp_path, data, "x.npy"), objects=True)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_npy(tmp_path / "absent.npy")
