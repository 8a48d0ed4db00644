"""Many processes that claim the same work at the same instant; prints what each of them won.

A program of its own, because it forks: a process that runs threads, as a test's does, must not.
"""

import json
import os
import sys

from crosswatch.data.ledger.ledger import Ledger
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import parse_place
from crosswatch.data.store.settings import TransferConfig


def main(place: str, key: str, racers: int, now: float) -> int:
    open_objects(parse_place(place), TransferConfig())  # imports, once, what every child needs
    ready, say_ready = os.pipe()
    gate, open_gate = os.pipe()
    children = []
    for number in range(racers):
        child = os.fork()
        if child == 0:
            os.close(open_gate)
            race(place, key, number, now, say_ready, gate)
            os._exit(0)
        children.append(child)
    waiting = racers
    while waiting:
        waiting -= len(os.read(ready, waiting))
    os.close(open_gate)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def race(place: str, key: str, number: int, now: float, say_ready: int, gate: int) -> None:
    """Each has a client and a connection of its own, and none begins before all are there."""
    ledger = Ledger(open_objects(parse_place(place), TransferConfig()), clock=lambda: now)
    ledger.state(key)
    os.write(say_ready, b".")
    os.read(gate, 1)
    won = ledger.claim(key, run=f"racer-{number}", owner_pid=os.getppid(), subject="batch-1")
    line = json.dumps({"run": f"racer-{number}", "generation": won and won.generation})
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    place, key, racers, now = sys.argv[1:]
    sys.exit(main(place, key, int(racers), float(now)))
