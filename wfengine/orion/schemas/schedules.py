"""The older place of `wfengine.schedules`."""

from __future__ import annotations

from wfengine.schedules import CronSchedule, IntervalSchedule, RRuleSchedule, construct_schedule

__all__ = ["CronSchedule", "IntervalSchedule", "RRuleSchedule", "construct_schedule"]
