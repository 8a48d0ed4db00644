"""A delivery is worked on once, by one run at a time, on a disk as in a bucket."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from crosswatch.data.ledger import claims as claims_module
from crosswatch.data.ledger import renewal as renewal_module
from crosswatch.data.ledger.claims import Claim, Entry, Owner, Past, decode, encode
from crosswatch.data.ledger.ledger import Ledger, LedgerConfig
from crosswatch.data.ledger.renewal import Renewal, renewing
from crosswatch.data.store.objects import Objects
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket, Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import ResourceError, UserError
from tests.faulty_proxy import FaultyProxy

LEASE_S = LedgerConfig().lease_s
RACERS = 32
NOBODY = 2**22 + 1  # above the largest number that Linux gives to a process
BEGIN_S = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.at_s = BEGIN_S

    def __call__(self) -> float:
        return self.at_s


class Weather:
    """Objects behind a network that loses what it is told to lose."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.after_write: Callable[[bool], bool] = bool
        self.before: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def get(self, key: str) -> Any:
        self.before()
        return self._objects.get(key)

    def create(self, key: str, data: bytes) -> bool:
        self.before()
        return self._answer(self._objects.create(key, data))

    def replace(self, key: str, data: bytes, *, tag: str) -> bool:
        self.before()
        return self._answer(self._objects.replace(key, data, tag=tag))

    def _answer(self, is_won: bool) -> bool:
        answer, self.after_write = self.after_write, bool
        return answer(is_won)


def unreachable(*_: object) -> bool:
    raise ResourceError("the network is gone")


def refused(_: bool) -> bool:
    return False


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return tmp_path / "store" if request.param == "folder" else request.getfixturevalue("bucket")


@pytest.fixture
def weather(place: Place) -> Weather:
    return Weather(open_objects(place, TransferConfig()))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(weather: Weather, clock: Clock) -> Ledger:
    return Ledger(weather, clock=clock)


def take(ledger: Ledger, run: str = "first", key: str = "key", **options: Any) -> Claim | None:
    options = {"owner_pid": os.getpid(), "subject": "batch-1"} | options
    return ledger.claim(key, run=run, **options)


