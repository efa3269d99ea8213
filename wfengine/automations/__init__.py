"""Automations: what is done when certain events happen, or do not. Names are Prefect's.

    from wfengine.automations import Automation, EventTrigger, RunDeployment

    Automation(
        name="ship orders",
        trigger=EventTrigger(expect={"order.placed"}),
        actions=[RunDeployment(deployment="ship/now", parameters={"order": "{{ event.payload.id }}"})],
    ).create()

A daemon does it: `wfengine.automations.service`.
"""

from __future__ import annotations

from wfengine.automations.actions import (
    Action,
    CallWebhook,
    CancelFlowRun,
    DoNothing,
    EmitEvent,
    PauseAutomation,
    PauseDeployment,
    PauseFlowRun,
    ResumeAutomation,
    ResumeDeployment,
    ResumeFlowRun,
    RunCommand,
    RunDeployment,
    SendMessage,
    SendNotification,
    SuspendFlowRun,
)
from wfengine.automations.definitions import Automation, apply_automations
from wfengine.automations.triggers import CompoundTrigger, EventTrigger, Posture, SequenceTrigger

__all__ = [
    "Action",
    "Automation",
    "CallWebhook",
    "CancelFlowRun",
    "CompoundTrigger",
    "DoNothing",
    "EmitEvent",
    "EventTrigger",
    "PauseAutomation",
    "PauseDeployment",
    "PauseFlowRun",
    "Posture",
    "ResumeAutomation",
    "ResumeDeployment",
    "ResumeFlowRun",
    "RunCommand",
    "RunDeployment",
    "SendMessage",
    "SendNotification",
    "SequenceTrigger",
    "SuspendFlowRun",
    "apply_automations",
]
