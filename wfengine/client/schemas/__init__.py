"""The objects that Prefect's client hands out, under the names it gives them."""

from __future__ import annotations

from wfengine.client.schemas.objects import FlowRun, State, StateDetails, StateType, TaskRun

__all__ = ["FlowRun", "State", "StateDetails", "StateType", "TaskRun"]
