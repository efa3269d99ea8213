"""What the engine reads back: one row type for each question it asks. Column meanings are in sql/schema.sql."""

from __future__ import annotations

from typing import NamedTuple


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


class OwnerRow(NamedTuple):
    """A process that executes runs, or did."""

    id: int
    pid: int
    host: str
    boot_id: str | None
    process_started: str | None
    role: str
    started_at: str


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
