"""What the reads in `queries` return: one frozen dataclass for each kind of row. Texts are as they stand in the file.

Times are ISO-8601 UTC text; parameters, inputs, results and tags are JSON text, or the preview of what is not JSON.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """One flow run, as view `runs` shows it."""

    id: int
    name: str
    flow: str
    state: str
    state_name: str
    message: str | None
    parameters: str
    result: str | None
    error: str | None
    attempt: int
    tasks_done: int | None  # null only in what `get_run_head` returns of a run that is going on
    tasks_total: int | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    duration_s: float | None
    tags: str | None
    idempotency_key: str | None
    durability: str
    next_attempt_at: str | None
    parent_run_id: int | None
    parent_task_run_id: int | None
    entrypoint: str | None
    pid: int | None
    host: str | None


@dataclass(frozen=True, slots=True)
class TaskCount:
    """How many calls of one task (or subflow: kind 'flow') of one run are in one state."""

    kind: str
    task: str
    state: str
    count: int
    replayed: int  # those whose outcome an earlier attempt of the run recorded
    first_id: int  # the smallest id among them, to show tasks in the order of their first call


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """All calls of one task (or subflow) of one run. Offsets are seconds from the run's first start."""

    kind: str
    task: str
    count: int
    completed: int
    failed: int
    interrupted: int  # cut off by a crash, with no outcome
    running: int
    waiting: int  # issued, or waiting for the next attempt
    replayed: int
    first_id: int
    total_s: float  # of completed calls
    median_s: float | None  # of completed calls; null: none yet
    starts_s: float | None
    ends_s: float | None  # null: none has ended


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One call of a task, as view `tasks` shows it."""

    id: int
    task: str
    name: str
    state: str
    state_name: str
    attempts: int
    inputs: str
    result: str | None
    error: str | None
    started_at: str | None
    ended_at: str | None
    duration_s: float | None
    message: str | None
    next_attempt_at: str | None
    parent_task_id: int | None  # the task run that made the call; null: the flow's body
    replayed: bool
    orphan: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """When one call began and how long it took, in seconds from the run's first start; null: not ended."""

    kind: str
    task: str
    task_id: int
    state: str
    offset_s: float
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the state history; `task_id` null: of the run itself."""

    at: str
    task_id: int | None
    task: str | None
    seq: int
    state: str
    state_name: str
    attempt: int
    message: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Execution:
    """One start of a run's body: by which process, and why ('start', 'resume', 'recovery', 'retry')."""

    attempt: int
    reason: str
    started_at: str
    pid: int
    host: str
    exit_code: int | None  # of a process that was made for it; negative: minus a signal; null: none was, or it has not ended
    peak_memory_bytes: int | None  # of that process; null: not known either
    output: str | None  # the last of what that process printed


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call, or (`task` null) the failure of the run itself."""

    task: str | None
    task_id: int | None
    type: str
    message: str
    traceback: str
    attempts: int
    ended_the_run: bool


@dataclass(frozen=True, slots=True)
class LogLine:
    """One logged message; `level` as in Python's logging."""

    id: int
    at: str
    level: int
    task_id: int | None
    task: str | None
    logger: str
    message: str


@dataclass(frozen=True, slots=True)
class ExecutionCounts:
    """What the last execution of a run's body did to its task runs; subflow calls are not counted."""

    replayed: int  # an earlier execution recorded the outcome
    ran: int  # the last attempt began in this one
    not_asked: int  # recorded earlier, and this execution ended without asking for them
    cached: int = 0  # given the result of an earlier call of whatever run
