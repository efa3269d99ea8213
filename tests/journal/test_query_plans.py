"""No question that people or our own commands ask reads a table that grows with the runs from end to end, but for those below.

Statements are looked at as SQLite plans them for a journal without statistics, which is how journals are: the number of rows
plays no part.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from handmade import VIEWS, make_journal
from plans import Walk, large_walks

from wfengine_journal import queries

ROOT = Path(__file__).parents[2]

NEWEST = "goes from the newest back until it has as many as were asked for"
ALL = "asks about all of them"
WRITES = "an index for it would cost every task, or every run, one more page at each commit"

#: What people ask of each view, and why that walks through something large; '': it does not.
QUESTIONS: dict[str, dict[str, str]] = {
    "runs": {
        "WHERE id = 1": "",
        "WHERE name = 'quiet-heron'": "",
        "WHERE idempotency_key = 'a' AND flow = 'etl'": "",
        "WHERE state = 'FAILED'": "",
        "WHERE state = 'FAILED' ORDER BY id DESC LIMIT 20": "",
        "WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND state = 'RUNNING'": "",
        "WHERE state = 'RUNNING'": "the condition above tells SQLite that an index holds them all; this one does not",
        "ORDER BY id DESC LIMIT 20": NEWEST,
        "WHERE flow = 'etl' ORDER BY id DESC LIMIT 20": NEWEST,
        "WHERE created_at > '2026-11-22' ORDER BY id DESC LIMIT 20": NEWEST,
        "WHERE deployment = 'etl/nightly' ORDER BY id DESC LIMIT 20": NEWEST,
    },
    "tasks": {
        "WHERE id = 1": "",
        "WHERE run_id = 1": "",
        "WHERE run_id = 1 AND state = 'FAILED'": "",
        "WHERE run_name = 'quiet-heron'": "",
        "WHERE state = 'FAILED'": "",
        "ORDER BY id DESC LIMIT 20": NEWEST,
        "WHERE state = 'RUNNING'": WRITES,
        "WHERE task = 'clean'": WRITES,
    },
    "attempts": {"WHERE run_id = 1": "", "WHERE run_id = 1 AND task_id = 1": "", "ORDER BY run_id DESC LIMIT 20": NEWEST},
    "failures": {"": "", "WHERE run_id = 1": "", "WHERE run_name = 'broken-fox'": "", "ORDER BY at DESC LIMIT 20": ""},
    "timeline": {"WHERE run_id = 1": "", "WHERE task_id = 1": ""},
    "history": {"WHERE run_id = 1": "", "WHERE run_id = 1 AND task_id = 1": ""},
    "stuck": {"": "", "WHERE id = 1": "", "ORDER BY id DESC LIMIT 20": ""},
    "in_doubt": {"": "", "WHERE run_id = 1": "", "ORDER BY run_id DESC LIMIT 20": "", "WHERE run_name = 'cut-off-owl'": ""},
    "orphans": {"": "", "WHERE run_id = 1": ""},
    "logs": {"WHERE run_id = 1": "", "WHERE run_id = 1 AND level = 'ERROR'": "", "ORDER BY id DESC LIMIT 20": NEWEST},
    "messages": {
        "WHERE run_id = 1": "",
        "WHERE run_id = 1 AND topic = 'orders'": "",
        "WHERE received_by_task_id IS NULL": "",
        "ORDER BY id DESC LIMIT 20": NEWEST,
    },
    "variables": {"": "", "WHERE name = 'a'": ""},
    "secrets": {"": "", "WHERE name = 'a'": ""},
    "artifacts": {"WHERE id = 1": "", "WHERE key = 'a'": "", "WHERE run_id = 1": "", "ORDER BY id DESC LIMIT 20": NEWEST},
    "deployments": {"": "", "WHERE full_name = 'etl/nightly'": ""},
    "schedules": {"": "", "WHERE deployment = 'etl/nightly'": ""},
    "ticks": {"WHERE schedule_id = 1": "", "WHERE run_id = 1": "", "ORDER BY nominal_at DESC LIMIT 20": NEWEST},
    "missed": {"": "", "WHERE schedule_id = 1": "", "WHERE deployment = 'etl/nightly'": "", "ORDER BY nominal_at DESC": ""},
    "upcoming": {"": "", "LIMIT 20": "", "WHERE deployment = 'etl/nightly'": ""},
    "queues": {"": "", "WHERE name = 'default'": ""},
    "limits": {"": "", "WHERE name = 'a'": ""},
    "events": {
        "WHERE id = 1": "",
        "WHERE run_id = 1": "",
        "ORDER BY id DESC LIMIT 20": NEWEST,
        "WHERE name = 'order.placed' ORDER BY id DESC LIMIT 20": NEWEST,
    },
    "automations": {"": "", "WHERE name = 'a'": ""},
    "notifications": {
        "WHERE id = 1": "",
        "WHERE state = 'pending'": "",
        "WHERE message_id = 'a'": "",
        "ORDER BY id DESC LIMIT 20": NEWEST,
    },
    "notification_targets": {"": "", "WHERE name = 'a'": ""},
    "firings": {"WHERE automation = 'a'": "", "WHERE state = 'pending'": "", "ORDER BY id DESC LIMIT 20": NEWEST},
    "daemons": {"": ""},
    "flow_stats": {"": ALL},
    "slowest_tasks": {"LIMIT 10": ALL},
    "cache_uses": {"WHERE run_id = 1": "", "WHERE run_id = 1 AND task_id = 1": ""},
    "cache_entries": {"WHERE key = 'a'": "", "": ALL},
    "disk_usage": {"": ALL},
    "help": {"": ""},
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    with queries.reading(make_journal(tmp_path_factory.mktemp("plans") / "journal.db")) as connection:
        yield connection


@pytest.mark.parametrize("view", VIEWS)
def test_what_people_ask_of_a_view_is_served_by_an_index_or_has_a_reason_not_to_be(
    connection: sqlite3.Connection, view: str
) -> None:
    for condition, reason in QUESTIONS[view].items():
        found = large_walks(connection, f"SELECT * FROM {view} {condition}")
        assert bool(found) == bool(reason), f"SELECT * FROM {view} {condition}: walks through {shown(found)}"


def test_every_example_of_the_view_help_is_served_by_an_index_or_asks_for_the_newest(connection: sqlite3.Connection) -> None:
    for name, _, example in connection.execute("SELECT * FROM help").fetchall():
        allowed = any(QUESTIONS[name].values())
        assert allowed or not large_walks(connection, example), example


def test_the_open_runs_and_the_failed_ones_are_listed_by_their_index(connection: sqlite3.Connection) -> None:
    for states, index in ((["FAILED"], "flow_run_failed"), (["RUNNING", "CRASHED"], "flow_run_open")):
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        queries.list_runs(connection, states=states)
        connection.set_trace_callback(None)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()]
        assert f"USING INDEX {index}" in plan[0]


# ---------------------------------------------------------------------------------------------------- our own commands

PROGRAM = """
from wfengine import artifacts, current_flow_run, flow, get_run_logger, receive, send, sleep, task
from wfengine.cache_policies import INPUTS

