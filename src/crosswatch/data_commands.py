"""crosswatch data: archive deliveries in a data registry, resolve its revisions, verify them; take
features that were computed elsewhere, and give them away."""

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
    """Archive deliveries under a name that stays; take and give features of other programs."""


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


@data.command(
    name="import",
    epilog="\b\nExamples:\n"
    "  crosswatch data import --layout vadclip ucf_CLIP_rgbtest.csv --root UCFClipFeatures \\\n"
    "    --frame-rate-hz 30 --annotations Temporal_Anomaly_Annotation.txt --out features\n"
    "  crosswatch data import --layout vadclip list.csv --frame-rate-hz 24 \\\n"
    "    --segments gt_segment.npy --segment-labels gt_label.npy --frame-labels gt.npy --out f\n"
    "  crosswatch data import --layout msrvtt train.pkl --info train_val_videodatainfo.json \\\n"
    "    --out features",
)
@click.argument("source", type=_path(), metavar="SRC")
@click.option("--layout", type=click.Choice(["vadclip", "msrvtt"]), required=True,
              help="SRC is of vadclip a list (CSV: path,label), of msrvtt a pickle.")  # fmt: skip
@click.option("--out", type=_path(), required=True, metavar="DIR", help="Features to write.")
@click.option("--root", type=_path(), metavar="DIR",
              help="vadclip: the folder that the feature files lie in now.")  # fmt: skip
@click.option("--frame-rate-hz", type=float, metavar="HZ",
              help="vadclip: of the videos; UCF-Crime has 30, XD-Violence 24.")  # fmt: skip
@click.option("--annotations", type=_path(), metavar="FILE",
              help="vadclip: UCF-Crime's or XD-Violence's text of what happens where.")  # fmt: skip
@click.option("--segments", type=_path(), metavar="FILE",
              help="vadclip: gt_segment, .json or .npy, in place of a text.")  # fmt: skip
@click.option("--segment-labels", type=_path(), metavar="FILE",
              help="vadclip: gt_label, .json or .npy.")  # fmt: skip
@click.option("--frame-labels", type=_path(), metavar="FILE",
              help="vadclip: gt.npy, to hold against the rest.")  # fmt: skip
@click.option("--split", metavar="NAME", help="vadclip: which split the list is.")
@click.option("--info", type=_path(), multiple=True, metavar="FILE",
              help="msrvtt: the official videodatainfo.json, may be given twice.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on the last line.")
def import_features(
    source: Path, layout: str, out: Path, as_json: bool, info: tuple[Path, ...], **given: Any
) -> None:
    """Take features that were computed elsewhere into a features artifact.

    Pickles are read without running anything of them: one that asks for more than arrays and
    tensors is refused.
    """
    from crosswatch import progress

    of_vadclip = {name: value for name, value in given.items() if value is not None}
    _refuse_options_of_others(layout, of_vadclip if layout == "msrvtt" else {"info": info})
    with progress.shown(progress.view()), progress.stage("import"):
        if layout == "msrvtt":
            from crosswatch.features.exchange.msrvtt import import_msrvtt

            counts = import_msrvtt(source, out, info)
        else:
            from crosswatch.features.exchange.vadclip import VadclipConfig, import_vadclip

            if "frame_rate_hz" not in of_vadclip:
                raise click.UsageError(
                    "--frame-rate-hz is missing: the files do not tell it. UCF-Crime has 30, "
                    "XD-Violence 24"
                )
            counts = import_vadclip(source, out, VadclipConfig(**of_vadclip))
    _say(counts, out, as_json)


@data.command(
    name="export",
    epilog="\b\nExample:\n"
    "  crosswatch data export --layout vadclip --features features --out exported",
)
@click.option("--layout", type=click.Choice(["vadclip"]), required=True,
              help="vadclip: a list, a file a video and crop, and what is where.")  # fmt: skip
@click.option("--features", type=_path(), required=True, metavar="DIR",
              help="Features with clip, of extract or of an import.")  # fmt: skip
@click.option("--labels", type=_path(), metavar="FILE",
              help="JSON of labels by batch [default: labels.json of the features].")  # fmt: skip
@click.option("--out", type=_path(), required=True, metavar="DIR", help="Files to write.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on the last line.")
def export_features(
    layout: str, features: Path, labels: Path | None, out: Path, as_json: bool
) -> None:
    """Write features as the files that another project reads."""
    from crosswatch import progress
    from crosswatch.features.exchange.vadclip_export import export_vadclip

    with progress.shown(progress.view()), progress.stage("export"):
        counts = export_vadclip(features, out, labels)
    if counts["blank"]:
        click.echo(f"{counts['blank']} snippets were not valid and are zero", err=True)
    _say(counts, out, as_json)


def _refuse_options_of_others(layout: str, given: dict[str, Any]) -> None:
    for name, value in given.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} does not belong to --layout {layout}")


def _say(counts: dict[str, int], out: Path, as_json: bool) -> None:
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    click.echo(f"{out}: {told}")
    if as_json:
        click.echo(json.dumps({"out": str(out), **counts}))


def _end(as_json: bool, facts: Any) -> None:
    import dataclasses

    if as_json:
        click.echo(json.dumps(dataclasses.asdict(facts)))
