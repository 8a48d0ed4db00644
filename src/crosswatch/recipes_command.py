"""crosswatch recipes: what can be run, what each recipe needs, and whether that is here."""

import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crosswatch.errors import UserError

if TYPE_CHECKING:
    from crosswatch.data.ingestion import IngestConfig
    from crosswatch.experiment import Experiment

HEAD = ("recipe", "model", "looks at", "data", "weights")
COLUMNS = 100
INDENT = "    "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A recipe as it is listed.

    Attributes:
        facts: as of JSON, without the name.
        at_length: whether all is told that is known of it.
    """

    name: str
    facts: Mapping[str, Any]
    at_length: bool

    @property
    def cells(self) -> tuple[str, ...]:
        told = self.facts
        if "refused" in told:
            return (self.name, "", "", "", "")
        looks_at = ", ".join(told["looks_at"])
        return (self.name, told["model"], looks_at, told["data"]["adapter"], told["state"])

    def lines(self) -> Iterator[str]:
        """What stands below the cells."""
        told = self.facts
        yield f"{told['what']} {told['notes']}" if self.at_length else told["what"]
        if "refused" in told:
            yield f"refused: {told['refused']}"
            return
        for need in told["weights"]:
            named = f"{need['option']} of {need['model']}, {need['source'] or 'not named'}"
            yield f"{need['state']}: {(self.at_length and need['why']) or named}"
        if self.at_length:
            yield f"reads: {told['data']['layout']}"
        batches = told["data"].get("batches")
        if batches is not None:
            yield f"data: {batches['fault'] or _counted(batches)}"


@click.command(
    epilog="\b\nExamples:\n"
    "  crosswatch recipes\n"
    "  crosswatch recipes fight-caam --batches DIR\n"
    "  crosswatch recipes cmaf-ucf --set features.clip.weights.source=weights/ViT-B-32.safetensors"
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--batches", type=click.Path(path_type=Path), metavar="DIR",
              help="Also look whether DIR holds what the recipes read.")  # fmt: skip
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
              help="YAML over every recipe.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="A.B=C",
              help="One value over every recipe; may be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on the last line.")
def recipes(
    names: Sequence[str],
    batches: Path | None,
    config_file: Path | None,
    overrides: Sequence[str],
    as_json: bool,
) -> None:
    """The packaged recipes: what each is, what it needs, and whether that is here."""
    from crosswatch import experiment

    if batches is not None and not batches.exists():
        raise UserError(f"--batches {batches}: is not there. Name a folder of this machine.")
    over = experiment.over(config_file, overrides)
    looked: dict[str, dict[str, Any]] = {}
    rows = [
        Row(name=name, facts=_facts(name, over, batches, looked), at_length=bool(names))
        for name in names or experiment.recipes()
    ]
    refused = [row.facts["refused"] for row in rows if "refused" in row.facts]
    if len(refused) == len(rows):
        raise UserError(refused[0])
    for line in _table(rows):
        click.echo(line)
    if as_json:
        facts = [{"name": row.name, **row.facts} for row in rows]
        click.echo(json.dumps({"recipes": facts}, sort_keys=True))


def _facts(
    name: str,
    over: Mapping[str, Any],
    batches: Path | None,
    looked: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """`looked` keeps what was found in `batches` by the settings of the adapter."""
    from crosswatch import config, experiment

    what, notes = experiment.recipe_says(name)
    try:
        resolved = experiment.resolve(name, over)
    except UserError as error:
        return {"what": what, "notes": notes, "refused": str(error)}
    data: dict[str, Any] = {"adapter": resolved.ingest.adapter, "layout": _layout(resolved.ingest)}
    if batches is not None:
        key = config.to_json(resolved.ingest)
        if key not in looked:
            looked[key] = _look(batches, resolved.ingest)
        data["batches"] = looked[key]
    weights = _weights(resolved)
    return {
        "what": what,
        "notes": notes,
        "model": resolved.model.name,
        "looks_at": _looks_at(resolved),
        "captions": resolved.caption.source,
        "data": data,
        "weights": weights,
        "state": _state(weights),
    }


def _weights(experiment: "Experiment") -> list[dict[str, str]]:
    from crosswatch.needs import needs_of

    found = []
    for need in needs_of(experiment):
        state, why = need.look()
        found.append(
            {
                "option": need.option,
                "model": need.model,
                "source": need.weights.source,
                "state": state,
                "why": why,
            }
        )
    return found


def _state(weights: Sequence[Mapping[str, str]]) -> str:
    if not weights:
        return "none needed"
    counts = {state: sum(each["state"] == state for each in weights)
              for state in ("missing", "to be fetched")}  # fmt: skip
    told = [f"{count} {state}" for state, count in counts.items() if count]
    return ", ".join(told) or "here"


def _looks_at(experiment: "Experiment") -> list[str]:
    """Encoders, or what a model that needs none sees itself."""
    if experiment.features.encoders:
        return list(experiment.features.encoders)
    return [
        stream if isinstance(stream, str) else stream.name for stream in experiment.model.streams
    ]


def _layout(ingest: "IngestConfig") -> str:
    """What an adapter's module says that it reads."""
    from crosswatch.data.adapters import open_adapter

    module = sys.modules[type(open_adapter(ingest)).__module__]
    return " ".join((module.__doc__ or "").split("\n\n")[0].split())


def _look(batches: Path, ingest: "IngestConfig") -> dict[str, Any]:
    from crosswatch.data.adapters import open_adapter
    from crosswatch.data.deliveries import refuse_nothing

    try:
        found = open_adapter(ingest).find(batches)
        refuse_nothing(found, str(batches))
    except UserError as error:
        return {"fault": str(error)}
    return {
        "fault": "",
        "found": len(found.arrivals),
        "not_arrived": list(found.not_arrived),
        "unreadable": dict(found.unreadable),
    }


def _counted(batches: Mapping[str, Any]) -> str:
    told = [f"{batches['found']} batches"]
    if batches["not_arrived"]:
        told.append(f"{len(batches['not_arrived'])} still arriving")
    unreadable = batches["unreadable"]
    if unreadable:
        name, why = next(iter(unreadable.items()))
        told.append(f"{len(unreadable)} cannot be read, as {name}: {why}")
    return "; ".join(told)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    cells = [HEAD, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def aligned(of: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(of, widths, strict=True))
        return "  ".join(padded).rstrip()

    yield aligned(HEAD)
    for row in rows:
        yield aligned(row.cells)
        for line in row.lines():
            yield from textwrap.wrap(
                line,
                COLUMNS,
                initial_indent=INDENT,
                subsequent_indent=2 * INDENT,
                break_on_hyphens=False,
            )
