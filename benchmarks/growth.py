"""W6: what each verb takes in a file with very many task runs, beside a small one: `python -m benchmarks.growth`.

The rows are the engine's own. It runs a block of ten flows of a hundred tasks, of which one fails; that block is then copied,
with other ids, until there are nine tenths of the task runs asked for; and at last it runs one flow with the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from wfengine import flow, task, use_journal
from wfengine.recovery import resume_run
from wfengine_journal import queries, task_queries
from wfengine_journal.store import close_all

#: Task runs of the small file, and of the large one unless it is said otherwise.
SMALL = 2000
LARGE = 1_000_000
#: Flows of a block, and tasks of each: its last flow fails with its last task.
BLOCK_FLOWS = 10
BLOCK_TASKS = 100
#: Blocks that are copied in one transaction.
COPIED_AT_ONCE = 20
#: Tasks of the chain whose pace is measured, and of the run that is resumed.
CHAIN_TASKS = 1000

#: What is asked of each view, with {run} for the large run.
QUESTIONS = (
    "runs ORDER BY id DESC LIMIT 50",
    "runs WHERE state = 'FAILED' ORDER BY id DESC LIMIT 50",
    "tasks WHERE run_id = {run} LIMIT 100",
    "attempts WHERE run_id = {run} LIMIT 100",
    "failures LIMIT 100",
    "timeline WHERE run_id = {run} LIMIT 100",
    "history WHERE run_id = {run} LIMIT 100",
    "stuck",
    "in_doubt",
    "orphans",
    "events ORDER BY id DESC LIMIT 50",
    "upcoming",
    "queues",
    "flow_stats",
    "slowest_tasks LIMIT 10",
    "disk_usage",
)
#: Commands that are timed as whole processes, the last ones change the file.
COMMANDS = (
    "runs ls --limit 50",
    "runs ls --state FAILED",
    "runs ls --state RUNNING",
    "runs show @last",
    "runs logs @last",
    "status",
    "info",
    "resume --all",
    "prune --older-than 0m --keep 100 --dry-run",
    "prune --older-than 0m --keep 100",
)


@task
def sized(value: dict[str, str]) -> dict[str, str]:
    """Take and give 100 bytes of JSON."""
    if "fails" in value:
        raise ValueError(value["fails"])
    return value


@flow(durability="process")
def block(fails: bool) -> None:
    """Run a hundred tasks, of which the last may fail."""
    for number in range(BLOCK_TASKS - 1):
        sized({"value": f"{number:087d}"})
    sized({"fails" if fails else "value": f"{BLOCK_TASKS:087d}"})


@flow(durability="process")
def chain(count: int) -> float:
    """Return the seconds that so many dependent tasks take."""
    value = {"value": f"{count:087d}"}
    began = time.perf_counter()
    for _ in range(count):
        value = sized(value)
    return time.perf_counter() - began


@flow(durability="process")
def large(count: int) -> None:
    """Map so many tasks."""
    sized.map([{"value": f"{number:087d}"} for number in range(count)]).result()


interrupted: set[int] = set()


@flow(durability="process")
def stopped(count: int) -> float:
    """Run tasks, and be interrupted at their end the first time."""
    seconds = chain.fn(count)
    if count not in interrupted:
        interrupted.add(count)
        raise KeyboardInterrupt
    return seconds


# ---------------------------------------------------------------------------------------------------- the file


def make(path: Path, tasks: int) -> int:
    """Write a journal with so many task runs, and return the id of its large run."""
    journal = use_journal(path)
    for number in range(BLOCK_FLOWS):
        with contextlib.suppress(ValueError):
            block(fails=number == BLOCK_FLOWS - 1)
    journal.close()
    in_a_block = BLOCK_FLOWS * BLOCK_TASKS
    copies = max(tasks * 9 // 10 // in_a_block - 1, 0)
    wide = tasks - (1 + copies) * in_a_block
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for first in range(1, copies + 1, COPIED_AT_ONCE):
            _copy_block(connection, first, min(first + COPIED_AT_ONCE - 1, copies))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    journal = use_journal(path)
    large(wide)
    journal.close()
    with queries.reading(path) as connection:
        return queries.newest_run_id(connection)


def _copy_block(connection: sqlite3.Connection, first: int, last: int) -> None:
    """Copy the flow runs 1 to BLOCK_FLOWS, and all that belongs to them, once for each number from first to last."""
    tasks = connection.execute(f"SELECT max(id) FROM task_run WHERE flow_run_id <= {BLOCK_FLOWS}").fetchone()[0]
    run_moved, task_moved = f"+ n * {BLOCK_FLOWS}", f"+ n * {tasks}"
    moved = {
        "flow_run": {"id": f"id {run_moved}", "name": "name || '-' || n"},
        "execution": {"flow_run_id": f"flow_run_id {run_moved}"},
        "task_run": {"id": f"id {task_moved}", "flow_run_id": f"flow_run_id {run_moved}"},
        "transition": {
            "flow_run_id": f"flow_run_id {run_moved}",
            "task_run_id": f"CASE task_run_id WHEN 0 THEN 0 ELSE task_run_id {task_moved} END",
        },
        "task_code": {"flow_run_id": f"flow_run_id {run_moved}"},
        "event": {"id": "NULL", "flow_run_id": f"flow_run_id {run_moved}"},
    }
    connection.execute("BEGIN IMMEDIATE")
    for table, changes in moved.items():
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        chosen = ", ".join(changes.get(column, column) for column in columns)
        of_block = f"{'id' if table == 'flow_run' else 'flow_run_id'} BETWEEN 1 AND {BLOCK_FLOWS}"
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) WITH RECURSIVE numbers (n) AS"
            f" (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})"
            f" SELECT {chosen} FROM numbers CROSS JOIN {table} WHERE {of_block}"
        )
    connection.execute("COMMIT")


# ---------------------------------------------------------------------------------------------------- what is timed


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def pace(path: Path) -> dict[str, float]:
    """Return the seconds of a chain of tasks, and of a resume that replays one."""
    journal = use_journal(path)
    interrupted.clear()
    chain(10)
    found = {f"chain of {CHAIN_TASKS:,} tasks": chain(CHAIN_TASKS)}
    with contextlib.suppress(KeyboardInterrupt):
        stopped(CHAIN_TASKS)
    run_id = int(str(journal.records.rows("SELECT max(id) FROM flow_run")[0][0]))
    found[f"resume of {CHAIN_TASKS:,} replayed tasks"] = seconds(lambda: resume_run(journal, run_id))
    journal.close()
    return found


def reads(path: Path, run: int) -> dict[str, float]:
    """Return the seconds of what the command line and a page ask of the journal, and of questions to each view."""
    found = {}
    with queries.reading(path) as connection:
        found["the last 50 runs"] = seconds(lambda: queries.list_runs(connection, limit=50))
        found["the large run's page: run, groups, 100 tasks, failures"] = seconds(
            lambda: [
                queries.get_run(connection, run),
                task_queries.list_task_groups(connection, run),
                task_queries.list_tasks(connection, run),
                task_queries.list_failures(connection, run),
            ]
        )
        for question in QUESTIONS:
            statement = f"SELECT * FROM {question.format(run=run)}"
            found[question.format(run="LARGE")] = seconds(lambda statement=statement: connection.execute(statement).fetchall())
    return found


def commands(path: Path, which: tuple[str, ...]) -> dict[str, float]:
    """Return the seconds of commands as whole processes."""
    environment = {**os.environ, "WFENGINE_JOURNAL": str(path)}

    def run(words: str) -> None:
        program = "from wfengine.cli import main; main()"
        subprocess.run([sys.executable, "-c", program, *words.split()], env=environment, capture_output=True, check=False)

    return {f"wfengine {words}": seconds(lambda words=words: run(words)) for words in which}


def measure(paths: dict[str, tuple[Path, int]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return by verb and file the seconds of each round, the files taken in turns; pruning comes last, and once."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(name: str, times: dict[str, float]) -> None:
        for what, taken in times.items():
            found.setdefault(what, {}).setdefault(name, []).append(taken)

    for _ in range(rounds):
        for name, (path, run) in paths.items():
            note(name, reads(path, run))
            note(name, commands(path, COMMANDS[:-1]))
            note(name, pace(path))
    for name, (path, _) in paths.items():
        note(name, commands(path, COMMANDS[-1:]))
    return found


def main() -> None:
    """Make both files, measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--tasks", type=int, default=LARGE, help=f"task runs in the large file; default {LARGE:,}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where scratch files go: a local disk, not a RAM disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wfengine-growth-", dir=options.folder) as folder:
        paths = {}
        for name, tasks in (("small", SMALL), ("large", options.tasks)):
            path = Path(folder) / f"{name}.db"
            began = time.perf_counter()
            run = make(path, tasks)
            size = path.stat().st_size
            print(f"{name}: {tasks:,} task runs, {size / 1e6:,.1f} MB, made in {time.perf_counter() - began:.1f} s", flush=True)
            paths[name] = path, run
        found = measure(paths, options.rounds)
        close_all()
    print(f"{'small ms':>10} {'large ms':>10} {'ratio':>7}  medians of {options.rounds} rounds")
    for what, times in found.items():
        small, grown = (statistics.median(times[name]) * 1000 for name in ("small", "large"))
        print(f"{small:10.1f} {grown:10.1f} {grown / small:7.2f}  {what}")


if __name__ == "__main__":
    main()
