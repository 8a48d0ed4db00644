"""Where things lie: a folder, or a prefix in a bucket."""

import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from crosswatch.errors import UserError

SCHEME = "s3://"
BUCKET_PATTERN = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclasses.dataclass(frozen=True, order=True)
class Bucket:
    """A prefix in an S3 bucket; `prefix` has no slash at either end and may be empty."""

    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return SCHEME + "/".join(filter(None, (self.name, self.prefix)))

    def __truediv__(self, name: str) -> "Bucket":
        return Bucket(self.name, "/".join(filter(None, (self.prefix, name.strip("/")))))


Place: TypeAlias = Path | Bucket


def parse_place(text: str) -> Place:
    """A folder, or s3://bucket/prefix.

    Raises:
        UserError: the URL names no bucket, or is of another scheme.
    """
    if "://" not in text:
        return Path(text)
    if not text.startswith(SCHEME):
        scheme = text.partition("://")[0]
        raise UserError(
            f"{text}: {scheme}:// is not supported; name a folder or s3://bucket/prefix"
        )
    name, _, prefix = text.removeprefix(SCHEME).partition("/")
    if not BUCKET_PATTERN.fullmatch(name):
        raise UserError(
            f"{text}: {name!r} is no bucket's name (3 to 63 of a-z, 0-9, '.', '-'); "
            "write s3://bucket/prefix"
        )
    return Bucket(name, "/".join(part for part in prefix.split("/") if part))


def safe_relative(key: str) -> PurePosixPath:
    """A key as a path below a folder: keys were written by somebody else, and are never trusted.

    Raises:
        UserError: the key is absolute, leads out of the folder, or is no plain relative path.
    """
    path = PurePosixPath(key)
    odd = any(ord(sign) < 32 or sign == "\\" or "\ud800" <= sign <= "\udfff" for sign in key)
    if odd or not path.parts or path.is_absolute() or ".." in path.parts or str(path) != key:
        raise UserError(
            f"{key[:200]!r}: is no plain relative name, so it is not written to this machine's "
            "disk. Rename it in the bucket."
        )
    return path
