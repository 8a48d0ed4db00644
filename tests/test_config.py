"""One mechanism for settings: strict names and types, stated precedence."""

import dataclasses
import subprocess
import sys
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswatch import config, experiment
from crosswatch.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    tolerance_s: float = 0.5
    mode: Literal["fast", "exact"] = "fast"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    count: int = 1
    name: str = "x"
    loud: bool = False
    limit: float | None = None
    names: tuple[str, ...] = ()
    inner: Inner = dataclasses.field(default_factory=Inner)


outers = st.builds(
    Outer,
    count=st.integers(),
    name=st.text(),
    loud=st.booleans(),
    limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    names=st.lists(st.text()).map(tuple),
    inner=st.builds(
        Inner,
        tolerance_s=st.floats(allow_nan=False, allow_infinity=False),
        mode=st.sampled_from(["fast", "exact"]),
    ),
)


@given(outers)
def test_a_section_survives_yaml(section: Outer) -> None:
    values = config.parse_yaml(config.to_yaml(section), where="here")
    assert config.build(Outer, values, where="here") == section


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 2}, "here: unknown key 'cuont' for Outer. Did you mean 'count'?"),
        ({"inner": {"tolerance": 1}}, "here.inner: unknown key 'tolerance' .* mean 'tolerance_s'"),
        ({"zzz": 1}, "unknown key 'zzz' for Outer. Known keys: count, name"),
        ({"count": 1.5}, "here.count: expected int, found float 1.5"),
        ({"count": True}, "here.count: expected int, found bool True"),
        ({"loud": 1}, "here.loud: expected bool, found int 1"),
        (
            {"limit": "3e-4"},
            "here.limit: expected float, found str '3e-4'.*YAML reads 3e-4 as text",
        ),
        ({"inner": {"mode": "fats"}}, "'fats' is not one of fast, exact. Did you mean 'fast'"),
        ({"inner": 3}, "here.inner: expected a section of Inner, found 3"),
        ({"names": "abc"}, "here.names: expected a list, found 'abc'"),
        ({"names": ["a", 2]}, r"here.names\[1\]: expected str, found int 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.build(Outer, values, where="here")


def test_the_hint_about_numbers_works_when_followed() -> None:
    with pytest.raises(UserError) as refused:
        config.build(Outer, config.parse_yaml("limit: 3e-4", where="f"), where="f")
    advised = str(refused.value).rsplit(" ", 1)[1].rstrip(".")
    values = config.parse_yaml(f"limit: {advised}", where="f")
    assert config.build(Outer, values, where="f").limit == 3e-4


def test_defaults_then_recipe_then_file_then_set(tmp_path) -> None:
    default = experiment.Experiment().evaluate.pool
    recipe = experiment.resolve("itsc", {}).evaluate.pool
    assert (default, recipe) == ("window", "segment")
    file = tmp_path / "mine.yaml"
    file.write_text("evaluate: {pool: window, samples: 5}\n")
    over = experiment.over(file, ["evaluate.samples=7"])
    resolved = experiment.resolve("itsc", over)
    assert (resolved.evaluate.pool, resolved.evaluate.samples) == ("window", 7)
    assert resolved.ingest.adapter == "itsc"


@pytest.mark.parametrize("name", experiment.recipes())
def test_every_packaged_recipe_resolves_and_survives_being_written(name: str) -> None:
    resolved = experiment.resolve(name, {})
    again = config.parse_yaml(config.to_yaml(resolved), where="again")
    assert config.build(experiment.Experiment, again, where="again") == resolved


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epochs", "expected a.b=value"),
        ("train..epochs=3", "expected a.b=value"),
        ("train.epochs=[", "not valid YAML"),
    ],
)
def test_malformed_assignments_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.override({}, [assignment])


def test_settings_are_read_without_the_libraries_that_take_seconds() -> None:
    """A command begins, and refuses, before torch and pandas are there."""
    slow = "{'torch', 'pandas', 'ray', 'mlflow'}"
    code = f"import sys, crosswatch.experiment; print({slow} & {{*sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
