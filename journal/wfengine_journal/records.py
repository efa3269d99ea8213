"""What the engine reads back: the questions it asks, and one row type for each. Column meanings are in sql/schema.sql.

What replay alone asks is in `recorded_calls`. Reads for people are in `queries`; these go through the write connection, so they
see what this process just committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from wfengine_journal.codec import EncodedError, decode, decode_error
from wfengine_journal.errors import JournalCorruptError, NotFoundError
from wfengine_journal.transitions import Identity

T = TypeVar("T")

#: What a CallRow is made of, as columns of task_run.
CALL_COLUMNS = (
    "scope, task_id, call_key, occurrence, id, lane, state, state_name, state_message, version, epoch, attempt, failures,"
    " interruptions, name, result, result_codec, result_hash, error_id, fatal, orphaned_in, next_attempt_at, ended_at"
)


class FlowRunRow(NamedTuple):
    """One flow run, as far as resuming it needs."""

    id: int
    name: str
    flow_name: str
    parent_task_run_id: int | None
    state: str
    state_name: str | None
    state_message: str | None
    version: int
    epoch: int
    owner_id: int | None
    failures: int
    durability: str
    parameters: str
    tags: str | None
    idempotency_key: str | None
    entrypoint: str | None
    flow_hash: bytes | None
    result: str | bytes | None
    result_codec: str | None
    result_hash: bytes | None
    error_id: int | None
    next_attempt_at: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    queue: str | None
    deadline_at: str | None
    deployment_id: int | None
    crashes: int


class CallRow(NamedTuple):
    """One recorded call, as far as answering it from the journal needs."""

    scope: int
    task_id: int
    call_key: bytes
    occurrence: int
    id: int
    lane: int
    state: str
    state_name: str | None
    state_message: str | None
    version: int
    epoch: int
    attempt: int
    failures: int
    interruptions: int
    name: str | None
    result: str | bytes | None
    result_codec: str | None
    result_hash: bytes | None
    error_id: int | None
    fatal: int | None
    orphaned_in: int | None
    next_attempt_at: str | None
    ended_at: str | None

    def identity(self, flow_run_id: int) -> Identity:
        """Return the identity of the call."""
        return Identity(flow_run_id, self.scope, self.task_id, self.call_key, self.occurrence)

    @property
    def is_cut_off(self) -> bool:
        """Tell whether the last attempt has no outcome: its process died, or a signal unwound it.

        A cancelled call without an error was cut off when its run was cancelled; one with an error was a state it returned.
        """
        if self.state == "CANCELLED":
            return self.error_id is None
        return self.state == "CRASHED" and self.state_name == "Interrupted"

    @property
    def is_failure(self) -> bool:
        """Tell whether an outcome other than a result is recorded: an exception, or a state that the code returned."""
        if self.error_id is None:
            return False
        return self.state in ("FAILED", "CANCELLED") or (self.state == "CRASHED" and self.state_name != "Interrupted")


class OwnerRow(NamedTuple):
    """A process that executes runs, or did."""

    id: int
    pid: int
    host: str
    boot_id: str | None
    process_started: str | None
    role: str
    started_at: str
    ended_at: str | None


class OpenRunRow(NamedTuple):
    """A flow run that is not finished, with who executes it."""

    id: int
    name: str
    flow_name: str
    parent_task_run_id: int | None
    parent_run_id: int | None
    state: str
    version: int
    epoch: int
    owner_id: int | None


class Records:
    """The recorded runs of one journal, as its writing process sees them. All methods may be called from any thread."""

    def __init__(self, path: Path, read: Callable[[Callable[[sqlite3.Connection], object]], object]) -> None:
        self._path = path
        self._read = read

    def row(self, sql: str, parameters: tuple[object, ...]) -> tuple[object, ...] | None:
        """Return the first row of an answer, or None."""
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None

    def rows(self, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """Return all rows of an answer."""
        return self.read(lambda connection: connection.execute(sql, parameters).fetchall())

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a query says of what was committed; inside a transaction of user code, also of what was written there."""
        return cast(T, self._read(query))

    def get_flow_run(self, flow_run_id: int) -> FlowRunRow:
        """Return one flow run; NotFoundError if there is none."""
        row = self.row(
            "SELECT r.id, r.name, f.name, r.parent_task_run_id, r.state, r.state_name, r.state_message, r.version, r.epoch,"
            " r.owner_id, r.failures, r.durability, r.parameters, r.tags, r.idempotency_key, r.entrypoint, r.flow_hash,"
            " r.result, r.result_codec, r.result_hash, r.error_id, r.next_attempt_at, r.created_at, r.started_at, r.ended_at,"
            " r.queue, r.deadline_at, r.deployment_id, r.crashes FROM flow_run r JOIN flow f ON f.id = r.flow_id"
            " WHERE r.id = ?",
            (flow_run_id,),
        )
        if row is None:
            raise NotFoundError(f"There is no flow run {flow_run_id} in {self._path}. See them with: wfengine runs ls")
        return FlowRunRow._make(row)

    def find_last_start(self, flow_run_id: int, task_run_id: int) -> str | None:
        """Return when the last attempt of a call began; task_run_id 0: when the run's body was started the last time."""
        row = self.row(
            "SELECT at FROM transition WHERE flow_run_id = ? AND task_run_id = ? AND state = 'RUNNING'"
            " ORDER BY seq DESC LIMIT 1",
            (flow_run_id, task_run_id),
        )
        return None if row is None else str(row[0])

    def find_flow_run_by_key(self, flow_id: int, idempotency_key: str) -> int | None:
        """Return the id of the flow's run with that idempotency key."""
        row = self.row("SELECT id FROM flow_run WHERE flow_id = ? AND idempotency_key = ?", (flow_id, idempotency_key))
        return None if row is None else cast(int, row[0])

    def is_run_name_taken(self, name: str) -> bool:
        """Tell whether a flow run has that name."""
        return self.row("SELECT 1 FROM flow_run WHERE name = ? LIMIT 1", (name,)) is not None

    def count_logs(self, flow_run_id: int) -> int:
        """Return how many lines a run has logged."""
        (number,) = self.row("SELECT count(*) FROM log WHERE flow_run_id = ?", (flow_run_id,)) or (0,)
        return int(str(number))

    def find_child_run(self, parent_task_run_id: int) -> int | None:
        """Return the id of the flow run that a subflow call started."""
        row = self.row("SELECT id FROM flow_run WHERE parent_task_run_id = ?", (parent_task_run_id,))
        return None if row is None else cast(int, row[0])

    def list_orphans(self, flow_run_id: int, epoch: int) -> list[tuple[int, str, str]]:
        """Return (id, task, inputs) of the completed calls that an execution did not ask for, or replaced by others."""
        rows = self.rows(
            "SELECT t.id, k.name, t.inputs FROM task_run t JOIN task k ON k.id = t.task_id"
            " WHERE t.flow_run_id = ? AND t.orphaned_in = ? ORDER BY t.id",
            (flow_run_id, epoch),
        )
        return [(cast(int, row[0]), str(row[1]), str(row[2])) for row in rows]

    def calls(self, sql: str, parameters: tuple[object, ...]) -> list[CallRow]:
        """Return the rows of an answer that gives CALL_COLUMNS."""
        return self.read(lambda connection: [CallRow._make(row) for row in connection.execute(sql, parameters).fetchall()])

    def find_call(self, identity: Identity) -> int | None:
        """Return the id of the call with that identity."""
        row = self.row(
            "SELECT id FROM task_run WHERE flow_run_id = ? AND scope = ? AND task_id = ? AND call_key = ? AND occurrence = ?",
            identity,
        )
        return None if row is None else cast(int, row[0])

    def get_inputs(self, task_run_id: int) -> str:
        """Return the recorded inputs of a call, as the JSON text of the journal."""
        row = self.row("SELECT inputs FROM task_run WHERE id = ?", (task_run_id,))
        return "{}" if row is None else str(row[0])

    def list_code_hashes(self, flow_run_id: int) -> dict[int, str | None]:
        """Return epoch -> hash of the flow code it ran with."""
        rows = self.rows(
            "SELECT e.epoch, c.hash FROM execution e LEFT JOIN code c ON c.id = e.code_id WHERE e.flow_run_id = ?",
            (flow_run_id,),
        )
        return {cast(int, epoch): cast("str | None", code_hash) for epoch, code_hash in rows}

    def list_reasons(self, flow_run_id: int) -> dict[int, str]:
        """Return epoch -> why the body was started: 'start', 'resume', 'recovery' or 'retry'."""
        rows = self.rows("SELECT epoch, reason FROM execution WHERE flow_run_id = ?", (flow_run_id,))
        return {cast(int, epoch): str(reason) for epoch, reason in rows}

    def list_hook_runs(self, flow_run_id: int) -> set[tuple[int, int, str, str]]:
        """Return the hooks that were called: task run (0: the flow run itself), seq of the transition, option, name."""
        rows = self.rows("SELECT task_run_id, seq, hook, name FROM hook_run WHERE flow_run_id = ?", (flow_run_id,))
        return {(cast(int, task_run_id), cast(int, seq), str(hook), str(name)) for task_run_id, seq, hook, name in rows}

    def find_item(self, flow_run_id: int, task_run_id: int, key: int | str) -> tuple[object] | None:
        """Return the value of one item of a call in a tuple of its own, or None if there is none."""
        row = self.row(
            "SELECT value, codec, hash FROM item WHERE flow_run_id = ? AND task_run_id = ? AND key = ?",
            (flow_run_id, task_run_id, key),
        )
        if row is None:
            return None
        what = f"the item '{key}' of task run {task_run_id} of flow run {flow_run_id}"
        return (self.load_result(cast("str | bytes | None", row[0]), str(row[1]), cast(bytes, row[2]), what),)

    def list_items(self, flow_run_id: int, task_run_id: int, start: int, limit: int) -> list[object]:
        """Return the values of at most `limit` streamed items of a call, from number `start` on, in order."""
        rows = self.rows(
            "SELECT key, value, codec, hash FROM item WHERE flow_run_id = ? AND task_run_id = ? AND key >= ? AND key < ?"
            " ORDER BY key",
            (flow_run_id, task_run_id, start, start + limit),
        )
        what = f"an item of task run {task_run_id} of flow run {flow_run_id}"
        return [
            self.load_result(cast("str | bytes | None", value), str(codec), cast(bytes, hash_), f"{what} ({key})")
            for key, value, codec, hash_ in rows
        ]

    def get_call(self, flow_run_id: int, task_run_id: int) -> CallRow:
        """Return one recorded call of a flow run; NotFoundError if it has none with that id."""
        rows = self.calls(f"SELECT {CALL_COLUMNS} FROM task_run WHERE id = ? AND flow_run_id = ?", (task_run_id, flow_run_id))
        if rows:
            return rows[0]
        raise NotFoundError(
            f"Flow run {flow_run_id} has no task run {task_run_id}. See them with: wfengine runs show {flow_run_id} --tasks"
        )

    def load_result(self, result: str | bytes | None, codec: str, hash_: bytes, what: str) -> object:
        """Return a recorded value, its checksum verified; a result that is not in its row is read from `value`."""
        if result is None:
            _, result = self.get_raw_value(hash_, what)
        return decode(codec, result, hash_, what)

    def load_value(self, hash_: bytes, what: str) -> object:
        """Return a value of table `value` by its hash."""
        codec, data = self.get_raw_value(hash_, what)
        return decode(codec, data, hash_, what)

    def get_raw_value(self, hash_: bytes, what: str) -> tuple[str, str | bytes]:
        """Return codec and data of a value, neither checked nor decoded; `what` names it in the error."""
        row = self.row("SELECT codec, data FROM value WHERE hash = ?", (hash_,))
        if row is None:
            raise JournalCorruptError(f"The value of {what} is missing from {self._path}. Run: wfengine doctor")
        return str(row[0]), cast("str | bytes", row[1])

    def load_error(self, error_id: int) -> BaseException:
        """Return a recorded exception: itself when it can come back, else a RecordedError."""
        row = self.row("SELECT type, message, traceback, data, codec, hash FROM error WHERE id = ?", (error_id,))
        if row is None:
            raise JournalCorruptError(f"Error {error_id} is missing from {self._path}. Run: wfengine doctor")
        return decode_error(EncodedError(*row))  # type: ignore[arg-type]  # the columns are typed by the STRICT table

    def list_arguments(self, flow_run_id: int) -> dict[str, bytes]:
        """Return the flow run's parameters that do not stand in full in its row: name -> hash of the value."""
        rows = self.rows(
            "SELECT name, hash FROM argument WHERE flow_run_id = ? AND task_run_id = 0 AND hash IS NOT NULL", (flow_run_id,)
        )
        return {str(name): cast(bytes, hash_) for name, hash_ in rows}