tried = set()

@task(retries=1, tags=["db"])
def flaky(number):
    if number not in tried:
        tried.add(number)
        raise ValueError(number)
    return number

@task(cache_policy=INPUTS)
def cached(number):
    return number

@task
def numbers(count):
    yield from range(count)

@flow
def inner(number):
    return cached(number)

@flow
def busy(count: int = 3):
    get_run_logger().info("begins")
    send(current_flow_run().id, 1)
    receive()
    flaky.map(range(count)).result()
    artifacts.create_markdown_artifact("text", key="report")
    list(numbers(count))
    inner(1)
    sleep(0.001)

@task
def bad():
    raise ValueError

@flow
def broken():
    bad()
"""

#: Runs 1 and 2: busy and its subflow; 3: broken; 4 and 5: busy again, out of the queue; 6: waits in the queue.
COMMANDS = """
run busy.py:busy
run busy.py:broken
deploy busy.py:busy --name nightly --interval 1h
variables set color red
limits set db --slots 3
queues set default --slots 2
deployments run busy/nightly
serve busy.py
deployments run busy/nightly
runs ls
runs ls --state FAILED
runs ls --state RUNNING
runs ls --flow busy --since 1h
runs show @last
runs show 1
runs logs 1
watch 1
tasks explain-cache 1 1
follow 1 numbers
inputs ls
limits ls
limits show db
queues ls
events ls
events ls --name order.placed
events show 1
automations ls
artifacts ls
artifacts ls --key report
artifacts show report
variables ls
variables get color
secrets ls
deployments ls
deployments show busy/nightly
schedules ls
schedules show 1
schedules next
status
info
doctor
pause 6
unpause 6
send 6 1
cancel 6
resume --all
resume 3
retry 3
resume 3 --plan
replay 1
fork 1
diff 1 4
extract 1 extract.db
import extract.db --again
backup backup.db
export 1
export 1 --format html -o page.html
prune --older-than 0m --dry-run
prune --older-than 0m
"""

#: Commands that end with another code than 0: broken fails, the two runs differ, no daemon is there.
CODES = {"run busy.py:broken": 1, "resume 3": 1, "retry 3": 1, "diff 1 4": 1, "status": 3}


class Allowed(NamedTuple):
    """A walk that has a reason; `part` is a part of the statement."""

    part: str
    tables: str
    reason: str


COPY = "is asked of the file that is imported, whole"
CHECKS = "checks everything, or a sample"
PRUNES = "is asked when runs are pruned, and what they leave is looked for"
ALLOWED = [
    Allowed("SELECT coalesce(max(id), 0) FROM", "flow_run task_run", "reads one entry"),
    Allowed("(SELECT max(id) FROM task_run) FROM task_run WHERE flow_run_id =", "task_run", "reads one entry"),
    Allowed("parent_task_run_id IS NULL AND queue IS NULL ORDER BY id DESC LIMIT 1", "flow_run", NEWEST),
    Allowed("FROM event e LEFT JOIN flow_run r", "event", NEWEST),
    Allowed("SELECT id FROM flow_run WHERE parent_task_run_id IS NULL OR parent_task_run_id NOT IN", "flow_run", COPY),
    Allowed("SELECT 'value ' || lower(hex(hash))", "value", CHECKS),
    Allowed("SELECT 'result of task run '", "task_run", CHECKS),
    Allowed("SELECT 'result of run '", "flow_run", CHECKS),
    Allowed("row_number() OVER (PARTITION BY r.flow_id", "flow_run", PRUNES),
    Allowed("DELETE FROM event WHERE id IN (SELECT id FROM event WHERE flow_run_id IS NULL", "event", PRUNES),
    Allowed("DELETE FROM firing WHERE id IN (SELECT id FROM firing WHERE state <> 'pending'", "firing", PRUNES),
    Allowed("DELETE FROM notification WHERE id IN (SELECT id FROM notification", "notification", PRUNES),
    Allowed("DELETE FROM tick WHERE (schedule_id, nominal_at) IN", "tick", PRUNES),
    Allowed("SELECT state, count(*) FROM flow_run GROUP BY state", "flow_run", ALL),
    Allowed("SELECT (SELECT count(*) FROM flow), (SELECT count(*) FROM task_run)", "task_run value log", ALL),
]


def plain(statement: str) -> str:
    return " ".join(statement.split())


def shown(walks: set[Walk]) -> str:
    return ", ".join(sorted(map(str, walks)))


def is_allowed(statement: str, found: set[Walk], used: set[Allowed]) -> bool:
    fits = [entry for entry in ALLOWED if entry.part in plain(statement)]
    used.update(fits)
    return any({walk.table for walk in found} <= set(entry.tables.split()) for entry in fits)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int], list[tuple[str, str]]]:
    """Return a journal, the exit codes of the commands that made it, and what SQLite ran for each of them."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "busy.py").write_text(PROGRAM, encoding="utf-8")
    commands = [line.split() for line in COMMANDS.strip().splitlines()]
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("traced_commands.py")), "statements.json"],
        cwd=folder,
        input=json.dumps(commands),
        env={**os.environ, "WFENGINE_JOURNAL": str(folder / "journal.db")},
        check=True,
        text=True,
        timeout=150,
    )
    said = json.loads((folder / "statements.json").read_text(encoding="utf-8"))
    return folder / "journal.db", said["codes"], [(command, statement) for command, statement in said["statements"]]


def test_no_command_walks_through_what_grows_with_the_runs_but_those_with_a_reason(traced) -> None:
    path, codes, statements = traced
    assert codes == {line: CODES.get(line, 0) for line in COMMANDS.strip().splitlines()}
    used: set[Allowed] = set()
    wrong = {}
    with queries.reading(path) as connection:
        for command, statement in statements:
            if not re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", statement) or re.search(ELSEWHERE, statement):
                continue
            found = large_walks(connection, statement)
            if found and not is_allowed(statement, found, used):
                wrong.setdefault((shown(found), re.sub(r"\d+", "N", plain(statement))), command)
    assert not wrong, "\n".join(
        f"{command}: walks through {found}: {statement}" for (found, statement), command in wrong.items()
    )
    assert [entry.part for entry in ALLOWED if entry not in used] == []


#: What is done with tables of a transaction's own, or in a copy that is being made.
ELSEWHERE = r"\b(source|temp|main)\.|\b(wanted|prune)_|\bpicked\b"
