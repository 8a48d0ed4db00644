"""Trying again: what failed may go well the next time, until it has failed for too long."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from crosswatch.errors import ResourceError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 8.0

Result = TypeVar("Result")


class TransientError(Exception):
    """A failure that may be gone at the next attempt: one line, without advice."""


class StoppedError(Exception):
    """Another part of the same transfer has failed for good, so this one need not go on."""


class Patience:
    """Ends when nothing has gone well for `patience_s`; whatever goes well starts it anew."""

    def __init__(self, patience_s: float, stop: threading.Event | None = None) -> None:
        self._patience_s = patience_s
        self._stop = stop or threading.Event()
        self.went_well()

    def went_well(self) -> None:
        self._since = time.monotonic()
        self._failures = 0

    def run(self, action: Callable[[], Result]) -> Result:
        """Do it, and again after every TransientError failure.

        Raises:
            ResourceError: it kept failing for `patience_s`.
            StoppedError: somebody set the event.
        """
        from tenacity import Retrying, retry_if_exception_type

        def attempt() -> Result:
            if self._stop.is_set():
                raise StoppedError
            return action()

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=lambda state: self._wait_s(),
            stop=lambda state: time.monotonic() - self._since >= self._patience_s,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            result = retrying(attempt)
        except TransientError as error:
            raise ResourceError(
                f"{error}. Gave up after failing for {self._patience_s:g} s; "
                "what has arrived is kept, so run it again when the store answers."
            ) from error
        self.went_well()
        return result

    def _wait_s(self) -> float:
        """Doubled after every failure, and shortened by chance so that many do not meet again."""
        self._failures += 1
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures, 16))
        return longest * random.uniform(0.5, 1.0)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)
