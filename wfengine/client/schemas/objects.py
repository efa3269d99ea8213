"""States and runs, under the module name that Prefect's code imports them from."""

from __future__ import annotations

from wfengine.deployment_options import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from wfengine.run_objects import FlowRun, TaskRun
from wfengine.states import State, StateDetails, StateType
from wfengine_journal.states import TERMINAL as TERMINAL_STATES

__all__ = [
    "TERMINAL_STATES", "ConcurrencyLimitConfig", "ConcurrencyLimitStrategy", "FlowRun", "State", "StateDetails", "StateType",
    "TaskRun",
]  # fmt: skip
