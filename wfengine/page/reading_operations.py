"""The operations that only read: entries of the table that `operations` describes."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from wfengine.page.deployment_readings import overview_and_due_json
from wfengine.page.operations import RUN_ID, Operation, Values
from wfengine.page.parameters import Parameter
from wfengine.page.readings import (
    inputs_json,
    run_detail_json,
    run_json,
    task_detail_json,
)
from wfengine.page.search import parse
from wfengine.page.serving import Serving
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import list_calls, list_transitions, newest_logs, search_runs
from wfengine_journal.queries import MAX_ID, get_run_head, list_logs
from wfengine_journal.read_only_sql import sandbox, select
from wfengine_journal.states import StateType
from wfengine_journal.task_queries import list_failures, list_task_groups

#: Rows of one answer, of a statement, and the seconds and characters that a statement may take.
PAGE_LIMIT = 200
SQL_ROWS = 1000
SQL_SECONDS = 2.0
SQL_CHARACTERS = 2_000_000

_LIMIT = Parameter("limit", "integer", "query", "Rows of the answer at the most.", default=50, smallest=1, largest=PAGE_LIMIT)


def _number(values: Values, name: str, otherwise: int = 0) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else otherwise


def _text(values: Values, name: str) -> str | None:
    value = values.get(name)
    return None if value is None else str(value)


def _run_id(values: Values) -> int:
    return _number(values, "run_id")


def _words_ls(values: Values) -> list[str] | None:
    return None if values.get("search") else ["runs", "ls"]


def _list(serving: Serving, values: Values) -> dict[str, object]:
    wanted = parse(str(values["search"] or ""))
    before = _number(values, "before", MAX_ID)
    found = serving.read_here(
        lambda connection: search_runs(connection, wanted, before_id=before, limit=_number(values, "limit"))
    )
    return {
        "runs": [run_json(run) for run in found.runs], "next_before": found.next_before, "searched_to": found.searched_to
    }  # fmt: skip


def _calls(serving: Serving, values: Values) -> dict[str, object]:
    def read(connection: sqlite3.Connection) -> Any:
        get_run_head(connection, _run_id(values))
        return list_calls(
            connection, _run_id(values), after_id=_number(values, "after"), limit=_number(values, "limit"),
            task=_text(values, "task"), state=_text(values, "state"),
        )  # fmt: skip

    found, following = serving.read_here(read)
    return {"tasks": [asdict(each) for each in found], "next_after": following}


def _logs(serving: Serving, values: Values) -> dict[str, object]:
    limit, level, text = _number(values, "limit"), _number(values, "level"), _text(values, "text")

    def read(connection: sqlite3.Connection) -> Any:
        get_run_head(connection, _run_id(values))
        if values.get("after") is not None and text is None:
            return list_logs(connection, _run_id(values), after_id=_number(values, "after"), level=level, limit=limit)
        return newest_logs(
            connection, _run_id(values), before_id=_number(values, "before", MAX_ID), level=level, text=text, limit=limit
        )

    found = serving.read_here(read)
    return {"logs": [asdict(line) for line in found]}


def _history(serving: Serving, values: Values) -> dict[str, object]:
    after = (_number(values, "after_task"), _number(values, "after_seq"))

    def read(connection: sqlite3.Connection) -> Any:
        get_run_head(connection, _run_id(values))
        return list_transitions(connection, _run_id(values), after=after, limit=_number(values, "limit"))

    found = serving.read_here(read)
    last = found[-1] if found else None
    following = None
    if last is not None and len(found) == _number(values, "limit"):
        following = {"after_task": last.task_id or 0, "after_seq": last.seq}
    return {"transitions": [asdict(each) for each in found], "next": following}


def _of_run(name: str, read: Callable[..., list[Any]]) -> Callable[[Serving, Values], object]:
    def perform(serving: Serving, values: Values) -> dict[str, object]:
        def reads(connection: sqlite3.Connection) -> Any:
            get_run_head(connection, _run_id(values))
            return read(connection, _run_id(values))

        return {name: [asdict(each) for each in serving.read_here(reads)]}

    return perform


def ask_sql(serving: Serving, query: str, limit: int = SQL_ROWS) -> dict[str, object]:
    """Run one statement that reads, within its limits. Raises UsageError."""
    if not query.strip():
        raise UsageError("There is no statement to run. Try: SELECT * FROM help")
    rows: list[list[object]] = []
    room, is_cut = SQL_CHARACTERS, False
    with sandbox(serving.path, SQL_SECONDS) as connection:
        selection = select(connection, query)
        for row in itertools.islice(selection.rows, limit + 1):
            shown = [value.hex() if isinstance(value, bytes) else value for value in row]
            room -= sum(len(str(value)) for value in shown)
            if len(rows) == limit or room < 0:
                is_cut = True
                break
            rows.append(shown)
    return {"columns": list(selection.columns), "rows": rows, "is_cut": is_cut}


READS: tuple[Operation, ...] = (
    Operation(
        "overview.get",
        "GET",
        "/overview",
        "How things are: counts, what runs, what failed, what is due.",
        (Parameter("since", "string", "query", "From when on: so long ago, or a date or time.", default="24h"),),
        lambda serving, values: serving.read_here(
            lambda connection: overview_and_due_json(connection, serving, str(values["since"]))
        ),
        lambda values: ["status"],
    ),
    Operation(
        "runs.list",
        "GET",
        "/runs",
        "List runs, newest first.",
        (
            Parameter("search", "string", "query", "Which runs, as in the search box.", default=""),
            Parameter("before", "integer", "query", "Only runs with a smaller id: next_before of the page before."),
            _LIMIT,
        ),
        _list,
        _words_ls,
    ),
    Operation(
        "runs.get",
        "GET",
        "/runs/{run_id}",
        "One run: its state, parameters, result, and what can be done about it.",
        (RUN_ID,),
        lambda serving, values: serving.read_here(lambda connection: run_detail_json(connection, serving, _run_id(values))),
        lambda values: ["runs", "show", str(_run_id(values))],
    ),
    Operation(
        "runs.tasks",
        "GET",
        "/runs/{run_id}/tasks",
        "Task runs of a run, in the order of their calls.",
        (
            RUN_ID,
            Parameter(
                "after", "integer", "query", "Only task runs with a larger id: next_after of the page before.", default=0
            ),
            Parameter("task", "string", "query", "Only calls of this task."),
            Parameter(
                "state", "string", "query", "Only those in this state.", choices=tuple(state.value for state in StateType)
            ),
            _LIMIT,
        ),
        _calls,
        lambda values: ["runs", "show", "--tasks", str(_run_id(values))],
    ),
    Operation(
        "runs.groups",
        "GET",
        "/runs/{run_id}/groups",
        "The calls of a run, counted by task.",
        (RUN_ID,),
        _of_run("groups", list_task_groups),
        lambda values: ["runs", "show", str(_run_id(values))],
    ),
    Operation(
        "runs.failures",
        "GET",
        "/runs/{run_id}/failures",
        "What failed in a run, with tracebacks.",
        (RUN_ID,),
        _of_run("failures", lambda connection, run_id: list_failures(connection, run_id, limit=50)),
        lambda values: ["runs", "show", str(_run_id(values))],
    ),
    Operation(
        "runs.history",
        "GET",
        "/runs/{run_id}/history",
        "Every state change with its reason: of the run, then of its calls.",
        (
            RUN_ID,
            Parameter("after_task", "integer", "query", "See next of the page before.", default=0),
            Parameter("after_seq", "integer", "query", "See next of the page before.", default=0),
            _LIMIT,
        ),
        _history,
        lambda values: ["runs", "show", "--history", str(_run_id(values))],
    ),
    Operation(
        "runs.logs",
        "GET",
        "/runs/{run_id}/logs",
        "What a run logged: the newest lines, or those after one.",
        (
            RUN_ID,
            Parameter("after", "integer", "query", "Only lines with a larger id, oldest first."),
            Parameter("before", "integer", "query", "Only lines with a smaller id."),
            Parameter("level", "integer", "query", "At this level or above, as in Python's logging.", default=0, largest=100),
            Parameter("text", "string", "query", "Only lines that hold this text."),
            replace(_LIMIT, default=200, largest=1000),
        ),
        _logs,
        lambda values: ["runs", "logs", str(_run_id(values))],
    ),
    Operation(
        "tasks.get",
        "GET",
        "/tasks/{task_run_id}",
        "One task run: inputs, result, attempts, why it ran or did not.",
        (Parameter("task_run_id", "integer", "path", "The task run, by its id.", required=True, smallest=1),),
        lambda serving, values: serving.read_here(
            lambda connection: task_detail_json(connection, _number(values, "task_run_id"))
        ),
    ),
    Operation(
        "inputs.list",
        "GET",
        "/inputs",
        "What runs ask people for.",
        (),
        lambda serving, values: serving.read_here(lambda connection: {"inputs": inputs_json(connection, None)}),
        lambda values: ["inputs", "ls"],
    ),
    Operation(
        "sql.query",
        "GET",
        "/sql",
        "Ask the journal anything, read-only.",
        (
            Parameter("q", "string", "query", "One statement that reads. SELECT * FROM help lists the views.", required=True),
            replace(_LIMIT, default=SQL_ROWS, largest=SQL_ROWS),
        ),
        lambda serving, values: ask_sql(serving, str(values["q"]), _number(values, "limit")),
        lambda values: ["sql", str(values["q"])],
    ),
)