def race(place: Place, now: float) -> list[dict[str, Any]]:
    program = Path(__file__).with_name("racers.py")
    command = [sys.executable, str(program), str(place), "key", str(RACERS), str(now)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    told = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(told) == RACERS
    return [racer for racer in told if racer["generation"] is not None]


def test_of_many_processes_that_race_one_wins(place: Place, ledger: Ledger) -> None:
    (winner,) = race(place, BEGIN_S)
    entry = ledger.entry("key")
    assert winner == {"run": entry.run, "generation": 1}
    assert ledger.state("key") == "claimed"


def test_of_many_that_take_over_what_lapsed_one_wins_and_the_first_is_late(
    place: Place, ledger: Ledger
) -> None:
    first = take(ledger)
    (winner,) = race(place, BEGIN_S + LEASE_S + 1)
    before = ledger.entry("key")
    assert winner == {"run": before.run, "generation": 2}
    assert [(past.run, past.state) for past in before.earlier] == [("first", "lapsed")]
    assert not ledger.renew(first)
    assert not ledger.finish(first)
    assert not ledger.fail(first, "late")
    assert ledger.entry("key") == before


def test_a_live_claim_is_left_alone_and_a_done_one_stays_done(ledger: Ledger) -> None:
    claim = take(ledger)
    assert take(ledger, "other") is None
    assert take(ledger, "other", again=True) is None
    assert ledger.finish(claim, checkpoint="c0ffee")
    assert ledger.entry("key").facts == {"checkpoint": "c0ffee"}
    assert take(ledger, "other") is None
    assert not ledger.renew(claim)
    assert take(ledger, "other", again=True).generation == 2


def test_a_quarantined_delivery_keeps_its_reason_and_is_not_tried_again(ledger: Ledger) -> None:
    assert ledger.finish(take(ledger), "quarantined", reason="video.mp4 is empty")
    assert ledger.entry("key").reason == "video.mp4 is empty"
    assert take(ledger, "other") is None


def test_a_failed_claim_is_free_and_its_successor_is_the_only_one_to_end_it(
    ledger: Ledger,
) -> None:
    first = take(ledger)
    assert ledger.fail(first, "out of memory")
    assert ledger.entry("key").reason == "out of memory"
    second = take(ledger, "second")
    assert second.generation == 2
    assert not ledger.finish(first)
    assert ledger.finish(second)
    assert not ledger.fail(second)
    assert ledger.state("key") == "done"


def test_how_a_claim_ended_may_be_said_twice(ledger: Ledger) -> None:
    claim = take(ledger)
    assert ledger.finish(claim)
    assert ledger.finish(claim)
    assert not ledger.finish(claim, "quarantined")


def test_a_run_whose_task_is_tried_again_gets_its_own_work_and_the_first_try_is_late(
    ledger: Ledger,
) -> None:
    first, second = take(ledger), take(ledger)
    assert (first.generation, second.generation) == (1, 2)
    assert not ledger.finish(first)
    assert ledger.finish(second)


def test_whose_record_was_removed_by_hand_is_late_as_well(ledger: Ledger, weather: Weather) -> None:
    first = take(ledger)
    weather.delete("claims/key.json")
    assert not ledger.renew(first)
    assert take(ledger, "second").generation == first.generation
    assert not ledger.finish(first)
    assert ledger.entry("key").run == "second"


@pytest.mark.parametrize("answer", [unreachable, refused], ids=["error", "said it is taken"])
def test_a_lost_answer_loses_no_claim(
    ledger: Ledger, weather: Weather, answer: Callable[[bool], bool]
) -> None:
    weather.after_write = answer
    claim = take(ledger)
    assert claim.generation == 1
    weather.after_write = answer
    assert ledger.renew(claim)
    weather.after_write = answer
    assert ledger.fail(claim)
    weather.after_write = answer
    second = take(ledger, "second")
    assert second.generation == 2
    weather.after_write = answer
    assert ledger.finish(second)
    assert ledger.state("key") == "done"


@pytest.mark.parametrize("losses", [1, 1000], ids=["once", "until the client gives up"])
def test_a_server_whose_answers_are_lost_on_the_wire_loses_no_claim(
    bucket: Bucket, proxy: FaultyProxy, losses: int
) -> None:
    ledger = Ledger(open_objects(bucket, TransferConfig(patience_s=0.3)))

    def lose() -> None:
        proxy.times("lose_answer", losses, lambda request: request.method == "PUT")

    lose()
    claim = take(ledger)
    assert claim.generation == 1
    lose()
    assert ledger.renew(claim)
    lose()
    assert ledger.finish(claim)
    assert ledger.state("key") == "done"


def test_where_the_network_stays_away_the_same_run_gets_its_claim_later(
    ledger: Ledger, weather: Weather
) -> None:
    def go_down(_: bool) -> bool:
        weather.before = unreachable
        return unreachable()

    weather.after_write = go_down
    with pytest.raises(ResourceError, match="the network is gone"):
        take(ledger)
    weather.before = lambda: None
    assert take(ledger, "other") is None
    assert take(ledger).generation == 2


def test_a_write_that_never_arrived_claims_nothing(ledger: Ledger, weather: Weather) -> None:
    reads = iter([None, unreachable])
    weather.before = lambda: (next(reads, None) or (lambda: None))()
    with pytest.raises(ResourceError):
        take(ledger)
    assert ledger.state("key") is None


@pytest.mark.parametrize("is_reaped", [False, True], ids=["zombie", "reaped"])
def test_the_claim_of_a_process_that_was_killed_is_taken_over_at_once(
    ledger: Ledger, is_reaped: bool
) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert take(ledger, owner_pid=owner.pid) is not None
        assert take(ledger, "second") is None
        owner.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        if is_reaped:
            owner.wait(timeout=30)
        assert take(ledger, "second").generation == 2
    finally:
        owner.kill()
        owner.communicate(timeout=30)


def test_on_another_host_only_the_lease_counts(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "elsewhere")
        assert take(ledger, owner_pid=NOBODY) is not None
    assert take(ledger, "second") is None
    clock.at_s += LEASE_S
    assert take(ledger, "second") is None
    clock.at_s += 1
    assert take(ledger, "second").generation == 2


def test_a_renewed_claim_is_kept_and_a_clock_that_steps_back_shortens_nothing(
    ledger: Ledger, clock: Clock
) -> None:
    claim = take(ledger, owner_pid=None)
    clock.at_s += LEASE_S
    assert ledger.renew(claim)
    until = ledger.entry("key").lease_until
    assert until == clock.at_s + LEASE_S
    clock.at_s -= 10 * LEASE_S
    assert ledger.renew(claim)
    assert ledger.entry("key").lease_until == until
    clock.at_s = until
    assert take(ledger, "second") is None


def test_who_overslept_goes_on_if_nobody_took_the_work(ledger: Ledger, clock: Clock) -> None:
    claim = take(ledger, owner_pid=None)
    clock.at_s += 2 * LEASE_S
    assert ledger.renew(claim)
    assert take(ledger, "second") is None


def test_a_host_whose_clock_is_set_does_not_free_a_live_claim(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert take(ledger) is not None
    begun = claims_module.process_started(os.getpid())
    monkeypatch.setattr(claims_module, "process_started", lambda pid: begun + 5.0)
    assert take(ledger, "second") is None
    # Its number belongs to another process by now.
    monkeypatch.setattr(claims_module, "process_started", lambda pid: begun + 500.0)
    assert take(ledger, "second").generation == 2


def test_the_entry_says_who_has_it(ledger: Ledger) -> None:
    take(ledger, "run-7")
    entry = ledger.entry("key")
    assert (entry.run, entry.subject, entry.key) == ("run-7", "batch-1", "key")
    assert str(entry.owner) == f"process {os.getpid()} on {socket.gethostname()}"
    assert ledger.state("other") is None
    assert ledger.entry("other") is None


def test_the_list_holds_every_claim_and_nothing_else(ledger: Ledger, weather: Weather) -> None:
    assert ledger.list() == []
    for number in (3, 1, 2):
        take(ledger, key=f"key-{number}", subject=f"batch-{number}")
    weather.put("claims/key-0/1.json", b'{"subject": "of an older workspace"}')
    weather.put("artifacts/other.json", b"{}")
    assert [entry.subject for entry in ledger.list()] == ["batch-1", "batch-2", "batch-3"]


def test_the_record_remembers_the_last_generations_only(ledger: Ledger) -> None:
    for number in range(12):
        assert ledger.fail(take(ledger, f"run-{number}"))
    earlier = ledger.entry("key").earlier
    assert [past.generation for past in earlier] == list(range(4, 12))
    assert {past.state for past in earlier} == {"failed"}


def test_the_end_is_told_even_while_the_claim_is_renewed(ledger: Ledger) -> None:
    for number in range(10):
        claim = take(ledger, f"run-{number}", key=f"key-{number}")
        with renewing(ledger, [claim], every_s=0.0005) as renewal:
            for _ in range(5):
                assert ledger.renew(claim)
            assert ledger.finish(claim)
        assert ledger.state(f"key-{number}") == "done"
        assert set(renewal.lost) <= {claim.key}  # it may look once more, after the end


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end_s, "waited for a minute"
        time.sleep(0.01)


def test_claims_are_renewed_while_their_owner_works(ledger: Ledger, clock: Clock) -> None:
    claims = [take(ledger, key=key) for key in ("key-1", "key-2")]
    with renewing(ledger, claims, every_s=0.01) as renewal:
        clock.at_s += 100
        until(lambda: all(e.lease_until == clock.at_s + LEASE_S for e in ledger.list()))
    assert renewal.lost == {}
    assert "renew-claims" not in {thread.name for thread in threading.enumerate()}
    clock.at_s += 100
    assert all(entry.lease_until < clock.at_s + LEASE_S for entry in ledger.list())


def test_a_claim_that_is_lost_meanwhile_is_noticed(ledger: Ledger) -> None:
    claims = [take(ledger, key=key) for key in ("key-1", "key-2")]
    with renewing(ledger, claims, every_s=0.01) as renewal:
        ledger.release("key-1", reason="the node is gone")
        until(lambda: bool(renewal.lost))
    assert set(renewal.lost) == {"key-1"}


def test_a_store_that_does_not_answer_is_borne_until_the_lease_ends(
    ledger: Ledger, weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_s = 0.0
    monkeypatch.setattr(renewal_module.time, "monotonic", lambda: at_s)
    renewal = Renewal(ledger, [take(ledger)])
    weather.before = unreachable
    at_s = LEASE_S
    renewal.renew()
    assert renewal.lost == {}
    weather.before = lambda: None
    renewal.renew()
    weather.before = unreachable
    at_s = 2 * LEASE_S
    renewal.renew()
    assert renewal.lost == {}
    at_s = 2 * LEASE_S + 1
    renewal.renew()
    assert "could not be renewed for 7201 s: the network is gone" in renewal.lost["key"]


@pytest.mark.parametrize("lease_s", [0.0, 59.0, -1.0, float("inf"), float("nan"), 1e9])
def test_a_lease_that_no_one_can_keep_is_refused(lease_s: float) -> None:
    with pytest.raises(UserError, match=r"lease_s is .*; allowed 60 to 2\.592e\+06 s"):
        LedgerConfig(lease_s=lease_s)


class TestRelease:
    def test_the_next_run_takes_it_and_the_late_owner_cannot_end_it(self, ledger: Ledger) -> None:
        first = take(ledger)
        entry = ledger.release("batch-1", reason="the node is gone")
        assert (entry.state, entry.reason) == ("released", "the node is gone")
        assert not ledger.renew(first)
        assert not ledger.finish(first)
        assert take(ledger, "second").generation == 2
        assert not ledger.fail(first)
        assert ledger.entry("key").run == "second"

    @pytest.mark.parametrize("state", ["done", "quarantined"])
    def test_what_is_finished_is_released_only_when_asked(self, ledger: Ledger, state: str) -> None:
        assert ledger.finish(take(ledger), state)
        with pytest.raises(UserError, match=rf"is {state} by run 'first'\. .* --done.* --again"):
            ledger.release("batch-1", reason="")
        assert take(ledger, "second") is None
        assert ledger.release("batch-1", reason="", done=True).state == "released"
        assert take(ledger, "second").generation == 2

    def test_what_nobody_holds_is_left_alone(self, ledger: Ledger) -> None:
        assert ledger.fail(take(ledger))
        with pytest.raises(UserError, match="is failed already; the next run takes it"):
            ledger.release("batch-1", reason="")

    def test_a_name_means_one_claim(self, ledger: Ledger) -> None:
        for key, subject in (("a1", "furnace-1"), ("a2", "furnace-10"), ("b1", "furnace-2")):
            take(ledger, key=key, subject=subject)
        assert ledger.release("furnace-1", reason="").key == "a1"
        assert ledger.release("a2", reason="").key == "a2"
        assert ledger.release("b", reason="").key == "b1"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("furnaces", "'furnaces': no claim or batch of this name; see crosswatch ledger list"),
            ("", "no claim or batch of this name"),
            ("../claims/a1", "no claim or batch of this name"),
            ("furnace", r"fits 2 claims in .*: a1 \('furnace-1', claimed\), a2 \('furnace-10', c"),
            ("f" * 5000, "'f{200}': no claim"),
        ],
    )
    def test_a_name_of_none_or_several_is_refused(
        self, ledger: Ledger, name: str, message: str
    ) -> None:
        for key, subject in (("a1", "furnace-1"), ("a2", "furnace-10")):
            take(ledger, key=key, subject=subject)
        with pytest.raises(UserError, match=message) as error:
            ledger.release(name, reason="")
        assert "\n" not in str(error.value)
        assert {entry.state for entry in ledger.list()} == {"claimed"}

    def test_of_one_batch_under_several_settings_the_open_claim_is_meant(
        self, ledger: Ledger
    ) -> None:
        ledger.finish(take(ledger, key="a1"))
        take(ledger, key="a2")
        assert ledger.release("batch-1", reason="").key == "a2"
        assert ledger.release("batch-1", reason="", done=True).key == "a1"

    def test_a_whole_key_needs_no_look_at_the_others(
        self, ledger: Ledger, weather: Weather
    ) -> None:
        take(ledger, key="0" * 64)
        weather.put("claims/damaged.json", b"{")
        assert ledger.release("0" * 64, reason="").state == "released"


class Owners(RuleBasedStateMachine):
    """Several runs, one piece of work, and a clock that nobody can trust, against a plain model."""

    runs = st.sampled_from(["a", "b", "c"])
    ends = st.sampled_from(["done", "quarantined", "failed"])

    def __init__(self, objects: Objects) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = Ledger(objects, clock=self.clock)
        self.key = uuid.uuid4().hex
        self.won: list[Claim] = []
        self.state: str | None = None
        self.run = ""
        self.lease_until = 0.0
        self.is_gone = False

    @rule(run=runs, again=st.booleans(), is_gone=st.booleans())
    def claim(self, run: str, again: bool, is_gone: bool) -> None:
        is_free = {
            None: True, "failed": True, "released": True, "done": again, "quarantined": again,
            "claimed": self.is_gone or self.clock() > self.lease_until or run == self.run,
        }[self.state]  # fmt: skip
        claim = self.ledger.claim(
            self.key, run=run, owner_pid=NOBODY if is_gone else None, subject=self.key, again=again
        )
        assert (claim is not None) == is_free
        if claim is not None:
            assert claim.generation == len(self.won) + 1
            self.won.append(claim)
            self.state, self.run, self.is_gone = "claimed", run, is_gone
            self.lease_until = self.clock() + LEASE_S

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        if self.won:
            claim = data.draw(st.sampled_from(self.won))
            is_mine = claim is self.won[-1] and self.state == "claimed"
            assert self.ledger.renew(claim) == is_mine
            if is_mine:
                self.lease_until = max(self.lease_until, self.clock() + LEASE_S)

    @rule(data=st.data(), end=ends)
    def end(self, data: st.DataObject, end: str) -> None:
        if self.won:
            claim = data.draw(st.sampled_from(self.won))
            ended = self.ledger.fail(claim) if end == "failed" else self.ledger.finish(claim, end)
            assert ended == (claim is self.won[-1] and self.state in ("claimed", end))
            if ended:
                self.state = end

    @rule(done=st.booleans())
    def release(self, done: bool) -> None:
        may = self.state == "claimed" or (done and self.state in ("done", "quarantined"))
        with contextlib.nullcontext() if may else pytest.raises(UserError):
            self.ledger.release(self.key, reason="", done=done)
            self.state = "released"

    @rule(step_s=st.sampled_from([1.0, LEASE_S / 2, LEASE_S, 3 * LEASE_S]), back=st.booleans())
    def step(self, step_s: float, back: bool) -> None:
        self.clock.at_s += -step_s if back else step_s

    @invariant()
    def the_record_says_what_happened(self) -> None:
        entry = self.ledger.entry(self.key)
        assert (entry is None) == (self.state is None)
        if entry is not None:
            assert (entry.state, entry.run) == (self.state, self.run)
            assert entry.lease_until == self.lease_until
            assert [claim for claim in self.won if entry.is_of(claim)] == [self.won[-1]]


def test_whatever_owners_and_clocks_do_one_owner_at_a_time_and_done_once(place: Place) -> None:
    is_disk = isinstance(place, Path)
    objects = open_objects(place, TransferConfig())
    run_state_machine_as_test(
        lambda: Owners(objects),
        settings=settings(
            max_examples=60 if is_disk else 12, stateful_step_count=25, deadline=None
        ),
    )


ENTRY = Entry(
    key="key", subject="batch-1", run="r", state="claimed", generation=1, nonce="n",
    owner=Owner(host="h", pid=1, pid_started=2.0), claimed_at=0.0, lease_until=1.0,
)  # fmt: skip
PLAIN = json.loads(encode(ENTRY))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b"9" * 5000,
        *(
            json.dumps({**PLAIN, **wrong}).encode()
            for wrong in (
                {"generation": 0}, {"generation": "1"}, {"generation": True}, {"state": "held"},
                {"lease_until": float("inf")}, {"lease_until": float("nan")}, {"owner": None},
                {"lease_until": None}, {"lease_until": 10**400}, {"owner": {"host": "h"}},
                {"facts": []}, {"earlier": [1]}, {"key": "other"}, {"schema_version": "1"},
                {"nonse": "n"}, {"schema_version": 2}, {"subject": 5}, {"\n": "\n"},
            )
        ),
        *(json.dumps({k: v for k, v in PLAIN.items() if k != gone}).encode()
          for gone in ("schema_version", "facts", "generation", "nonce")),
    ],
    ids=lambda data: data[:12].hex() + str(len(data)),
)  # fmt: skip
def test_a_damaged_record_is_named_in_one_line(tmp_path: Path, data: bytes) -> None:
    objects = open_objects(tmp_path, TransferConfig())
    objects.put("claims/key.json", data)
    ledger = Ledger(objects)
    for look in (lambda: ledger.entry("key"), lambda: take(ledger), ledger.list):
        with pytest.raises(UserError) as error:
            look()
        assert str(error.value).startswith(f"{tmp_path}/claims/key.json: ")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500 + len(str(tmp_path))
    assert objects.get("claims/key.json").data == data


