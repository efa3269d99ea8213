"""Operations that only read, of the parts of a run, of flows, and of the axis of time: entries of the table in `operations`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from wfengine.page.asked import Asked, Data
from wfengine.page.flow_readings import flow_json, flows_json, timeline_json
from wfengine.page.operations import RUN_ID, Operation, Values
from wfengine.page.parameters import Parameter
from wfengine.page.readings import json_of, run_json
from wfengine.page.run_parts import read_code, read_graph, read_timeline
from wfengine.page.serving import Serving
from wfengine_journal.artifacts import list_artifacts
from wfengine_journal.queries import MAX_ID, get_run_head

ARTIFACTS = 100


def _run_id(values: Values) -> int:
    return int(str(values["run_id"]))


def _words_show(values: Values) -> list[str]:
    return ["runs", "show", str(_run_id(values))]


def _part(
    name: str, read: Callable[[sqlite3.Connection, Serving, Data, Asked], Data]
) -> Callable[[Serving, Values], object]:  # fmt: skip
    def perform(serving: Serving, values: Values) -> object:
        asked = Asked({}, {key: str(value) for key, value in values.items() if value is not None})

        def reads(connection: sqlite3.Connection) -> Data:
            return read(connection, serving, run_json(get_run_head(connection, _run_id(values))), asked)

        return {name: serving.read_here(reads)}

    return perform


def _artifacts(connection: sqlite3.Connection, serving: Serving, run: Data, asked: Asked) -> Any:
    found = list_artifacts(connection, run_id=run["id"], before_id=asked.number("before", MAX_ID), limit=ARTIFACTS)
    return [{**each._asdict(), "data": each.data if each.type == "markdown" else json_of(each.data)} for each in found]


RUN_READS: tuple[Operation, ...] = (
    Operation(
        "runs.timeline",
        "GET",
        "/runs/{run_id}/timeline",
        "When the calls of a run took place, each or by task, and which was given whose result.",
        (
            RUN_ID,
            Parameter("from", "string", "query", "Only calls under way after so many seconds from the start of the run."),
            Parameter("to", "string", "query", "Only calls under way before so many seconds from the start of the run."),
        ),
        _part("timeline", read_timeline),
        _words_show,
    ),
    Operation(
        "runs.graph",
        "GET",
        "/runs/{run_id}/graph",
        "Which calls of a run were given the results of which, by content.",
        (RUN_ID,),
        _part("graph", read_graph),
    ),
    Operation(
        "runs.code",
        "GET",
        "/runs/{run_id}/code",
        "With which code a run took place, how it was edited, and which calls were not asked for again.",
        (RUN_ID,),
        _part("code", read_code),
    ),
    Operation(
        "runs.artifacts",
        "GET",
        "/runs/{run_id}/artifacts",
        "What a run made for people to look at, newest first.",
        (RUN_ID, Parameter("before", "integer", "query", "Only artifacts with a smaller id.")),
        _part("artifacts", _artifacts),
        lambda values: ["artifacts", "ls"],
    ),
    Operation(
        "flows.list",
        "GET",
        "/flows",
        "The flows of the journal, with how their newest runs ended.",
        (),
        lambda serving, values: serving.read_here(flows_json),
    ),
    Operation(
        "flows.get",
        "GET",
        "/flows/{flow}",
        "One flow: its newest runs by what they called, how long they took, its parameters.",
        (Parameter("flow", "string", "path", "Name of the flow.", required=True),),
        lambda serving, values: serving.read_here(lambda connection: flow_json(connection, str(values["flow"]))),
    ),
    Operation(
        "timeline.get",
        "GET",
        "/timeline",
        "Runs that were under way since an instant, and what is due.",
        (
            Parameter("since", "string", "query", "From when on: so long ago, or a date or time.", default="24h"),
            Parameter("ahead", "string", "query", "So far ahead: 12h; default a quarter of the time that was."),
        ),
        lambda serving, values: serving.read_here(
            lambda connection: timeline_json(connection, str(values["since"]), str(values["ahead"] or ""))
        ),
    ),
)
