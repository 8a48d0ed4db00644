"""The command line. A stage's signature is its command: a Path is a flag, the rest are sections."""

import functools
import inspect
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crosswatch import __version__
from crosswatch.data.store.place import Place, parse_place
from crosswatch.data_commands import data
from crosswatch.errors import UserError, explained
from crosswatch.ledger_commands import ledger
from crosswatch.progress import FAILURE, MISTAKE
from crosswatch.recipes_command import recipes
from crosswatch.stages import STAGES

if TYPE_CHECKING:
    from crosswatch.tracking.registry import RegistryPlace, StageName

ROLES = {
    "arrivals": "Deliveries of the plant, one folder a batch: a folder or s3://bucket/prefix.",
    "known": "What earlier runs made and need not be made again; new work is added.",
    "originals": "Where deliveries that lie in a bucket are brought to.",
    "store": "Library, artifacts and claims shared by many machines: s3://bucket/prefix or DIR.",
    "revision": "Manifest of a data revision, as crosswatch data resolve writes it.",
    "batches": "Batch set that ingest wrote.",
    "labels": "Labels that refine wrote.",
    "captions": "Captions that caption wrote.",
    "features": "Features that extract wrote.",
    "checkpoint": "Detector that train wrote.",
    "checkpoints": "Where a training that is cut off leaves its epochs.",
    "evaluation": "Scores and metrics that evaluate wrote.",
    "registry": "Where MLflow's database and the history lie.",
    "out": "Where to write; an artifact of before is replaced.",
    "truth": "Where to write what really happened [default: truth beside --out].",
}
"""What a stage's directory is, by the name of its parameter."""


class Commands(click.Group):
    """Commands that import what they need when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *STAGES]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            return COMMANDS[name]
        return _stage_command(name) if name in STAGES else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.list_commands(ctx):
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else " See crosswatch --help."
            raise click.UsageError(f"no such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(80)) for name, c in COMMANDS.items()])
        with formatter.section("Stages, in the order of the pipeline"):
            formatter.write_dl([(name, stage.summary) for name, stage in STAGES.items()])


class PlaceType(click.ParamType[Place]):
    """A folder or s3://bucket/prefix."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Place:
        return parse_place(value) if isinstance(value, str) else value


