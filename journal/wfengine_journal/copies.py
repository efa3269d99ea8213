"""Copies of a journal in which its runs can be gone through once more, and what stands in them.

A copy is not the journal: it belongs to one process, and what is done there is thrown away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from wfengine_journal.connection import open_reader
from wfengine_journal.records import Records
from wfengine_journal.schema import backup


class RunHead(NamedTuple):
    """Which flow run it is."""

    id: int
    name: str
    flow_name: str
    state: str
    epoch: int
    is_importable: bool  # its flow can be found by what the journal says


class CallText(NamedTuple):
    """One recorded call, for people."""

    task_run_id: int
    task: str
    inputs: str
    scope: int
    lane: int


def copy_journal(source: Path, target: Path) -> None:
    """Copy a journal, also one that is being written, by SQLite's backup API. `target` must not exist."""
    with closing(open_reader(source)) as reader:
        backup(reader, target)


def list_run_heads(records: Records) -> list[RunHead]:
    """Return every flow run that was begun, oldest first."""
    rows = records.rows(
        "SELECT r.id, r.name, f.name, r.state, r.epoch, r.entrypoint IS NOT NULL OR r.flow_hash IS NOT NULL"
        " FROM flow_run r JOIN flow f ON f.id = r.flow_id WHERE r.epoch > 0 ORDER BY r.id"
    )
    return [RunHead(*row) for row in rows]  # type: ignore[arg-type]  # the columns are typed by the STRICT table


def list_call_texts(records: Records, flow_run_id: int, ids: Collection[int]) -> list[CallText]:
    """Return some calls of a flow run, in the order in which they were written."""
    rows = records.rows(
        "SELECT t.id, k.name, t.inputs, t.scope, t.lane FROM task_run t JOIN task k ON k.id = t.task_id"
        " WHERE t.flow_run_id = ? ORDER BY t.id",
        (flow_run_id,),
    )
    return [text for text in (CallText(*row) for row in rows) if text.task_run_id in ids]  # type: ignore[arg-type]  # as above


class ReopenFlowRun:
    """In a copy: let a run, whatever its state, be taken up as if its process had died just now."""

    __slots__ = ("at", "flow_run_id")

    def __init__(self, flow_run_id: int, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE flow_run SET state = 'CRASHED', state_name = NULL, state_message = NULL, version = version + 1,"
            " ended_at = ? WHERE id = ?",
            (self.at, self.flow_run_id),
        )
        connection.execute(
            "UPDATE task_run SET state = 'CRASHED', state_name = 'Interrupted', version = version + 1, ended_at = ?"
            " WHERE flow_run_id = ? AND state = 'RUNNING'",
            (self.at, self.flow_run_id),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        return False
