"""The command line. A stage's signature is its command: a Path is a flag, the rest are sections."""

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from crosswatch import __version__
from crosswatch.errors import UserError
from crosswatch.stages import STAGES

EXIT_MISTAKE, EXIT_QUARANTINE, EXIT_FAILURE = 2, 3, 1


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


def configuration_options(command: click.Command) -> click.Command:
    """--recipe, --config, --set and --show-config: the one mechanism for settings."""
    command.params += [
        click.Option(["--recipe"], default="fmformer-furnace", show_default=True,
                     help="Packaged recipe to start from."),
        click.Option(["--config", "config_file"], type=_path(), metavar="FILE",
                     help="YAML over the recipe."),
        click.Option(["--set", "overrides"], multiple=True, metavar="A.B=C",
                     help="One value over both; may be repeated."),
        click.Option(["--show-config"], is_flag=True,
                     help="Print the resolved configuration and stop."),
    ]  # fmt: skip
    return command


def _path() -> click.ParamType:
    return click.Path(path_type=Path)


def _stage_command(name: str) -> click.Command:
    from crosswatch import config, experiment, progress, stages

    paths = stages.paths_of(name)

    def call(
        recipe: str,
        config_file: Path | None,
        overrides: Sequence[str],
        show_config: bool,
        **given: Path | None,
    ) -> None:
        resolved = experiment.resolve(recipe, experiment.over(config_file, overrides))
        if show_config:
            click.echo(config.to_yaml(resolved), nl=False)
            return
        missing = [flag for flag, optional in paths.items() if not optional and not given[flag]]
        if missing:
            raise click.UsageError(f"--{missing[0]} is missing. Example: {STAGES[name].example}")
        with progress.shown(progress.view()):
            stages.run(name, values=config.plain(resolved), paths=given)

    flags = [
        click.Option([f"--{flag}"], type=_path(), metavar="DIR", help="" if optional else "needed")
        for flag, optional in paths.items()
    ]
    doc = (stages.function_of(name).__doc__ or "").strip()
    text = f"{STAGES[name].summary}\n\n{doc}\n\n\b\nExample:\n  {STAGES[name].example}"
    return configuration_options(
        click.Command(name, params=list(flags), callback=call, help=text)
    )


@click.command(
    epilog="\b\nExamples:\n"
    "  crosswatch run --batches arrivals --workspace workspace\n"
    "  crosswatch run --batches arrivals --workspace workspace --set train.epochs=8\n"
    "  crosswatch run --recipe itsc --batches DIR --workspace workspace --json"
)
@click.option("--batches", type=_path(), metavar="SRC", help="Deliveries of the plant.")
@click.option("--workspace", type=_path(), metavar="DIR", help="Known batches, claims, registry.")
@click.option("--again", is_flag=True, help="Work on batches that were already done.")
@click.option("--data-revision", default="", help="Revision of the deliveries, kept as lineage.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on the last line.")
def run(
    batches: Path | None,
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
    if batches is None or workspace is None:
        missing = "--batches" if batches is None else "--workspace"
        raise click.UsageError(
            f"{missing} is missing. Example: crosswatch run --batches arrivals --workspace workspace"
        )
    from crosswatch.retrain import retrain_here

    sys.exit(retrain_here(batches, workspace, recipe=recipe, overrides=over, **options))


COMMANDS: dict[str, click.Command] = {"run": configuration_options(run)}


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crosswatch")
def crosswatch() -> None:
    """Retrain, evaluate and promote cross-modal anomaly detectors on every production batch.

    \b
    Begin with:
      crosswatch simulate --out arrivals
      crosswatch run --batches arrivals --workspace workspace
    """


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(_guarded(lambda: crosswatch.main(arguments, standalone_mode=False)))


def _guarded(call: Callable[[], Any]) -> int:
    """One line and 2 for a user's mistake, the traceback and 1 for everything else."""
    try:
        call()
    except SystemExit as ended:
        return int(ended.code or 0)
    except (UserError, click.UsageError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "crosswatch"
        click.echo(f"{command}: {text}", err=True)
        return EXIT_MISTAKE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except Exception:
        traceback.print_exc()
        return EXIT_FAILURE
    return 0


