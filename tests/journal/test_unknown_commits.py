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
from wfengine_journal.run_transitions import CreateFlowRun
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


def test_the_code_of_a_task_is_noted_only_if_its_row_is_there(journal: store.Journal) -> None:
    create = CreateFlowRun(
        name="quiet-heron", flow_id=journal.flow_id("etl", None), parent_task_run_id=None, owner_id=journal.owner_id,
        code_id=None, durability="process", parameters="{}", arguments=[], tags=None, idempotency_key=None, entrypoint=None,
        flow_hash=None, at=AT,
    )  # fmt: skip
    journal.write(create, synced=False)
    task_id = journal.task_id("task", "load", "load")
    assert found_undone_and_done(journal, NoteTaskCode(create.flow_run_id, task_id, 1, "a" * 32)) == (False, True)


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
