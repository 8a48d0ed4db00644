"""SHA256SUMS: what a delivery consists of, and that all of it has arrived."""

import re

from crosswatch.errors import ADVICE, BadBatchError

SUMS = "SHA256SUMS"
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SUM_PATTERN = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def read_sums(data: bytes) -> dict[str, str]:
    """The names that a SHA256SUMS lists, each with its hash, in the order of its rows.

    Raises:
        BadBatchError: a line is none of sha256sum's, or a name comes twice.
    """
    hashes: dict[str, str] = {}
    for row, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
        match = SUM_PATTERN.fullmatch(line)
        if match is None:
            raise BadBatchError(
                f"{SUMS}: row {row}: {line[:80]!r} is no line of sha256sum. {ADVICE}"
            )
        name = match[2].removeprefix("./")
        if name in hashes:
            raise BadBatchError(f"{SUMS}: row {row}: {name[:80]!r} is listed twice. {ADVICE}")
        hashes[name] = match[1]
    return hashes
