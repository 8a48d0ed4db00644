"""The stage table holds everywhere: code, command line, dvc.yaml, components, pipelines."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from crosswatch import experiment, kubeflow, stages
from crosswatch.cli import ROLES, crosswatch
from crosswatch.stages import STAGES

ROOT = Path(__file__).parents[1]
CONTROL_TASKS = {"validate", "claim", "summary"}
IN_RETRAIN = {name for name, stage in STAGES.items() if stage.in_retrain}
IN_DVC = {name for name, stage in STAGES.items() if stage.in_dvc}


def dvc() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())


def shipped() -> dict:
    return next(yaml.safe_load_all(kubeflow.shipped("retrain").read_text()))


def tasks_of(pipeline: dict) -> set[str]:
    inner = [body["dag"]["tasks"] for body in pipeline["components"].values() if "dag" in body]
    executors = {
        component["executorLabel"]: name.removeprefix("comp-")
        for name, component in pipeline["components"].items()
        if "executorLabel" in component
    }
    named = {name for tasks in [*inner, pipeline["root"]["dag"]["tasks"]] for name in tasks}
    return named & set(executors.values())


def test_every_place_holds_the_stage_table() -> None:
    assert set(dvc()["stages"]) == IN_DVC
    assert tasks_of(shipped()) == IN_RETRAIN | CONTROL_TASKS
    folders = {path.parent.name for path in (ROOT / "components").glob("*/component.py")}
    assert folders == IN_RETRAIN | CONTROL_TASKS
    for name in STAGES:
        assert stages.function_of(name).__module__ == f"crosswatch.stages.{name}"


def test_every_stage_is_in_the_help() -> None:
    text = CliRunner().invoke(crosswatch, ["--help"]).output
    for name in STAGES:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_s_signature_is_its_command_line(name: str) -> None:
    text = CliRunner().invoke(crosswatch, [name, "--help"]).output
    for flag, optional in stages.paths_of(name).items():
        (line,) = re.findall(rf"--{flag} DIR +(.*)", text)
        assert line.split()[:4] == ROLES[flag].split()[:4]
        assert optional or f"{ROLES[flag]} [required]" in " ".join(text.split())
    assert STAGES[name].example.split(" --")[0] in text
    fields = {field.name: field.type for field in dataclasses.fields(experiment.Experiment)}
    for section, cls in stages.sections_of(name).items():
        assert fields[section] is cls


@pytest.mark.parametrize("name", sorted(IN_DVC))
def test_dvc_tracks_exactly_the_sections_a_stage_reads(name: str) -> None:
    stage = dvc()["stages"][name]
    assert set(stage["params"]) == set(stages.sections_of(name))
    command = stage["cmd"].split()
    assert command[:4] == ["crosswatch", name, "--config", "params.yaml"]
    flags = dict(zip(command[4::2], command[5::2], strict=True))
    paths = stages.paths_of(name)
    assert {flag.removeprefix("--") for flag in flags} <= set(paths)
    needed = {flag for flag, optional in paths.items() if not optional}
    assert needed <= {flag.removeprefix("--") for flag in flags}
    written = {flags[flag] for flag in ("--out", "--truth") if flag in flags}
    assert set(stage["outs"]) == written
    assert set(stage.get("deps", [])) == set(flags.values()) - written


@pytest.mark.parametrize("name", sorted(IN_RETRAIN | CONTROL_TASKS))
def test_a_component_calls_its_stage_and_nothing_else(name: str) -> None:
    module = importlib.import_module(f"components.{name}.component")
    body = (
        inspect.getsource(getattr(module, name).python_func).split(") -> ", 1)[1].splitlines()[1:]
    )
    code = [line.strip() for line in body if line.strip()]
    assert code[0] == "from crosswatch.stages import control"
    called = "control.run_stage(" if name in IN_RETRAIN else f"control.{name}("
    assert code[1].removeprefix("return ").startswith(called)
    assert not any(line.startswith(("if ", "for ", "while ", "try")) for line in code)


def test_the_shipped_pipeline_is_what_the_source_compiles_to(tmp_path: Path) -> None:
    from pipelines.compile import compile_all

    compile_all(tmp_path)
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    folder = kubeflow.shipped("retrain").parent
    assert fresh == {path.name: path.read_text() for path in folder.glob("*.yaml")}, (
        "run make compile"
    )


def test_nothing_is_cached_that_reads_what_a_cache_key_cannot_see() -> None:
    bodies = [shipped()["root"], *shipped()["components"].values()]
    cached = {
        name: task.get("cachingOptions", {}).get("enableCache", False)
        for body in bodies
        for name, task in body.get("dag", {}).get("tasks", {}).items()
    }
    reads_workspace = ("claim", *IN_RETRAIN, "summary")
    assert {name: cached[name] for name in reads_workspace} == dict.fromkeys(reads_workspace, False)


def test_params_yaml_resolves() -> None:
    over = experiment.over(ROOT / "params.yaml", [])
    assert experiment.resolve("fmformer-furnace", over)
