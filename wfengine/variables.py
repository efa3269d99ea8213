"""Variables: named JSON values that flows and tasks share, kept in the journal and committed at once.

A variable may change between a run and its resume. What a flow's body reads from one may therefore be another value when
the body is executed again, which can be drift: read a variable in a task, whose result is recorded, or give it to the flow
as a parameter. Values are stored in the clear; a variable is no place for a secret.

While a file is loaded to find its flows, what it sets or deletes at module level is left alone, as flows called there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from wfengine.awaiting import awaited_in_async_code
from wfengine.journals import is_executed_again, journal_of, waits_for_disk
from wfengine.loading import leaves_no_trace
from wfengine.plain_json import plain_json
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine_journal.errors import InvalidValueError
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import tags_text
from wfengine_journal.variables import SetVariable, UnsetVariable, find_variable

T = TypeVar("T")

#: Characters of a name, and of a value's JSON: a variable is a setting, not a store for data.
NAME_LIMIT = 255
VALUE_LIMIT = 1_000_000
_NAME = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Variable(Generic[T]):
    """A variable as it was set. Use the class: `Variable.set("limit", 5)`, `Variable.get("limit", default=3)`.

    In async code the calls are awaited, as in Prefect: `await Variable.get("limit")`; `aset`, `aget` and `aunset` always are.
    """

    name: str
    value: T
    tags: list[str] | None = None

    @classmethod
    @awaited_in_async_code
    def set(cls, name: str, value: T, tags: Iterable[str] | None = None, overwrite: bool = False) -> Variable[T]:
        """Write a variable and return it. One that exists is changed only with `overwrite=True`, else InvalidValueError.

        The value may be any JSON: text, number, boolean, None, list, dict. Where a retry or a resume executes a call without
        `overwrite` again, the variable may be there already, with this value.
        """
        return _set(name, value, tags, overwrite)

    @classmethod
    async def aset(cls, name: str, value: T, tags: Iterable[str] | None = None, overwrite: bool = False) -> Variable[T]:
        """Do what `set` does; its answer is awaited in any code."""
        return _set(name, value, tags, overwrite)

    @classmethod
    @awaited_in_async_code
    def get(cls, name: str, default: T | None = None) -> T | None:
        """Return the value of a variable, or the default if there is none of that name."""
        return _get(name, default)

    @classmethod
    async def aget(cls, name: str, default: T | None = None) -> T | None:
        """Do what `get` does; its answer is awaited in any code."""
        return _get(name, default)

    @classmethod
    @awaited_in_async_code
    def unset(cls, name: str) -> bool:
        """Delete a variable; tell whether there was one."""
        return _unset(name)

    @classmethod
    async def aunset(cls, name: str) -> bool:
        """Do what `unset` does; its answer is awaited in any code."""
        return _unset(name)


@asks_the_flow
def _set(name: str, value: T, tags: Iterable[str] | None, overwrite: bool) -> Variable[T]:
    text = plain_json(value, f"the value of variable {_checked_name(name)!r}")
    if len(text) > VALUE_LIMIT:
        raise InvalidValueError(
            f"The value of variable '{name}' has {len(text)} characters as JSON; the limit is {VALUE_LIMIT}. "
            "Store a path to the data instead."
        )
    listed = sorted(set(tags or ()))
    scope = current_scope()
    made = Variable(name, cast(T, json.loads(text)), listed)
    if scope is None and leaves_no_trace():
        return made
    journal = journal_of(scope)
    change = SetVariable(name, text, tags_text(listed), overwrite=overwrite, at=journal.clock.now_text())
    try:
        journal.write(change, synced=waits_for_disk(journal, scope))
    except WriteRefused:
        existing = journal.records.read(lambda connection: find_variable(connection, name))
        if existing is None or existing.value != text or not is_executed_again(scope):
            raise InvalidValueError(
                f"Variable '{name}' exists already. To change it: Variable.set('{name}', ..., overwrite=True)"
            ) from None
    return made


@asks_the_flow
def _get(name: str, default: T | None) -> T | None:
    row = journal_of(current_scope()).records.read(lambda connection: find_variable(connection, name))
    return default if row is None else cast(T, json.loads(row.value))


@asks_the_flow
def _unset(name: str) -> bool:
    scope = current_scope()
    if scope is None and leaves_no_trace():
        return False
    journal = journal_of(scope)
    change = UnsetVariable(name)
    journal.write(change, synced=waits_for_disk(journal, scope))
    return change.existed


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        raise InvalidValueError(
            f"{name!r} cannot name a variable: a name has lowercase letters, digits, dashes and underscores, and at most "
            f"{NAME_LIMIT} of them."
        )
    return name
