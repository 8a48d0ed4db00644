"""Write batches of a simulated furnace, as a plant would deliver them."""

import concurrent.futures
import multiprocessing
import os
from pathlib import Path

from crosswatch import artifacts, config, progress
from crosswatch.synthetic.plant import SimulateConfig, simulate_batch

ARRIVALS = "arrivals"


def simulate(*, out: Path, truth: Path | None = None, simulate: SimulateConfig) -> None:
    """Deliveries go to `out`; what really happened goes to `truth`, which no stage reads."""
    truth = truth or out.parent / "truth"
    with (
        artifacts.create(out, kind=ARRIVALS, config=config.plain(simulate)) as draft,
        artifacts.create(truth, kind="truth", config=config.plain(simulate)) as hidden,
    ):
        _write_all(simulate, draft.path, hidden.path)
        draft.counts["batches"] = simulate.batches
    progress.outcome(f"batches: {simulate.batches}, of {simulate.minutes:g} min each")


def _write_all(simulate: SimulateConfig, arrivals: Path, truth: Path) -> None:
    meter = progress.Meter("batch")
    workers = min(simulate.batches, os.cpu_count() or 1)
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        jobs = [
            pool.submit(simulate_batch, simulate, index, arrivals=arrivals, truth=truth)
            for index in range(simulate.batches)
        ]
        for done, job in enumerate(concurrent.futures.as_completed(jobs), start=1):
            job.result()
            meter(done, simulate.batches)
