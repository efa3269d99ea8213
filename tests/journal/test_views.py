"""Every view, read by Python's sqlite3 and by the `sqlite3` program: both give the same, right rows."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from handmade import VIEWS, make_journal

READERS = ("python", "sqlite3 program")


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_journal(tmp_path_factory.mktemp("views") / "journal.db")


@pytest.fixture(params=READERS)
def ask(request: pytest.FixtureRequest, journal: Path):
    """Return a function that answers a query with rows as dictionaries."""
    return (_ask_python if request.param == "python" else _ask_program)(journal)


def _ask_python(journal: Path):
    def ask(query: str) -> list[dict[str, object]]:
        connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute(query)]
        finally:
            connection.close()

    return ask


def _ask_program(journal: Path):
    program = shutil.which("sqlite3")
    if program is None:
        pytest.fail("The `sqlite3` program is not installed; the views must work in it. On Debian: apt-get install sqlite3")

    def ask(query: str) -> list[dict[str, object]]:
        answer = subprocess.run(
            [program, "-readonly", "-json", str(journal), query], capture_output=True, check=True, timeout=60
        )
        text = answer.stdout.decode("utf-8", "replace")
        return json.loads(text, strict=False) if text.strip() else []

    return ask


def _columns(rows: list[dict[str, object]], *names: str) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_help_lists_exactly_the_views_there_are(ask) -> None:
    views = {row["name"] for row in ask("SELECT name FROM sqlite_schema WHERE type = 'view'")}
    listed = [row["name"] for row in ask("SELECT name FROM help")]
    assert sorted(listed) == sorted(views) == sorted(VIEWS)


def test_every_sample_query_of_help_runs(ask) -> None:
    for row in ask("SELECT name, try FROM help"):
        assert isinstance(ask(str(row["try"])), list), row["name"]


def test_every_view_can_be_read_whole(ask) -> None:
    for name in VIEWS:
        assert isinstance(ask(f"SELECT * FROM {name}"), list)


def test_runs_show_state_result_error_and_task_counts(ask) -> None:
    rows = ask("SELECT * FROM runs WHERE id < 6 ORDER BY id")
    assert _columns(rows, "name", "state", "state_name", "tasks_done", "tasks_total", "attempt") == [
        ("quiet-heron", "COMPLETED", "Completed", 3, 3, 2),
        ("quiet-heron-report", "COMPLETED", "Completed", 0, 0, 1),
        ("broken-fox", "FAILED", "Failed", 0, 1, 1),
        ("cut-off-owl", "CRASHED", "Crashed", 0, 1, 1),
        ("parked-newt", "PAUSED", "Drifted", 0, 0, 1),
    ]
    assert rows[0]["result"] == '{"rows": 2}'
    assert rows[0]["duration_s"] == 4.5
    assert rows[1]["parent_run_id"] == 1
    assert rows[2]["error"] == "KeyError: 'row'"
    assert rows[3]["error"] == "process 4242 died while running it"


def test_the_fixed_columns_of_runs_and_tasks_come_first_in_their_order(ask) -> None:
    runs = "id name flow state state_name parameters result error attempt tasks_done tasks_total created_at started_at ended_at"
    tasks = "id run_id run_name flow task name state state_name attempts inputs result error started_at ended_at duration_s"
    assert list(ask("SELECT * FROM runs LIMIT 1")[0])[:15] == [*runs.split(), "duration_s"]
    assert list(ask("SELECT * FROM tasks LIMIT 1")[0])[:16] == [*tasks.split(), "replayed"]


def test_tasks_leave_subflow_calls_out_and_say_what_was_replayed(ask) -> None:
    rows = ask("SELECT * FROM tasks WHERE run_id = 1 ORDER BY id")
    assert _columns(rows, "id", "name", "replayed", "orphan", "result") == [
        (1, "extract-1", 1, 0, "[1, 2]"),
        (2, "clean-2", 0, 0, "10"),
        (3, "clean-3", 0, 0, "(1, 2)"),
        (5, "clean-5", 0, 1, "90"),
    ]


def test_attempts_tell_failed_interrupted_and_completed_apart(ask) -> None:
    rows = ask("SELECT * FROM attempts WHERE task_id IN (2, 7) ORDER BY task_id, attempt")
    assert _columns(rows, "task_id", "attempt", "outcome", "error") == [
        (2, 1, "FAILED", "ValueError: not yet"),
        (2, 2, "COMPLETED", None),
        (7, 1, "INTERRUPTED", None),
    ]


def test_failures_hold_the_failed_call_and_the_failed_run(ask) -> None:
    rows = ask("SELECT * FROM failures WHERE run_id IN (3, 4) ORDER BY run_id, task")
    assert _columns(rows, "run_name", "task", "type", "ended_the_run") == [
        ("broken-fox", None, "KeyError", 1),
        ("broken-fox", "clean", "KeyError", 1),
        ("cut-off-owl", None, "CRASHED", 1),
    ]


def test_timeline_counts_seconds_from_the_start_of_the_run(ask) -> None:
    rows = ask("SELECT task, offset_s, duration_s FROM timeline WHERE run_id = 1 AND task_id IN (1, 2)")
    assert _columns(rows, "task", "offset_s", "duration_s") == [("extract", 0.1, 0.1), ("clean", 0.2, 1.8)]


def test_history_is_in_order_and_ends_with_the_end_of_the_run(ask) -> None:
    rows = ask("SELECT * FROM history WHERE run_id = 1")
    instants = [str(row["at"]) for row in rows]
    assert instants == sorted(instants)
    assert (rows[-1]["task_id"], rows[-1]["state_name"]) == (None, "Completed")


def test_stuck_names_the_runs_that_wait_and_the_next_step(ask) -> None:
    rows = ask("SELECT id, name, state, next_step FROM stuck ORDER BY id")
    assert _columns(rows, "name", "state") == [("cut-off-owl", "CRASHED"), ("parked-newt", "PAUSED")]
    assert all(row["next_step"] == f"wfengine resume {row['id']}" for row in rows)  # a name could hold what a shell runs


def test_in_doubt_holds_the_call_that_the_crash_cut_off(ask) -> None:
    assert _columns(ask("SELECT * FROM in_doubt"), "run_name", "task", "inputs") == [("cut-off-owl", "clean", '{"row": 3}')]


def test_orphans_hold_the_call_that_was_never_asked_for_again(ask) -> None:
    assert _columns(ask("SELECT * FROM orphans"), "run_name", "task", "result") == [("quiet-heron", "clean", "90")]


def test_logs_name_level_and_task(ask) -> None:
    rows = ask("SELECT * FROM logs WHERE run_id = 1 ORDER BY id")
    assert _columns(rows, "level", "task", "message") == [
        ("INFO", None, "two rows"),
        ("WARNING", "clean", "slow"),
        ("ERROR", "clean", "first line\nsecond line"),
    ]


def test_flow_stats_and_slowest_tasks_count_what_there_is(ask) -> None:
    stats = ask("SELECT * FROM flow_stats WHERE flow = 'etl'")
    assert _columns(stats, "runs", "completed", "failed", "crashed", "mean_duration_s") == [(5, 1, 2, 1, 4.5)]
    assert _columns(ask("SELECT * FROM slowest_tasks"), "task", "task_runs")[0] == ("clean", 3)


def test_cache_uses_show_what_was_asked_and_which_task_run_had_computed_it(ask) -> None:
    rows = ask("SELECT * FROM cache_uses WHERE run_id = 1 ORDER BY task_id")
    assert _columns(rows, "task_id", "task", "outcome", "key", "source_task_id", "source_run_id") == [
        (2, "clean", "miss", "k1", None, None),
        (3, "clean", "hit", "k1", 2, 1),
    ]


def test_cache_entries_show_the_result_and_until_when_it_is_used(ask) -> None:
    rows = ask("SELECT * FROM cache_entries")
    assert _columns(rows, "key", "task", "run_id", "task_id", "result") == [("k1", "clean", 1, 2, "10")]
    assert str(rows[0]["expires_at"]) > str(rows[0]["created_at"])


def test_disk_usage_counts_the_rows_of_each_kind(ask) -> None:
    rows = {row["what"]: row["rows"] for row in ask("SELECT * FROM disk_usage")}
    assert rows["task runs"] == ask("SELECT count(*) AS n FROM task_run")[0]["n"]
    assert rows["cache entries"] == ask("SELECT count(*) AS n FROM cache")[0]["n"] == 1
    assert rows["flow runs"] == ask("SELECT count(*) AS n FROM flow_run")[0]["n"]
    assert rows["events"] == ask("SELECT count(*) AS n FROM event")[0]["n"]
    assert rows["ticks"] == ask("SELECT count(*) AS n FROM tick")[0]["n"]
    assert rows["streamed items"] == ask("SELECT count(*) AS n FROM item")[0]["n"]
    assert rows["messages"] == ask("SELECT count(*) AS n FROM message")[0]["n"]


def test_a_run_that_goes_on_shows_the_tasks_done_so_far(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "journal.db")
    connection = sqlite3.connect(journal)
    connection.execute(
        "UPDATE flow_run SET state = 'RUNNING', ended_at = NULL, tasks_done = NULL, tasks_total = NULL WHERE id = 1"
    )
    connection.commit()
    assert connection.execute("SELECT tasks_done, tasks_total, duration_s FROM runs WHERE id = 1").fetchone() == (4, 4, None)
    connection.close()
