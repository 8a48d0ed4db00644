"""Everything that imports kfp inside the package: run the shipped pipeline on this machine."""

import contextlib
import dataclasses
import importlib.resources
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crosswatch import progress
from crosswatch.stages.control import OWNER_PID

PATIENCE_S = 10.0  # between asking the tasks to end and ending them


@dataclasses.dataclass(kw_only=True)
class LocalRun:
    """What the tasks of a finished run said of themselves."""

    log: Path
    returncode: int = 0
    artifacts: dict[str, Path] = dataclasses.field(default_factory=dict)
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    quarantined: dict[str, str] = dataclasses.field(default_factory=dict)  # before this run
    idle: dict[str, Any] | None = None  # why there was nothing to do, and for which batches
    failure: dict[str, Any] | None = None
    stage: str = ""  # the one that began last
    unfinished: list[str] = dataclasses.field(default_factory=list)

    def note(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "begin":
            self.stage = event["stage"]
            self.unfinished.append(self.stage)
        elif kind == "artifact":
            self.artifacts[event["stage"]] = Path(event["path"])
        elif kind == "outcome":
            self.outcomes[self.stage] = event["text"]
        elif kind == "end":
            self.seconds[event["stage"]] = event["seconds"]
            self.unfinished.remove(event["stage"])
        elif kind == "quarantined":
            self.quarantined[event["batch"]] = event["reason"]
        elif kind == "idle":
            self.idle = {key: event[key] for key in ("outcome", "batches")}
        elif kind == "failed":
            self.failure = dict(event)


class _Recording:
    """Draws events and remembers them."""

    def __init__(self, run: LocalRun, view: progress.View) -> None:
        self._run, self._view = run, view

    def show(self, event: dict[str, Any]) -> None:
        self._run.note(event)
        self._view.show(event)

    def close(self) -> None:
        self._view.close()


def run_local(
    pipeline: str, *, workspace: Path, log: Path, arguments: Mapping[str, Any]
) -> LocalRun:
    """Run a shipped pipeline through kfp.local in a process of its own.

    What kfp, Ray and MLflow have to say goes to `log`; the tasks' own events are drawn.
    """
    run = LocalRun(log=log)
    log.parent.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"pipeline": pipeline, "root": str(workspace / "pipeline"), **arguments})
    with (
        progress.shown(_Recording(run, progress.view())),
        log.open("wb") as stream,
        _interrupted_by(signal.SIGTERM, signal.SIGHUP),
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "crosswatch.kubeflow"],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the driver and its tasks are one group, and end together
        )
        try:
            process.communicate(told.encode())
        except BaseException:
            _end(process)
            raise
        run.returncode = process.returncode
    return run


@contextlib.contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """A request to end arrives as Ctrl-C does, unless it is ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [each for each in signals if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, signal.default_int_handler) for each in heeded}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the driver and its tasks to end; end those that do not."""
    group, until = process.pid, time.monotonic() + PATIENCE_S
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
            while time.monotonic() < until:
                process.poll()
                os.killpg(group, 0)
                time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        process.wait()


def shipped(pipeline: str) -> Path:
    """The compiled pipeline inside the package."""
    return Path(str(importlib.resources.files("crosswatch.compiled"))) / f"{pipeline}.yaml"


def _main(read: Callable[[], str]) -> None:
    from kfp import components, local

    arguments = json.loads(read())
    pipeline, root = shipped(arguments.pop("pipeline")), arguments.pop("root")
    # A claim is worth as much as the process that drives the run.
    os.environ[OWNER_PID] = str(os.getpid())
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=True
    )
    components.load_component_from_file(str(pipeline))(**arguments)


if __name__ == "__main__":
    _main(sys.stdin.read)
