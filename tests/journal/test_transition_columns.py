"""What each change writes, column by column, and from where: into rows that are full, beside rows that are like them.

`changes.txt` says it for each case: the states of the flow run and of the call from which it is allowed, what must not have
moved on since it was decided, and every column that differs afterwards. A line that changes there is a decision; it is written
anew by `python tests/journal/test_transition_columns.py`.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from wfengine_journal import corrections, run_transitions, store, transitions
from wfengine_journal.codec import encode, encode_error
from wfengine_journal.states import TERMINAL, StateType
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import Argument, BeginCall, Identity

EXPECTED = Path(__file__).with_name("changes.txt")
OLD, AT = "2026-11-22T15:00:00.000000Z", "2026-11-22T15:30:50.000000Z"
SMALL, LARGE = encode(1, "a small value"), encode("x" * 5000, "a large value")
EDGE, OVER = encode("x" * 1022, "a value"), encode("x" * 1023, "a value")  # of 1024 bytes with the quotes, and of one more
ERROR = encode_error(ValueError("no"))
WORDS = {
    OLD: "before", AT: "now", SMALL.hash: "SMALL", LARGE.hash: "LARGE", EDGE.hash: "EDGE", EDGE.data: "EDGE", OVER.hash: "OVER",
    OVER.data: "OVER", LARGE.data: "LARGE", str(LARGE.data)[:200]: "xxx", ERROR.hash: "ERROR", ERROR.data: "ERROR", None: "-",
}  # fmt: skip
#: A row of each table in which every column that a change may set or reset holds something.
RUN = {
    "flow_id": 1, "version": 5, "epoch": 2, "owner_id": 1, "failures": 2, "durability": "power", "parameters": "{}",
    "created_at": OLD, "started_at": OLD, "state_message": "old", "result": "7", "result_codec": "text", "result_hash": b"h",
    "result_preview": "p", "error_id": 1, "tasks_done": 70, "tasks_total": 71, "next_attempt_at": OLD, "deadline_at": OLD,
    "wake_at": OLD, "crashes": 3,
}  # fmt: skip
CALL = {
    "scope": 0, "task_id": 1, "occurrence": 0, "lane": 0, "version": 3, "epoch": 2, "attempt": 2, "failures": 2,
    "interruptions": 4, "inputs": "{}", "state_message": "old", "result": "7", "result_codec": "text", "result_hash": b"h",
    "result_preview": "p", "error_id": 1, "fatal": 1, "orphaned_in": 1, "next_attempt_at": OLD, "started_at": OLD,
    "ended_at": OLD,
}  # fmt: skip
#: Columns that name a row, for each table that a change may write, and columns that other tests are about.
KEYS = {
    "flow_run": ("id",), "task_run": ("id",), "error": ("id",), "value": ("hash",), "cache": ("key",),
    "transition": ("flow_run_id", "task_run_id", "seq"), "execution": ("flow_run_id", "epoch"),
    "argument": ("flow_run_id", "task_run_id", "name"), "event": ("id",), "dependency": ("flow_run_id", "needs_run_id"),
    "task_code": ("flow_run_id", "task_id", "epoch"),
}  # fmt: skip
UNSHOWN = {"traceback", "key_version", "priority", "created_at"}
STATES = [state.value for state in StateType]
RUN_STATES = [*STATES, "RUNNING Pausing", "COMPLETED RolledBack"]
CALL_STATES = [*STATES, "PENDING NotReady", "CRASHED Interrupted", "COMPLETED Closed", "COMPLETED RolledBack"]


class Case(NamedTuple):
    """One change of run 1 or of call 1, in states from which it is allowed."""

    run: str
    call: str
    make: Callable[[], Any]
    prepare: str = ""


@contextmanager
def scene(empty_journal: Path, folder: Path) -> Iterator[sqlite3.Connection]:
    """Give two runs that are alike, and calls that are: run 1 has the calls 1 to 3, the last of a subflow; run 2 has call 4."""
    path = folder / "scene.db"
    shutil.copy(empty_journal, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM owner")
        insert(connection, "owner", {"id": 1, "pid": 1, "host": "h", "role": "run", "started_at": OLD})
        insert(connection, "flow", {"id": 1, "name": "etl", "first_seen_at": OLD})
        insert(connection, "error", {"id": 1, "type": "ValueError", "message": "old", "traceback": ""})
        for number, kind in ((1, "task"), (2, "flow")):
            insert(connection, "task", {"id": number, "kind": kind, "key": kind, "name": kind, "first_seen_at": OLD})
        for number in (1, 2):
            insert(connection, "flow_run", RUN | {"id": number, "name": f"run-{number}", "state": "RUNNING"})
        for number, run, state in ((1, 1, "RUNNING"), (2, 1, "COMPLETED"), (3, 1, "COMPLETED"), (4, 2, "RUNNING")):
            own = {"id": number, "flow_run_id": run, "state": state, "call_key": bytes([number]), "task_id": 1 + (number == 3)}
            insert(connection, "task_run", CALL | own)
            entry = {"key": f"key-{number}", "result_codec": "json", "result_hash": b"h", "flow_run_id": run, "created_at": OLD}
            insert(connection, "cache", entry | {"task_run_id": number})
        yield connection


def insert(connection: sqlite3.Connection, table: str, columns: dict[str, Any]) -> None:
    places = ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", tuple(columns.values()))


def set_states(connection: sqlite3.Connection, run: str, call: str) -> None:
    """Set the states of the runs, and of the calls 1 and 4."""
    state, _, name = run.partition(" ")
    ended = OLD if StateType(state) in TERMINAL else None
    connection.execute("UPDATE flow_run SET state = ?, state_name = ?, ended_at = ?", (state, name or None, ended))
    state, _, name = call.partition(" ")
    connection.execute("UPDATE task_run SET state = ?, state_name = ? WHERE id IN (1, 4)", (state, name or None))


def rows(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    found = {}
    for table, keys in KEYS.items():
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        for row in cursor.fetchall():
            columns = dict(zip(names, row, strict=True))
            name = " ".join([table, *(shown(columns.pop(key)) for key in keys)])
            found[name] = {key: value for key, value in columns.items() if key not in UNSHOWN}
    return found


def shown(value: Any) -> str:
    if value in WORDS:
        return WORDS[value]
    return value.hex() if isinstance(value, bytes) else str(value)


def written_by(connection: sqlite3.Connection, case: Case) -> list[str]:
    """Return what a change writes: of a row that was there the columns that differ, of a new one those that hold something."""
    before = rows(connection)
    change = case.make()
    if not isinstance(change, transitions.OrphanCall):  # that is about a mark, and the call has one already
        assert not change.landed(connection)
    change.apply(connection)
    after = rows(connection)
    lines = [f"  deleted: {name}" for name in before.keys() - after.keys()]
    for name, columns in after.items():
        old = before.get(name, dict.fromkeys(columns))
        if name not in before or columns != old:
            lines.append(
                f"  {name}: " + " ".join(f"{key}={shown(columns[key])}" for key in columns if columns[key] != old[key])
            )
    lines.append(f"  landed: {change.landed(connection)}")
    return lines


def is_allowed(connection: sqlite3.Connection, case: Case, run: str, call: str, stale: str = "") -> bool:
    """Tell whether a change is written in other states, or where something moved on; if not, it must have written nothing."""
    connection.execute("SAVEPOINT trial")
    try:
        set_states(connection, run, call)
        for statement in filter(None, (case.prepare, stale)):
            connection.execute(statement)
        before = rows(connection)
        change = case.make()
        try:
            change.apply(connection)
        except WriteRefused:
            assert rows(connection) == before
            assert not change.landed(connection)
            return False
        return rows(connection) != before
    finally:
        connection.execute("ROLLBACK TO trial")


STALE = {
    "run version": "UPDATE flow_run SET version = version + 1 WHERE id = 1",
    "run epoch": "UPDATE flow_run SET epoch = epoch + 1 WHERE id = 1",
    "call version": "UPDATE task_run SET version = version + 1 WHERE id = 1",
    "call epoch": "UPDATE task_run SET epoch = epoch + 1 WHERE id = 1",
    "admission": "UPDATE flow_run SET priority = 9 WHERE id = 1",
}


def describe(connection: sqlite3.Connection, name: str, case: Case) -> str:
    """Return what is to be known of a change."""
    runs = [state for state in RUN_STATES if is_allowed(connection, case, state, case.call)]
    calls = [state for state in CALL_STATES if is_allowed(connection, case, case.run, state)]
    fences = [what for what, sql in STALE.items() if not is_allowed(connection, case, case.run, case.call, sql)]
    set_states(connection, case.run, case.call)
    if case.prepare:
        connection.execute(case.prepare)
    lines = [
        name,
        f"  run: {'any' if runs == RUN_STATES else ', '.join(runs)}",
        f"  call: {'any' if calls == CALL_STATES else ', '.join(calls)}",
        f"  fenced by: {', '.join(fences) or 'nothing'}",
    ]
    return "\n".join([*lines, *written_by(connection, case)])


def begin(**changed: Any) -> BeginCall:
    given: dict[str, Any] = {"epoch": 2, "lane": 1, "inputs": '{"a":1}', "at": AT, "running": True}
    return BeginCall(Identity(1, 0, 1, b"n", 7), **{**given, **changed})


def begun() -> BeginCall:
    change = BeginCall(Identity(1, 0, 1, b"n", 7), epoch=2, lane=0, inputs="{}", at=AT, running=False)
    change.task_run_id = 1  # as it is once it was written
    return change


def create(**changed: Any) -> run_transitions.CreateFlowRun:
    given: dict[str, Any] = {
        "name": "new", "flow_id": 1, "parent_task_run_id": None, "owner_id": 1, "code_id": None, "durability": "process",
        "parameters": '{"a":1}', "arguments": [], "tags": '["t"]', "idempotency_key": "key", "entrypoint": "file:x:y",
        "flow_hash": b"f", "at": AT,
    }  # fmt: skip
    return run_transitions.CreateFlowRun(**{**given, **changed})


def schedule() -> run_transitions.ScheduleFlowRun:
    call = run_transitions.QueuedCall(1, b"n", '{"b":2}', "name", '["c"]', BIG[:1])
    return run_transitions.ScheduleFlowRun(
        name="new", flow_id=1, queue="default", durability="process", parameters='{"a":1}', arguments=BIG, tags='["t"]',
        entrypoint="file:x:y", call=call, needs={1: True, 2: False}, at=AT,
    )  # fmt: skip


class Opening:
    """Writes as what is written with a claim does."""

    def write(self, connection: sqlite3.Connection, flow_run_id: int, at: str) -> None:
        connection.execute("UPDATE flow_run SET tags = 'opened' WHERE id = ?", (flow_run_id,))


class Admission:
    """Refuses a run of priority 9, and notes that it began."""

    def check(self, connection: sqlite3.Connection, flow_run_id: int) -> None:
        if connection.execute("SELECT 1 FROM flow_run WHERE id = ? AND priority = 9", (flow_run_id,)).fetchone():
            raise WriteRefused

    def admit(self, connection: sqlite3.Connection, flow_run_id: int) -> None:
        connection.execute("UPDATE flow_run SET queue = 'admitted' WHERE id = ?", (flow_run_id,))


def claim(reason: str, **more: Any) -> Callable[[], Any]:
    given: dict[str, Any] = {
        "version": 5,
        "epoch": 3,
        "owner_id": 1,
        "code_id": None,
        "at": AT,
        "deadline_at": AT,
        "rerun": "all",
    }
    return lambda: run_transitions.ClaimFlowRun(1, reason=reason, **{**given, **more})


def ends(state: str, **more: Any) -> Callable[[], Any]:
    return lambda: run_transitions.EndFlowRun(1, epoch=2, at=AT, state=state, **more)


def crash(**more: Any) -> Callable[[], Any]:
    return lambda: run_transitions.CrashFlowRun(1, **{"version": 5, "epoch": 2, "at": AT, "message": "why", **more})


def call_change(kind: Any, **more: Any) -> Callable[[], Any]:
    return lambda: kind(1, 1, **{"seq": 4, "epoch": 2, "attempt": 2, "at": AT, **more})


def take_back(*calls: int, **more: Any) -> Callable[[], Any]:
    return lambda: corrections.TakeBackCalls(1, calls, version=5, at=AT, message="why", **more)


def start(**more: Any) -> Callable[[], Any]:
    given: dict[str, Any] = {"seq": 4, "epoch": 2, "attempt": 3, "at": AT}
    return lambda: transitions.StartAttempt(None, 1, 1, **{**given, **more})


BIG = [Argument("big", "list", LARGE), Argument("odd", "object", None)]
SUBFLOW = "UPDATE flow_run SET parent_task_run_id = 3 WHERE id = 2"
ISSUED = "UPDATE task_run SET version = version - 2, epoch = 1, attempt = 0, started_at = NULL"
UNMARKED = "UPDATE task_run SET fatal = NULL, orphaned_in = CASE id WHEN 3 THEN 1 END"
UNCHANGED_STORED = f"UPDATE task_run SET result = '1', result_codec = 'json', result_hash = x'{SMALL.hash.hex()}'"
RUNNING, DONE = "RUNNING", "COMPLETED"
t, r, c = transitions, run_transitions, corrections
CASES = {
    "begin": Case(RUNNING, RUNNING, lambda: begin(name="name", tags='["t"]', arguments=BIG)),
    "issue": Case(RUNNING, RUNNING, lambda: begin(running=False, lane=0)),
    "start the first attempt": Case(RUNNING, "PENDING", start(seq=2, attempt=1), ISSUED),
    "start an attempt of a call on its way": Case(
        RUNNING, "PENDING", lambda: t.StartAttempt(begun(), 1, 0, seq=4, epoch=2, attempt=1, at=AT)
    ),
    "start again": Case(RUNNING, "FAILED Name", start()),
    "start afresh": Case(RUNNING, "FAILED", start(attempt=1, fresh=True)),
    "complete": Case(RUNNING, RUNNING, call_change(t.CompleteCall, result=LARGE, state_name="Name", message="why")),
    "complete at once": Case(RUNNING, RUNNING, call_change(t.CompleteCall, result=SMALL, attempt=1)),
    "complete with what just fits": Case(RUNNING, RUNNING, call_change(t.CompleteCall, result=EDGE)),
    "complete with what does not fit": Case(RUNNING, RUNNING, call_change(t.CompleteCall, result=OVER)),
    "resolve with a result": Case("PAUSED", "PAUSED Name", call_change(t.ResolveCall, result=LARGE, message="why")),
    "resolve with a small result": Case("PAUSED", "PAUSED", call_change(t.ResolveCall, result=SMALL, message="why")),
    "resolve as not happened": Case("FAILED", "CRASHED Interrupted", call_change(t.ResolveCall, result=None, message="why")),
    "fail": Case(
        RUNNING, RUNNING,
        call_change(t.FailAttempt, error=ERROR, next_attempt_at=None, state_name="Name", message="why", data=LARGE),
    ),
    "fail with small data at once": Case(
        RUNNING, RUNNING, call_change(t.FailAttempt, error=ERROR, next_attempt_at=None, data=SMALL, attempt=1)
    ),
    "fail without data": Case(RUNNING, RUNNING, call_change(t.FailAttempt, error=ERROR, next_attempt_at=None)),
    "fail at once and wait": Case(
        RUNNING, RUNNING,
        call_change(t.FailAttempt, error=ERROR, next_attempt_at=AT, state_name="Name", message="why", attempt=1),
    ),
    "crash a call": Case(RUNNING, RUNNING, call_change(t.FailAttempt, error=ERROR, next_attempt_at=None, state="CRASHED")),
    "roll back a call": Case(RUNNING, DONE, call_change(t.RollBackCall)),
    "orphan": Case(RUNNING, DONE, lambda: t.OrphanCall(1, 2)),
    "interrupt": Case(
        RUNNING, RUNNING,
        call_change(t.SettleCall, state="CRASHED", state_name="Interrupted", message="why", interruption=True),
    ),
    "park": Case(RUNNING, "CRASHED", call_change(t.SettleCall, state="PAUSED", state_name="Name", message="why", error=ERROR)),
    "give up": Case(RUNNING, "PAUSED", call_change(t.SettleCall, state="FAILED", state_name=None, message="why", error=ERROR)),
    "cancel a call": Case(RUNNING, RUNNING, call_change(t.SettleCall, state="CANCELLED", state_name=None, message="why")),
    "settle a call on its way": Case(
        RUNNING, "PENDING",
        lambda: t.SettleCall(
            1, 0, seq=4, epoch=2, attempt=2, at=AT, state="PENDING", state_name="NotReady", message="why", call=begun()
        ),
    ),
    "create": Case(RUNNING, RUNNING, lambda: create(arguments=BIG, deadline_at=AT)),
    "create a subflow": Case(RUNNING, RUNNING, lambda: create(parent_task_run_id=1, idempotency_key=None)),
    "continue as new": Case(RUNNING, RUNNING, lambda: create(continues=2)),
    "schedule": Case(RUNNING, RUNNING, schedule),
    "schedule from a call": Case(RUNNING, RUNNING, lambda: r.ScheduleFromCall(begin(), schedule())),
    "claim to start": Case("SCHEDULED Name", RUNNING, claim("start")),
    "claim to resume": Case("FAILED", RUNNING, claim("resume")),
    "claim to recover": Case("CRASHED", RUNNING, claim("recovery", opening=Opening(), admission=Admission())),
    "claim to retry": Case("SCHEDULED", RUNNING, claim("retry", rerun=None)),
    "end completed": Case(
        "RUNNING Name", RUNNING, ends("COMPLETED", result=LARGE, orphan_ids=(2,), adopted_ids=(3,)), UNMARKED
    ),
    "end failed": Case(
        RUNNING, "FAILED",
        ends("FAILED", state_name="Name", message="why", error=ERROR, fatal_task_run_ids=(1, 2), counts_failure=True), UNMARKED,
    ),
    "end to retry": Case(RUNNING, "FAILED", ends("SCHEDULED", state_name="AwaitingRetry", error=ERROR, next_attempt_at=AT)),
    "suspend": Case(RUNNING, "PENDING", ends("SCHEDULED", wake_at=AT)),
    "end paused": Case("RUNNING Pausing", RUNNING, ends("PAUSED", result=SMALL)),
    "end cancelled": Case("CANCELLING Name", RUNNING, ends("CANCELLED", message="why", cancels_calls=True)),
    "end crashed": Case(RUNNING, RUNNING, ends("CRASHED", error=ERROR)),
    "roll back a run": Case(DONE, RUNNING, lambda: r.RollBackFlowRun(1, seq=6, epoch=2, at=AT)),
    "crash": Case("RUNNING Name", RUNNING, crash()),
    "crash by itself": Case("RUNNING", RUNNING, crash(version=None, counts=False)),
    "crash of a run to be paused": Case("RUNNING Pausing", RUNNING, crash()),
    "crash of a run to be cancelled": Case("CANCELLING", "CRASHED Interrupted", crash()),
    "take back a call": Case(DONE, DONE, take_back(1)),
    "take back what is kept": Case(DONE, DONE, take_back(1, 1), UNCHANGED_STORED),
    "take back a call in a subflow": Case(DONE, DONE, take_back(4), SUBFLOW),
    "take back a subflow": Case(DONE, DONE, take_back(3), SUBFLOW),
    "take back an inner call": Case(DONE, DONE, take_back(1), "UPDATE task_run SET scope = 2 WHERE id = 1"),
    "take back nothing": Case(DONE, DONE, take_back()),
    "set a result": Case(DONE, DONE, take_back(1, result=LARGE)),
    "set a small result": Case("FAILED", "FAILED", take_back(1, result=SMALL)),
    "supersede": Case(RUNNING, DONE, lambda: c.SupersedeCall(1, 1, seq=4, epoch=2, message="why", at=AT)),
    "reuse": Case(
        RUNNING, DONE,
        lambda: c.ReuseCall(1, 1, seq=4, epoch=2, task_id=2, call_key=b"n", occurrence=1, inputs="{1}", message="why", at=AT),
    ),
    "note the code of a task": Case(RUNNING, DONE, lambda: c.NoteTaskCode(1, 1, 2, "hash")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_change_writes_what_is_written_down_and_from_where_it_may(name: str, empty_journal: Path, tmp_path: Path) -> None:
    expected = {text.partition("\n")[0]: text for text in EXPECTED.read_text().strip().split("\n\n")}
    assert expected.keys() == CASES.keys()
    with scene(empty_journal, tmp_path) as connection:
        assert describe(connection, name, CASES[name]) == expected[name]


@pytest.mark.parametrize(
    ("name", "to_state", "from_states"),
    [
        ("end completed", "CRASHED Interrupted", {"RUNNING"}),
        ("crash", "CRASHED Interrupted", {"RUNNING"}),
        ("crash of a run to be paused", "CRASHED Interrupted", {"RUNNING"}),
        ("end cancelled", "CANCELLED", {"RUNNING", "SCHEDULED", "PAUSED", "PENDING", "CRASHED Interrupted"}),
        ("crash of a run to be cancelled", "CANCELLED", {"RUNNING", "SCHEDULED", "PAUSED", "PENDING", "CRASHED Interrupted"}),
    ],
)
def test_the_end_of_a_run_moves_the_calls_that_have_no_outcome(
    name: str, to_state: str, from_states: set[str], empty_journal: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    moved = set()
    with scene(empty_journal, tmp_path) as connection:
        for call in CALL_STATES:
            connection.execute("SAVEPOINT trial")
            set_states(connection, case.run, call)
            case.make().apply(connection)
            found = connection.execute(
                "SELECT trim(state || ' ' || coalesce(state_name, '')), version FROM task_run WHERE id = 1"
            )
            row = found.fetchone()
            assert row in {(to_state, 4), (call, 3)}
            moved |= {call} if row == (to_state, 4) else set()
            connection.execute("ROLLBACK TO trial")
    assert moved == from_states


def _write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "journal.db"
        store.open_journal(empty)
        store.close_all()
        texts = []
        for name, case in CASES.items():
            with scene(empty, Path(folder)) as connection:
                texts.append(describe(connection, name, case))
        EXPECTED.write_text("\n\n".join(texts) + "\n")


if __name__ == "__main__":
    sys.exit(_write())
