"""A few threads that work off tasks; a task may leave behind tasks that come next."""

import collections
import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

from crosswatch.data.store.patience import StoppedError

Task: TypeAlias = Callable[[], "Iterable[Task]"]
GRACE_S = 5.0  # for threads to see that they are to stop
LOOK_S = 0.2  # a thread that waits in join() hears no Ctrl-C


class Crew:
    """The first task that fails stops all; its error is the crew's."""

    def __init__(self, hands: int) -> None:
        self.stop = threading.Event()
        self._hands = hands
        self._tasks: collections.deque[Task] = collections.deque()
        self._changed = threading.Condition()
        self._busy = 0
        self._error: BaseException | None = None

    def run(self, tasks: Iterable[Task]) -> None:
        self._tasks.extend(tasks)
        threads = [
            threading.Thread(target=self._work, name=f"transfer-{number}", daemon=True)
            for number in range(self._hands if self._tasks else 0)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(LOOK_S)
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(GRACE_S)
        if self._error is not None:
            raise self._error

    def later(self, tasks: Iterable[Task]) -> None:
        """Tasks for hands that would otherwise be idle."""
        with self._changed:
            self._tasks.extend(tasks)
            self._changed.notify_all()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            following: list[Task] = []
            try:
                following = list(task())
            except StoppedError:
                pass
            except BaseException as error:
                self._error = self._error or error
                self.stop.set()
            with self._changed:
                self._busy -= 1
                self._tasks.extendleft(reversed(following))
                self._changed.notify_all()

    def _next(self) -> Task | None:
        with self._changed:
            self._changed.wait_for(lambda: self._tasks or not self._busy or self.stop.is_set())
            if self.stop.is_set() or not self._tasks:
                return None
            self._busy += 1
            return self._tasks.popleft()
