"""Laws of running an encoder in this process, and of what it says when it cannot."""

import dataclasses
import os
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_encoders import Cell, Toy, ToyModel, expected, job, plain

from crosswatch.errors import ResourceError, UserError
from crosswatch.features.encoder import Failed, Identity, Input, Rows
from crosswatch.features.running.runner import AHEAD, Done, Job, Refused, run
from crosswatch.features.running.work import REASON
from crosswatch.features.settings import ComputeConfig
from crosswatch.features.source import Source
from crosswatch.ray_session import ray_session

CPU = ComputeConfig(device="cpu", batch_size=4)


def collected(toy: Toy, jobs: Sequence[Job], compute: ComputeConfig) -> dict[Cell, object]:
    """Rows of jobs that were not refused; each must come once."""
    found: dict[Cell, object] = {}
    refused = set()
    for result in run(toy, jobs, compute):
        batch_id = jobs[result.job].source.batch_id
        if isinstance(result, Refused):
            refused.add(batch_id)
            assert batch_id in result.reason
        else:
            assert batch_id not in refused
            assert (batch_id, result.row) not in found
            found[batch_id, result.row] = plain(result.value)
    return {cell: value for cell, value in found.items() if cell[0] not in refused}


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "read-inputs"]


CELLS = st.frozensets(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), max_size=6)


@given(
    rows=st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=3),
    batch_size=st.integers(1, 40),
    unreadable=CELLS,
    breaking=CELLS,
    answered=CELLS,
    refused=st.dictionaries(st.sampled_from("abc"), st.integers(0, 12), max_size=1),
)
@settings(deadline=None, max_examples=60)
def test_every_row_comes_once_with_the_answer_of_its_own(
    rows: list[set[int]],
    batch_size: int,
    unreadable: frozenset[Cell],
    breaking: frozenset[Cell],
    answered: frozenset[Cell],
    refused: dict[str, int],
) -> None:
    toy = Toy(unreadable, tuple(refused.items()), breaking, answered)
    jobs = [job(name, sorted(some)) for name, some in zip("abc", rows, strict=False)]
    compute = ComputeConfig(device="cpu", batch_size=batch_size)
    assert collected(toy, jobs, compute) == expected(toy, jobs)
    assert not readers()


def test_batches_are_filled_across_jobs_and_the_model_is_loaded_once(tmp_path: Path) -> None:
    sizes = []

    class Counting(Toy):
        def load(self, device: str) -> ToyModel:
            real = super().load(device)
            return lambda inputs: (sizes.append(len(inputs)), real(inputs))[1]

    toy = Counting(log=tmp_path / "log")
    list(run(toy, [job(f"clip-{number}", range(3)) for number in range(10)], CPU))
    assert sizes == [4] * 7 + [2]
    assert toy.log.read_text().count("load cpu") == 1


def test_without_an_input_no_model_is_loaded(tmp_path: Path) -> None:
    toy = Toy(frozenset({("a", 0)}), (("b", 0),), log=tmp_path / "log")
    (failed, refused) = run(toy, [job("a", [0]), job("b", [1]), job("c", [])], CPU)
    assert failed == Done(job=0, row=0, value=Failed(row=0, reason="cannot be read"))
    assert refused == Refused(job=1, reason="b is gone")
    assert not toy.log.exists()
    assert list(run(toy, [job("c", [])], CPU)) == []


def test_the_meter_ends_at_the_whole_also_where_a_batch_was_refused() -> None:
    told = []
    jobs = [job("a", range(9)), job("b", range(5))]
    list(run(Toy(refused=(("a", 6),)), jobs, CPU, meter=lambda *both: told.append(both)))
    assert told[-1] == (14, 14)
    assert told == sorted(told)


def test_a_reason_is_one_line_of_bounded_length() -> None:
    (done,) = run(Toy(breaking=frozenset({("a", 0)})), [job("a", [0])], CPU)
    assert len(done.value.reason) == REASON
    assert done.value.reason.startswith("ValueError: row 0 is too too")


class Tally:
    """Inputs that exist, and how far reading is ahead of the model."""

    def __init__(self) -> None:
        self.live = self.most_live = self.read = self.seen = self.most_ahead = 0
        self.closed = False

    def born(self, array: np.ndarray) -> np.ndarray:
        self.live += 1
        self.read += 1
        self.most_live = max(self.most_live, self.live)
        self.most_ahead = max(self.most_ahead, self.read - self.seen)
        weakref.finalize(array, self.died)
        return array

    def died(self) -> None:
        self.live -= 1


