"""What a user sees of a run: every text as it was written, whatever it holds."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from crosswatch import progress
from crosswatch.kubeflow import LocalRun, _Recording

ODD = "box [x, y, width, height] of [/x] [red] :x:"


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def live() -> tuple[progress.LiveView, io.StringIO]:
    drawn = io.StringIO()
    return progress.LiveView(Console(file=drawn, force_terminal=True, width=200)), drawn


def test_a_log_gets_a_line_when_a_stage_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(progress.PlainView(every_s=0.0)):
        with progress.stage("ingest"):
            assert list(progress.track("ab", what="batch", total=2)) == ["a", "b"]
            progress.warn(ODD)
            progress.outcome(ODD)
        with progress.stage("refine"):
            pass
    shown = lines(capsys)
    assert shown[0].split() == ["ingest", "batch", "1/2"]
    assert shown[-3] == f"ingest    warning: {ODD}"
    assert shown[-2].startswith("ingest    done in ")
    assert shown[-2].endswith(f" s  {ODD}")
    assert shown[-1].startswith("refine    done in ")


def test_a_log_marks_the_stage_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(progress.PlainView()):
        progress.emit("begin", stage="ingest")
        progress.emit("begin", stage="refine")
        progress.emit("failed", stage="refine", code=1, message="no")
        with progress.stage("summary"):
            pass
    assert [line.split()[:2] for line in lines(capsys)] == [
        ["ingest", "failed"], ["refine", "failed"], ["summary", "done"]]  # fmt: skip


def test_a_terminal_shows_stages_in_their_order_and_what_failed() -> None:
    view, drawn = live()
    with progress.shown(view):
        with progress.stage("claim"):
            progress.outcome("1 of 1 batches")
        with progress.stage("ingest"):
            progress.warn("a warning")
            progress.Meter("frame")(3, 4)
        progress.emit("begin", stage="train")
    last = drawn.getvalue().split("claim")[-1]
    assert "1 of 1 batches" in last.splitlines()[0]
    assert last.index("ingest") < last.index("train") < last.index("failed")
    assert "a warning" in drawn.getvalue()
    assert "✓" in drawn.getvalue()


def test_brackets_survive_on_a_terminal() -> None:
    view, drawn = live()
    with progress.shown(view), progress.stage("ingest"):
        progress.emit("progress", what=f"progress {ODD}", done=1, total=2)
        progress.warn(f"warning {ODD}")
        progress.outcome(f"outcome {ODD}")
    assert f"outcome {ODD}" in drawn.getvalue()
    assert f": warning {ODD}" in drawn.getvalue()


def test_bytes_are_shown_with_rate_and_remaining_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.0])
    events: list[dict] = []
    with monkeypatch.context() as patch:
        patch.setattr(progress, "emit", lambda event, **facts: events.append(facts))
        patch.setattr(progress.time, "monotonic", lambda: next(clock))
        meter = progress.Meter("fetch", unit="B")
        meter(102_000_000, 2_000_000_000)
        meter(412_000_000, 2_000_000_000)

    def show(view: progress.View) -> None:
        with progress.shown(view):
            progress.emit("begin", stage="ingest")
            for facts in events:
                progress.emit("progress", **facts)

    drawn = "fetch 412.0 MB of 2.0 GB, 310.0 MB/s, 5 s left"
    show(progress.PlainView(every_s=0.0))
    first, second = lines(capsys)[:2]
    assert first.split(maxsplit=1)[1] == "fetch 102.0 MB of 2.0 GB"
    assert second.split(maxsplit=1)[1] == drawn
    view, terminal = live()
    show(view)
    assert drawn in terminal.getvalue()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (7e12, "7.0 TB")],
)
def test_a_number_of_bytes_is_short(count: float, text: str) -> None:
    assert progress.as_bytes(count) == text


def test_a_view_that_fails_loses_no_later_event(capsys: pytest.CaptureFixture[str]) -> None:
    class Failing:
        def show(self, event: dict) -> None:
            raise RuntimeError("cannot draw")

        def close(self) -> None: ...

    run = LocalRun(log=Path("log"))
    with progress.shown(_Recording(run, Failing())):
        with progress.stage("ingest"):
            pass
        progress.emit("quarantined", batch="batch-2", reason=ODD)
    assert set(run.seconds) == {"ingest"}
    assert run.quarantined == {"batch-2": ODD}
    assert "cannot draw" in lines(capsys)[0]


def test_a_line_that_arrives_in_two_parts_is_one_event() -> None:
    class Collecting:
        def __init__(self) -> None:
            self.seen: list[dict] = []
            self.one = threading.Event()

        def show(self, event: dict) -> None:
            self.seen.append(event)
            self.one.set()

        def close(self) -> None: ...

    view = Collecting()
    with progress.shown(view) as path, path.open("a", encoding="utf-8") as stream:
        stream.write('{"event": "first"}\n{"event": "sec')
        stream.flush()
        assert view.one.wait(10)
        stream.write('ond"}\n')
    assert [event["event"] for event in view.seen] == ["first", "second"]


def test_events_of_another_process_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    code = "from crosswatch import progress\nwith progress.stage('train'): progress.outcome('well')"
    with progress.shown(progress.PlainView()):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    (line,) = lines(capsys)
    assert line.startswith("train     done in ")
    assert line.endswith("well")


def test_nobody_listening_is_silence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(progress.EVENTS, raising=False)
    with progress.stage("train"):
        progress.warn("unheard")
    with progress.shown(progress.PlainView()):
        pass
    assert progress.EVENTS not in os.environ
    assert lines(capsys) == []
