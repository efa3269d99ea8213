"""Prefect's place of the actions of `wfengine.automations`."""

from __future__ import annotations

from wfengine.automations import (
    Action,
    CallWebhook,
    CancelFlowRun,
    DoNothing,
    PauseAutomation,
    PauseDeployment,
    ResumeAutomation,
    ResumeDeployment,
    ResumeFlowRun,
    RunDeployment,
    SuspendFlowRun,
)

__all__ = [
    "Action",
    "CallWebhook",
    "CancelFlowRun",
    "DoNothing",
    "PauseAutomation",
    "PauseDeployment",
    "ResumeAutomation",
    "ResumeDeployment",
    "ResumeFlowRun",
    "RunDeployment",
    "SuspendFlowRun",
]
