"""Run the learner under Ray Train; with 0 workers, in this process."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from crosswatch.errors import UserError
from crosswatch.ray_session import ray_session
from crosswatch.training import checkpoint
from crosswatch.training.learner import Alone, Job, Rank, fit
from crosswatch.training.optim import build_optimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """The selected weights and the way there."""

    weights: checkpoint.Weights
    reached: checkpoint.Progress
    workers: int


def train_distributed(job: Job) -> Fitted:
    """Train on `job.train.workers` processes; resume from `job.checkpoints` where there are some.

    Raises:
        UserError: more workers than the machine can hold.
    """
    workers = workers_of(job.train.workers)
    if workers == 0:
        fit(job, Alone())
    else:
        _fit_under_ray(job, workers)
    newest = checkpoint.newest(job.checkpoints)
    assert newest is not None, "training ended without a checkpoint"
    module = job.build()
    reached, best = checkpoint.load(newest, module, build_optimizer(job.train.optim, module))
    return Fitted(weights=best, reached=reached, workers=workers)


def workers_of(asked: int | None) -> int:
    gpus = torch.cuda.device_count()
    if asked is None:
        return gpus or 2
    most = 4 * (os.cpu_count() or 1)
    if asked > most:
        raise UserError(
            f"train.workers is {asked}; this machine has {os.cpu_count()} cores and {gpus} GPUs, "
            f"allowed are 0 to {most}"
        )
    return asked


class _RayGroup:
    """This worker among those of a Ray Train run."""

    def __init__(self) -> None:
        import ray.train

        context = ray.train.get_context()
        self.rank = Rank(number=context.get_world_rank(), world=context.get_world_size())

    def prepare(self, module: torch.nn.Module) -> torch.nn.Module:
        import ray.train.torch

        return ray.train.torch.prepare_model(module)  # type: ignore[no-any-return]

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.rank.world
        torch.distributed.all_gather_object(found, value)
        return found

    def align(self, module: torch.nn.Module) -> None:
        """Running statistics of rank 0, whose weights are the ones that are kept."""
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)

    def report(self, metrics: dict[str, float]) -> None:
        import ray.train

        ray.train.report(metrics)


def _fit_under_ray(job: Job, workers: int) -> None:
    with ray_session(cpus=max(workers, os.cpu_count() or 1)):
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            lambda told: fit(told["job"], _RayGroup()),
            train_loop_config={"job": job},
            torch_config=TorchConfig(backend="nccl" if torch.cuda.is_available() else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=torch.cuda.device_count() >= workers
            ),
            run_config=RunConfig(
                name="ray",
                storage_path=str(_ray_folder(job.checkpoints)),
                failure_config=FailureConfig(max_failures=job.train.max_failures),
            ),
        )
        trainer.fit()


def _ray_folder(checkpoints: Path) -> Path:
    folder = checkpoints.resolve() / "ray"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
