"""What a child process of the harness does: install its crash plan, then start the flow or go on with its run.

Says on standard output, a line each: `ready` before the journal is opened, then `result JSON`, or `error TYPE: text`.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.crash.plan import StatementPlan
from wfengine import Flow, use_journal
from wfengine.recovery import resumable_runs, resume_run
from wfengine_journal.errors import WfengineError
from wfengine_journal.store import Journal

#: States in which a run has ended or waits for a person; in all others a sweep has to find it.
SETTLED = ("COMPLETED", "FAILED", "PAUSED")


def main(flows: Mapping[str, Flow[[], Any]]) -> None:
    """Do what the command line asks for."""
    options = _options()
    if options.kill_before:
        StatementPlan(options.kill_before, options.journal.with_name("killed-before.sql")).install()
    elif options.list_statements:
        StatementPlan(0, options.journal.with_name("statements.txt")).install()
    print("ready", flush=True)
    if options.wait_for_go:
        sys.stdin.readline()
    chosen = flows[options.flow]
    if options.durability is not None:
        chosen = chosen.with_options(durability=options.durability)
    try:
        result = _go_on(chosen, use_journal(options.journal), options)
    except WfengineError as error:
        print(f"error {type(error).__name__}: {error}".replace("\n", " "), flush=True)
    else:
        print(f"result {json.dumps(result)}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("flow")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--kill-before", type=int, default=0, help="end before the n-th SQL statement that may write")
    parser.add_argument("--list-statements", action="store_true", help="write the kind of each such statement to a file")
    parser.add_argument("--wait-for-go", action="store_true", help="wait for a line on standard input before the first write")
    parser.add_argument("--durability", choices=("power", "process"))
    parser.add_argument("--by-person", action="store_true", help="resume as a person does, not as a recovery does")
    parser.add_argument("--takeover", action="store_true", help="take the run from the process that executes it")
    parser.add_argument("--claim", action="store_true", help="resume at once, without asking whether the run is cut off")
    return parser.parse_args()


def _go_on(chosen: Flow[[], Any], journal: Journal, options: argparse.Namespace) -> object:
    run_id, state = _only_run(journal.path)
    if run_id is None:
        started = chosen()
        return asyncio.run(started) if inspect.iscoroutine(started) else started
    if not (options.claim or options.takeover):
        cut_off = resumable_runs(journal)
        assert (state in SETTLED) != (cut_off == [run_id]), f"run {run_id} is {state}; the sweep found {cut_off}"
    recovery = not (options.by_person or options.claim or options.takeover)
    return resume_run(journal, run_id, takeover=options.takeover, recovery=recovery).result()


def _only_run(journal: Path) -> tuple[int | None, str | None]:
    connection = sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)
    try:
        row = connection.execute("SELECT id, state FROM runs WHERE parent_run_id IS NULL ORDER BY id LIMIT 1").fetchone()
    finally:
        connection.close()
    return (None, None) if row is None else row
