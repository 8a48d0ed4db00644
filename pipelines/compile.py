"""Compile every pipeline into the package: python -m pipelines.compile [FOLDER]."""

import sys
from pathlib import Path

from kfp import compiler

from pipelines.retrain import retrain

PIPELINES = {"retrain": retrain}
SHIPPED = Path(__file__).parent.parent / "src" / "crosswatch" / "compiled"


def compile_all(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pipeline in PIPELINES.items():
        compiler.Compiler().compile(pipeline, str(folder / f"{name}.yaml"))


if __name__ == "__main__":
    compile_all(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED)
