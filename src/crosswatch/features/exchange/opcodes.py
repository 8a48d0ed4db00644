"""What a pickle is about to do, found without doing it."""

import mmap
import pickletools
from collections.abc import Container

OBJECTS = frozenset(
    {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID",
     "NEXT_BUFFER", "READONLY_BUFFER"}
)  # fmt: skip
"""Make objects of classes, or take them from a table of the process or of the caller."""
LINES = {"GLOBAL": 2, "INST": 2}  # of text; others that take text take one
LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
FIXED = {
    code: 1 + (opcode.arg.n if opcode.arg else 0)
    for code, opcode in OPCODES.items()
    if opcode.name not in OBJECTS and (opcode.arg is None or opcode.arg.n >= 0)
}  # code -> bytes of it with its argument
SIZED = {
    code: LENGTH_BYTES[opcode.arg.n]
    for code, opcode in OPCODES.items()
    if opcode.arg is not None and opcode.arg.n in LENGTH_BYTES
}  # code -> bytes of the length that comes before the argument
PLACES = {
    ord(opcode.code): opcode.arg.n
    for opcode in pickletools.opcodes
    if opcode.name in ("BINPUT", "LONG_BINPUT") and opcode.arg is not None
}
STOP, PUT, FRAME = ord("."), ord("p"), 0x95


class RefusedPickle(Exception):  # noqa: N818 - it is no fault of ours
    """Why a pickle is not read, without the name of its file."""


def asks_for(module: str, name: str) -> RefusedPickle:
    shown = ascii(f"{module}.{name}")[1:-1][:100]
    return RefusedPickle(
        f"asks for {shown}, which is no array: it may run code. Refused; nothing of it was run."
    )


def check(data: mmap.mmap, start: int, *, allowed: Container[str]) -> None:
    """Walk a pickle from its first opcode to STOP.

    Raises:
        RefusedPickle: it makes objects, names what is not allowed (names that it puts together
            only when it is read are not seen here), reserves more places than it can fill, or
            ends before its end.
    """
    at, count, end = start, 0, len(data)
    while at < end:
        code = data[at]
        count += 1
        if code == STOP:
            return
        if code in FIXED:
            if code in PLACES:
                _check_place(int.from_bytes(data[at + 1 : at + 1 + PLACES[code]], "little"), count)
            if code == FRAME and int.from_bytes(data[at + 1 : at + 9], "little") > end - at - 9:
                break
            at += FIXED[code]
        elif code in SIZED:
            body = at + 1 + SIZED[code]
            at = body + int.from_bytes(data[at + 1 : body], "little")
        else:
            at = _check_text(data, at, count, allowed)
    raise RefusedPickle("ends in the middle. Get it again.")


def _check_text(data: mmap.mmap, at: int, count: int, allowed: Container[str]) -> int:
    """An opcode with lines of text; where the next one begins."""
    opcode = OPCODES.get(data[at])
    if opcode is None:
        raise RefusedPickle(f"is damaged, or no pickle: byte {at} is no opcode. Get it again.")
    lines, after = [], at + 1
    for _ in range(LINES.get(opcode.name, 1) if opcode.arg and opcode.arg.n == -1 else 0):
        newline = data.find(b"\n", after)
        if newline < 0:
            raise RefusedPickle("ends in the middle. Get it again.")
        lines.append(data[after : min(newline, after + 200)].decode("utf-8", "replace").strip())
        after = newline + 1
    if len(lines) == 2 and (opcode.name == "INST" or ".".join(lines) not in allowed):
        raise asks_for(*lines)
    if opcode.name in OBJECTS:
        raise RefusedPickle(
            f"makes objects ({opcode.name}), which are no arrays: it may run code. Refused; "
            "nothing of it was run."
        )
    if data[at] == PUT:
        if not lines[0].isdecimal() or len(lines[0]) > 12:
            raise RefusedPickle(f"is damaged at byte {at}. Get it again.")
        _check_place(int(lines[0]), count)
    return after


def _check_place(place: int, count: int) -> None:
    """Writers number what they note from 0 on; the reader's table is as long as the number."""
    if place > count:
        raise RefusedPickle(
            f"notes a value at place {place} after {count} steps, a table that would only fill the "
            "memory. Refused."
        )
