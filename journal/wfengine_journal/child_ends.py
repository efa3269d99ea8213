"""How the process ended that was made for one run: noted beside the run's execution, and the run is CRASHED by it.

The process that made it says so. It does not execute the run itself, so no epoch of its own fences it; what it writes is
bound to the owner row of the process that ended, and to the epochs under which that one executed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from wfengine_journal.records import FlowRunRow
from wfengine_journal.run_transitions import CrashFlowRun, record_flow_transition
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import utf8_text


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a process ended that was made for one run."""

    exit_code: int | None  # negative: minus the signal; null: it cannot be told
    peak_memory_bytes: int | None
    output: str  # the last of what it printed
    message: str  # for people, of what it had not ended
    counts: bool = True  # whether that is a crash, and not a stop that somebody asked for
    refused: bool = False  # it left the run alone, as it had to: nothing crashed


class RecordChildEnd:
    """Note how a run's process ended; mark as CRASHED, in the same transaction, what it executed and had not ended.

    A run that it was made for and did not even take up is CRASHED too, unless that was a stop: else it would be tried for
    ever. Sets `crashed`, the
    ids of the runs that this change marked: none, if somebody else was quicker to see that the process is dead.
    """

    __slots__ = ("_at", "_before", "_end", "_last_id", "_owner_id", "crashed")

    def __init__(self, before: FlowRunRow, last_id: int, owner_id: int | None, end: ChildEnd, *, at: str) -> None:
        """`before`: the run as it stood when the process was told to take it up. `last_id`: what it was continued as."""
        self._before = before
        self._last_id = last_id
        self._owner_id = owner_id  # null: it died before it had an owner row
        self._end = end
        self._at = at
        self.crashed: list[int] = []

    def apply(self, connection: sqlite3.Connection) -> None:
        """See Change. Refuses nothing: each part is bound to rows of the process that ended."""
        self.crashed = []
        if self._owner_id is not None:
            self._note_end(connection)
            self._crash_what_was_open(connection)
        if self._end.counts and not self._end.refused:
            self._crash_what_was_not_begun(connection)

    def _note_end(self, connection: sqlite3.Connection) -> None:
        end = self._end
        for run_id in dict.fromkeys((self._last_id, self._before.id)):
            cursor = connection.execute(
                "UPDATE execution SET exit_code = ?, peak_memory_bytes = ?, output = ? WHERE flow_run_id = ? AND owner_id = ?"
                " AND epoch = (SELECT max(epoch) FROM execution WHERE flow_run_id = ? AND owner_id = ?)",
                (
                    end.exit_code,
                    end.peak_memory_bytes,
                    utf8_text(end.output),
                    run_id,
                    self._owner_id,
                    run_id,
                    self._owner_id,
                ),
            )
            if cursor.rowcount == 1:
                return

    def _crash_what_was_open(self, connection: sqlite3.Connection) -> None:
        """Subflows first, as whoever looks at a run finds what is below it as it is."""
        rows = connection.execute(
            "SELECT id, epoch FROM flow_run WHERE owner_id = ? AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
            " AND state IN ('RUNNING', 'CANCELLING')"
            " UNION ALL SELECT id, epoch FROM flow_run WHERE owner_id = ? AND state = 'SCHEDULED' ORDER BY 1 DESC",
            (self._owner_id, self._owner_id),
        ).fetchall()
        for run_id, epoch in rows:
            crash = CrashFlowRun(
                run_id, version=None, epoch=epoch, at=self._at, message=self._end.message, counts=self._end.counts
            )
            try:
                crash.apply(connection)
            except WriteRefused:
                continue
            self.crashed.append(run_id)

    def _crash_what_was_not_begun(self, connection: sqlite3.Connection) -> None:
        before, end = self._before, self._end
        message = f"{end.message}, before the run began"
        if before.state == "CRASHED":  # it is still; that it was tried counts
            cursor = connection.execute(
                "UPDATE flow_run SET state_message = ?, crashes = crashes + 1"
                " WHERE id = ? AND version = ? AND epoch = ? AND state = 'CRASHED'",
                (message, before.id, before.version, before.epoch),
            )
        else:
            cursor = connection.execute(
                "UPDATE flow_run SET state = 'CRASHED', state_name = NULL, state_message = ?, version = version + 1,"
                " crashes = crashes + 1, ended_at = ?"
                " WHERE id = ? AND version = ? AND epoch = ? AND state IN ('SCHEDULED', 'PENDING', 'PAUSED')",
                (message, self._at, before.id, before.version, before.epoch),
            )
            if cursor.rowcount == 1:
                record_flow_transition(
                    connection, before.id, before.version + 1, "CRASHED", None, message, before.epoch, None, self._at
                )
        if cursor.rowcount == 1:
            self.crashed.append(before.id)
            self._log_output(connection)

    def _log_output(self, connection: sqlite3.Connection) -> None:
        """There is no execution to note it at."""
        text = utf8_text(f"{self._end.message}, before the run began. It said: {self._end.output or 'nothing'}")
        connection.execute(
            "INSERT INTO log (flow_run_id, task_run_id, at, level, logger, message) VALUES (?, NULL, ?, 40, ?, ?)",
            (self._before.id, self._at, "wfengine.isolation", text),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether this change is in the file."""
        row = connection.execute(
            "SELECT 1 FROM execution WHERE flow_run_id IN (?, ?) AND owner_id = ? AND output IS NOT NULL"
            " UNION ALL SELECT 1 FROM log WHERE flow_run_id = ? AND at = ? AND logger = 'wfengine.isolation' LIMIT 1",
            (self._last_id, self._before.id, self._owner_id, self._before.id, self._at),
        ).fetchone()
        return row is not None