@dataclasses.dataclass(frozen=True)
class Watched:
    """Counts what it gives; raises at `fails_at`, the model at `model_error`."""

    tally: Tally
    fails_at: int = -1
    model_error: BaseException | None = None
    weights: str = ""

    @property
    def identity(self) -> Identity:
        return Identity(name="watched", weights=self.weights, preprocessing={}, version="1")

    def spans_s(self, source: Source) -> np.ndarray:
        raise NotImplementedError

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input]:
        try:
            for row in rows.tolist():
                if row == self.fails_at:
                    raise RuntimeError("the decoder fell over")
                yield Input(row=row, values={"x": self.tally.born(np.full(1000, row))})
        finally:
            self.tally.closed = True

    def load(self, device: str):
        def model(inputs):
            self.tally.seen += len(inputs)
            if self.model_error is not None:
                raise self.model_error
            return [{"watched": int(values["x"][0])} for values in inputs]

        return model


@pytest.mark.parametrize("rows", [100, 1000])
def test_reading_is_never_ahead_by_more_than_its_bound_however_many_rows(rows: int) -> None:
    tally = Tally()
    assert len(list(run(Watched(tally), [job("a", range(rows))], CPU))) == rows
    batch = CPU.batch_size
    assert batch < tally.most_ahead <= AHEAD * batch + batch + 1  # one in the reader's hand
    assert tally.most_live <= AHEAD * batch + 2 * batch + 1
    assert tally.live == 0


def test_closing_early_ends_the_reader_and_closes_the_decoder() -> None:
    tally = Tally()
    results = run(Watched(tally), [job("a", range(500))], CPU)
    assert not readers(), "nothing starts before the first row is asked for"
    next(results)
    assert readers()
    results.close()
    assert not readers()
    assert tally.closed
    assert tally.read < 100


def test_an_error_while_reading_surfaces_after_the_rows_before_it() -> None:
    results = run(Watched(Tally(), fails_at=9), [job("a", range(20))], CPU)
    assert [next(results).row for _ in range(8)] == list(range(8)), "two whole batches"
    with pytest.raises(RuntimeError, match="the decoder fell over"):
        next(results)
    assert not readers()


@pytest.mark.parametrize(
    "error",
    [UserError("no"), ResourceError("no"), MemoryError("no"), KeyboardInterrupt()],
    ids=repr,
)
def test_what_is_no_fault_of_a_row_is_raised_at_once(error: BaseException) -> None:
    tally = Tally()
    with pytest.raises(type(error)):
        list(run(Watched(tally, model_error=error), [job("a", range(500))], CPU))
    assert tally.seen == CPU.batch_size
    assert not readers()


def test_a_lost_accelerator_is_no_fault_of_a_row() -> None:
    torch = pytest.importorskip("torch")
    error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    with pytest.raises(torch.AcceleratorError):
        list(run(Watched(Tally(), model_error=error), [job("a", range(9))], CPU))


def test_batches_shrink_until_they_fit_and_stay_small() -> None:
    torch = pytest.importorskip("torch")
    sizes = []

    class Narrow(Toy):
        def load(self, device: str) -> ToyModel:
            real = super().load(device)

            def model(inputs):
                sizes.append(len(inputs))
                if len(inputs) > 3 or inputs[0]["number"] == 20:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return real(inputs)

            return model

    jobs = [job("a", range(24))]
    found = collected(Narrow(), jobs, ComputeConfig(device="cpu", batch_size=10))
    assert found.pop(("a", 20)) == "OutOfMemoryError: CUDA out of memory"
    wanted = expected(Toy(), jobs)
    del wanted["a", 20]
    assert found == wanted
    assert sizes[:3] == [10, 5, 3]
    assert max(sizes[3:]) <= 3


def test_cuda_without_a_gpu_is_an_error_only_for_a_network() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    cuda = dataclasses.replace(CPU, device="cuda")
    with pytest.raises(UserError, match="cuda asked for, none found"):
        list(run(Watched(Tally(), weights="5" * 64), [job("a", [0])], cuda))
    assert len(list(run(Watched(Tally()), [job("a", [0])], cuda))) == 1
    auto = dataclasses.replace(CPU, device="auto")
    assert len(list(run(Watched(Tally(), weights="5" * 64), [job("a", [0])], auto))) == 1


def in_a_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_encoder_without_weights_runs_without_torch_and_ray() -> None:
    code = "import sys; from toy_encoders import *\n"
    code += "from crosswatch.features.running.runner import run\n"
    code += "from crosswatch.features.settings import ComputeConfig\n"
    code += "assert len(list(run(Toy(), [job('a', range(9))], ComputeConfig()))) == 9\n"
    code += "sys.exit(', '.join({'torch', 'ray'} & set(sys.modules)) or 0)"
    ended = in_a_process(code)
    assert (ended.returncode, ended.stderr.strip()) == (0, "")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "ray://127.0.0.1:1", ":1", "a:b"])
def test_an_address_without_ray_is_named_at_once(address: str) -> None:
    with pytest.raises(UserError, match=re.escape(address)), ray_session(address, cpus=1):
        pass


def test_more_workers_than_cores_are_refused_before_ray_starts() -> None:
    compute = ComputeConfig(device="cpu", workers=(os.cpu_count() or 1) + 1)
    with pytest.raises(UserError, match=r"compute\.workers is \d+; this machine has \d+ cores"):
        list(run(Toy(), [job("a", [0])], compute))