def test_a_damaged_record_in_a_bucket_is_named_by_its_url(request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue("bucket")
    objects = open_objects(place, TransferConfig())
    objects.put("claims/key.json", b"{")
    with pytest.raises(UserError, match=f"^{place}/claims/key.json: is no claim record"):
        Ledger(objects).entry("key")


TEXTS = st.text(max_size=8)
INSTANTS = st.floats(allow_nan=False, allow_infinity=False)
ENTRIES = st.builds(
    Entry,
    key=st.just("key"),
    subject=TEXTS,
    run=TEXTS,
    nonce=TEXTS,
    reason=TEXTS,
    generation=st.integers(min_value=1),
    state=st.sampled_from(["claimed", "done", "failed", "quarantined", "released"]),
    owner=st.builds(Owner, host=TEXTS, pid=st.none() | st.integers(), pid_started=st.none()),
    claimed_at=INSTANTS,
    lease_until=INSTANTS,
    ended_at=st.none() | INSTANTS,
    facts=st.dictionaries(TEXTS, TEXTS, max_size=2),
    earlier=st.lists(
        st.builds(
            Past, generation=st.integers(), run=TEXTS, state=st.just("failed"),
            claimed_at=INSTANTS, ended_at=st.none() | INSTANTS,
        ), max_size=2,
    ).map(tuple),
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(entry=ENTRIES)
def test_a_record_reads_back_as_it_was_written(entry: Entry) -> None:
    assert decode(encode(entry), key="key", where="w") == entry


@given(name=st.sampled_from(sorted(PLAIN)), value=VALUES)
def test_whatever_stands_in_a_record_it_is_read_or_refused(name: str, value: Any) -> None:
    data = json.dumps({**PLAIN, name: value}).encode()
    try:
        entry = decode(data, key="key", where="w")
    except UserError as error:
        assert re.fullmatch("w: .+", str(error))  # noqa: PT017
    else:
        assert decode(encode(entry), key="key", where="w") == entry
