"""What the engine reads back of a run: the rows that are meant and no others, in the order in which they were written."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from wfengine_journal import corrections, recorded_calls
from wfengine_journal.codec import encode, encode_error
from wfengine_journal.errors import JournalCorruptError, NotFoundError
from wfengine_journal.records import CallRow, Records
from wfengine_journal.transitions import Identity, store_error

AT = [f"2026-11-22T15:00:0{second}.000000Z" for second in range(8)]
VALUE = encode([1, 2], "a value")
#: id, run, scope, task, occurrence, lane, state, name of the state, orphaned in
CALLS = (
    (1, 1, 0, 1, 0, 0, "COMPLETED", None, None),
    (2, 1, 1, 1, 0, 0, "COMPLETED", None, None),
    (3, 2, 0, 1, 0, 0, "COMPLETED", None, None),
    (4, 1, 2, 2, 1, 0, "PENDING", None, None),
    (5, 1, 0, 1, 1, 0, "COMPLETED", None, 1),
    (6, 1, 0, 1, 2, 1, "COMPLETED", None, None),
    (7, 1, 0, 1, 3, 0, "COMPLETED", None, None),
    (8, 1, 0, 2, 0, 0, "COMPLETED", "Set", 2),
    (9, 1, 0, 3, 0, 0, "COMPLETED", None, None),  # started run 2
    (10, 2, 9, 1, 0, 0, "FAILED", "NotReady", None),
)


@pytest.fixture
def connection(empty_journal: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    shutil.copy(empty_journal, tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM owner")
        put(connection, "owner", id=1, pid=1, host="h", role="r", started_at=AT[0])
        put(connection, "flow", id=1, name="etl", first_seen_at=AT[0])
        for number, name in ((1, "load"), (2, "save"), (3, "sub")):
            put(
                connection,
                "task",
                id=number,
                kind="flow" if name == "sub" else "task",
                key=f"{name}-key",
                name=name,
                first_seen_at=AT[0],
            )
        for number, parent in ((1, None), (2, 9), (3, None)):
            put(
                connection, "flow_run", id=number, name=f"run-{number}", flow_id=1, parent_task_run_id=parent, state="RUNNING",
                version=1, epoch=1, durability="power", parameters="{}", created_at=AT[0],
                idempotency_key=f"key-{number}" if number < 3 else None,
            )  # fmt: skip
        for number, run, scope, task, occurrence, lane, state, name, orphaned in CALLS:
            put(
                connection, "task_run", id=number, flow_run_id=run, scope=scope, task_id=task, call_key=b"k",
                occurrence=occurrence, lane=lane, state=state, state_name=name, version=2, epoch=1, attempt=1,
                inputs=f'{{"n":{number},"text":"t{number}"}}',
                orphaned_in=orphaned, name=f"name-{number}",
            )  # fmt: skip
        yield connection


@pytest.fixture
def records(connection: sqlite3.Connection) -> Records:
    return Records(Path("journal.db"), lambda query: query(connection))


def put(connection: sqlite3.Connection, table: str, **columns: Any) -> None:
    places = ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", tuple(columns.values()))


def put_transition(connection: sqlite3.Connection, run: int, call: int, seq: int, state: str, name: str | None = None) -> None:
    put(
        connection, "transition", flow_run_id=run, task_run_id=call, seq=seq, state=state, state_name=name, epoch=1, attempt=1,
        at=AT[seq],
    )  # fmt: skip


def ids(calls: list[CallRow]) -> list[int]:
    return [call.id for call in calls]


def test_the_calls_of_a_run_come_in_the_order_in_which_they_were_written(records: Records) -> None:
    assert ids(recorded_calls.list_calls(records, 1)) == [1, 2, 4, 5, 6, 7, 8, 9]
    assert recorded_calls.list_calls(records, 3) == []
    assert [recorded_calls.find_last_call(records, run) for run in (1, 2, 3)] == [9, 10, 0]


def test_a_part_of_the_calls_of_a_run_is_after_one_and_up_to_another(records: Records) -> None:
    assert ids(recorded_calls.list_calls_after(records, 1, 1, 8, 10)) == [2, 4, 5, 6, 7, 8]
    assert ids(recorded_calls.list_calls_after(records, 1, 1, 7, 3)) == [2, 4, 5]
    assert recorded_calls.list_completed(records, 1, 1, 8, 10) == [(2, 1), (5, 0), (6, 0), (7, 0), (8, 0)]
    assert recorded_calls.list_completed(records, 1, 1, 7, 2) == [(2, 1), (5, 0)]


def test_the_calls_inside_a_task_are_those_it_made_and_they_made(records: Records) -> None:
    assert ids(recorded_calls.list_calls_inside(records, 1, 1)) == [2, 4]
    assert ids(recorded_calls.list_calls_inside(records, 1, 2)) == [4]
    assert ids(recorded_calls.list_calls_inside(records, 1, 9)) == []  # what has this scope belongs to another run


@pytest.mark.parametrize("part", range(5))
def test_a_call_is_found_by_each_part_of_its_identity(records: Records, part: int) -> None:
    identity = Identity(1, 0, 1, b"k", 3)
    found = recorded_calls.find_call_row(records, identity, 7)
    assert found is not None
    assert (found.id, found.identity(1), records.find_call(identity)) == (7, identity, 7)
    assert recorded_calls.find_call_row(records, identity, 6) is None
    other = Identity(*(value if place != part else (b"x" if part == 3 else 77) for place, value in enumerate(identity)))
    assert recorded_calls.find_call_row(records, other, 99) is None
    assert records.find_call(other) is None


def test_completed_calls_of_the_main_lane_are_of_one_task_and_scope_and_no_orphans(records: Records) -> None:
    assert recorded_calls.list_completed_on_main_lane(records, 1, 0, 1, 9) == [1, 7]
    assert recorded_calls.list_completed_on_main_lane(records, 1, 0, 1, 7) == [1, 7]
    assert recorded_calls.list_completed_on_main_lane(records, 1, 0, 1, 6) == [1]
    assert recorded_calls.list_completed_on_main_lane(records, 1, 1, 1, 9) == [2]
    assert recorded_calls.list_completed_on_main_lane(records, 1, 0, 2, 9) == []
    assert recorded_calls.list_completed_on_main_lane(records, 2, 0, 1, 99) == [3]
    assert recorded_calls.list_completed_on_main_lane(records, 1, 2, 2, 9) == []  # not completed


def test_a_run_has_calls_that_are_not_ready_only_where_they_are_pending(
    records: Records, connection: sqlite3.Connection
) -> None:
    assert not any(recorded_calls.has_not_ready(records, run) for run in (1, 2))
    connection.execute("UPDATE task_run SET state_name = 'NotReady' WHERE id = 4")
    assert [recorded_calls.has_not_ready(records, run) for run in (1, 2)] == [True, False]


def test_a_run_is_large_with_one_call_more_than_are_read_at_once(records: Records, connection: sqlite3.Connection) -> None:
    names = [row[1] for row in connection.execute("PRAGMA table_info(task_run)")]
    columns = ", ".join(name for name in names if name not in ("id", "occurrence"))
    more = (
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)"
        f" INSERT INTO task_run (occurrence, {columns}) SELECT 1000 + (SELECT max(id) FROM task_run) + n, {columns}"
        " FROM task_run, number WHERE id = 1"
    )
    connection.execute(more, (recorded_calls.CALLS_AT_ONCE - 8,))  # beside the eight that there are
    assert not recorded_calls.is_large(records, 1)
    connection.execute(more, (1,))
    assert [recorded_calls.is_large(records, run) for run in (1, 2)] == [True, False]


def test_what_was_taken_back_is_told_with_both_its_instants(records: Records, connection: sqlite3.Connection) -> None:
    history = ((1, 2, 1, None), (1, 2, 2, "Rerun"), (1, 2, 3, None), (1, 2, 4, "Set"), (2, 3, 1, None), (2, 3, 2, "Rerun"))
    for run, call, seq, name in history:
        put_transition(connection, run, call, seq, "PENDING", name)
    assert recorded_calls.list_superseded(records, 1) == [(1, AT[1], AT[2]), (1, AT[3], AT[4])]


def test_what_is_said_of_executions_is_of_one_run(records: Records, connection: sqlite3.Connection) -> None:
    for run, epoch, reason, rerun in ((1, 1, "start", None), (1, 2, "resume", "failed"), (2, 1, "retry", "chosen")):
        put(connection, "execution", flow_run_id=run, epoch=epoch, owner_id=1, reason=reason, started_at=AT[0], rerun=rerun)
        put(connection, "task_code", flow_run_id=run, task_id=1, epoch=epoch, code_hash=f"{run}-{epoch}")
    assert recorded_calls.list_reruns(records, 1) == {2: "failed"}
    assert recorded_calls.list_task_codes(records, 1) == {(1, 1): "1-1", (1, 2): "1-2"}
    assert records.list_reasons(1) == {1: "start", 2: "resume"}
    assert records.list_code_hashes(1) == {1: None, 2: None}


def test_the_last_start_of_a_call_is_the_last_time_it_was_running(records: Records, connection: sqlite3.Connection) -> None:
    for seq, state in enumerate(("RUNNING", "SCHEDULED", "RUNNING", "FAILED"), start=1):
        put_transition(connection, 1, 1, seq, state)
    put_transition(connection, 1, 0, 5, "RUNNING")
    put_transition(connection, 2, 1, 6, "RUNNING")
    assert [records.find_last_start(1, 1), records.find_last_start(1, 0), records.find_last_start(1, 2)] == [AT[3], AT[5], None]


def test_runs_are_found_by_key_name_and_caller(records: Records, connection: sqlite3.Connection) -> None:
    put(connection, "flow", id=2, name="other", first_seen_at=AT[0])
    found = [records.find_flow_run_by_key(flow, key) for flow, key in ((1, "key-2"), (2, "key-2"), (1, "key-3"))]
    assert found == [2, None, None]
    assert [records.is_run_name_taken(name) for name in ("run-2", "run-9")] == [True, False]
    assert [records.find_child_run(call) for call in (9, 1)] == [2, None]
    assert records.get_flow_run(2).parent_task_run_id == 9
    with pytest.raises(NotFoundError, match="no flow run 4"):
        records.get_flow_run(4)


def test_orphans_are_those_of_one_execution(records: Records) -> None:
    assert records.list_orphans(1, 1) == [(5, "load", '{"n":5,"text":"t5"}')]
    assert records.list_orphans(2, 1) == []


def test_a_call_is_read_only_with_its_own_run(records: Records) -> None:
    assert records.get_call(2, 3).id == 3
    with pytest.raises(NotFoundError, match="has no task run 3"):
        records.get_call(1, 3)
    assert [records.get_inputs(3), records.get_inputs(99)] == ['{"n":3,"text":"t3"}', "{}"]


def test_items_are_read_from_a_number_on_and_named_ones_by_name(records: Records, connection: sqlite3.Connection) -> None:
    for run, call, key in ((1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 1, "name"), (1, 2, 1), (2, 1, 1)):
        value = encode([run, call, key], "an item")
        put(
            connection,
            "item",
            flow_run_id=run,
            task_run_id=call,
            key=key,
            value=value.data,
            codec=value.codec,
            hash=value.hash,
            at=AT[0],
        )
    assert records.list_items(1, 1, 1, 2) == [[1, 1, 1], [1, 1, 2]]
    assert records.list_items(1, 1, 3, 5) == [[1, 1, 3]]
    assert records.find_item(1, 1, "name") == ([1, 1, "name"],)
    assert records.find_item(1, 2, "name") is None
    assert records.find_item(2, 1, 1) == ([2, 1, 1],)


def test_lines_hooks_and_parameters_are_of_one_run(records: Records, connection: sqlite3.Connection) -> None:
    for run in (1, 1, 2):
        put(connection, "log", flow_run_id=run, at=AT[0], level=20, logger="l", message="m")
    for run, call, name in ((1, 0, "a"), (1, 1, "b"), (2, 0, "c")):
        put(connection, "argument", flow_run_id=run, task_run_id=call, name=name, hash=VALUE.hash, python_type="list")
        put(connection, "hook_run", flow_run_id=run, task_run_id=call, seq=2, hook="on_failure", name=name, at=AT[0])
    put(connection, "argument", flow_run_id=1, task_run_id=0, name="lost", python_type="list")
    assert [records.count_logs(run) for run in (1, 2, 3)] == [2, 1, 0]
    assert records.list_arguments(1) == {"a": VALUE.hash}
    assert records.list_hook_runs(1) == {(0, 2, "on_failure", "a"), (1, 2, "on_failure", "b")}


def test_values_and_errors_come_back_and_a_missing_one_is_damage(records: Records, connection: sqlite3.Connection) -> None:
    put(
        connection,
        "value",
        hash=VALUE.hash,
        codec=VALUE.codec,
        data=VALUE.data,
        size=5,
        python_type="list",
        preview="",
        created_at=AT[0],
    )
    assert records.load_value(VALUE.hash, "it") == [1, 2]
    assert records.load_result(None, VALUE.codec, VALUE.hash, "it") == [1, 2]
    with pytest.raises(JournalCorruptError, match=r"The value of it is missing"):
        records.load_value(b"x", "it")
    assert str(records.load_error(store_error(connection, encode_error(ValueError("no"))))) == "no"
    with pytest.raises(JournalCorruptError, match="Error 99 is missing"):
        records.load_error(99)


def test_calls_are_meant_by_task_key_argument_name_and_id_over_subflows(records: Records) -> None:
    def find(task: str, key: str | None = None, call_key: bytes | None = None, run: int = 1) -> list[int]:
        return corrections.find_calls(records, run, task, key, call_key)

    assert find("load") == find("load-key") == [1, 2, 3, 6, 7, 10]  # no orphan
    assert find("load", run=2) == [3, 10]
    assert find("7") == [7]
    assert find("load", "n=7") == find("load", "t7") == find("load", "text=t7") == find("load", "name-7") == [7]
    assert find("load", "text=7") == find("load", "n=t7") == find("save", "n=7") == []
    assert find("load", "anything", b"k") == [1, 2, 3, 6, 7, 10]
    assert find("load", "anything", b"x") == []
    assert corrections.find_calls_from(records, 1, 6) == [6, 7, 9]
    assert corrections.count_calls(records, 1) == [("load", 7), ("save", 2), ("sub", 1)]
    assert corrections.count_calls(records, 3) == []


@pytest.mark.parametrize(
    ("state", "name", "error_id", "is_cut_off", "is_failure"),
    [
        ("CANCELLED", None, None, True, False), ("CANCELLED", None, 1, False, True),
        ("CRASHED", "Interrupted", None, True, False),
        ("CRASHED", "Interrupted", 1, True, False), ("CRASHED", None, 1, False, True), ("CRASHED", None, None, False, False),
        ("FAILED", None, 1, False, True), ("FAILED", None, None, False, False), ("SCHEDULED", None, 1, False, False),
        ("COMPLETED", "Interrupted", 1, False, False),
    ],
)  # fmt: skip
def test_a_call_was_cut_off_or_failed_by_its_state_and_error(
    records: Records, state: str, name: str | None, error_id: int | None, is_cut_off: bool, is_failure: bool
) -> None:
    call = records.get_call(1, 1)._replace(state=state, state_name=name, error_id=error_id)
    assert (call.is_cut_off, call.is_failure) == (is_cut_off, is_failure)
