"""What a stage says of itself while it works: events in a file, drawn by whoever started it.

A stage may run in this process, in a task of a pipeline or in a worker of Ray. All of them append
short JSON lines to the file that CROSSWATCH_EVENTS names; `follow` reads them and a `View` draws
them. Appending one short line is atomic, so writers need no lock.
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

FAILURE, MISTAKE = 1, 2  # exit codes, also the `code` of a "failed" event
EVENTS = "CROSSWATCH_EVENTS"
_EVERY_S = 0.2

Item = TypeVar("Item")


def emit(event: str, **facts: Any) -> None:
    """Append an event; silent where nobody listens."""
    if path := os.environ.get(EVENTS):
        line = json.dumps({"event": event, "at": time.time(), **facts}) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Frame a stage's events: which began, and that it ended well."""
    begun = time.monotonic()
    emit("begin", stage=name)
    yield
    emit("end", stage=name, seconds=round(time.monotonic() - begun, 2))


def outcome(text: str) -> None:
    """The few words that stand behind a finished stage."""
    emit("outcome", text=text)


def warn(text: str) -> None:
    emit("warning", text=text)


class Meter:
    """Reports how far a loop has come, a few times a second at most.

    In bytes (`unit="B"`) it also says how fast, since its first call.
    """

    def __init__(self, what: str, unit: Literal["", "B"] = "") -> None:
        self._what = what
        self._unit = unit
        self._last = 0.0
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._first = self._first or (now, done)
        since, before = self._first
        if done >= total or now - self._last >= _EVERY_S:
            self._last = now
            facts: dict[str, Any] = {"what": self._what, "done": done, "total": total}
            if self._unit:
                facts["unit"] = self._unit
                facts["per_s"] = (done - before) / (now - since) if now > since else 0.0
            emit("progress", **facts)


def track(items: Iterable[Item], *, what: str, total: int) -> Iterator[Item]:
    meter = Meter(what)
    for done, item in enumerate(items, start=1):
        yield item
        meter(done, total)


def as_bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _how_far(event: dict[str, Any]) -> str:
    done, total = event["done"], event["total"]
    if not event.get("unit"):
        return f"{event['what']} {done}/{total}"
    text = f"{event['what']} {as_bytes(done)} of {as_bytes(total)}"
    rate = event["per_s"]
    if rate > 0:
        text += f", {as_bytes(rate)}/s, {max(0, total - done) / rate:.0f} s left"
    return text


class View(Protocol):
    def show(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@contextlib.contextmanager
def shown(view: View) -> Iterator[Path]:
    """Draw every event of this process and its children until the block ends."""
    with tempfile.TemporaryDirectory(prefix="crosswatch-") as folder:
        path = Path(folder) / "events.jsonl"
        path.touch()
        before = os.environ.get(EVENTS)
        os.environ[EVENTS] = str(path)
        done = threading.Event()
        reader = threading.Thread(target=_follow, args=(path, view.show, done), daemon=True)
        reader.start()
        try:
            yield path
        finally:
            done.set()
            reader.join(timeout=5)
            view.close()
            if before is None:
                os.environ.pop(EVENTS, None)
            else:
                os.environ[EVENTS] = before


def _follow(path: Path, show: Callable[[dict[str, Any]], None], done: threading.Event) -> None:
    with path.open(encoding="utf-8") as stream:
        last_look = False
        line = ""
        while True:
            line += stream.readline()
            if line.endswith("\n"):
                _show_one(line, show)
                line = ""
            elif last_look:
                return
            elif done.is_set():
                last_look = True
            else:
                done.wait(_EVERY_S)


def _show_one(line: str, show: Callable[[dict[str, Any]], None]) -> None:
    """An event that cannot be drawn costs that event alone, never those behind it."""
    try:
        show(json.loads(line))
    except Exception as error:
        sys.stderr.write(f"an event was not shown ({error!r}): {line}")


class PlainView:
    """A line every few seconds, for logs and pipes."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._stage = ""
        self._is_open = False
        self._outcome = ""
        self._last = 0.0

    def show(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "begin":
            self._abandon()
            self._stage, self._outcome, self._last = event["stage"], "", time.monotonic()
            self._is_open = True
        elif kind == "outcome":
            self._outcome = event["text"]
        elif kind == "warning":
            self._say(f"warning: {event['text']}")
        elif kind == "end":
            self._is_open = False
            self._say(f"done in {event['seconds']:.1f} s  {self._outcome}".rstrip())
        elif kind == "failed":
            self._abandon()
        elif kind == "progress" and time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._say(_how_far(event))

    def close(self) -> None:
        pass

    def _abandon(self) -> None:
        """A stage that had not ended when the next began has failed."""
        if self._is_open:
            self._is_open = False
            self._say("failed")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{self._stage:<9} {text}\n")
        sys.stderr.flush()


class LiveView:
    """One line a stage on a terminal: bar, time and outcome."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        # Texts of events are never markup: "[x, y]" would vanish and "[/x]" end the view.
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TextColumn("{task.fields[failed]}", style="red"),
            console=console or Console(stderr=True),
        )
        self._bars.start()
        self._task: Any = None
        self._outcome = ""

    def show(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "begin":
            self._abandon()
            self._outcome = ""
            self._task = self._bars.add_task(event["stage"], total=None, note="", failed="")
        elif kind == "warning":
            from rich.text import Text

            self._bars.console.print(Text.assemble(("warning", "yellow"), f": {event['text']}"))
        elif self._task is None:
            return
        elif kind == "outcome":
            self._outcome = event["text"]
        elif kind == "progress":
            note = _how_far(event)
            self._bars.update(self._task, completed=event["done"], total=event["total"], note=note)
        elif kind == "end":
            self._bars.update(self._task, completed=1, total=1, note=self._outcome)
            self._bars.stop_task(self._task)
            self._task = None
        elif kind == "failed":
            self._abandon()

    def close(self) -> None:
        self._abandon()
        self._bars.stop()

    def _abandon(self) -> None:
        """A stage that never said that it ended has failed."""
        if self._task is not None:
            self._bars.update(self._task, failed="failed")
            self._bars.stop_task(self._task)
            self._task = None


def view() -> View:
    """Bars on a terminal, lines elsewhere."""
    return LiveView() if sys.stderr.isatty() else PlainView()
