"""Run an encoder on Ray Data: tasks read, actors compute, this process collects.

Rows travel as pickled records in a single column of bytes: any input and any answer survive, a
block's size is what its rows weigh, and an error is a record like the others, so that none ends
the dataset. How far tasks and actors run ahead is bounded by Ray's back-pressure on small blocks.
"""

import contextlib
import dataclasses
import logging
import os
import pickle
import traceback
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crosswatch.errors import ResourceError, UserError
from crosswatch.features.encoder import Encoder, Failed, Input
from crosswatch.features.running.work import (
    CarefulModel,
    Done,
    Job,
    Refused,
    device_of,
    read,
    reason_of,
)
from crosswatch.features.settings import ComputeConfig
from crosswatch.ray_session import LOCAL, ray_session

if TYPE_CHECKING:
    import pyarrow as pa

STORE_BYTES = 512 * 2**20
BLOCK_BYTES = 2 * 2**20
CHUNK_BYTES = 2**20
"""What a task that reads holds before it hands it over."""
TASKS = 1000
"""Most tasks that read: small jobs share one."""
RETRIES = 3
"""Times that a piece of work is tried again after the process that did it was lost."""


@dataclasses.dataclass(frozen=True)
class _Raised:
    error: BaseException


_Record = tuple[int, Input] | Done | Refused | _Raised


def stream(
    encoder: Encoder, jobs: Sequence[Job], compute: ComputeConfig
) -> Generator[Done | Refused, None, None]:
    """What `running.run` promises, before rows of refused jobs are left out."""
    cores = os.cpu_count() or 1
    if compute.address == LOCAL and compute.workers > cores:
        raise UserError(
            f"compute.workers is {compute.workers}; this machine has {cores} cores, allowed are "
            f"0 to {cores}"
        )
    # A core counts twice: as a reader's and as a model's. One of them mostly waits for the other.
    cpus = cores + compute.workers
    with ray_session(compute.address, cpus=cpus, object_store_bytes=STORE_BYTES):
        import ray.exceptions

        try:
            with contextlib.closing(_records(encoder, jobs, compute)) as records:
                for record in records:
                    if isinstance(record, _Raised):
                        raise record.error
                    assert isinstance(record, Done | Refused)
                    yield record
        except ray.exceptions.RayTaskError:
            raise
        except ray.exceptions.RayError as error:
            raise ResourceError(
                f"a worker of Ray was lost {1 + RETRIES} times over one piece of work "
                f"({reason_of(error)}). A smaller compute.batch_size or fewer compute.workers need "
                "less memory."
            ) from error


def _records(
    encoder: Encoder, jobs: Sequence[Job], compute: ComputeConfig
) -> Generator[_Record, None, None]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    actor = _actor_resources(encoder, compute)
    _hush()
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK_BYTES
    with DataContext.current(context):
        work = [{"work": _pickled((n, job))} for n, job in enumerate(jobs) if len(job.rows)]
        answered = (
            ray.data.from_items(work, override_num_blocks=min(len(work), TASKS))
            .map_batches(
                _read,
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"encoder": encoder, "chunk_rows": compute.batch_size},
                num_cpus=1,
                max_retries=RETRIES,
            )
            .map_batches(
                _Worker,
                batch_size=compute.batch_size,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=compute.workers),
                fn_constructor_args=(encoder, "cuda" if "num_gpus" in actor else "cpu"),
                max_task_retries=RETRIES,
                **actor,
            )
        )
        found = answered.iter_batches(
            batch_size=None,
            batch_format="pyarrow",
            prefetch_batches=0,  # a row is given when it comes
        )
    tables: Generator[pa.Table, None, None] = iter(found)
    try:
        for table in tables:
            yield from _unpacked(table)
    finally:
        tables.close()  # while there still is a Ray: a dataset that ends after it waits for ever


