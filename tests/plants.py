"""A plant's deliveries, a workspace, and the real command, which may be killed at a call."""

import json
import os
import subprocess
import sys
from pathlib import Path

from made import tiny_options

from crosswatch.data.store.place import Bucket
from crosswatch.tracking.registry import ModelRegistry, RegistryPlace

MODEL = "fmformer-furnace"
# Loaded by every Python that a run starts: ends the process at the call it is told.
SITECUSTOMIZE = """
import importlib.abc, os, signal, sys
target = os.environ.get("DIE_IN_CALL")
if target:
    module_name, function = target.split(":")
    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, package=None):
            if name != module_name:
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            execute = spec.loader.exec_module
            def exec_module(module):
                execute(module)
                def die(*args, **kwargs):
                    os.kill(os.getpid(), signal.SIGKILL)
                setattr(module, function, die)
            spec.loader.exec_module = exec_module
            return spec
    import importlib.util
    sys.meta_path.insert(0, Finder())
"""


class Plant:
    """A folder of deliveries and a workspace, and the command over them."""

    def __init__(
        self, folder: Path, *, arrivals: Path | Bucket | None = None, store: str = ""
    ) -> None:
        self.arrivals, self.workspace = arrivals or folder / "arrivals", folder / "workspace"
        self.store = store
        self.site = folder / "site"
        self.site.mkdir(parents=True)
        (self.site / "sitecustomize.py").write_text(SITECUSTOMIZE)

    def run(self, *options: str, die_in: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "crosswatch", "run"]
        command += ["--batches", str(self.arrivals)] if "--data-revision" not in options else []
        command += ["--workspace", str(self.workspace), *tiny_options(), "--json", *options]
        command += ["--store", self.store] if self.store else []
        path = os.pathsep.join(filter(None, [str(self.site), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "DIE_IN_CALL": die_in}
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=280, env=environment
        )

    @property
    def registry(self) -> ModelRegistry:
        return ModelRegistry(RegistryPlace(folder=self.workspace))

    def half_written(self) -> list[Path]:
        return [path for path in self.workspace.rglob("*") if ".partial" in path.name]


def facts(ended: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(ended.stdout.splitlines()[-1])
