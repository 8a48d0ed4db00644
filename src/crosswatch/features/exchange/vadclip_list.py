"""The lists of VadCLIP: which feature file is which crop of which video, and where it lies."""

import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from crosswatch.errors import UserError

COLUMNS = ("path", "label")
CROPS = 10
FILE_NAME = re.compile(r"(.+)__(\d+)\.npy", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    path: str  # as the list says it, often of another machine
    label: str
    video: str
    crop: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
    name: str
    label: str
    crops: Mapping[int, Path]  # rising


def read_videos(listing: Path, root: Path | None) -> tuple[Video, ...]:
    """In order of the list, their files found.

    Args:
        root: where the files lie now, in folders as deep as it may be; without one they are looked
            for where the list says, from its own folder on.

    Raises:
        UserError: the list is none, names a crop twice or a video with two labels, or a file
            cannot be found or told from others.
    """
    rows = _rows(listing)
    paths = _found(rows, listing, root)
    videos: dict[str, tuple[str, dict[int, Path]]] = {}
    for row, path in zip(rows, paths, strict=True):
        label, crops = videos.setdefault(row.video, (row.label, {}))
        if label != row.label:
            raise UserError(
                f"{listing}: {row.video[:80]!r} is {label!r} and {row.label!r}. Give one label."
            )
        if row.crop in crops:
            raise UserError(
                f"{listing}: lists crop {row.crop} of {row.video[:80]!r} twice. Remove one."
            )
        crops[row.crop] = path
    return tuple(
        Video(name=name, label=label, crops=dict(sorted(crops.items())))
        for name, (label, crops) in videos.items()
    )


def write_list(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


def _rows(listing: Path) -> list[Row]:
    try:
        with listing.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream))
    except OSError as error:
        raise UserError(f"{listing}: cannot be read: {error.strerror}.") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{listing}: is no list: {error}. Give a CSV of path,label.") from error
    if not lines or tuple(lines[0]) != COLUMNS:
        found = ",".join(lines[0])[:80] if lines else "nothing"
        raise UserError(f"{listing}: begins with {found!r}; expected the header path,label.")
    rows = [
        _row(line, f"{listing}: row {at}") for at, line in enumerate(lines[1:], start=2) if line
    ]
    if not rows:
        raise UserError(f"{listing}: lists nothing. Give rows of path,label.")
    return rows


def _row(line: Sequence[str], where: str) -> Row:
    if len(line) != len(COLUMNS) or not line[1].strip():
        raise UserError(f"{where}: {','.join(line)[:80]!r}; expected a path and a label.")
    path, label = line
    match = FILE_NAME.fullmatch(_parts(path)[-1])
    if match is None or int(match[2]) >= CROPS:
        raise UserError(
            f"{where}: {path[-80:]!r} is no name of a feature file. Expected VIDEO__CROP.npy with "
            f"a crop of 0 to {CROPS - 1}."
        )
    return Row(path=path, label=label.strip(), video=match[1], crop=int(match[2]))


def _parts(path: str) -> list[str]:
    """Lists are written on other machines, also on those that separate by a backslash."""
    return re.split(r"[/\\]", path)


def _found(rows: Sequence[Row], listing: Path, root: Path | None) -> list[Path]:
    if root is None:
        paths = [listing.parent / row.path for row in rows]
        missing = [row.path for row, path in zip(rows, paths, strict=True) if not path.is_file()]
        if missing:
            raise UserError(
                f"{listing}: {len(missing)} of {len(rows)} files are not where it says, the first "
                f"{missing[0][-120:]!r}. Name the folder that they lie in by --root."
            )
        return paths
    if not root.is_dir():
        raise UserError(f"{root}: is no folder. Name the one that the feature files lie in.")
    named: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.npy")):
        named.setdefault(path.name, []).append(path)
    missing = [row.path for row in rows if _parts(row.path)[-1] not in named]
    if missing:
        raise UserError(
            f"{listing}: {len(missing)} of {len(rows)} files are not below {root}, the first "
            f"{_parts(missing[0])[-1][:120]!r}. Name another --root, or bring them there."
        )
    return [_only(named[_parts(row.path)[-1]], row.path, root) for row in rows]


def _only(candidates: Sequence[Path], wanted: str, root: Path) -> Path:
    """The file that agrees with the list in the most of its last folders."""
    folders = _parts(wanted)[:-1]
    left, depth = list(candidates), 1
    while len(left) > 1:
        agree = [
            path
            for path in left
            if depth <= min(len(folders), len(path.parts) - 1)
            and path.parts[-1 - depth] == folders[-depth]
        ]
        if not agree:
            raise UserError(
                f"{root}: holds {len(left)} files that may be {wanted[-120:]!r}: "
                f"{str(left[0])[-120:]!r} and {str(left[1])[-120:]!r}. Name a --root with one."
            )
        left, depth = agree, depth + 1
    return left[0]