def _hush() -> None:
    """Ray Data tells its plans, and that little work is little; nobody here is helped by it."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    # Retries have no other name yet; without a bound a row that kills would be tried for ever.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")


def _actor_resources(encoder: Encoder, compute: ComputeConfig) -> dict[str, Any]:
    """
    Raises:
        UserError: what can never be had: Ray would wait for it for ever.
    """
    import ray

    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    workers = compute.workers
    cores = min(cpus, os.cpu_count() or 1)
    threads = {"OMP_NUM_THREADS": str(max(1, cores // workers))}
    resources: dict[str, Any] = {"runtime_env": {"env_vars": threads}}
    if _wants_gpus(encoder, compute, gpus):
        if gpus < workers:
            raise UserError(
                f"compute.workers is {workers}, each with a GPU; Ray has {gpus}. Allowed are 0 to "
                f"{gpus}; or set compute.device to cpu."
            )
        return {**resources, "num_gpus": 1}
    if cpus < workers + 1:
        raise UserError(
            f"compute.workers is {workers}, each with a CPU, and reading needs one; Ray has "
            f"{cpus}. Allowed are 0 to {max(0, cpus - 1)}."
        )
    return {**resources, "num_cpus": 1}


def _wants_gpus(encoder: Encoder, compute: ComputeConfig, gpus: int) -> bool:
    if compute.address == LOCAL:
        return device_of(encoder, compute.device) == "cuda"
    if compute.device == "cuda" and not gpus and encoder.identity.weights:
        raise UserError(
            f"cuda asked for, none found: Ray at {compute.address} has no GPU. Set compute.device "
            "to auto or cpu."
        )
    return bool(gpus and compute.device != "cpu" and encoder.identity.weights)


def _read(table: "pa.Table", *, encoder: Encoder, chunk_rows: int) -> Iterator["pa.Table"]:
    """In a task: inputs of some jobs, a chunk at a time."""
    return _chunks(_read_all(table, encoder), chunk_rows)


def _read_all(table: "pa.Table", encoder: Encoder) -> Iterator[_Record]:
    try:
        for work in table["work"]:
            number, job = pickle.loads(work.as_buffer())
            for item in read(encoder, number, job):
                if isinstance(item, Input):
                    yield number, item
                elif isinstance(item, Failed):
                    yield Done(job=number, row=item.row, value=item)
                else:
                    yield item
    except Exception as error:  # raised again by `stream`
        yield _Raised(error)


class _Worker:
    """In an actor: one model, loaded when the first input comes."""

    def __init__(self, encoder: Encoder, device: str) -> None:
        self._encoder = encoder
        self._device = device
        self._model: CarefulModel | None = None

    def __call__(self, table: "pa.Table") -> "pa.Table":
        records = list(_unpacked(table))
        inputs = [record for record in records if isinstance(record, tuple)]
        found: list[_Record] = [record for record in records if not isinstance(record, tuple)]
        try:
            found += self._answered(inputs)
        except Exception as error:  # raised again by `stream`
            found.append(_Raised(error))
        return _table(_pickled(record) for record in found)

    def _answered(self, inputs: Sequence[tuple[int, Input]]) -> list[Done]:
        if not inputs:
            return []
        self._model = self._model or CarefulModel(self._encoder.load(self._device))
        values = self._model([item for _, item in inputs])
        return [
            Done(job=number, row=item.row, value=value)
            for (number, item), value in zip(inputs, values, strict=True)
        ]


def _chunks(records: Iterable[_Record], rows: int) -> Iterator["pa.Table"]:
    chunk: list[bytes] = []
    held = 0
    for record in records:
        chunk.append(_pickled(record))
        held += len(chunk[-1])
        if len(chunk) >= rows or held >= CHUNK_BYTES:
            yield _table(chunk)
            chunk, held = [], 0
    yield _table(chunk)


def _table(pickled: Iterable[bytes]) -> "pa.Table":
    import pyarrow as pa

    return pa.table({"record": pa.array(pickled, pa.large_binary())})


def _unpacked(table: "pa.Table") -> Iterator[_Record]:
    for record in table["record"]:
        yield pickle.loads(record.as_buffer())


def _pickled(record: Any) -> bytes:
    """Only ever read by a process of the same program, as everything that Ray sends is."""
    if not isinstance(record, _Raised):
        return pickle.dumps(record, protocol=5)
    record.error.add_note("".join(traceback.format_exception(record.error)))
    try:
        pickled = pickle.dumps(record, protocol=5)
        pickle.loads(pickled)
    except Exception:  # of another kind for every error that holds what cannot be sent
        pickled = pickle.dumps(_Raised(RuntimeError(*record.error.__notes__)), protocol=5)
    return pickled
