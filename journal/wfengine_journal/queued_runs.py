"""Runs of deployments: written before anybody executes them, and taken out of their queue by one process.

Who asks for one - a schedule, a person, an automation, another flow - has only JSON values and does not load the flow's code.
What the run's parameters mean is found when it is taken up first: see `Opening`, which the claim writes along.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wfengine_journal.codec import EncodedError, json_text
from wfengine_journal.run_transitions import is_run_written, record_flow_transition
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import Argument, RecordedChange, store_arguments, store_error, tags_text


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run of a deployment is to be. `name` has to be free: `names.new_run_name(records.is_run_name_taken)`."""

    deployment_id: int
    name: str
    at: str
    parameters: Mapping[str, object] = field(default_factory=dict)  # JSON values; they go before those of the deployment
    tags: Sequence[str] = ()  # beside those of the deployment
    idempotency_key: str | None = None
    deduplication_key: str | None = None
    refuses_duplicate: bool = False  # where a run holds that key, it is an error and not the answer
    queue: str | None = None  # null: that of the deployment; so too the priority
    priority: int | None = None
    partition_key: str | None = None
    nominal_at: str | None = None  # the instant of the schedule that asked
    due_at: str | None = None  # not taken up before
    after_runs: Sequence[int] = ()  # not taken up before these have ended, however they end


class QueueRun(RecordedChange):
    """Write a SCHEDULED run of a deployment into its queue. Sets `flow_run_id`.

    Refused where the deployment was removed, and where its flow has a run with that idempotency key, or one that holds that
    deduplication key in its queue: `existing_id` is then that run's id. `is_duplicate` tells that it is the latter.
    """

    __slots__ = ("_deployment", "existing_id", "is_duplicate", "request")

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.flow_run_id = 0
        self.task_run_id = 0
        self.seq = 1
        self.existing_id: int | None = None
        self.is_duplicate = False
        self._deployment: tuple[Any, ...] = ()

    def apply(self, connection: sqlite3.Connection) -> None:
        request = self.request
        if not self.look(connection) or self.existing_id is not None:
            raise WriteRefused
        flow_id, parameters, tags, entrypoint, queue, priority = self._deployment
        cursor = connection.execute(
            "INSERT INTO flow_run (name, flow_id, queue, state, version, epoch, durability, parameters, tags, entrypoint,"
            " created_at, idempotency_key, deployment_id, nominal_at, due_at, priority, partition_key, deduplication_key)"
            " VALUES (?, ?, ?, 'SCHEDULED', 1, 0, 'power', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                request.name,
                flow_id,
                request.queue or queue,
                json_text({**json.loads(parameters), **request.parameters}),
                tags_text({*json.loads(tags or "[]"), *request.tags}),
                entrypoint,
                request.at,
                request.idempotency_key,
                request.deployment_id,
                request.nominal_at,
                request.due_at,
                priority if request.priority is None else request.priority,
                request.partition_key,
                request.deduplication_key,
            ),
        )
        self.flow_run_id = int(cursor.lastrowid or 0)
        record_flow_transition(connection, self.flow_run_id, 1, "SCHEDULED", None, None, 0, None, request.at)
        for needed in request.after_runs:
            connection.execute(
                "INSERT INTO dependency (flow_run_id, needs_run_id, must_complete) VALUES (?, ?, 0)", (self.flow_run_id, needed)
            )

    def landed(self, connection: sqlite3.Connection) -> bool:
        return is_run_written(connection, self.flow_run_id, self.request.name, self.request.at)

    def look(self, connection: sqlite3.Connection) -> bool:
        """Find the run that answers the request, within a transaction that writes; tell whether the deployment is there."""
        request = self.request
        self.existing_id, self.is_duplicate = None, False
        found = connection.execute(
            "SELECT flow_id, parameters, tags, entrypoint, queue, priority FROM deployment WHERE id = ? AND removed_at IS NULL",
            (request.deployment_id,),
        ).fetchone()
        if found is None:
            return False
        self._deployment, flow_id, queue = found, found[0], request.queue or found[4]
        if request.idempotency_key is not None:
            row = connection.execute(
                "SELECT id FROM flow_run WHERE flow_id = ? AND idempotency_key = ?", (flow_id, request.idempotency_key)
            ).fetchone()
            self.existing_id = None if row is None else int(row[0])
        if request.deduplication_key is not None and self.existing_id is None:
            # Not an index that is unique: a person may take up one that failed while the key is another one's.
            row = connection.execute(
                "SELECT id FROM flow_run WHERE deduplication_key = ? AND state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
                " AND queue = ? AND flow_id = ? ORDER BY id LIMIT 1",
                (request.deduplication_key, queue, flow_id),
            ).fetchone()
            self.existing_id, self.is_duplicate = (None, False) if row is None else (int(row[0]), True)
        return True


class Opening(NamedTuple):
    """What becomes known of a queued run when it is taken up first, with the flow's code at hand: its claim writes it along."""

    parameters: str
    arguments: Sequence[Argument]
    name: str
    tags: str | None
    durability: str

    def write(self, connection: sqlite3.Connection, flow_run_id: int, at: str) -> None:
        """Write it to the run's row, which was claimed in the same transaction."""
        connection.execute(
            "UPDATE flow_run SET parameters = ?, name = ?, tags = ?, durability = ? WHERE id = ?",
            (self.parameters, self.name, self.tags, self.durability, flow_run_id),
        )
        store_arguments(connection, flow_run_id, 0, self.arguments, at)


class RefuseRun(RecordedChange):
    """End a queued run that nobody could begin: FAILED, with the error that says why. Nothing of it has run."""

    __slots__ = ("at", "error")

    def __init__(self, flow_run_id: int, *, version: int, error: EncodedError, at: str) -> None:
        self.flow_run_id = flow_run_id
        self.task_run_id = 0
        self.seq = version + 1
        self.error = error
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE flow_run SET state = 'FAILED', state_name = NULL, state_message = ?, version = ?, ended_at = ?,"
            " tasks_done = 0, tasks_total = 0 WHERE id = ? AND version = ? AND epoch = 0 AND state = 'SCHEDULED'",
            (self.error.message, self.seq, self.at, self.flow_run_id, self.seq - 1),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        error_id = store_error(connection, self.error)
        connection.execute("UPDATE flow_run SET error_id = ? WHERE id = ?", (error_id, self.flow_run_id))
        record_flow_transition(connection, self.flow_run_id, self.seq, "FAILED", None, self.error.message, 0, error_id, self.at)
