"""Prefect's place of the triggers of `wfengine.automations`."""

from __future__ import annotations

from wfengine.automations import Automation, CompoundTrigger, EventTrigger, Posture, SequenceTrigger

__all__ = ["Automation", "CompoundTrigger", "EventTrigger", "Posture", "SequenceTrigger"]
