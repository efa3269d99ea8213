"""Events: something happened, of some resource. Each state change of a flow run is one; `emit_event` writes others.

    emit_event("order.placed", {"wfengine.resource.id": "order.12"}, payload={"total": 80})

An event is committed when the call returns. In a flow or task the call is one as that of a task: recorded, and committed in one
transaction with the event, so a body that is executed again emits nothing twice. Automations act on events, see
`wfengine.automations`. `watch_table` makes an event of each row that anybody inserts into a table of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from wfengine.automations.triggers import CompoundTrigger, EventTrigger, Posture, SequenceTrigger
from wfengine.awaiting import awaited_in_async_code
from wfengine.event_values import event_columns
from wfengine.journals import default_durability, default_journal
from wfengine.loading import leaves_no_trace
from wfengine.own_calls import answered, begin_change, complete_with, own_call, own_callee, scope_or_none
from wfengine.runners.away import asks_the_flow
from wfengine.steps import Outcome, Steps
from wfengine.task_engine import Call, issue
from wfengine_journal.clock import instant_from_text, text_from_seconds
from wfengine_journal.errors import InvalidValueError, NotFoundError
from wfengine_journal.event_tables import UnwatchTable, WatchTable
from wfengine_journal.events import EmitFromCall, EventColumns, PutEvent
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.user_tables import PREFIX

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

__all__ = [
    "CompoundTrigger",
    "Event",
    "EventTrigger",
    "Posture",
    "SequenceTrigger",
    "emit_event",
    "unwatch_table",
    "watch_table",
]

_TABLE = re.compile(r"user_\w+", re.IGNORECASE)
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was emitted. `is_new` is False where one of its name and idempotency key was there already."""

    id: int
    event: str
    resource: str
    occurred: datetime
    is_new: bool


@asks_the_flow
def emit_event(
    event: str,
    resource: str | Mapping[str, object],
    occurred: datetime | None = None,
    related: Iterable[Mapping[str, object]] | Mapping[str, object] | None = None,
    payload: object = None,
    id: object = None,
    follows: Event | None = None,
) -> Event:
    """Emit an event and return it, committed. Not awaited, in async code either, as in Prefect.

    - `resource`: what it is of: an id, or labels with 'wfengine.resource.id' (or 'prefect.resource.id') among them. `related`:
      such labels of other things concerned. `payload`: JSON.
    - `id`: an idempotency key: a second event of this name and key is not recorded. `occurred`: when, if not now.
    - `follows`: an event that this one comes after; it is there, since emitting it returned.

    Raises InvalidValueError before anything is written. While a file is loaded to find its flows it does nothing.
    """
    del follows  # events are looked at in the order in which they were emitted
    key = None if id is None else str(id)
    scope = scope_or_none()
    if scope is None and leaves_no_trace():
        return Event(0, event, str(resource), _EARLIEST, False)
    journal = default_journal() if scope is None else scope.run.journal
    columns = event_columns(
        event, resource, related=related, payload=payload, key=key, at=_instant(occurred, journal),
        flow_run_id=None if scope is None else scope.run.id,
    )  # fmt: skip
    if scope is None:
        put = PutEvent(columns)
        journal.write(put, synced=default_durability(journal) == "power")
        return _emitted(columns, [put.event_id, put.is_new, columns.occurred_at])
    shown = {"event": event, "resource": resource, "payload": payload, "related": related, "id": key}
    call = own_call(_EMIT, scope, shown)
    found = answered(
        call, issue(call), lambda: _emit(call, columns), awaits=False, convert=lambda done: _emitted(columns, done)
    )
    return cast("Event", found)


_EMIT = own_callee("emit_event", ("event", "resource", "payload", "related", "id"))


def _emit(call: Call, columns: EventColumns) -> Steps[Outcome]:
    """Commit the event and the call that emits it, in one transaction."""
    start = begin_change(call)
    return (yield from complete_with(call, start, EmitFromCall(start, PutEvent(columns), attempt=call.attempt)))


def _emitted(columns: EventColumns, done: object) -> Event:
    event_id, is_new, at = cast("list[Any]", done)
    return Event(event_id, columns.name, columns.resource, instant_from_text(at), is_new)


def _instant(occurred: object, journal: Journal) -> str:
    if occurred is None:
        return journal.clock.now_text()
    if not isinstance(occurred, datetime) or occurred.tzinfo is None:
        raise InvalidValueError(f"`occurred` of an event is a datetime with a time zone, and not {occurred!r}.")
    if not _EARLIEST <= occurred < _LATEST:
        raise InvalidValueError(f"`occurred` of an event is an instant after 1970, and not {occurred.isoformat()}.")
    return text_from_seconds(occurred.timestamp())


# ------------------------------------------------------------------------------------------- tables of the user's own


@awaited_in_async_code
def watch_table(table: str, event: str | None = None) -> str:
    """Let each row that anybody inserts into a table of yours (user_...) be an event; return what it is called.

    The event is written by a trigger in the file, in the transaction that inserts the row, by the sqlite3 program too. Its
    payload is the row, its resource TABLE.ROWID; `event` is its name, default TABLE.inserted. Doing it again changes nothing.
    """
    checked = _checked_table(table)
    name = event if event is not None else f"{checked}.inserted"
    event_columns(name, checked, at="")
    if leaves_no_trace():
        return name
    watch(default_journal(), checked, name)
    return name


@awaited_in_async_code
def unwatch_table(table: str) -> bool:
    """Let new rows of a table be events no longer; tell whether they were."""
    checked = _checked_table(table)
    return False if leaves_no_trace() else unwatch(default_journal(), checked)


def watch(journal: Journal, table: str, event: str) -> str:
    """Watch a table of a journal; return what became of it: 'created', 'updated' or 'unchanged'."""
    change = WatchTable(_checked_table(table), event_columns(event, table, at="").name)
    try:
        journal.write(change, synced=True)
    except WriteRefused:
        raise NotFoundError(
            f"The table {table} cannot be watched: {change.problem}. Make it in a transactional task, or by "
            f"the sqlite3 program: CREATE TABLE {table} (id INTEGER PRIMARY KEY, ...)"
        ) from None
    return change.outcome


def unwatch(journal: Journal, table: str) -> bool:
    """Let new rows of a table of a journal be events no longer; tell whether they were."""
    try:
        journal.write(UnwatchTable(_checked_table(table)), synced=True)
    except WriteRefused:
        return False
    return True


def _checked_table(table: object) -> str:
    if not isinstance(table, str) or _TABLE.fullmatch(table) is None or len(table) > 200 or not table.isascii():
        raise InvalidValueError(
            f"Only a table of your own can be watched, whose name begins with {PREFIX} and holds letters, digits and _; not "
            f"{ascii(table)[:100]}."
        )
    return table
