"""Tools for testing flows: a journal for a test, a clock that only jumps, and three ways to find out early what a resume would.

    from wfengine.testing import VirtualClock, temporary_journal

    with temporary_journal(clock=VirtualClock()):
        assert my_flow() == 42        # retries that wait a day take no time

Names are loaded when they are first asked for: pytest loads the plugin of this package in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfengine.testing.clock import VirtualClock
    from wfengine.testing.crash_report import CrashReport, Kill
    from wfengine.testing.crashes import crashtest
    from wfengine.testing.paranoia import paranoid_replay
    from wfengine.testing.replays import assert_replays
    from wfengine.testing.temporary import TemporaryJournal, temporary_journal

_PLACES = {
    "CrashReport": "crash_report",
    "Kill": "crash_report",
    "TemporaryJournal": "temporary",
    "VirtualClock": "clock",
    "assert_replays": "replays",
    "crashtest": "crashes",
    "paranoid_replay": "paranoia",
    "temporary_journal": "temporary",
}

__all__ = [
    "CrashReport",
    "Kill",
    "TemporaryJournal",
    "VirtualClock",
    "assert_replays",
    "crashtest",
    "paranoid_replay",
    "temporary_journal",
]


def __getattr__(name: str) -> object:
    module = _PLACES.get(name)
    if module is None:
        raise AttributeError(f"module 'wfengine.testing' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"wfengine.testing.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
