"""crosswatch ledger: who works on which batch, and a person's way to end a claim."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crosswatch.data.ledger.claims import Entry
    from crosswatch.data.ledger.ledger import Ledger

HEAD = ("batch", "state", "gen", "run", "owner", "claimed", "lease", "claim")
UNITS_S = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
COLUMN = 36  # characters; what a batch or run is called was written by others


@click.group()
def ledger() -> None:
    """Which run has which batch: claims on what is to be done, and how they ended."""


def place_options(command: click.Command) -> click.Command:
    command.params += [
        click.Option(["--workspace"], type=click.Path(path_type=Path), default=Path("workspace"),
                     show_default=True, metavar="DIR", help="Where the claims lie."),
        click.Option(["--store"], default="", metavar="PLACE",
                     help="The store of the runs, if they use one: s3://bucket/prefix or DIR."),
        click.Option(["--json", "as_json"], is_flag=True,
                     help="End with one JSON object on the last line."),
    ]  # fmt: skip
    return command


@click.command(
    name="list",
    epilog="\b\nExamples:\n"
    "  crosswatch ledger list --workspace workspace\n"
    "  crosswatch ledger list --store s3://plant/store --json",
)
def list_claims(workspace: Path, store: str, as_json: bool) -> None:
    """Every batch that was claimed: its state, run and owner, and when its lease ends."""
    found = _open(workspace, store)
    entries, now = found.list(), found.now()
    held = {entry.key for entry in entries if found.is_held(entry, now)}
    if entries:
        rows = [HEAD, *(_row(entry, entry.key in held, now) for entry in entries)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo(line.rstrip())
    else:
        click.echo(f"nothing was ever claimed in {found.objects.url}")
    if as_json:
        claims = [{**_facts(entry, now), "held": entry.key in held} for entry in entries]
        _echo_json({"ledger": found.objects.url, "now": now, "claims": claims})


@click.command(
    epilog="\b\nExamples:\n"
    '  crosswatch ledger release batch-7 --reason "the node is gone"\n'
    '  crosswatch ledger release batch-7 --done --reason "trained with a wrong camera"'
)
@click.argument("name")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept with the claim.")
@click.option("--done", is_flag=True, help="Also a done or quarantined one, to be done again.")
def release(name: str, reason: str, done: bool, workspace: Path, store: str, as_json: bool) -> None:
    """End the claim on a batch, so that the next run takes it.

    NAME is the batch, the claim's key, or the beginning of either. A run that is still at work on
    it stops before its next stage and registers nothing.
    """
    found = _open(workspace, store)
    entry = found.release(name, reason=reason, done=done)
    click.echo(
        f"{_shown(entry.subject)}: released (was generation {entry.generation}, "
        f"run {_shown(entry.run)}, {_shown(str(entry.owner))}); the next run takes it"
    )
    if as_json:
        _echo_json({"ledger": found.objects.url, "released": _facts(entry, found.now())})


ledger.add_command(place_options(list_claims))
ledger.add_command(place_options(release))


def _open(workspace: Path, store: str) -> "Ledger":
    from crosswatch.errors import UserError
    from crosswatch.stages.claims import open_ledger

    if not store and not (workspace / "claims").is_dir():
        raise UserError(
            f"--workspace {workspace}: holds no claims. Name another, or the --store that runs use."
        )
    return open_ledger(str(workspace), store, {})


def _row(entry: "Entry", is_held: bool, now: float) -> tuple[str, ...]:
    is_free = entry.state == "claimed" and not is_held
    left_s = entry.lease_until - now
    lease = "" if entry.state != "claimed" else "over" if left_s < 0 else _duration(left_s)
    return (
        _shown(entry.subject),
        "abandoned" if is_free else entry.state,
        str(entry.generation),
        _shown(entry.run),
        _shown(str(entry.owner)),
        f"{_duration(now - entry.claimed_at)} ago",
        lease,
        entry.key[:12],
    )


def _facts(entry: "Entry", now: float) -> dict[str, Any]:
    import dataclasses

    ages = {"age_s": now - entry.claimed_at, "lease_left_s": entry.lease_until - now}
    if entry.ended_at is not None:
        ages["ended_ago_s"] = now - entry.ended_at
    return {**dataclasses.asdict(entry), **ages}


def _duration(seconds: float) -> str:
    """In the largest unit that it fills; a clock that stepped back makes no negative ages."""
    for unit, length_s in UNITS_S:
        if seconds >= length_s:
            return f"{int(seconds // length_s)} {unit}"
    return "0 s"


def _shown(text: str) -> str:
    """A name that somebody else wrote, on one line of a terminal."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in text)
    return plain if len(plain) <= COLUMN else plain[: COLUMN - 1] + "…"


def _echo_json(facts: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(facts, sort_keys=True))
