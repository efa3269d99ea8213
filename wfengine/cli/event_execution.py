"""Calls from the command line into the engine that are about events and automations.

The engine is imported inside the functions, so that the commands that only read never load it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfengine_journal.automations import AutomationRow


def emit(path: Path, name: str, resource: dict[str, object], *, payload: object, key: str | None) -> tuple[int, bool]:
    """Emit an event; return its id, and whether it is new. Raises InvalidValueError."""
    from wfengine import journals
    from wfengine.events import emit_event

    journals.use_journal(path)
    found = emit_event(name, resource, payload=payload, id=key)
    return found.id, found.is_new


def watch(path: Path, table: str, event: str | None) -> tuple[str, str]:
    """Let each new row of a table be an event; return its name, and what became of that. Raises UsageError."""
    from wfengine import events, journals

    name = f"{table}.inserted" if event is None else event
    return name, events.watch(journals.use_journal(path), table, name)


def unwatch(path: Path, table: str) -> bool:
    """Let new rows of a table be events no longer; tell whether they were."""
    from wfengine import events, journals

    return events.unwatch(journals.use_journal(path), table)


def follow(path: Path, look: Callable[[], bool], timeout_seconds: float | None) -> None:
    """Call `look` after each change of the journal, until it says that it is enough or the time is over."""
    from wfengine import journals

    journal = journals.use_journal(path)
    clock = journal.clock
    until = None if timeout_seconds is None else clock.monotonic_seconds() + timeout_seconds
    while True:
        mark = journal.changes.mark()
        if look():
            return
        left = 1.0 if until is None else until - clock.monotonic_seconds()
        if left <= 0:
            return
        journal.changes.wait(mark, min(left, 1.0))


def apply(path: Path, tables: object, applied_from: str, *, prune: bool) -> list[tuple[str, str]]:
    """Record the automations of a file; return (name, what became of it). Raises UsageError, with nothing written."""
    from wfengine import journals
    from wfengine.automations.definitions import apply_automations, automations_from

    automations_from(tables)  # refuses before a journal is made
    return apply_automations(tables, applied_from, prune=prune, journal=journals.use_journal(path))


def remove(path: Path, name: str) -> bool:
    """Take an automation away; tell whether it was there."""
    from wfengine import journals
    from wfengine.automations.definitions import remove_automation

    return remove_automation(journals.use_journal(path), name)


def set_active(path: Path, name: str, *, active: bool) -> bool:
    """Pause an automation or let it look again; tell whether that changed anything. Raises NotFoundError."""
    from wfengine import journals
    from wfengine.automations.definitions import set_active

    return set_active(journals.use_journal(path), name, active=active)


def rehearse(row: AutomationRow, texts: Iterable[str], then_seconds: float) -> list[dict[str, object]]:
    """Return the firings that made-up events would make. Raises UsageError. Nothing is done."""
    from wfengine.automations.definitions import automation_of
    from wfengine.automations.rehearsal import events_from_text, rehearse
    from wfengine_journal.clock import SystemClock

    return rehearse(automation_of(row), events_from_text(texts), now=SystemClock().wall_seconds(), then_seconds=then_seconds)
