"""How long the main job takes on a laptop, stage by stage, and how much memory all of it holds.

python benchmarks/main_job.py [--quick] [--json]: simulates three batches and runs `crosswatch run`
on them in a temporary workspace, then triggers the same run again. The peak is the largest sum of
PSS over every process that the command started; PSS counts shared pages once.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

GIB = 2**30
SAMPLE_S = 0.5


class PeakMemory(threading.Thread):
    """Samples the PSS of this process's descendants until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            total = sum(_pss(process) for process in psutil.Process().children(recursive=True))
            self.peak_bytes = max(self.peak_bytes, total)

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.peak_bytes / GIB


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def timed(*arguments: str) -> tuple[float, dict]:
    """Run the command line; its wall time and the JSON object of its last line."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "crosswatch", *arguments]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    last = ended.stdout.splitlines()[-1:] if "--json" in arguments else []
    return time.perf_counter() - begun, json.loads(last[0]) if last else {}


def measure(quick: bool) -> dict:
    with tempfile.TemporaryDirectory(prefix="crosswatch-main-job-") as folder:
        arrivals, workspace = str(Path(folder) / "arrivals"), str(Path(folder) / "workspace")
        memory = PeakMemory()
        memory.start()
        simulate_s, _ = timed("simulate", "--out", arrivals)
        run = ["run", "--batches", arrivals, "--workspace", workspace, "--json"]
        run += ["--set", "train.epochs=1"] if quick else []
        run_s, facts = timed(*run)
        peak_gib = memory.stop()
        again_s, again = timed(*run)
        assert again["outcome"].startswith("already done"), again["outcome"]
    return {
        "benchmark": "main_job",
        "quick": quick,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "simulate_s": round(simulate_s, 1),
        "run_s": round(run_s, 1),
        "total_s": round(simulate_s + run_s, 1),
        "stages_s": facts["seconds"],
        "peak_pss_gib": round(peak_gib, 2),
        "again_s": round(again_s, 1),
        "metrics": facts["metrics"],
        "intervals": facts["intervals"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one epoch of training")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    options = parser.parse_args()
    result = measure(options.quick)
    if not options.json:
        print(f"simulate {result['simulate_s']} s, run {result['run_s']} s, "
              f"peak {result['peak_pss_gib']} GiB, again {result['again_s']} s")  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
