"""`Automation`: a trigger and actions under a name, recorded in the journal; and automations as tables of a TOML file.

    Automation(name="note", trigger=EventTrigger(expect={"order.placed"}), actions=[DoNothing()]).create()

Creating is declarative: the record becomes what the code says, and creating the same again changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wfengine.automations.actions import ACTIONS_LIMIT, Action, action_from_json
from wfengine.automations.evaluation import new_mind, next_look
from wfengine.automations.triggers import (
    AnyTrigger,
    CompoundTrigger,
    EventTrigger,
    SequenceTrigger,
    check_keys,
    event_triggers,
    trigger_from_json,
)
from wfengine.awaiting import awaited_in_async_code
from wfengine.journals import default_journal
from wfengine.loading import leaves_no_trace
from wfengine.plain_json import plain_json
from wfengine_journal.automations import (
    AutomationColumns,
    AutomationRow,
    PutAutomation,
    RemoveAutomation,
    SetAutomationActive,
    find_automation,
    get_automation,
    list_automations,
    missing_automation,
)
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import UsageError
from wfengine_journal.tickets import WriteRefused

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: Characters of a name and of a description.
NAME_LIMIT = 200
DESCRIPTION_LIMIT = 10_000
#: So many firings may lead to one another before that counts as a loop, unless an automation says otherwise; at the most.
CHAIN_LIMIT = 10
LONGEST_CHAIN = 1000

_KEYS = ("name", "description", "active", "enabled", "trigger", "actions", "chain_limit")


@dataclass(kw_only=True)
class Automation:
    """What is done when certain events happen, or do not.

    `active` None: as it is recorded; of a new one, active. `chain_limit`: when what it does sets off automations, itself too,
    so many firings in a row are done, and the next one is recorded as failed.
    """

    name: str
    trigger: AnyTrigger
    actions: Sequence[Action]
    description: str | None = None
    active: bool | None = None
    chain_limit: int = CHAIN_LIMIT
    id: int | None = None

    def __post_init__(self) -> None:
        if (
            not isinstance(self.name, str)
            or not self.name.strip()
            or len(self.name) > NAME_LIMIT
            or not self.name.isprintable()
        ):
            raise UsageError(
                f"The name of an automation is a text of 1 to {NAME_LIMIT} printable characters, and not {self.name!r}."
            )
        if isinstance(self.trigger, Mapping):
            self.trigger = trigger_from_json(self.trigger)
        if not isinstance(self.trigger, EventTrigger | CompoundTrigger | SequenceTrigger):
            raise UsageError(f"Automation '{self.name}': its trigger is an EventTrigger or the like, and not {self.trigger!r}.")
        self.actions = [self._action(each) for each in _listed(self.actions, self.name)]
        if not 1 <= len(self.actions) <= ACTIONS_LIMIT:
            raise UsageError(
                f"Automation '{self.name}' has {len(self.actions)} actions; it needs 1 to {ACTIONS_LIMIT}. "
                "One that is only to be recorded has DoNothing()."
            )
        if self.description is not None and (
            not isinstance(self.description, str) or len(self.description) > DESCRIPTION_LIMIT
        ):
            raise UsageError(
                f"The description of automation '{self.name}' is a text of at most {DESCRIPTION_LIMIT} characters."
            )
        if self.active is not None and not isinstance(self.active, bool):
            raise UsageError(f"`active` of automation '{self.name}' is true or false, and not {self.active!r}.")
        limit = self.chain_limit
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LONGEST_CHAIN:
            raise UsageError(
                f"`chain_limit` of automation '{self.name}' is a whole number from 1 to {LONGEST_CHAIN}, and not {limit!r}."
            )

    def _action(self, value: object) -> Action:
        if isinstance(value, Mapping):
            return action_from_json(value)
        if not isinstance(value, Action):
            raise UsageError(f"Automation '{self.name}': an action is made with RunDeployment(...) or the like, not {value!r}.")
        return value

    # ---- recording

    @awaited_in_async_code
    def create(self) -> Automation:
        """Record it: a new one, or the one of that name as this one says. Does nothing while a file is loaded to find flows."""
        if not leaves_no_trace():
            put_automation(default_journal(), self)
        return self

    @awaited_in_async_code
    def update(self) -> Automation:
        """Do what `create` does, where there is one of that name. Raises NotFoundError."""
        if not leaves_no_trace():
            _get(default_journal(), self.name)
            put_automation(default_journal(), self)
        return self

    @classmethod
    @awaited_in_async_code
    def read(cls, id: int | str | None = None, name: str | None = None) -> Automation:
        """Return the recorded automation of a name, or of an id. Raises NotFoundError."""
        if (id is None) == (name is None):
            raise UsageError("Automation.read() takes a name or an id.")
        return automation_of(_get(default_journal(), str(name if id is None else id)))

    @awaited_in_async_code
    def delete(self) -> bool:
        """Take it away; tell whether it was there. Its firings stay."""
        return False if leaves_no_trace() else remove_automation(default_journal(), self.name)

    @awaited_in_async_code
    def disable(self) -> bool:
        """Let it look at nothing. Raises NotFoundError where it is not recorded."""
        if not leaves_no_trace():
            set_active(default_journal(), self.name, active=False)
        return True

    @awaited_in_async_code
    def enable(self) -> bool:
        """Let it look at events from now on. Raises NotFoundError where it is not recorded."""
        if not leaves_no_trace():
            set_active(default_journal(), self.name, active=True)
        return True

    # ---- its definition

    def definition(self) -> dict[str, object]:
        """Return trigger and actions as JSON."""
        found: dict[str, object] = {
            "trigger": self.trigger.as_json(),
            "actions": [each.as_json() for each in self.actions],
        }
        return found if self.chain_limit == CHAIN_LIMIT else {**found, "chain_limit": self.chain_limit}

    def wants_tasks(self) -> bool:
        """Tell whether state changes of task runs may be events for it. A pattern has to begin with 'wfengine.task-run.'."""
        return any(
            name.startswith("wfengine.task-run.")
            for each in event_triggers(self.trigger)
            for name in (*each.expect, *each.after)
        )


def automation_of(row: AutomationRow) -> Automation:
    """Return a recorded automation. Raises UsageError where the record is none that this version reads."""
    definition = read_definition(row)
    actions = definition.get("actions")
    found = Automation(
        name=row.name,
        trigger=trigger_from_json(definition.get("trigger")),
        actions=[action_from_json(each) for each in (actions if isinstance(actions, list) else [])],
        description=row.description,
        active=bool(row.active),
        chain_limit=definition.get("chain_limit", CHAIN_LIMIT),  # type: ignore[arg-type]  # checked there
    )
    found.id = row.id
    return found


def read_definition(row: AutomationRow) -> dict[str, object]:
    """Return the recorded definition of an automation. Raises UsageError where it is none."""
    try:
        found = json.loads(row.definition)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"The record of automation '{row.name}' cannot be read. Apply it again, or: wfengine automations rm")
    return found


def put_automation(journal: Journal, automation: Automation, applied_from: str | None = None) -> str:
    """Record an automation; return what became of its record: 'created', 'updated' or 'unchanged'."""
    change = PutAutomation(
        AutomationColumns(
            automation.name,
            automation.description,
            plain_json(automation.definition(), f"automation '{automation.name}'"),
            automation.wants_tasks(),
            applied_from,
        ),
        active=automation.active,
        **_beginning(journal, automation.trigger),
    )
    journal.write(change, synced=True)
    automation.id = change.id
    return change.outcome


def _beginning(journal: Journal, trigger: AnyTrigger) -> dict[str, str]:
    """Return what an automation begins with, at this instant."""
    now = journal.clock.wall_seconds()
    mind = new_mind(trigger, now)
    due = next_look(trigger, mind)
    beginning = {"state": json.dumps(mind), "at": journal.clock.now_text()}
    return {**beginning, "due_at": None if due is None else text_from_seconds(due)}  # type: ignore[dict-item]  # null: never


def set_active(journal: Journal, name: str, *, active: bool) -> bool:
    """Pause an automation or let it look again; tell whether that changed anything. Raises NotFoundError."""
    row = _get(journal, name)
    change = active_change(journal, row, active=active)
    try:
        journal.write(change, synced=True)
    except WriteRefused:
        raise missing_automation(name) from None
    return change.was_active is not active


def active_change(journal: Journal, row: AutomationRow, *, active: bool) -> SetAutomationActive:
    """Return the change that pauses an automation or lets it look again."""
    trigger = trigger_from_json(read_definition(row).get("trigger"))
    return SetAutomationActive(row.name, active=active, **_beginning(journal, trigger))


def remove_automation(journal: Journal, name: str) -> bool:
    """Take an automation away; tell whether it was there."""
    row = journal.records.read(lambda connection: find_automation(connection, name))
    if row is None:
        return False
    try:
        journal.write(RemoveAutomation(row.name, at=journal.clock.now_text()), synced=True)
    except WriteRefused:
        return False
    return True


def _get(journal: Journal, name: str) -> AutomationRow:
    return journal.records.read(lambda connection: get_automation(connection, name))


# ------------------------------------------------------------------------------------------- from a file


def automations_from(mappings: object) -> list[Automation]:
    """Return the automations that the tables of a TOML file describe. Raises UsageError, before anything is written."""
    if not isinstance(mappings, list | tuple):
        raise UsageError("Automations are tables of their own: [[automations]]")
    found = [_from_mapping(each, number) for number, each in enumerate(mappings, 1)]
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"Two automations have the name '{twice}'. Give one of them another name.")
    return found


def _from_mapping(mapping: object, number: int) -> Automation:
    if not isinstance(mapping, Mapping):
        raise UsageError(f"Automation {number} is no table. Write [[automations]] and its keys below.")
    given = {str(key): value for key, value in mapping.items()}
    what = f"Automation {number} ({given.get('name')!r})" if "name" in given else f"Automation {number}"
    check_keys(given, _KEYS, what)
    missing = [key for key in ("name", "trigger", "actions") if key not in given]
    if missing:
        raise UsageError(f"{what} has no {' and no '.join(missing)}.")
    if "enabled" in given:
        given["active"] = given.pop("enabled")
    try:
        trigger = trigger_from_json(given.pop("trigger"))
        actions = [action_from_json(each) for each in _listed(given.pop("actions"), str(given["name"]))]
        return Automation(trigger=trigger, actions=actions, **given)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from error


def apply_automations(
    mappings: object,
    applied_from: str | None = None,
    *,
    prune: bool = False,
    journal: Journal | None = None,
    moved_from: str | None = None,
) -> list[tuple[str, str]]:
    """Record the automations of a file's tables; return (name, what became of it): created, updated, unchanged, removed.

    Nothing is written unless all of them make sense. `prune`: those of that file which it does not hold any more are removed.
    `moved_from`: where the file stood before.
    """
    found = automations_from(mappings)
    target = default_journal() if journal is None else journal
    outcomes = [(each.name, put_automation(target, each, applied_from)) for each in found]
    if prune and applied_from is not None:
        kept = {each.name for each in found}
        gone = [
            row
            for row in target.records.read(list_automations)
            if row.applied_from in {applied_from, moved_from} - {None} and row.name not in kept
        ]
        outcomes += [(row.name, "removed") for row in gone if remove_automation(target, row.name)]
    return outcomes


def _listed(value: object, name: str) -> list[object]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise UsageError(f"`actions` of automation '{name}' is a list of actions, and not {value!r}.")
    return list(value)


__all__ = ["Automation", "apply_automations", "automation_of", "put_automation", "remove_automation", "set_active"]
