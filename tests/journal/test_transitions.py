"""Every change against every state: what is legal moves the row and adds to the history, all else writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wfengine_journal import store
from wfengine_journal.cache import Entry, NoteUse, ServeCached, Use
from wfengine_journal.codec import encode, encode_error
from wfengine_journal.riders import WithRiders
from wfengine_journal.run_transitions import ClaimFlowRun, CrashFlowRun, CreateFlowRun, EndFlowRun
from wfengine_journal.states import TERMINAL, TRANSITIONS, StateType
from wfengine_journal.tickets import Change, WriteRefused
from wfengine_journal.transitions import (
    BeginCall,
    CompleteCall,
    FailAttempt,
    Identity,
    SettleCall,
    StartAttempt,
    tags_text,
)

AT = "2026-11-22T15:30:50.000000Z"
LARGE = encode("x" * 5000, "a large value")
SMALL = encode(1, "a small value")
ERROR = encode_error(ValueError("no"))
STATES = [state.value for state in StateType]


class Scene:
    """A journal with one flow run and one task run, whose columns a test sets by hand."""

    def __init__(self, path: Path) -> None:
        self.journal = store.open_journal(path)
        self.flow_id = self.journal.flow_id("etl", None)
        self.task_id = self.journal.task_id("task", "load", "load")
        self.create = self.new_run("quiet-heron")
        self.journal.write(self.create, synced=False)
        begin = BeginCall(Identity(1, 0, self.task_id, b"k" * 16, 0), epoch=1, lane=0, inputs="{}", at=AT, running=True)
        self.journal.write(begin, synced=False)

    def new_run(self, name: str, **changed: object) -> CreateFlowRun:
        columns: dict[str, object] = {
            "name": name, "flow_id": self.flow_id, "parent_task_run_id": None, "owner_id": self.journal.owner_id,
            "code_id": None, "durability": "power", "parameters": "{}", "arguments": [], "tags": None,
            "idempotency_key": None, "entrypoint": None, "flow_hash": None, "at": AT,
        }  # fmt: skip
        return CreateFlowRun(**{**columns, **changed})  # type: ignore[arg-type]

    def run(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        found = self.journal._writer.read(lambda connection: connection.execute(sql, parameters).fetchall())
        assert isinstance(found, list)
        return found

    def set_task(self, state: str) -> None:
        self.run("UPDATE task_run SET state = ? WHERE id = 1", state)

    def set_run(self, state: str) -> None:
        ended = AT if StateType(state) in TERMINAL else None
        self.run("UPDATE flow_run SET state = ?, ended_at = ? WHERE id = 1", state, ended)

    def dump(self) -> list[list[tuple[object, ...]]]:
        """Return every row of every table that a change may write."""
        tables = ("flow_run", "task_run", "transition", "execution", "argument", "value", "error", "cache_use")
        return [self.run(f"SELECT * FROM {table}") for table in tables]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield Scene(tmp_path / "journal.db")
    store.close_all()


# What each change does to the task run (version 1, epoch 1, attempt 1) and to which state; `guard` is version and epoch.
def start(seq: int, epoch: int) -> Change:
    return StartAttempt(None, 1, 1, seq=seq, epoch=epoch, attempt=2, at=AT)


def complete(seq: int, epoch: int) -> Change:
    return CompleteCall(1, 1, seq=seq, epoch=epoch, attempt=1, at=AT, result=LARGE)


def fail(seq: int, epoch: int) -> Change:
    return FailAttempt(1, 1, seq=seq, epoch=epoch, attempt=1, at=AT, error=ERROR, next_attempt_at=None)


def fail_and_wait(seq: int, epoch: int) -> Change:
    return FailAttempt(1, 1, seq=seq, epoch=epoch, attempt=1, at=AT, error=ERROR, next_attempt_at=AT)


def serve(seq: int, epoch: int) -> Change:
    entry = Entry("key", "1", "json", SMALL.hash, None, 1, 1, AT, None)
    begin = StartAttempt(None, 1, 1, seq=seq, epoch=epoch, attempt=2, at=AT)
    note = NoteUse(1, Use("key", "hit", {}, None, 1), AT)
    return WithRiders(ServeCached(begin, attempt=1, at=AT, entry=entry), [note])


def settle(state: str) -> Callable[[int, int], Change]:
    def make(seq: int, epoch: int) -> Change:
        return SettleCall(1, 1, seq=seq, epoch=epoch, attempt=1, at=AT, state=state, state_name=None, message="so", error=ERROR)

    return make


TASK_CHANGES: dict[str, tuple[Callable[[int, int], Change], str]] = {
    "start": (start, "RUNNING"),
    "complete": (complete, "COMPLETED"),
    "answer from the cache": (serve, "COMPLETED"),
    "fail": (fail, "FAILED"),
    "fail and wait": (fail_and_wait, "SCHEDULED"),
    "settle as crashed": (settle("CRASHED"), "CRASHED"),
    "settle as paused": (settle("PAUSED"), "PAUSED"),
    "settle as failed": (settle("FAILED"), "FAILED"),
}


def claim(seq: int, epoch: int) -> Change:
    return ClaimFlowRun(1, version=seq - 1, epoch=epoch + 1, owner_id=1, code_id=None, reason="resume", at=AT)


def end(state: str) -> Callable[[int, int], Change]:
    def make(seq: int, epoch: int) -> Change:
        completed = state == "COMPLETED"
        return EndFlowRun(
            1,
            epoch=epoch,
            at=AT,
            state=state,
            result=LARGE if completed else None,
            error=None if completed else ERROR,
            next_attempt_at=AT if state == "SCHEDULED" else None,
            fatal_task_run_ids=(1,),
            orphan_ids=(1,),
        )

    return make


def crash(seq: int, epoch: int) -> Change:
    return CrashFlowRun(1, version=seq - 1, epoch=epoch, at=AT, message="its process died")


RUN_CHANGES: dict[str, tuple[Callable[[int, int], Change], str]] = {
    "claim": (claim, "RUNNING"),
    "complete": (end("COMPLETED"), "COMPLETED"),
    "fail": (end("FAILED"), "FAILED"),
    "wait for a retry": (end("SCHEDULED"), "SCHEDULED"),
    "park": (end("PAUSED"), "PAUSED"),
    "crash": (crash, "CRASHED"),
}


def is_legal(from_state: str, to_state: str) -> bool:
    return StateType(from_state) in TRANSITIONS[StateType(to_state)]


def refused(scene: Scene, change: Change) -> None:
    """Assert that the change is refused, and that not a row of any table differs, although others commit."""
    before = scene.dump()
    told: list[BaseException | None] = []
    scene.journal.post(change, on_commit=told.append)  # in one transaction with a change that is committed
    scene.journal.task_id("task", "another", "another")
    scene.journal.flush()
    assert [type(end) for end in told] == [WriteRefused]
    assert scene.dump() == before


@pytest.mark.parametrize("from_state", STATES)
@pytest.mark.parametrize("name", TASK_CHANGES)
def test_a_task_run_moves_only_as_the_table_of_transitions_allows(scene: Scene, name: str, from_state: str) -> None:
    make, to_state = TASK_CHANGES[name]
    scene.set_task(from_state)
    change = make(2, 1)
    if not is_legal(from_state, to_state):
        refused(scene, change)
        return
    try:
        scene.journal.write(change, synced=False)
    except WriteRefused:
        return  # stricter than the table is fine: an outcome, say, only comes from RUNNING
    assert scene.run("SELECT state, version FROM task_run") == [(to_state, 2)]
    assert scene.run("SELECT state, seq FROM transition WHERE task_run_id = 1 ORDER BY seq")[-1] == (to_state, 2)


@pytest.mark.parametrize("from_state", STATES)
@pytest.mark.parametrize("name", RUN_CHANGES)
def test_a_flow_run_moves_only_as_the_table_of_transitions_allows(scene: Scene, name: str, from_state: str) -> None:
    make, to_state = RUN_CHANGES[name]
    scene.set_run(from_state)
    change = make(2, 1)
    if not is_legal(from_state, to_state):
        refused(scene, change)
        return
    try:
        scene.journal.write(change, synced=False)
    except WriteRefused:
        return
    if (name, from_state) == ("crash", "CANCELLING"):
        to_state = "CANCELLED"  # as was asked
    assert scene.run("SELECT state, version FROM flow_run") == [(to_state, 2)]
    assert scene.run("SELECT state, seq FROM transition WHERE task_run_id = 0 ORDER BY seq")[-1] == (to_state, 2)


@pytest.mark.parametrize("guard", [(3, 1), (1, 1), (2, 0), (2, 2)], ids=["later", "earlier", "old epoch", "new epoch"])
@pytest.mark.parametrize("name", TASK_CHANGES)
def test_a_task_change_with_another_version_or_epoch_writes_nothing(scene: Scene, name: str, guard: tuple[int, int]) -> None:
    make, to_state = TASK_CHANGES[name]
    scene.set_task("RUNNING" if is_legal("RUNNING", to_state) else "CRASHED")
    refused(scene, make(*guard))


@pytest.mark.parametrize("guard", [(3, 1), (1, 1), (2, 0), (2, 2)], ids=["later", "earlier", "old epoch", "new epoch"])
@pytest.mark.parametrize("name", RUN_CHANGES)
def test_a_run_change_with_another_version_or_epoch_writes_nothing(scene: Scene, name: str, guard: tuple[int, int]) -> None:
    make, to_state = RUN_CHANGES[name]
    scene.set_run("RUNNING" if is_legal("RUNNING", to_state) else "CRASHED")
    change = make(*guard)
    if isinstance(change, EndFlowRun) and guard[1] == 1:  # it is fenced by the epoch alone, and comes after what moved it on
        scene.journal.write(change, synced=False)
        assert change.seq == 2
        return
    refused(scene, change)


@pytest.mark.parametrize("state", [state for state in STATES if state != "RUNNING"])
def test_no_call_begins_and_no_attempt_starts_in_a_run_that_is_not_running(scene: Scene, state: str) -> None:
    scene.set_run(state)
    scene.set_task("CRASHED")
    refused(scene, BeginCall(Identity(1, 0, 1, b"n" * 16, 0), epoch=1, lane=0, inputs="{}", at=AT, running=True))
    refused(scene, start(2, 1))


def test_a_call_of_an_older_epoch_does_not_begin(scene: Scene) -> None:
    scene.journal.write(crash(2, 1), synced=False)
    scene.journal.write(ClaimFlowRun(1, version=2, epoch=2, owner_id=1, code_id=None, reason="resume", at=AT), synced=False)
    refused(scene, BeginCall(Identity(1, 0, 1, b"n" * 16, 0), epoch=1, lane=0, inputs="{}", at=AT, running=True))
    refused(scene, complete(2, 1))  # the outcome that the old process still had in hand


def test_a_replaced_process_cannot_write_an_outcome_even_under_the_right_version(scene: Scene) -> None:
    scene.journal.write(crash(2, 1), synced=False)
    scene.journal.write(claim(3, 1), synced=False)
    scene.journal.write(StartAttempt(None, 1, 1, seq=3, epoch=2, attempt=2, at=AT), synced=False)
    refused(scene, complete(4, 1))
    scene.journal.write(complete(4, 2), synced=False)


def test_a_crash_interrupts_the_calls_that_were_running_and_no_others(scene: Scene) -> None:
    for number, state in enumerate(STATES):
        identity = Identity(1, 0, scene.task_id, bytes([number]) * 16, 0)
        scene.journal.write(BeginCall(identity, epoch=1, lane=0, inputs="{}", at=AT, running=True), synced=False)
        scene.run("UPDATE task_run SET state = ? WHERE call_key = ?", state, bytes([number]) * 16)
    scene.journal.write(crash(2, 1), synced=False)
    found = dict(scene.run("SELECT state, group_concat(interruptions) FROM task_run WHERE id > 1 GROUP BY state"))  # type: ignore[arg-type]
    assert "RUNNING" not in found
    assert found["CRASHED"] == "1,0"  # the one that was RUNNING, and the one that was CRASHED before
    assert found["COMPLETED"] == "0"


def test_one_of_two_equal_calls_is_written(scene: Scene) -> None:
    again = BeginCall(Identity(1, 0, scene.task_id, b"k" * 16, 0), epoch=1, lane=0, inputs="{}", at=AT, running=True)
    with pytest.raises(sqlite3.IntegrityError):
        scene.journal.write(again, synced=False)
    assert scene.run("SELECT count(*) FROM task_run") == [(1,)]


def test_one_of_two_claims_of_one_run_wins(scene: Scene) -> None:
    scene.journal.write(crash(2, 1), synced=False)
    first, second = claim(3, 1), claim(3, 1)
    scene.journal.write(first, synced=False)
    refused(scene, second)
    assert scene.run("SELECT epoch, reason FROM execution ORDER BY epoch") == [(1, "start"), (2, "resume")]


def test_one_of_two_runs_with_one_idempotency_key_is_created(scene: Scene) -> None:
    scene.journal.write(scene.new_run("a", idempotency_key="day-1"), synced=False)
    refused(scene, scene.new_run("b", idempotency_key="day-1"))
    scene.journal.write(scene.new_run("c", idempotency_key="day-2"), synced=False)
    scene.journal.write(scene.new_run("d"), synced=False)
    scene.journal.write(scene.new_run("e"), synced=False)


def test_a_small_result_stands_in_its_row_and_a_large_one_once_in_value(scene: Scene) -> None:
    for number in range(3):
        identity = Identity(1, 0, scene.task_id, bytes([number]) * 16, 0)
        begin = BeginCall(identity, epoch=1, lane=0, inputs="{}", at=AT, running=True)
        scene.journal.write(begin, synced=False)
        result = SMALL if number == 0 else LARGE
        done = CompleteCall(1, begin.task_run_id, seq=2, epoch=1, attempt=1, at=AT, result=result)
        scene.journal.write(done, synced=False)
    found = scene.run("SELECT result, result_hash FROM task_run WHERE id > 1 ORDER BY id")
    assert found == [("1", SMALL.hash), (None, LARGE.hash), (None, LARGE.hash)]
    assert scene.run("SELECT hash, data, size FROM value") == [(LARGE.hash, LARGE.data, LARGE.size)]


def test_landed_tells_whether_a_change_is_in_the_file(scene: Scene) -> None:
    def landed(change: Change) -> object:
        return scene.journal._writer.read(change.landed)

    assert landed(scene.create)
    assert not landed(complete(2, 1))
    scene.journal.write(complete(2, 1), synced=False)
    assert landed(complete(2, 1))
    assert not landed(end("FAILED")(2, 1))


# ---- what the schema itself forbids, whoever writes


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE transition SET state = 'FAILED'",
        "DELETE FROM transition",
        "INSERT OR REPLACE INTO transition (flow_run_id, task_run_id, seq, state, epoch, attempt, at)"
        " VALUES (1, 0, 1, 'FAILED', 1, 1, 'now')",
    ],
)
def test_the_history_can_only_be_added_to(scene: Scene, statement: str) -> None:
    before = scene.dump()
    scene.run("PRAGMA recursive_triggers = ON")
    with pytest.raises(Exception, match="append-only"):
        scene.run(statement)
    assert scene.dump() == before


def test_pruning_may_delete_history_while_it_says_so(scene: Scene) -> None:
    scene.run("INSERT INTO meta (key, value) VALUES ('pruning', 'now')")
    scene.run("DELETE FROM transition WHERE task_run_id = 1")
    scene.run("DELETE FROM meta WHERE key = 'pruning'")
    with pytest.raises(Exception, match="append-only"):
        scene.run("DELETE FROM transition")


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE flow_run SET state = 'Running'", "CHECK"),
        ("UPDATE flow_run SET state = 'COMPLETED'", "CHECK"),  # without an end
        ("UPDATE flow_run SET ended_at = 'now'", "CHECK"),  # without having ended
        ("UPDATE flow_run SET durability = 'none'", "CHECK"),
        ("UPDATE flow_run SET epoch = 'two'", "cannot store TEXT"),
        ("UPDATE flow_run SET parameters = NULL", "NOT NULL"),
        ("UPDATE flow_run SET flow_id = 99", "FOREIGN KEY"),
        ("UPDATE flow_run SET owner_id = 99", "FOREIGN KEY"),
        ("UPDATE flow_run SET parent_task_run_id = 99", "FOREIGN KEY"),
        ("DELETE FROM flow_run", "FOREIGN KEY"),
        ("UPDATE task_run SET state = 'DONE'", "CHECK"),
        ("UPDATE task_run SET task_id = 99", "FOREIGN KEY"),
        ("UPDATE task_run SET flow_run_id = 99", "FOREIGN KEY"),
        ("UPDATE task_run SET error_id = 99", "FOREIGN KEY"),
        ("UPDATE task SET kind = 'job'", "CHECK"),
        ("INSERT INTO execution (flow_run_id, epoch, owner_id, reason, started_at) VALUES (1, 9, 1, 'whim', 'now')", "CHECK"),
        ("INSERT INTO execution (flow_run_id, epoch, owner_id, reason, started_at) VALUES (1, 1, 1, 'start', 'now')", "UNIQUE"),
        ("INSERT INTO flow (name, first_seen_at) VALUES ('etl', 'now')", "UNIQUE"),
    ],
)
def test_the_schema_refuses_rows_that_cannot_be(scene: Scene, statement: str, complaint: str) -> None:
    before = scene.dump()
    with pytest.raises(Exception, match=complaint):
        scene.run(statement)
    assert scene.dump() == before


def test_tags_are_stored_sorted_and_once() -> None:
    assert tags_text(["b", "a", "b", "é"]) == '["a", "b", "é"]'
    assert tags_text([]) is None
