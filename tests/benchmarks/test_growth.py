"""The file that `benchmarks.growth` makes is a sound one, and what people and daemons ask takes no longer in a larger one.

How long is counted in steps of SQLite's own program, which is the same on every machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import growth
from tests.engine.deployed import deploy
from wfengine_journal import queries, queues, task_queries, ticks
from wfengine_journal.block_transitions import list_woken
from wfengine_journal.store import close_all, open_journal

#: Task runs of the two files.
FEW, MANY = 2000, 12_000

NOW = "2026-11-28T09:00:00.000000Z"
#: What an executor asks for that serves one deployment, with nothing begun.
ASKED = queues.Asked(NOW, 1e9, 4, [], [], ["default"], "own", {}, [1])

READS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "the newest runs": lambda c: queries.list_runs(c, limit=5),
    "the runs that are executed": lambda c: queries.list_runs(c, states=["RUNNING", "SCHEDULED"]),
    "the runs that crashed": lambda c: queries.list_runs(c, states=["CRASHED"]),
    "the newest runs that failed": lambda c: queries.list_runs(c, states=["FAILED"], limit=1),
    "a run by its name": lambda c: queries.find_runs(c, "no-such-run"),
    "the last run": lambda c: queries.get_run(c, "@last"),
    "the tasks of a run": lambda c: task_queries.list_task_groups(c, 1),
    "the calls of a run": lambda c: task_queries.list_tasks(c, 1),
    "the failures of a run": lambda c: task_queries.list_failures(c, 1),
    "the history of a run": lambda c: queries.list_history(c, 1),
    "the bars of a run": lambda c: task_queries.list_bars(c, 1),
    "the log of a run": lambda c: queries.list_logs(c, 1),
    "the subflows of a run": lambda c: queries.list_subflow_runs(c, 1, 5),
    "whether a run is open": queries.has_open_runs,
    "the newest open run": queries.find_open_run,
    "what an executor of one deployment may begin": lambda c: queues.look(c, ASKED),
    "what any executor may begin": lambda c: queues.look(c, ASKED._replace(queues=None, recover="all", deployment_ids=None)),
    "what crashed too often": lambda c: queues.list_given_up(c, ASKED),
    "what a full deployment holds back": lambda c: queues._list_untold(c, [1], NOW, []),
    "the open runs of a schedule": lambda c: ticks.list_open_runs_of(c, ticks.list_schedule_rows(c, schedule_id=1)[0], 10),
    "the schedules that are due": lambda c: ticks.list_due(c, NOW, 10),
    "the run of a process": lambda c: queries.find_newest_run_of(c, 1, "2026", queries.newest_run_id(c)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("growth")
    found = folder / "few.db", folder / "many.db"
    for path, tasks in zip(found, (FEW, MANY), strict=True):
        growth.make(path, tasks)
        deploy(open_journal(path), "block")
        close_all()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "INSERT INTO schedule (id, deployment_id, kind, rule, timezone, day_or, parameters, slug, active, created_at)"
                " VALUES (1, 1, 'cron', '0 3 * * *', 'UTC', 1, '{}', '', 1, ?)",
                (NOW,),
            )
            # @last looks for the last run that a person started, from the newest on: one has to be there.
            ((last,),) = connection.execute("SELECT name FROM flow_run ORDER BY id DESC LIMIT 1").fetchall()
            connection.execute(
                "UPDATE flow_run SET deployment_id = 1, queue = 'default', nominal_at = created_at WHERE name <> ?", (last,)
            )
    return found


def steps(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """Return how many steps SQLite takes on a connection for some work."""
    taken = [0]

    def count() -> None:
        taken[0] += 1

    connection.set_progress_handler(count, 1)
    try:
        work()
    finally:
        connection.set_progress_handler(None, 1)
    return taken[0]


def test_the_file_is_sound_and_holds_as_many_task_runs_as_asked_for(files: tuple[Path, Path]) -> None:
    with queries.reading(files[1]) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        runs, failed = connection.execute("SELECT count(*), count(CASE state WHEN 'FAILED' THEN 1 END) FROM runs").fetchone()
        assert connection.execute("SELECT count(*) FROM tasks").fetchone()[0] == MANY
        assert (runs, failed) == (101, 10)


@pytest.mark.parametrize("what", READS)
def test_a_read_takes_no_more_steps_in_a_file_of_many_task_runs(files: tuple[Path, Path], what: str) -> None:
    taken = []
    for path in files:
        with queries.reading(path) as connection:
            taken.append(steps(connection, lambda connection=connection: READS[what](connection)))
    assert taken[1] <= taken[0] * 1.1 + 50, taken


def test_what_recovery_asks_takes_no_more_steps_in_a_file_of_many_task_runs(files: tuple[Path, Path]) -> None:
    taken = []
    for path in files:
        journal = open_journal(path)
        taken.append(
            [
                steps(journal._writer._connection, journal.list_open_runs),
                steps(journal._writer._connection, lambda journal=journal: list_woken(journal.records, "9999")),
            ]
        )
        journal.close()
    assert taken[0] == taken[1]
