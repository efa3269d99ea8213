"""The reads behind the command line: what they return, and that they stay fast in a large journal."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import at, insert_run, insert_task_run, make_journal

from wfengine_journal import queries, task_queries
from wfengine_journal.errors import NotFoundError
from wfengine_journal.rows import ExecutionCounts


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return make_journal(tmp_path / "journal.db")


@pytest.fixture
def connection(journal: Path) -> Iterator[sqlite3.Connection]:
    with queries.reading(journal) as connection:
        yield connection


def test_runs_are_the_same_as_in_the_view(connection: sqlite3.Connection) -> None:
    shared = ["id", "name", "flow", "state", "state_name", "parameters", "result", "error", "attempt", "tasks_done", "pid"]
    rows = connection.execute(f"SELECT {', '.join(shared)} FROM runs ORDER BY id DESC").fetchall()
    found = queries.list_runs(connection)
    assert [tuple(getattr(run, name) for name in shared) for run in found] == [tuple(row) for row in rows]


def test_bars_and_failures_are_the_same_as_in_the_views(connection: sqlite3.Connection) -> None:
    rows = connection.execute(
        "SELECT task, task_id, offset_s, duration_s FROM timeline WHERE run_id = 1 ORDER BY task_id"
    ).fetchall()
    bars = [
        (bar.task, bar.task_id, round(bar.offset_s, 6), round(bar.duration_s or 0, 6))
        for bar in task_queries.list_bars(connection, 1)
    ]
    assert bars == [tuple(row) for row in rows]
    failures = task_queries.list_failures(connection, 3)
    assert [(failure.task, failure.type, failure.ended_the_run) for failure in failures] == [
        (None, "KeyError", True),
        ("clean", "KeyError", True),
    ]


def test_task_counts_count_by_task_and_state_and_name_subflows(connection: sqlite3.Connection) -> None:
    found = [
        (count.kind, count.task, count.state, count.count, count.replayed) for count in task_queries.task_counts(connection, 1)
    ]
    assert found == [
        ("task", "extract", "COMPLETED", 1, 1),
        ("task", "clean", "COMPLETED", 3, 0),
        ("flow", "report", "COMPLETED", 1, 0),
    ]


def test_task_counts_are_the_same_for_a_run_whose_calls_lie_far_apart(journal: Path) -> None:
    writer = sqlite3.connect(journal)
    insert_task_run(writer, 900_000, 1, 1, "FAILED", ended_at=at(14))
    writer.commit()
    writer.close()
    with queries.reading(journal) as connection:
        found = [(count.task, count.state, count.count) for count in task_queries.task_counts(connection, 1)]
    assert found == [
        ("extract", "COMPLETED", 1),
        ("clean", "COMPLETED", 3),
        ("report", "COMPLETED", 1),
        ("extract", "FAILED", 1),
    ]


def test_what_an_execution_ran_is_told_from_what_it_replayed_and_from_orphans(journal: Path) -> None:
    with queries.reading(journal) as connection:
        before = task_queries.execution_counts(connection, 1)
    assert before == ExecutionCounts(replayed=1, ran=2, not_asked=1)
    writer = sqlite3.connect(journal)
    insert_task_run(writer, 900_000, 1, 1, "FAILED", epoch=2, ended_at=at(14))
    writer.commit()
    writer.close()
    with queries.reading(journal) as connection:  # by the index now: the ids lie far apart
        assert task_queries.execution_counts(connection, 1) == ExecutionCounts(replayed=1, ran=3, not_asked=1)


def test_task_groups_hold_medians_and_when_they_ran(connection: sqlite3.Connection) -> None:
    extract, clean, report = task_queries.list_task_groups(connection, 1)
    assert (extract.count, extract.median_s, extract.starts_s, extract.ends_s) == (
        1, pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.2),
    )  # fmt: skip
    assert (clean.count, clean.completed, clean.failed) == (3, 3, 0)
    assert report.kind == "flow"


def test_pages_of_tasks_join_without_gap_or_repetition(connection: sqlite3.Connection) -> None:
    whole = task_queries.list_tasks(connection, 1)
    joined, after_id = [], 0
    while page := task_queries.list_tasks(connection, 1, limit=1, after_id=after_id):
        joined += page
        after_id = page[-1].id
    assert joined == whole
    assert len(whole) == 4


def test_a_run_with_a_number_for_a_name_is_found_when_no_run_has_that_id(journal: Path) -> None:
    writer = sqlite3.connect(journal)
    insert_run(writer, 7, "3", 1, "PAUSED")
    insert_run(writer, 8, "2026", 1, "PAUSED")
    writer.commit()
    writer.close()
    with queries.reading(journal) as connection:
        assert queries.get_run(connection, "3").id == 3
        assert queries.get_run(connection, "2026").id == 8


def test_two_runs_of_one_name_have_to_be_told_apart_by_id(journal: Path) -> None:
    writer = sqlite3.connect(journal)
    insert_run(writer, 7, "broken-fox", 1, "PAUSED")
    writer.commit()
    writer.close()
    with queries.reading(journal) as connection:
        with pytest.raises(NotFoundError, match=r"7 \(broken-fox, Paused\), 3 \(broken-fox, Failed\)"):
            queries.get_run(connection, "broken-fox")
        assert queries.get_run(connection, 3).name == "broken-fox"


def test_the_run_of_a_process_is_found_only_since_it_began_to_look(connection: sqlite3.Connection) -> None:
    assert queries.find_newest_run_of(connection, 4242, at(0), 0) == 6
    assert queries.find_newest_run_of(connection, 4242, at(0), 6) is None
    assert queries.find_newest_run_of(connection, 4242, at(1), 0) is None
    assert queries.find_newest_run_of(connection, 1, at(0), 0) is None


# What a query may scan from end to end: tables with a row per flow, task or run, and what it made itself.
SMALL = {"f", "k", "flow", "task", "r", "flow_run", "meta", "g", "s", "json_each", "(subquery-1)", "(subquery-2)"}


@pytest.mark.parametrize(
    "read",
    [
        lambda c: queries.list_runs(c, limit=5, before_id=4, states=["FAILED"], flow="etl", since=at(0), top_level=True),
        lambda c: queries.get_run(c, "@last"),
        lambda c: queries.get_run(c, "quiet-heron"),
        lambda c: queries.get_run(c, "cut"),
        lambda c: task_queries.task_counts(c, 1),
        lambda c: task_queries.execution_counts(c, 1),
        lambda c: task_queries.find_call_in_doubt(c, 5),
        lambda c: task_queries.list_task_groups(c, 1),
        lambda c: task_queries.list_tasks(c, 1),
        lambda c: task_queries.list_bars(c, 1),
        lambda c: task_queries.list_failures(c, 1),
        lambda c: queries.list_history(c, 1),
        lambda c: queries.list_run_transitions(c, 1),
        lambda c: queries.list_logs(c, 1, level=20, task="clean"),
        lambda c: queries.list_subflow_runs(c, 1, 5),
        lambda c: queries.list_executions(c, 1),
        lambda c: queries.find_newest_run_of(c, 1, at(0), 0),
        lambda c: queries.has_open_runs(c),
        lambda c: queries.find_open_run(c),
    ],
)
def test_no_read_scans_a_table_that_grows_with_the_calls(connection: sqlite3.Connection, read) -> None:
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    read(connection)
    connection.set_trace_callback(None)
    assert statements
    for statement in statements:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()]
        scanned = {found[1] for step in plan if (found := re.match(r"SCAN (\S+)", step))}
        assert scanned <= SMALL, (statement, plan)
        assert not any("AUTOMATIC" in step for step in plan), (statement, plan)
