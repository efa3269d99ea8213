"""What a person corrects in a run that nobody executes: outcomes that are to be made anew, or that are set by hand.

Nothing is lost: the outcome that is taken back stays in `transition`, with the hash of its value. Also here: which calls
are meant by what a person types.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from wfengine_journal.codec import Encoded, value_hash
from wfengine_journal.run_rows import run_family
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import RecordedChange, result_columns, store_value

if TYPE_CHECKING:
    from wfengine_journal.records import Records

#: States in which nobody executes a run, as SQL literals.
_AT_REST = "'PENDING', 'PAUSED', 'CRASHED', 'FAILED', 'CANCELLED', 'COMPLETED'"


class TakeBackCalls:
    """Take back what is recorded of some calls, in one transaction: they are to run again, or have this result.

    So are the calls that made them, up to the flow's body, since a finished call is answered without being entered; of a
    subflow, all that it called runs again. Without calls, a completed run is only opened, for a rule to choose.
    """

    __slots__ = ("_first", "at", "flow_run_id", "message", "result", "task_run_ids", "version")

    def __init__(
        self, flow_run_id: int, task_run_ids: Sequence[int], *, version: int, at: str, message: str,
        result: Encoded | None = None,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_ids = task_run_ids
        self.version = version  # of the flow run, as read before
        self.at = at
        self.message = message
        self.result = result  # None: they run again
        self._first: tuple[int, int, int] | None = None

    def apply(self, connection: sqlite3.Connection) -> None:
        held = connection.execute(
            f"SELECT 1 FROM flow_run WHERE id = ? AND version = ? AND state IN ({_AT_REST})", (self.flow_run_id, self.version)
        ).fetchone()
        if held is None:
            raise WriteRefused
        opened: set[int] = set()
        for task_run_id in self.task_run_ids:
            if self.result is None:
                for inner in _inside(connection, task_run_id):
                    self._take_back(connection, inner, opened)
                self._take_back(connection, task_run_id, opened)
            else:
                self._set(connection, task_run_id)
            for outer in _around(connection, task_run_id):
                self._take_back(connection, outer, opened)
        _open_run(connection, self.flow_run_id, self.message, self.at)

    def landed(self, connection: sqlite3.Connection) -> bool:
        place = self._first or (self.flow_run_id, 0, self.version + 1)  # of no calls: that of a completed run, which is opened
        row = connection.execute(
            "SELECT 1 FROM transition WHERE flow_run_id = ? AND task_run_id = ? AND seq = ?", place
        ).fetchone()
        return row is not None

    def _take_back(self, connection: sqlite3.Connection, task_run_id: int, opened: set[int]) -> None:
        if task_run_id in opened:
            return
        opened.add(task_run_id)
        self._note(_take_back(connection, task_run_id, self.message, self.at))
        child = connection.execute("SELECT id FROM flow_run WHERE parent_task_run_id = ?", (task_run_id,)).fetchone()
        if child is not None:
            _open_run(connection, int(child[0]), self.message, self.at)

    def _set(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        assert self.result is not None
        self._note(_keep_outcome(connection, task_run_id, "COMPLETED", "Set", self.message, self.at))
        stored = result_columns(self.result)
        if stored.result is None:
            store_value(connection, self.result, self.at)
        connection.execute(
            "UPDATE task_run SET state = 'COMPLETED', state_name = 'Set', state_message = ?, version = version + 1, result = ?,"
            " result_codec = ?, result_hash = ?, result_preview = ?, error_id = NULL, fatal = NULL, next_attempt_at = NULL,"
            " ended_at = ? WHERE id = ?",
            (self.message, *stored, self.at, task_run_id),
        )

    def _note(self, transition: tuple[int, int, int]) -> None:
        self._first = self._first or transition


class SupersedeCall(RecordedChange):
    """Take back the outcome of a call of a run that this process executes: it runs again, as a rule of its resume says."""

    __slots__ = ("at", "epoch", "message")

    def __init__(self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, message: str, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.message = message
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        held = connection.execute(
            "SELECT 1 FROM task_run t JOIN flow_run r ON r.id = t.flow_run_id"
            " WHERE t.id = ? AND t.version = ? AND r.id = ? AND r.epoch = ? AND r.state = 'RUNNING'",
            (self.task_run_id, self.seq - 1, self.flow_run_id, self.epoch),
        ).fetchone()
        if held is None:
            raise WriteRefused
        _take_back(connection, self.task_run_id, self.message, self.at)


def _take_back(connection: sqlite3.Connection, task_run_id: int, message: str, at: str) -> tuple[int, int, int]:
    """Let a call run again; return the place of its transition."""
    transition = _keep_outcome(connection, task_run_id, "PENDING", "Rerun", message, at)
    connection.execute(
        "UPDATE task_run SET state = 'PENDING', state_name = 'Rerun', state_message = ?, version = version + 1, result = NULL,"
        " result_codec = NULL, result_hash = NULL, result_preview = NULL, error_id = NULL, fatal = NULL, orphaned_in = NULL,"
        " next_attempt_at = NULL, interruptions = 0, failures = 0 WHERE id = ?",
        (message, task_run_id),
    )
    return transition


def _keep_outcome(
    connection: sqlite3.Connection, task_run_id: int, state: str, name: str, message: str, at: str
) -> tuple[int, int, int]:
    """Keep the present outcome: its value by hash in table `value`, and its hash in the history."""
    codec, data, hash_ = connection.execute(
        "SELECT result_codec, result, result_hash FROM task_run WHERE id = ?", (task_run_id,)
    ).fetchone()
    raw = data.encode() if isinstance(data, str) else data
    if isinstance(raw, bytes) and value_hash(codec, raw) == hash_:  # a damaged one is not kept
        connection.execute(
            "INSERT OR IGNORE INTO value (hash, codec, data, size, python_type, preview, created_at)"
            " SELECT result_hash, result_codec, result, length(CAST(result AS BLOB)), '', coalesce(result_preview, result), ?"
            " FROM task_run WHERE id = ?",
            (at, task_run_id),
        )
    row = connection.execute(
        "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, result_hash, at)"
        " SELECT flow_run_id, id, version + 1, ?, ?, ?, epoch, attempt, result_hash, ? FROM task_run WHERE id = ?"
        " RETURNING flow_run_id, task_run_id, seq",
        (state, name, message, at, task_run_id),
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def _inside(connection: sqlite3.Connection, task_run_id: int) -> list[int]:
    """Return the calls of the subflow that a call started, and of those in it; of a task, none: what it called replays."""
    child = connection.execute("SELECT id FROM flow_run WHERE parent_task_run_id = ?", (task_run_id,)).fetchone()
    runs = [] if child is None else run_family(connection, int(child[0]))
    calls = "SELECT id FROM task_run WHERE flow_run_id = ?"
    return [int(row[0]) for run_id in runs for row in connection.execute(calls, (run_id,)).fetchall()]


def _around(connection: sqlite3.Connection, task_run_id: int) -> list[int]:
    """Return the calls that enclose a call, over subflows up to a flow run of its own."""
    found: list[int] = []
    while True:
        row = connection.execute(
            "SELECT CASE WHEN t.scope <> 0 THEN t.scope ELSE r.parent_task_run_id END"
            " FROM task_run t JOIN flow_run r ON r.id = t.flow_run_id WHERE t.id = ?",
            (task_run_id,),
        ).fetchone()
        if row is None or row[0] is None:
            return found
        task_run_id = int(row[0])
        found.append(task_run_id)


def _open_run(connection: sqlite3.Connection, flow_run_id: int, message: str, at: str) -> None:
    """Let a flow run that completed be taken up again."""
    connection.execute(
        "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
        " SELECT id, 0, version + 1, 'PENDING', 'Rerun', ?, epoch, epoch, ? FROM flow_run WHERE id = ? AND state = 'COMPLETED'",
        (message, at, flow_run_id),
    )
    connection.execute(
        "UPDATE flow_run SET state = 'PENDING', state_name = 'Rerun', state_message = ?, version = version + 1, ended_at = NULL"
        " WHERE id = ? AND state = 'COMPLETED'",
        (message, flow_run_id),
    )


class ReuseCall(RecordedChange):
    """Let a completed call stand for one with other inputs, as a person asked: its row takes their identity."""

    __slots__ = ("at", "call_key", "epoch", "inputs", "message", "occurrence", "task_id")

    def __init__(
        self, flow_run_id: int, task_run_id: int, *, seq: int, epoch: int, task_id: int, call_key: bytes, occurrence: int,
        inputs: str, message: str, at: str,
    ) -> None:  # fmt: skip
        self.flow_run_id = flow_run_id
        self.task_run_id = task_run_id
        self.seq = seq
        self.epoch = epoch
        self.task_id = task_id
        self.call_key = call_key
        self.occurrence = occurrence
        self.inputs = inputs
        self.message = message
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE task_run SET task_id = ?, call_key = ?, occurrence = ?, inputs = ?, state_message = ?, version = ?"
            " WHERE id = ? AND version = ? AND state = 'COMPLETED'"
            " AND EXISTS (SELECT 1 FROM flow_run WHERE id = ? AND epoch = ? AND state = 'RUNNING')",
            (
                self.task_id,
                self.call_key,
                self.occurrence,
                self.inputs,
                self.message,
                self.seq,
                self.task_run_id,
                self.seq - 1,
                self.flow_run_id,
                self.epoch,
            ),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        connection.execute(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
            " SELECT flow_run_id, id, version, state, state_name, ?, epoch, attempt, ? FROM task_run WHERE id = ?",
            (self.message, self.at, self.task_run_id),
        )


class NoteTaskCode:
    """Note with which code of its own a task runs in an execution of a flow run."""

    __slots__ = ("code_hash", "epoch", "flow_run_id", "task_id")

    def __init__(self, flow_run_id: int, task_id: int, epoch: int, code_hash: str) -> None:
        self.flow_run_id = flow_run_id
        self.task_id = task_id
        self.epoch = epoch
        self.code_hash = code_hash

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO task_code (flow_run_id, task_id, epoch, code_hash) VALUES (?, ?, ?, ?)",
            (self.flow_run_id, self.task_id, self.epoch, self.code_hash),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        noted = "SELECT 1 FROM task_code WHERE flow_run_id = ? AND task_id = ? AND epoch = ?"
        return connection.execute(noted, (self.flow_run_id, self.task_id, self.epoch)).fetchone() is not None


# ---------------------------------------------------------------------------------------------------- which calls are meant


def find_calls(records: Records, flow_run_id: int, task: str, key: str | None, call_key: bytes | None) -> list[int]:
    """Return the ids of a run's calls, and those of its subflows, of a task given by name or key, oldest first.

    `key` narrows them: the call_key that the author gave (its hash is `call_key`), the value of one argument, 'name=value',
    or the name of the task run. A `task` that is a number is the id of one task run.
    """
    name, _, value = (None, None, None) if key is None else key.partition("=") if "=" in key else (None, None, key)
    rows = records.rows(
        f"{_FAMILY} SELECT t.id FROM family f JOIN task_run t ON t.flow_run_id = f.id JOIN task k ON k.id = t.task_id"
        " WHERE t.orphaned_in IS NULL AND (k.name = ? OR k.key = ? OR CAST(t.id AS TEXT) = ?)"
        " AND (? IS NULL OR t.call_key = ? OR t.name = ? OR EXISTS (SELECT 1 FROM json_each(t.inputs) j"
        "      WHERE (? IS NULL OR j.key = ?) AND (CAST(j.value AS TEXT) = ? OR json_quote(j.value) = ?)))"
        " ORDER BY t.id",
        (flow_run_id, task, task, task, key, call_key, key, name, name, value, value),
    )
    return [cast(int, row[0]) for row in rows]


def find_calls_from(records: Records, flow_run_id: int, task_run_id: int) -> list[int]:
    """Return the ids of a run's calls that its body made, from that one on, oldest first."""
    rows = records.rows(
        "SELECT id FROM task_run WHERE flow_run_id = ? AND scope = 0 AND id >= ? AND orphaned_in IS NULL ORDER BY id",
        (flow_run_id, task_run_id),
    )
    return [cast(int, row[0]) for row in rows]


def count_calls(records: Records, flow_run_id: int) -> list[tuple[str, int]]:
    """Return (task, number of its calls) of a run and its subflows, by name."""
    rows = records.rows(
        f"{_FAMILY} SELECT k.name, count(*) FROM family f JOIN task_run t ON t.flow_run_id = f.id"
        " JOIN task k ON k.id = t.task_id GROUP BY k.name ORDER BY k.name",
        (flow_run_id,),
    )
    return [(str(row[0]), cast(int, row[1])) for row in rows]


_FAMILY = (
    "WITH RECURSIVE family (id) AS (SELECT ? UNION ALL SELECT r.id FROM family f JOIN task_run t ON t.flow_run_id = f.id"
    " JOIN flow_run r ON r.parent_task_run_id = t.id)"
)