class Configured(click.Command):
    """A command with settings; their options import what they need when it is called."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, helping = super().get_params(ctx)
        return [*own, *configuration_options(), helping]


@functools.cache
def configuration_options() -> list[click.Option]:
    """--recipe, --config, --set and --show-config: the one mechanism for settings."""
    from crosswatch.experiment import DEFAULT_RECIPE

    return [
        click.Option(["--recipe"], default=DEFAULT_RECIPE, show_default=True,
                     help="Packaged recipe to start from."),
        click.Option(["--config", "config_file"], type=_path(), metavar="FILE",
                     help="YAML over the recipe."),
        click.Option(["--set", "overrides"], multiple=True, metavar="A.B=C",
                     help="One value over both; may be repeated."),
        click.Option(["--show-config"], is_flag=True,
                     help="Print the resolved configuration and stop."),
    ]  # fmt: skip


def _path() -> click.Path:
    return click.Path(path_type=Path)


def _stage_command(name: str) -> click.Command:
    from crosswatch import config, experiment, progress, stages

    paths = stages.paths_of(name)

    def call(
        recipe: str,
        config_file: Path | None,
        overrides: Sequence[str],
        show_config: bool,
        **given: Place | None,
    ) -> None:
        missing = [flag for flag, optional in paths.items() if not optional and not given[flag]]
        if missing and not show_config:
            raise click.UsageError(f"--{missing[0]} is missing. Example: {STAGES[name].example}")
        resolved = experiment.resolve(recipe, experiment.over(config_file, overrides))
        if show_config:
            click.echo(config.to_yaml(resolved), nl=False)
            return
        with progress.shown(progress.view()):
            stages.run(name, values=config.plain(resolved), paths=given)

    flags = [
        click.Option([f"--{flag}"], type=PlaceType(), metavar="DIR",
                     help=ROLES[flag] + ("" if optional else "  [required]"))
        for flag, optional in paths.items()
    ]  # fmt: skip
    doc = inspect.getdoc(stages.function_of(name)) or ""
    text = f"{STAGES[name].summary}\n\n{doc}\n\n\b\nExample:\n  {STAGES[name].example}"
    return Configured(name, params=list(flags), callback=call, help=text)


@click.command(
    cls=Configured,
    epilog="\b\nExamples:\n"
    "  crosswatch run --batches arrivals --workspace workspace\n"
    "  crosswatch run --batches arrivals --workspace workspace --set train.epochs=8\n"
    "  crosswatch run --recipe itsc --batches DIR --workspace workspace --json\n"
    "  crosswatch run --batches s3://plant/deliveries --store s3://plant/store "
    "--workspace workspace",
)
@click.option(
    "--batches",
    type=PlaceType(),
    metavar="SRC",
    help="Deliveries of the plant: a folder or s3://bucket/prefix.",
)
@click.option("--workspace", type=_path(), metavar="DIR", help="Known batches, claims, registry.")
@click.option(
    "--store",
    type=PlaceType(),
    metavar="PLACE",
    help="Share batches, artifacts and claims: s3://bucket/prefix or a folder.",
)
@click.option("--again", is_flag=True, help="Work on batches that were already done.")
@click.option(
    "--data-revision",
    default="",
    metavar="FILE",
    help="Manifest of crosswatch data resolve: take its deliveries, or hold SRC to it.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on the last line.")
def run(
    batches: Place | None,
    workspace: Path | None,
    recipe: str,
    config_file: Path | None,
    overrides: Sequence[str],
    show_config: bool,
    **options: Any,
) -> None:
    """Retrain on the batches that have arrived: the Kubeflow pipeline, on this machine."""
    from crosswatch import config, experiment

    over = experiment.over(config_file, overrides)
    resolved = experiment.resolve(recipe, over)
    if show_config:
        click.echo(config.to_yaml(resolved), nl=False)
        return
    nowhere = batches is None and not options["data_revision"]
    if nowhere or workspace is None:
        missing = "--batches" if nowhere else "--workspace"
        example = "crosswatch run --batches arrivals --workspace workspace"
        raise click.UsageError(f"{missing} is missing. Example: {example}")
    from crosswatch.retrain import retrain_here

    sys.exit(retrain_here(batches, workspace, recipe=recipe, overrides=over, **options))


@click.command(
    cls=Configured,
    epilog="\b\nExamples:\n  crosswatch crossvalidate --recipe itsc --batches DIR --json\n"
    "  crosswatch crossvalidate --recipe fight-caam --batches DIR --out STUDY "
    "--set crossvalidate.folds=5 --set crossvalidate.seeds=3",
)
@click.option("--batches", type=_path(), required=True, metavar="SRC", help="Deliveries.")
@click.option("--out", type=_path(), metavar="DIR", help="Keep every fold's artifacts here.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on the last line.")
def crossvalidate(
    batches: Path,
    out: Path | None,
    recipe: str,
    config_file: Path | None,
    overrides: Sequence[str],
    show_config: bool,
    as_json: bool,
) -> None:
    """Let each batch, or each of crossvalidate.folds folds of batches, evaluate once while the
    others train; registers nothing. With --out a study that was cut off goes on."""
    from crosswatch import config, experiment
    from crosswatch.crossvalidate import crossvalidate_here

    resolved = experiment.resolve(recipe, experiment.over(config_file, overrides))
    if show_config:
        click.echo(config.to_yaml(resolved), nl=False)
        return
    crossvalidate_here(batches, out, resolved, as_json=as_json)


def registry_options(command: click.Command) -> click.Command:
    command.params += [
        click.Argument(["name"]),
        click.Option(["--workspace"], type=_path(), default=Path("workspace"), show_default=True,
                     metavar="DIR", help="Where MLflow's database and the history lie."),
        click.Option(["--tracking-uri"], metavar="URI", help="Another MLflow server."),
    ]  # fmt: skip
    return command


def _place(workspace: Path, tracking_uri: str | None) -> "RegistryPlace":
    from crosswatch.tracking.registry import RegistryPlace

    if tracking_uri is None and not (workspace / "mlflow.db").exists():
        raise UserError(f"--workspace {workspace}: holds no registry (mlflow.db). Name another.")
    return RegistryPlace(folder=workspace, tracking_uri=tracking_uri)


@click.command(
    epilog="\b\nExample:\n  crosswatch promote fmformer-furnace --version 2 --to Production"
)
@click.option("--version", required=True, metavar="N")
@click.option("--to", required=True, type=click.Choice(["Staging", "Production", "Archived"]))
@click.option("--override", metavar="REASON", help="Pass the gate; the reason is recorded.")
def promote(name: str, version: str, to: "StageName", override: str | None, **place: Any) -> None:
    """Move a model version by hand, through the same gate."""
    from crosswatch.tracking import manual
    from crosswatch.tracking.registry import ModelRegistry

    registry = _place(**place)
    manual.promote(registry, name, version, to, override=override)
    click.echo(f"{name} version {version} is in {to}" + (", champion" * (to == "Production")))
    if ModelRegistry(registry).champion(name) is None:
        click.echo(f"{name} has no champion now")


@click.command(epilog="\b\nExample:\n  crosswatch rollback fmformer-furnace")
def rollback(name: str, **place: Any) -> None:
    """Make the champion before this one champion again."""
    from crosswatch.tracking import manual

    entry = manual.rollback(_place(**place), name)
    click.echo(f"{name} version {entry['version']} is champion again (was {entry['replaced']})")


@click.command(epilog="\b\nExample:\n  crosswatch history fmformer-furnace")
def history(name: str, **place: Any) -> None:
    """What was promoted, refused and rolled back, and why."""
    kept = _place(**place).history
    entries = kept.entries(name)
    if not entries:
        known = ", ".join(sorted(path.name for path in kept.folder.glob("*/"))) or "none"
        raise UserError(f"{name}: nothing is recorded of such a model; recorded here: {known}")
    for entry in entries:
        verdict = entry.get("verdict") or {}
        why = entry.get("override") or "; ".join(verdict.get("reasons", ()))
        click.echo(f"{entry['at']}  version {entry['version']:<4} {entry['action']:<16} {why}")


@click.command(
    epilog="\b\nExample:\n  crosswatch fuse --visual visual --current current --out fused"
)
@click.option("--visual", type=_path(), required=True, metavar="DIR",
              help="Checkpoint of an FmFormer with modality visual.")  # fmt: skip
@click.option("--current", type=_path(), required=True, metavar="DIR",
              help="Checkpoint of an FmFormer with modality current.")  # fmt: skip
@click.option("--out", type=_path(), required=True, metavar="DIR", help=ROLES["out"])
def fuse(visual: Path, current: Path, out: Path) -> None:
    """Sum the logits of two models that were trained apart, without training."""
    from crosswatch.fuse import fuse

    fuse(visual, current, out)
    click.echo(f"{out}: evaluate takes it as any other checkpoint")


COMMANDS: dict[str, click.Command] = {
    "run": run,
    "recipes": recipes,
    "crossvalidate": crossvalidate,
    "fuse": fuse,
    "promote": registry_options(promote),
    "rollback": registry_options(rollback),
    "history": registry_options(history),
    "ledger": ledger,
    "data": data,
}


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="crosswatch %(version)s")
def crosswatch() -> None:
    """Retrain, evaluate and promote cross-modal anomaly detectors on every production batch.

    \b
    Begin with:
      crosswatch simulate --out arrivals
      crosswatch run --batches arrivals --workspace workspace
    """


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_guarded(given))


def _guarded(arguments: list[str]) -> int:
    """One line and 2 for a user's mistake, one line and 1 for a full disk or a network that is
    down, the traceback and 1 for everything else."""
    known = arguments[:1] if arguments and arguments[0] in (*COMMANDS, *STAGES) else []
    named = " ".join(["crosswatch", *known])
    try:
        crosswatch.main(arguments or ["--help"], standalone_mode=False)
    except SystemExit as ended:
        return int(ended.code or 0)
    except (UserError, click.UsageError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        click.echo(f"{named}: {' '.join(text.split())}", err=True)
        return MISTAKE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; the same command goes on behind what is finished", err=True)
        return 130
    except Exception as error:
        line = explained(error)
        if line is None:
            traceback.print_exc()
        else:
            click.echo(f"{named}: {line}", err=True)
        return FAILURE
    return 0
