"""Checkpoints that a killed training resumes from: safetensors and JSON, committed by rename."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from crosswatch import artifacts, progress
from crosswatch.errors import UserError

CHECKPOINT = "training-checkpoint"
KEPT = 2


@dataclasses.dataclass(kw_only=True)
class Progress:
    """How far a training came."""

    epoch: int = 0  # finished epochs
    step: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_epoch: int = 0
    best_score: float | None = None  # None: of no epoch yet is it defined


Weights = dict[str, torch.Tensor]


def save(
    folder: Path,
    reached: Progress,
    *,
    weights: Weights,
    best: Weights,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Commit `folder`/epoch-N and drop all but the newest KEPT."""
    target = folder / f"epoch-{reached.epoch:05d}"
    with artifacts.create(target, kind=CHECKPOINT) as draft:
        whole = {name: value.contiguous() for name, value in weights.items()}
        save_file(whole, draft / "weights.safetensors")
        save_file(best, draft / "best.safetensors")
        save_file(_flat(optimizer), draft / "optimizer.safetensors")
        artifacts.write_json(draft / "progress.json", dataclasses.asdict(reached))
    for old in sorted(folder.glob("epoch-*"))[:-KEPT]:
        shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint; a damaged one is passed over, loudly."""
    for path in sorted(folder.glob("epoch-*"), reverse=True):
        try:
            artifacts.open_artifact(path, kind=CHECKPOINT)
        except UserError as error:
            progress.warn(f"{error} Taking the checkpoint before it.")
            continue
        return path
    return None


def load(
    path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, Weights]:
    """Put weights and optimiser state back; what was reached, and the best weights so far."""
    module.load_state_dict(load_file(path / "weights.safetensors"))
    _unflatten(optimizer, load_file(path / "optimizer.safetensors"))
    reached = Progress(**artifacts.read_json(path / "progress.json"))
    return reached, load_file(path / "best.safetensors")


def _flat(optimizer: torch.optim.Optimizer) -> Weights:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value).contiguous()
        for number, values in state.items()
        for name, value in values.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, flat: Weights) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in flat.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
