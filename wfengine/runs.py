"""What the running code may ask about itself: the flow run and the task run it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from wfengine.identity import explicit_key
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine_journal.errors import MissingContextError


@dataclass(frozen=True, slots=True)
class CurrentFlowRun:
    """The flow run that the calling code belongs to. `attempt` counts the starts of its body, from 1."""

    id: int
    name: str
    flow_name: str
    attempt: int
    parameters: dict[str, object]
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class CurrentTaskRun:
    """The task run that the calling code belongs to. `attempt` counts from 1.

    `idempotency_key` is one text over all attempts, restarts and resumes of this call, and differs between any two calls
    and any two runs: hand it to a service that can refuse to do the same thing twice.
    """

    id: int
    task_name: str
    attempt: int
    flow_run_id: int
    idempotency_key: str


@asks_the_flow
def current_flow_run() -> CurrentFlowRun:
    """Return the flow run of the calling code; MissingContextError outside of one."""
    scope = current_scope()
    if scope is None:
        raise MissingContextError("current_flow_run() was called outside of a flow run. Call it in a flow or task.")
    run = scope.run
    return CurrentFlowRun(run.id, run.name, run.flow.name, run.epoch, dict(run.parameters), run.tags)


@asks_the_flow
def current_task_run() -> CurrentTaskRun:
    """Return the task run of the calling code; MissingContextError outside of one."""
    scope = current_scope()
    if scope is None or scope.call is None or scope.call.identity is None:
        raise MissingContextError(
            "current_task_run() was called outside of a task. Call it in a function decorated with @task."
        )
    call, identity = scope.call, scope.call.identity
    text = "/".join((scope.run.journal.id, *(part.hex() if isinstance(part, bytes) else str(part) for part in identity)))
    return CurrentTaskRun(call.task_run_id, call.callee.name, call.attempt, scope.run.id, explicit_key(text).hex())
