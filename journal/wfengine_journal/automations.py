"""Automations and their firings: what is done when certain events happen, or do not.

An automation that was looked at remembers, in one transaction with the firings that this made, up to which event and with what
in mind. So each of its firings is made once, whatever dies and however many look. A firing then advances action by action:
what can be is committed together with the action itself, see `RecordAction`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from wfengine_journal.errors import NotFoundError
from wfengine_journal.events import FIRING_KEY
from wfengine_journal.records import Records
from wfengine_journal.task_events import keep_task_events
from wfengine_journal.tickets import Change, WriteRefused


class AutomationRow(NamedTuple):
    """One automation; column meanings are in sql/format_4.sql."""

    id: int
    name: str
    description: str | None
    definition: str
    active: int
    wants_tasks: int
    seen_to: int
    state: str
    due_at: str | None
    applied_from: str | None
    created_at: str
    updated_at: str


class AutomationColumns(NamedTuple):
    """What an author says of an automation."""

    name: str
    description: str | None
    definition: str
    wants_tasks: bool
    applied_from: str | None


class NewFiring(NamedTuple):
    """A firing to be made. One with a `refusal` has failed at once: nothing of it is done, and that says why."""

    event_id: int | None
    context: str
    refusal: str | None = None


class FiringRow(NamedTuple):
    """One firing, with what its automation is."""

    id: int
    automation_id: int
    automation: str
    event_id: int | None
    context: str
    state: str
    actions_done: int
    results: str
    attempts: int
    next_attempt_at: str | None
    fired_at: str
    ended_at: str | None


_AUTOMATION = (
    "id, name, description, definition, active, wants_tasks, seen_to, state, due_at, applied_from, created_at, updated_at"
)
_FIRING = (
    "x.id, x.automation_id, a.name, x.event_id, x.context, x.state, x.actions_done, x.results, x.attempts,"
    " x.next_attempt_at, x.fired_at, x.ended_at"
)
_PRESENT = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)"


# ------------------------------------------------------------------------------------------- automations


class PutAutomation:
    """Make the record of an automation what its author says; sets `id` and `outcome`.

    One that is new, was removed, or is activated looks at events from now on. One whose definition changed begins anew with
    what it keeps in mind, and looks at what it has not seen. `state` is what it begins with, `due_at` when it looks first.
    `active` null: as it is; of a new one, active.
    """

    __slots__ = ("active", "at", "columns", "due_at", "id", "outcome", "state")

    def __init__(self, columns: AutomationColumns, *, active: bool | None, state: str, due_at: str | None, at: str) -> None:
        self.columns = columns
        self.active = active
        self.state = state
        self.due_at = due_at
        self.at = at
        self.id = 0
        self.outcome = "unchanged"  # or 'created', 'updated'

    def apply(self, connection: sqlite3.Connection) -> None:
        self.outcome = "unchanged"
        name, description, definition, wants_tasks, applied_from = self.columns
        row = connection.execute(
            "SELECT id, active, removed_at, definition, description, applied_from FROM automation WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            cursor = connection.execute(
                "INSERT INTO automation (name, description, definition, active, wants_tasks, seen_to, state, due_at,"
                f" applied_from, created_at, updated_at) VALUES (?, ?, ?, ?, ?, {_PRESENT}, ?, ?, ?, ?, ?)",
                (
                    name, description, definition, int(self.active is not False), int(wants_tasks), self.state, self.due_at,
                    applied_from, self.at, self.at,
                ),
            )  # fmt: skip
            self.id = int(cursor.lastrowid or 0)
            self.outcome = "created"
            keep_task_events(connection)
            return
        self.id, was_active, removed_at, *before = row
        active = int(self.active if self.active is not None else removed_at is not None or bool(was_active))
        if removed_at is None and before == [definition, description, applied_from] and active == was_active:
            return
        begins = removed_at is not None or active > was_active
        self.outcome = "updated" if removed_at is None else "created"
        connection.execute(
            "UPDATE automation SET description = ?, definition = ?, active = ?, wants_tasks = ?, applied_from = ?,"
            f" updated_at = ?, removed_at = NULL, seen_to = CASE WHEN ? THEN {_PRESENT} ELSE seen_to END WHERE id = ?",
            (description, definition, active, int(wants_tasks), applied_from, self.at, int(begins), self.id),
        )
        if begins or before[0] != definition:
            connection.execute("UPDATE automation SET state = ?, due_at = ? WHERE id = ?", (self.state, self.due_at, self.id))
        keep_task_events(connection)

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM automation WHERE name = ? AND definition = ? AND removed_at IS NULL",
            (self.columns.name, self.columns.definition),
        ).fetchone()
        return row is not None


class SetAutomationActive:
    """Pause an automation, or let it look again, at events from now on. Refused where there is none of that name."""

    __slots__ = ("active", "at", "due_at", "name", "state", "was_active")

    def __init__(self, name: str, *, active: bool, state: str, due_at: str | None, at: str) -> None:
        self.name = name
        self.active = active
        self.state = state
        self.due_at = due_at
        self.at = at
        self.was_active = active

    def apply(self, connection: sqlite3.Connection) -> None:
        row = connection.execute(
            "SELECT id, active FROM automation WHERE name = ? AND removed_at IS NULL", (self.name,)
        ).fetchone()
        if row is None:
            raise WriteRefused
        self.was_active = bool(row[1])
        if self.was_active == self.active:
            return
        if self.active:
            connection.execute(
                f"UPDATE automation SET active = 1, seen_to = {_PRESENT}, state = ?, due_at = ?, updated_at = ? WHERE id = ?",
                (self.state, self.due_at, self.at, row[0]),
            )
        else:
            connection.execute("UPDATE automation SET active = 0, updated_at = ? WHERE id = ?", (self.at, row[0]))
        keep_task_events(connection)

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM automation WHERE name = ? AND active = ? AND removed_at IS NULL", (self.name, int(self.active))
        ).fetchone()
        return row is not None


class RemoveAutomation:
    """Take an automation away; its firings stay, and those that are pending are still done. Refused where there is none."""

    __slots__ = ("at", "name")

    def __init__(self, name: str, *, at: str) -> None:
        self.name = name
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE automation SET removed_at = ?, updated_at = ? WHERE name = ? AND removed_at IS NULL",
            (self.at, self.at, self.name),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        keep_task_events(connection)

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute("SELECT 1 FROM automation WHERE name = ? AND removed_at IS NULL", (self.name,)).fetchone()
        return row is None


class AdvanceAutomation:
    """Remember up to which event an automation has looked and what it keeps in mind, with the firings that this made.

    Refused where it is not as it was when it was read: somebody else was quicker, or it was changed.
    """

    __slots__ = ("at", "before", "due_at", "firings", "seen_to", "state")

    def __init__(
        self, before: AutomationRow, *, seen_to: int, state: str, due_at: str | None, firings: Sequence[NewFiring], at: str
    ) -> None:
        self.before = before
        self.seen_to = seen_to
        self.state = state
        self.due_at = due_at
        self.firings = firings
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        before = self.before
        cursor = connection.execute(
            "UPDATE automation SET seen_to = ?, state = ?, due_at = ?"
            " WHERE id = ? AND seen_to = ? AND state = ? AND definition = ? AND active = 1 AND removed_at IS NULL",
            (self.seen_to, self.state, self.due_at, before.id, before.seen_to, before.state, before.definition),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        for firing in self.firings:
            results = [] if firing.refusal is None else [{"action": None, "outcome": "failed", "reason": firing.refusal}]
            connection.execute(
                "INSERT INTO firing (automation_id, event_id, context, state, actions_done, results, fired_at, ended_at)"
                " VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
                (
                    before.id,
                    firing.event_id,
                    firing.context,
                    "failed" if firing.refusal is not None else "pending",
                    json.dumps(results),
                    self.at,
                    self.at if firing.refusal is not None else None,
                ),
            )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM automation WHERE id = ? AND seen_to = ? AND state = ?", (self.before.id, self.seen_to, self.state)
        ).fetchone()
        return row is not None


# ------------------------------------------------------------------------------------------- firings


class BeginAttempt:
    """Note that an action is tried which cannot be committed with the note: one that a kill cuts off is counted too.

    Refused where the firing is not as it was read.
    """

    __slots__ = ("firing",)

    def __init__(self, firing: FiringRow) -> None:
        self.firing = firing

    def apply(self, connection: sqlite3.Connection) -> None:
        _check(connection, self.firing)
        connection.execute("UPDATE firing SET attempts = attempts + 1 WHERE id = ?", (self.firing.id,))

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM firing WHERE id = ? AND actions_done = ? AND attempts = ?",
            (self.firing.id, self.firing.actions_done, self.firing.attempts + 1),
        ).fetchone()
        return row is not None


class PostponeFiring:
    """Let an action that failed be tried again later. Refused where the firing is not as it was read."""

    __slots__ = ("firing", "next_attempt_at")

    def __init__(self, firing: FiringRow, next_attempt_at: str) -> None:
        self.firing = firing
        self.next_attempt_at = next_attempt_at

    def apply(self, connection: sqlite3.Connection) -> None:
        _check(connection, self.firing)
        connection.execute("UPDATE firing SET next_attempt_at = ? WHERE id = ?", (self.next_attempt_at, self.firing.id))

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM firing WHERE id = ? AND next_attempt_at = ?", (self.firing.id, self.next_attempt_at)
        ).fetchone()
        return row is not None


class RecordAction:
    """Record what came of a firing's next action, in one transaction with what the action writes into the journal, if it does.

    Refused, with nothing written, where the firing is not as it was read (`was_checked` is then False), or where the carried
    change is. `result` is a JSON object; a function of nothing where the carried change has to be applied to know it.
    """

    __slots__ = ("at", "carried", "firing", "last", "make_result", "was_checked")

    def __init__(self, firing: FiringRow, result: ActionResult, *, last: bool, at: str, carried: Change | None = None) -> None:
        self.firing = firing
        self.make_result = result
        self.last = last  # it is the firing's last action
        self.at = at
        self.carried = carried
        self.was_checked = False

    def apply(self, connection: sqlite3.Connection) -> None:
        self.was_checked = False
        _check(connection, self.firing)
        self.was_checked = True
        if self.carried is not None:
            self.carried.apply(connection)
        results = [*json.loads(self.firing.results), self.make_result.as_json()]
        state = "pending"
        if self.last:
            state = "failed" if any(result.get("outcome") == "failed" for result in results) else "done"
        connection.execute(
            "UPDATE firing SET actions_done = actions_done + 1, results = ?, attempts = 0, next_attempt_at = NULL, state = ?,"
            " ended_at = ? WHERE id = ?",
            (json.dumps(results, ensure_ascii=False), state, self.at if self.last else None, self.firing.id),
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            "SELECT 1 FROM firing WHERE id = ? AND actions_done = ?", (self.firing.id, self.firing.actions_done + 1)
        ).fetchone()
        return row is not None


class ActionResult:
    """What came of an action. `more` is filled in by whoever knows it, before the record is written."""

    __slots__ = ("action", "more", "outcome")

    def __init__(self, action: str, outcome: str, **more: object) -> None:
        self.action = action
        self.outcome = outcome  # 'done' or 'failed'
        self.more: dict[str, object] = more

    def as_json(self) -> dict[str, object]:
        """Return it as it is recorded."""
        return {"action": self.action, "outcome": self.outcome, **self.more}


def _check(connection: sqlite3.Connection, firing: FiringRow) -> None:
    row = connection.execute(
        "SELECT 1 FROM firing WHERE id = ? AND state = 'pending' AND actions_done = ? AND attempts = ?",
        (firing.id, firing.actions_done, firing.attempts),
    ).fetchone()
    if row is None:
        raise WriteRefused


# ------------------------------------------------------------------------------------------- reads


def list_active(records: Records) -> list[AutomationRow]:
    """Return the automations that look at events, oldest first."""
    rows = records.rows(f"SELECT {_AUTOMATION} FROM automation WHERE active = 1 AND removed_at IS NULL ORDER BY id")
    return [AutomationRow._make(row) for row in rows]


def list_pending(records: Records, at: str, limit: int) -> list[FiringRow]:
    """Return the firings whose next action may be done at an instant, oldest first."""
    rows = records.rows(
        f"SELECT {_FIRING} FROM firing x JOIN automation a ON a.id = x.automation_id WHERE x.state = 'pending'"
        " AND (x.next_attempt_at IS NULL OR x.next_attempt_at <= ?) ORDER BY x.id LIMIT ?",
        (at, limit),
    )
    return [FiringRow._make(row) for row in rows]


def find_next_attempt(records: Records) -> str | None:
    """Return when the first of the firings that wait is to be tried again; None: none waits."""
    row = records.row("SELECT min(next_attempt_at) FROM firing WHERE state = 'pending'", ())
    return None if row is None or row[0] is None else str(row[0])


def find_firing_depth(records: Records, idempotency_key: str | None) -> int:
    """Return how many firings in a row led to what has that idempotency key; 0: none did."""
    if idempotency_key is None or not idempotency_key.startswith(FIRING_KEY):
        return 0
    firing_id = idempotency_key.split(":")[1]
    row = records.row("SELECT json_extract(context, '$.depth') FROM firing WHERE id = ?", (firing_id,))
    return int(str(row[0])) if row is not None and row[0] is not None else 0


def count_recent_firings(records: Records, automation_id: int, resource: str, since: str, most: int) -> int:
    """Return how often an automation fired for a resource since an instant, as far as its last firings say."""
    row = records.row(
        "SELECT count(*) FROM (SELECT context, fired_at FROM firing WHERE automation_id = ? ORDER BY id DESC LIMIT ?)"
        " WHERE fired_at >= ? AND json_extract(context, '$.event.resource') = ?",
        (automation_id, most, since, resource),
    )
    return 0 if row is None else int(str(row[0]))


def find_automation(connection: sqlite3.Connection, name: str) -> AutomationRow | None:
    """Return the automation of a name, or of an id as text."""
    row = connection.execute(
        f"SELECT {_AUTOMATION} FROM automation WHERE removed_at IS NULL AND (name = ? OR CAST(id AS TEXT) = ?)"
        " ORDER BY name = ? DESC LIMIT 1",
        (name, name, name),
    ).fetchone()
    return None if row is None else AutomationRow._make(row)


def get_automation(connection: sqlite3.Connection, name: str) -> AutomationRow:
    """Return the automation of a name, or of an id as text. Raises NotFoundError."""
    row = find_automation(connection, name)
    if row is None:
        raise missing_automation(name)
    return row


def missing_automation(name: str) -> NotFoundError:
    """Return the error that there is no automation of a name."""
    return NotFoundError(f"There is no automation {name!r}. See them with: wfengine automations ls")


def list_automations(connection: sqlite3.Connection, limit: int = 1000) -> list[AutomationRow]:
    """Return the automations by name."""
    rows = connection.execute(f"SELECT {_AUTOMATION} FROM automation WHERE removed_at IS NULL ORDER BY name LIMIT ?", (limit,))
    return [AutomationRow._make(row) for row in rows.fetchall()]


def list_firings(
    connection: sqlite3.Connection, *, automation: str | None = None, state: str | None = None, limit: int = 50
) -> list[FiringRow]:
    """Return the newest firings, newest first."""
    rows = connection.execute(
        f"SELECT {_FIRING} FROM firing x JOIN automation a ON a.id = x.automation_id"
        " WHERE (? IS NULL OR a.name = ?) AND (? IS NULL OR x.state = ?) ORDER BY x.id DESC LIMIT ?",
        (automation, automation, state, state, limit),
    )
    return [FiringRow._make(row) for row in rows.fetchall()]


def count_firings(connection: sqlite3.Connection, automation_id: int) -> tuple[int, str | None]:
    """Return how often an automation fired, and when it did last."""
    row = connection.execute("SELECT count(*), max(fired_at) FROM firing WHERE automation_id = ?", (automation_id,)).fetchone()
    return int(row[0]), row[1]
