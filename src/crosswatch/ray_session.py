"""Ray, started for one piece of work or joined where it already runs."""

import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator

from crosswatch import progress
from crosswatch.errors import UserError

LOCAL = "local"
_ANSWERS_WITHIN_S = 5.0
_JOINED_WITHIN_S = 40.0
_JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); ray.shutdown()"


@contextlib.contextmanager
def ray_session(
    address: str = LOCAL, *, cpus: int, object_store_bytes: int = 200 * 2**20
) -> Iterator[None]:
    """Ray for as long as the block lasts; where this process already uses one, that one.

    Args:
        address: "local" starts a cluster on this machine, which ends with the block; any other
            is joined, and left running.
        cpus: what a cluster that is started counts; so many tasks that need one run at once.

    Raises:
        UserError: no Ray can be joined at this address.
    """
    progress.emit("progress", what="starting Ray", done=0, total=1)
    if _is_running():
        yield
        return
    if address != LOCAL:
        _check(address)
    _set_environment(address)
    import ray

    started = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": object_store_bytes,
    }
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": _of_workers()},
        **(started if address == LOCAL else {}),
    )
    try:
        yield
    finally:
        ray.shutdown()


def _is_running() -> bool:
    """Without importing it: that would settle what is set below."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _set_environment(address: str) -> None:
    """Read by Ray when it is imported. Its servers listen on every interface, so nobody without
    this process's token may speak to one that was started here."""
    if address == LOCAL:
        if "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ:
            raise UserError(
                "address is local, but this process loaded Ray for another one, and how it signs "
                "in cannot be changed any more. Run this in a process of its own."
            )
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")


def _of_workers() -> dict[str, str]:
    """What workers need of this process's environment; threads are set by who needs more."""
    named = {name: os.environ[name] for name in (progress.EVENTS,) if name in os.environ}
    return {**named, "OMP_NUM_THREADS": "1"}


def _check(address: str) -> None:
    """`ray.init` waits for minutes, and then ends the process, where nobody answers; so a process
    of its own tries it first."""
    advice = "Start Ray there (`ray start --head`), or set address to local."
    host, _, port = address.rpartition(":")
    if "://" in address or (address != "auto" and not (host and port.isdigit())):
        raise UserError(
            f"address is {address!r}; expected local, auto, or host:port of a Ray cluster that "
            "this machine is a node of"
        )
    if address != "auto":
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN_S).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"Ray at {address} cannot be reached: {error}. {advice}") from error
    command = [sys.executable, "-c", _JOIN, address]
    try:
        tried = subprocess.run(
            command, capture_output=True, text=True, timeout=_JOINED_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"Ray at {address} did not let this process join within {_JOINED_WITHIN_S:g} s. "
            f"{advice}"
        ) from error
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"Ray at {address} cannot be joined: {reason[:200]}. {advice}")
