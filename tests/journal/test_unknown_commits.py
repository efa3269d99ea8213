"""After a COMMIT that failed, each change is looked for in the file: it counts as done only if it is there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfengine_journal import store
from wfengine_journal.corrections import NoteTaskCode
from wfengine_journal.places import Claimer, LeaveLine, LineUp
from wfengine_journal.pruning import _DeleteEvents, _VacuumSome
from wfengine_journal.run_transitions import ClaimFlowRun, CrashFlowRun, CreateFlowRun, QueuedCall, ScheduleFlowRun
from wfengine_journal.tickets import Change

AT = "2026-11-22T15:30:50.000000Z"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[store.Journal]:
    yield store.open_journal(tmp_path / "journal.db")
    store.close_all()


def found_undone_and_done(journal: store.Journal, change: Change) -> tuple[bool, bool]:
    """Apply a change twice, and tell what it finds of itself where it was rolled back, and where it was committed."""

    def both(connection: sqlite3.Connection) -> tuple[bool, bool]:
        connection.execute("BEGIN")
        change.apply(connection)
        connection.execute("ROLLBACK")
        undone = change.landed(connection)
        connection.execute("BEGIN")
        change.apply(connection)
        connection.execute("COMMIT")
        return undone, change.landed(connection)

    return journal.read_itself(both)


def found_after_another_wrote(journal: store.Journal, ours: Change, theirs: Change) -> tuple[bool, bool]:
    """Tell what two processes find of their changes, of which the first was undone before the second was committed."""

    def both(connection: sqlite3.Connection) -> tuple[bool, bool]:
        connection.execute("BEGIN")
        ours.apply(connection)
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        theirs.apply(connection)
        connection.execute("COMMIT")
        return ours.landed(connection), theirs.landed(connection)

    return journal.read_itself(both)


def create_run(journal: store.Journal, owner_id: int) -> CreateFlowRun:
    return CreateFlowRun(
        name="quiet-heron", flow_id=journal.flow_id("etl", None), parent_task_run_id=None, owner_id=owner_id, code_id=None,
        durability="process", parameters="{}", arguments=[], tags=None, idempotency_key=None, entrypoint=None, flow_hash=None,
        at=AT,
    )  # fmt: skip


def another_owner(journal: store.Journal) -> int:
    sql = "INSERT INTO owner (pid, host, role, started_at) SELECT 0, host, role, ? FROM owner WHERE id = ? RETURNING id"
    return int(journal.read_itself(lambda connection: connection.execute(sql, (AT, journal.owner_id)).fetchone())[0])


def test_a_run_that_another_process_began_under_the_same_id_is_not_taken_for_ours(journal: store.Journal) -> None:
    ours, theirs = create_run(journal, journal.owner_id), create_run(journal, another_owner(journal))
    assert found_after_another_wrote(journal, ours, theirs) == (False, True)
    assert ours.flow_run_id == theirs.flow_run_id


def test_a_run_that_another_process_took_up_is_not_taken_for_ours(journal: store.Journal) -> None:
    create = create_run(journal, journal.owner_id)
    journal.write(create, synced=False)
    run_id = create.flow_run_id
    journal.write(CrashFlowRun(run_id, version=1, epoch=1, at=AT, message="its process died"), synced=False)
    ours, theirs = (
        ClaimFlowRun(run_id, version=2, epoch=2, owner_id=owner, code_id=None, reason="recovery", at=AT)
        for owner in (journal.owner_id, another_owner(journal))
    )
    assert found_after_another_wrote(journal, ours, theirs) == (False, True)


def test_a_queued_run_that_another_process_put_there_under_the_same_id_is_not_taken_for_ours(journal: store.Journal) -> None:
    flow_id, task_id = journal.flow_id("etl", None), journal.task_id("task", "load", "load")
    ours, theirs = (
        ScheduleFlowRun(
            name=name, flow_id=flow_id, queue="default", durability="process", parameters="{}", arguments=[], tags=None,
            entrypoint=None, call=QueuedCall(task_id, b"k" * 16, "{}", None, None, []), needs={}, at=AT,
        )
        for name in ("quiet-heron", "brave-fox")
    )  # fmt: skip
    assert found_after_another_wrote(journal, ours, theirs) == (False, True)
    assert ours.flow_run_id == theirs.flow_run_id


def test_the_code_of_a_task_is_noted_only_if_its_row_is_there(journal: store.Journal) -> None:
    create = create_run(journal, journal.owner_id)
    journal.write(create, synced=False)
    task_id = journal.task_id("task", "load", "load")
    other = create_run(journal, journal.owner_id)
    journal.write(other, synced=False)
    assert found_undone_and_done(journal, NoteTaskCode(create.flow_run_id, task_id, 1, "a" * 32)) == (False, True)
    for elsewhere in (NoteTaskCode(other.flow_run_id, task_id, 1, ""), NoteTaskCode(create.flow_run_id, task_id, 2, "")):
        assert not journal.read_itself(elsewhere.landed)


def test_who_stands_in_a_line_stands_there_only_if_the_rows_are_there(journal: store.Journal) -> None:
    claimer = Claimer(journal.owner_id)
    paused = "INSERT INTO quota (name, slots, paused, created_at, updated_at) VALUES ('tool', 1, 1, ?, ?)"
    journal.read_itself(lambda connection: connection.execute(paused, (AT, AT)))
    up = LineUp({"tool": 1}, claimer, at=AT)
    assert found_undone_and_done(journal, up) == (False, True)
    assert up.slot_ids != []
    assert found_undone_and_done(journal, LeaveLine(up.slot_ids, journal.owner_id)) == (False, True)
    assert LineUp({}, claimer, at=AT).landed(journal._writer._connection), "who had nothing to write has written it"


def test_events_are_deleted_and_counted_only_if_they_are_gone(journal: store.Journal) -> None:
    nothing = _DeleteEvents(AT)
    assert found_undone_and_done(journal, nothing) == (True, True)
    insert = "INSERT INTO event (name, resource, occurred_at) VALUES ('order.placed', 'order/1', '2020-01-01T00:00:00.000000Z')"
    journal.read_itself(lambda connection: connection.execute(insert))
    assert found_undone_and_done(journal, _DeleteEvents(AT))[0] is False


def test_pages_are_given_back_only_if_so_few_are_free(journal: store.Journal) -> None:
    def make_free(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE filling (content BLOB)")
        connection.executemany("INSERT INTO filling VALUES (zeroblob(1500))", [()] * 300)
        connection.execute("DROP TABLE filling")

    journal.read_itself(make_free)
    assert found_undone_and_done(journal, _VacuumSome()) == (False, True)
