"""crosswatch data: archive deliveries in a data registry, resolve its revisions, verify them."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}  # fmt: skip


class Size(click.ParamType[int]):
    """A number of bytes as people write it: 500kB, 1MB, 2GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([a-z]*)", str(value), re.IGNORECASE)
        if match is None or match[2].upper() not in UNITS:
            self.fail(f"{value!r} is no size; write 500kB, 1MB or 2GiB", param, ctx)
        return int(float(match[1]) * UNITS[match[2].upper()])


def _path() -> click.Path:
    return click.Path(path_type=Path)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    registry = click.option(
        "--registry", "clone", type=_path(), required=True, metavar="DIR",
        help="Clone of the data registry: git, with DVC and a default remote.",
    )  # fmt: skip
    as_json = click.option(
        "--json", "as_json", is_flag=True, help="End with one JSON object on the last line."
    )
    return registry(as_json(command))


@click.group()
def data() -> None:
    """Archive deliveries under a name that stays: git, DVC, and a manifest that travels."""


@data.command(epilog="\b\nExample:\n  crosswatch data commit arrivals --registry registry --tag v3")
@click.argument("source", type=_path(), metavar="SRC")
@click.option("--tag", metavar="NAME", help="Name the revision, once it is at the remote.")
@click.option("--message", metavar="TEXT", help="What git's history says of it.")
@click.option("--pack-below", type=Size(), default="1MB", show_default=True, metavar="SIZE",
              help="Smaller files travel together in shards.")  # fmt: skip
@_shared
def commit(
    source: Path, clone: Path, tag: str | None, message: str | None, pack_below: int, as_json: bool
) -> None:
    """Archive the deliveries below SRC: pack, dvc add, git commit, dvc push, verify, tag.

    The tag comes last and names only what is complete at the DVC remote. After a failure the same
    command goes on from there. Deliveries without SHA256SUMS have not arrived and are left alone;
    if one is broken, nothing is committed.
    """
    from crosswatch import progress
    from crosswatch.data.store.settings import TransferConfig
    from crosswatch.data.versions.clone import open_registry
    from crosswatch.data.versions.commit import commit as commit_deliveries
    from crosswatch.data.versions.shards import PackConfig

    registry = open_registry(clone)
    with progress.shown(progress.view()), progress.stage("commit"):
        done = commit_deliveries(
            source, registry, tag=tag, message=message,
            pack=PackConfig(pack_below_bytes=pack_below), config=TransferConfig(),
        )  # fmt: skip
    for name in done.not_arrived:
        click.echo(f"{name}: not arrived yet (no SHA256SUMS), left alone", err=True)
    for name in done.extra:
        click.echo(f"{name}: not in SHA256SUMS, left alone", err=True)
    added = f"added {', '.join(done.added)}" if done.added else "nothing new"
    click.echo(f"{added}; {done.commit[:12]}{f' is {done.tag}' if done.tag else ''}, all "
               f"{done.objects} objects ({done.bytes / 1e6:.1f} MB) are at the remote")  # fmt: skip
    _end(as_json, done)


@data.command(epilog="\b\nExample:\n  crosswatch data resolve v3 --registry registry --out v3.json")
@click.argument("revision", metavar="REV")
@click.option("--out", type=_path(), metavar="FILE", help="Where to write it [default: printed].")
@click.option(
    "--store", metavar="PLACE", help="Also put it at revisions/DIGEST.json of this store."
)
@_shared
def resolve(revision: str, clone: Path, out: Path | None, store: str | None, as_json: bool) -> None:
    """Turn a tag, branch or commit into a manifest that needs neither git nor DVC.

    It lists the SHA-256 of every delivered file and where its bytes lie below the DVC remote.
    """
    from crosswatch.data.versions import revision as revisions
    from crosswatch.data.versions.clone import open_registry
    from crosswatch.data.versions.resolve import resolve as resolve_revision

    found = resolve_revision(open_registry(clone), revision)
    text = revisions.revision_text(found)
    stored = revisions.put_revision(found, store) if store else None
    if out is not None:
        revisions.write_revision(found, out)
    elif not as_json:
        click.echo(text, nl=False)
        return
    count = len(revisions.deliveries(found))
    click.echo(f"{revision} is {found.commit[:12]}: {count} deliveries, {len(found.files)} files "
               f"in {len(found.objects)} objects; digest {found.digest}")  # fmt: skip
    if as_json:
        facts = {"revision": revision, "commit": found.commit, "remote": found.remote,
                 "digest": found.digest, "deliveries": count, "files": len(found.files),
                 "objects": len(found.objects), "out": out and str(out),
                 "stored": stored}  # fmt: skip
        click.echo(json.dumps(facts))


@data.command(epilog="\b\nExample:\n  crosswatch data verify v3 --registry registry --deep")
@click.argument("revision", metavar="[REV]", default="HEAD")
@click.option(
    "--deep", is_flag=True, help="Read and hash the remote's bytes, not only their sizes."
)
@click.option("--store", metavar="PLACE", help="Also compare the manifest at this store.")
@_shared
def verify(revision: str, clone: Path, deep: bool, store: str | None, as_json: bool) -> None:
    """Hash what this clone's DVC cache holds of REV [default: HEAD], and check the remote.

    Exit code 1 with a line for each fault if anything is missing or damaged.
    """
    from crosswatch import progress
    from crosswatch.data.store.settings import TransferConfig
    from crosswatch.data.versions.clone import open_registry
    from crosswatch.data.versions.verify import verify as verify_revision

    registry = open_registry(clone)
    with progress.shown(progress.view()), progress.stage("verify"):
        found = verify_revision(registry, revision, deep=deep, store=store, config=TransferConfig())
    for fault in found.faults:
        click.echo(str(fault), err=True)
    if not found.faults:
        click.echo(f"all {found.objects} objects of {revision} verified "
                   f"({found.in_cache} in the cache, {found.objects} at the remote"
                   f"{', every byte' if deep else ', by size'})")  # fmt: skip
    _end(as_json, found)
    sys.exit(1 if found.faults else 0)


def _end(as_json: bool, facts: Any) -> None:
    import dataclasses

    if as_json:
        click.echo(json.dumps(dataclasses.asdict(facts)))
