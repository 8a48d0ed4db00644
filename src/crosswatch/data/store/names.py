"""Keys as paths below a folder: written by somebody else, so held against all that a disk does."""

import unicodedata
from collections.abc import Iterable

from crosswatch.data.store.place import safe_relative
from crosswatch.errors import UserError

LONGEST_NAME_BYTES = 255


def check_paths(paths: Iterable[str]) -> None:
    """Refuse names that would leave the folder, or meet each other on some file system.

    Two names that differ only in case or in Unicode's spelling are one file on macOS and Windows;
    a name that is also another one's folder is none anywhere.

    Raises:
        UserError: it names the first offender; nothing has been written.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        parts = safe_relative(path).parts
        _check_length(path, parts)
        folded = [_folded(part) for part in parts]
        if "/".join(folded) in files:
            raise _clash(path, files["/".join(folded)])
        files["/".join(folded)] = path
        for depth in range(1, len(folded)):
            folders.setdefault("/".join(folded[:depth]), path)
    for name in files.keys() & folders.keys():
        raise _clash(files[name], folders[name])


def _folded(part: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", part).casefold())


def _check_length(path: str, parts: tuple[str, ...]) -> None:
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError as error:
        raise UserError(f"{path[:200]!r}: is no valid Unicode. Rename it in the store.") from error
    if longest > LONGEST_NAME_BYTES:
        raise UserError(
            f"{path[:200]!r}: a name of {longest} bytes; a disk takes {LONGEST_NAME_BYTES}. "
            "Rename it in the store."
        )


def _clash(one: str, other: str) -> UserError:
    return UserError(
        f"{one[:150]!r} and {other[:150]!r} cannot lie in one folder on every disk: the same but "
        "for case or accents' spelling, or one is the other's folder. Rename one in the store."
    )
