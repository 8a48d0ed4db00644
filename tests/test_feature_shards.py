"""Laws of the shards that keep finished rows: they come back as they were, or are missing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_encoders import Toy, encoded_of, job, plain, values_of

from crosswatch.features.captioning.captions import Said
from crosswatch.features.encoder import Failed, Vector
from crosswatch.features.running.runner import Job, run
from crosswatch.features.running.shards import Shards
from crosswatch.features.settings import ComputeConfig

ROWS = 10


def vector(shape: tuple[int, ...], seed: int) -> Vector:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(np.float32)
    return Vector(values=values, valid=rng.random(shape[:-1]) < 0.5)


def value(row: int, kind: str, length: int) -> object:
    if kind == "failed":
        return Failed(row=row, reason=f"ValueError: row {row}, “quoted”")
    if kind == "said":
        return Said(text=f"a picture \n of {length} dogs ☂", score=-length / 3)
    return {
        "pooled": vector((5,), row),
        "crops": vector((10, 3), row),
        "tokens": vector((length, 2), row),
        "grid": vector((length, 3, 2), row),
    }


def comparable(found: object) -> object:
    return found if isinstance(found, Failed | Said) else plain(found)


@given(
    kinds=st.lists(st.sampled_from(["encoded", "failed", "said"]), min_size=ROWS, max_size=ROWS),
    lengths=st.lists(st.integers(0, 4), min_size=ROWS, max_size=ROWS),
    order=st.permutations(range(ROWS)),
    shard_rows=st.integers(1, ROWS + 2),
    stop=st.integers(0, ROWS),
)
@settings(deadline=None, max_examples=60)
def test_rows_come_back_as_they_were_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    lengths: list[int],
    order: list[int],
    shard_rows: int,
    stop: int,
) -> None:
    """Added in any order, by two runs with other sizes of shards."""
    folder = tmp_path_factory.mktemp("shards") / "not made yet"
    values = [value(row, kinds[row], lengths[row]) for row in range(ROWS)]
    with Shards(folder, ROWS, shard_rows) as first:
        assert first.missing().tolist() == list(range(ROWS))
        for row in order[:stop]:
            first.add(row, values[row])
    second = Shards(folder, ROWS, 3)
    again = [row for row in order[:stop] if isinstance(values[row], Failed)]
    assert second.missing().tolist() == sorted([*order[stop:], *again])
    for row in [*order[stop:], *again]:
        second.add(row, values[row])
    assert not second.missing().size
    second.close()
    found = list(second.rows())
    assert [row for row, _ in found] == list(range(ROWS))
    assert [comparable(it) for _, it in found] == [comparable(it) for it in values]
    failed = [row for row, it in enumerate(values) if isinstance(it, Failed)]
    assert Shards(folder, ROWS, 1).missing().tolist() == failed, "the next run tries them again"


def filled(folder: Path, rows: int, shard_rows: int) -> list[Path]:
    shards = Shards(folder, rows, shard_rows)
    for row in range(rows):
        shards.add(row, encoded_of(values_of("a", row)))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "zeroed", "deleted"])
def test_a_damaged_shard_counts_as_missing_and_the_others_stay(damage: str, tmp_path: Path) -> None:
    path, *others = filled(tmp_path, 12, 4)
    assert len(others) == 2
    data = path.read_bytes()
    middle = len(data) // 2
    changed = {
        "truncated": data[:-1],
        "emptied": b"",
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "zeroed": bytes(len(data)),
    }
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    shards = Shards(tmp_path, 12, 4)
    missing = shards.missing().tolist()
    assert len(missing) == 4
    assert missing[-1] - missing[0] == 3
    for row in missing:
        shards.add(row, encoded_of(values_of("a", row)))
    found = [plain(it) for _, it in shards.rows()]
    assert found == [plain(encoded_of(values_of("a", row))) for row in range(12)]


def test_what_a_write_left_half_done_is_no_shard(tmp_path: Path) -> None:
    path, *_ = filled(tmp_path, 12, 4)
    (tmp_path / ".5f3c").write_bytes(path.read_bytes())
    assert not Shards(tmp_path, 12, 4).missing().size


KILLED = """
import sys
from pathlib import Path
from toy_encoders import Toy, job
from crosswatch.features.running.runner import run
from crosswatch.features.settings import ComputeConfig
from crosswatch.features.running.shards import Shards
folder = Path(sys.argv[1])
shards = Shards(folder / "shards", 50, 8)
toy = Toy(killing=frozenset({("a", 37)}), log=folder / "log")
for done in run(toy, [job("a", range(50))], ComputeConfig(batch_size=5)):
    shards.add(done.row, done.value)
"""


def test_a_killed_run_goes_on_with_the_rows_of_unfinished_shards(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    log = tmp_path / "log"
    assert log.read_text().splitlines()[-1] == "a 34"
    log.unlink()
    shards = Shards(tmp_path / "shards", 50, 8)
    assert shards.missing().tolist() == list(range(32, 50))
    jobs = [Job(source=job("a", []).source, rows=shards.missing())]
    for done in run(Toy(log=log), jobs, ComputeConfig(batch_size=5)):
        shards.add(done.row, done.value)
    assert log.read_text().splitlines()[1:] == [f"a {row}" for row in range(32, 50)]
    found = [plain(it) for _, it in shards.rows()]
    assert found == [plain(encoded_of(values_of("a", row))) for row in range(50)]
