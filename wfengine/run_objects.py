"""`FlowRun` and `TaskRun`: a run at one moment, as hooks and contexts see it. Plain data, read from nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wfengine.states import State
from wfengine_journal.states import StateType

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun
    from wfengine.task_engine import Call


@dataclass(frozen=True, slots=True)
class FlowRun:
    """A flow run. `id` is its number in the journal; `run_count` counts the starts of its body, from 1."""

    id: int
    name: str
    flow_name: str
    state: State[object]
    parameters: dict[str, object] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    run_count: int = 1
    flow_version: str | None = None
    parent_flow_run_id: int | None = None
    parent_task_run_id: int | None = None
    deployment_id: int | None = None

    @property
    def state_type(self) -> StateType:
        """Return the type of its state."""
        return self.state.type

    @property
    def state_name(self) -> str:
        """Return the name of its state."""
        return self.state.name


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task run. `id` is its number in the journal, 0 before it has a row; `run_count` counts attempts, from 1."""

    id: int
    name: str
    task_key: str
    flow_run_id: int
    state: State[object]
    tags: frozenset[str] = frozenset()
    run_count: int = 1

    @property
    def state_type(self) -> StateType:
        """Return the type of its state."""
        return self.state.type

    @property
    def state_name(self) -> str:
        """Return the name of its state."""
        return self.state.name


def flow_run_of(run: LiveRun, state: State[object] | None = None) -> FlowRun:
    """Return the flow run that this process executes; `state` is what it is in, default RUNNING."""
    return FlowRun(
        run.id,
        run.name,
        run.flow.name,
        state if state is not None else State(StateType.RUNNING, flow_run_id=run.id),
        dict(run.parameters),
        run.tags,
        run.epoch,
        None if run.flow.version is None else str(run.flow.version),
        None if run.parent is None else run.parent.id,
        None if run.parent_call is None else run.parent_call.task_run_id,
    )


def task_run_of(call: Call, state: State[object] | None = None) -> TaskRun:
    """Return the task run that this process executes; `state` is what it is in, default as the call says."""
    return TaskRun(
        call.task_run_id,
        call.run_name or f"{call.callee.name}-{call.task_run_id}",
        call.callee.key,
        call.run.id,
        state if state is not None else State(call.live_state, flow_run_id=call.run.id, task_run_id=call.task_run_id or None),
        call.tags,
        call.attempt,
    )
