"""Laws of running an encoder on Ray Data: what comes of it is what comes of this process alone."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from toy_encoders import Cell, Toy, expected, job, plain

from crosswatch.errors import ResourceError, UserError
from crosswatch.features.running.runner import Job, Refused, run
from crosswatch.features.settings import ComputeConfig
from crosswatch.ray_session import ray_session

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address; workers find the encoders of the tests."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = HERE if before is None else f"{HERE}{os.pathsep}{before}"
    try:
        with ray_session(cpus=4):
            import ray

            yield ray.get_runtime_context().gcs_address
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def compute(workers: int, batch_size: int) -> ComputeConfig:
    return ComputeConfig(device="cpu", workers=workers, batch_size=batch_size)


def collected(toy: Toy, jobs: Sequence[Job], how: ComputeConfig) -> dict[Cell, object]:
    """Rows of jobs that were not refused; each must come once."""
    found: dict[Cell, object] = {}
    refused = set()
    for result in run(toy, jobs, how):
        batch_id = jobs[result.job].source.batch_id
        if isinstance(result, Refused):
            assert result.reason == f"{batch_id} is gone"
            refused.add(batch_id)
        else:
            assert batch_id not in refused
            assert (batch_id, result.row) not in found
            found[batch_id, result.row] = plain(result.value)
    return {cell: value for cell, value in found.items() if cell[0] not in refused}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("workers", "batch_size"),
    [
        (2, 3),
        pytest.param(1, 64, marks=pytest.mark.slow),
        pytest.param(1, 1, marks=pytest.mark.slow),
        pytest.param(2, 64, marks=pytest.mark.slow),
    ],
)
def test_actors_give_what_this_process_gives(workers: int, batch_size: int, tmp_path: Path) -> None:
    toy = Toy(
        unreadable=frozenset({("a", 3), ("clip-4", 0)}),
        refused=(("gone", 0), ("torn", 5)),
        breaking=frozenset({("a", 11), ("clip-2", 1)}),
        answered=frozenset({("a", 30)}),
        log=tmp_path / "log",
    )
    jobs = [job("gone", range(9)), job("a", range(1, 40)), job("torn", range(9)), job("none", [])]
    jobs += [job(f"clip-{number}", range(2)) for number in range(8)]
    found = collected(toy, jobs, compute(workers, batch_size))
    loads = toy.log.read_text().count("load cpu")
    assert found == expected(toy, jobs)
    assert found == collected(toy, jobs, compute(0, 7))
    assert 1 <= loads <= workers


def interrupt() -> None:
    raise KeyboardInterrupt


class Interruption:
    def __reduce__(self):
        return interrupt, ()


class Interrupting(Toy):
    """Its answers interrupt the process that unpacks them, while `b` is read for minutes."""

    def inputs(self, source, rows):
        for item in super().inputs(source, rows):
            time.sleep(0.1 if source.batch_id == "b" else 0)
            yield item

    def load(self, device: str):
        return lambda inputs: [Interruption() for _ in inputs]


@pytest.mark.usefixtures("cluster")
def test_an_interrupted_run_hands_everything_back() -> None:
    """Also while its traceback lives, and with it every frame that held something."""
    import ray

    with pytest.raises(KeyboardInterrupt) as held:
        list(run(Interrupting(), [job("a", range(8)), job("b", range(5000))], compute(2, 8)))
    assert held.tb is not None
    for _ in range(100):
        if ray.available_resources().get("CPU") == 4:
            return
        time.sleep(0.1)
    pytest.fail(f"still held: {ray.available_resources()}")


@pytest.mark.usefixtures("cluster")
def test_an_actor_that_is_killed_costs_no_row(tmp_path: Path) -> None:
    toy = Toy(killing=frozenset({("a", 17)}), marker=tmp_path / "killed once")
    jobs = [job("a", range(40)), job("b", range(5))]
    assert collected(toy, jobs, compute(1, 8)) == expected(toy, jobs)
    assert toy.marker.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_row_that_always_kills_ends_the_run() -> None:
    toy = Toy(killing=frozenset({("a", 3)}))
    with pytest.raises(ResourceError, match="a worker of Ray was lost 4 times"):
        list(run(toy, [job("a", range(8))], compute(1, 8)))


@pytest.mark.usefixtures("cluster")
def test_errors_of_the_encoder_keep_their_type() -> None:
    with pytest.raises(UserError, match="another architecture"):
        list(run(Toy(broken_weights=True), [job("a", range(8))], compute(2, 4)))

    class Broken(Toy):
        def inputs(self, source, rows):
            raise KeyError("the decoder fell over")

    with pytest.raises(KeyError, match="the decoder fell over") as raised:
        list(run(Broken(), [job("a", range(8))], compute(1, 4)))
    assert "in inputs" in raised.value.__notes__[0], "where it happened is told"


@pytest.mark.usefixtures("cluster")
def test_what_can_never_be_had_is_refused() -> None:
    with pytest.raises(UserError, match=r"Ray has 4\. Allowed are 0 to 3"):
        list(run(Toy(), [job("a", [0])], ComputeConfig(workers=4, address="auto")))
    asked = ComputeConfig(workers=1, address="auto", device="cuda")
    with pytest.raises(UserError, match="cuda asked for, none found"):
        list(run(Toy(weights="5" * 64), [job("a", [0])], asked))
    assert len(list(run(Toy(), [job("a", [0])], asked))) == 1, "nothing to compute on a GPU"


JOINING = """
import sys
from toy_encoders import *
from crosswatch.features.running.runner import run
from crosswatch.features.settings import ComputeConfig
compute = ComputeConfig(workers=1, address=sys.argv[1])
print(len(list(run(Toy(), [job("a", range(9))], compute))))
"""


@pytest.mark.slow
def test_a_running_cluster_is_joined_and_left_running(cluster: str) -> None:
    import ray

    command = [sys.executable, "-c", JOINING, cluster]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "9\n"), ended.stderr
    assert "Warning" not in ended.stderr
    assert ray.get(ray.put("still here")) == "still here"
