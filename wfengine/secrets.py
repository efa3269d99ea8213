"""Secrets: named values that are kept encrypted, travel as references, and are hidden wherever something is written.

    from wfengine.secrets import Secret

    @task
    def load(password: Secret):
        connect(password.get())

    @flow
    def etl(password: Secret = Secret("db")):
        load(password)

A `Secret` says where a value is, and not what it is: as an argument it is journaled by its name, which is also what tells
calls apart. A new value of it is therefore no new input: a run that is resumed after a rotation goes on with the new one,
and nothing that completed runs again. `get()` reads the value; from then on this process puts *** in its place in log lines,
errors, events and artifacts. A result that holds it is written encrypted.

`set`, `unset` and `get` are what `wfengine secrets` does; `secret_sources` says where values are read from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from wfengine.awaiting import awaited_in_async_code
from wfengine.journals import is_executed_again, journal_of, waits_for_disk
from wfengine.loading import leaves_no_trace
from wfengine.plain_json import plain_json
from wfengine.redaction import KEEPER
from wfengine.references import Late
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine.secret_sources import VALUE_LIMIT, checked_name, checked_reference, read_secret
from wfengine_journal.errors import SecretError
from wfengine_journal.guarding import hide
from wfengine_journal.secrets import SetSecret, UnsetSecret, find_secret
from wfengine_journal.tickets import WriteRefused

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

T = TypeVar("T")

__all__ = ["Secret", "get", "set", "unset"]

_NOTHING: Any = object()
_HIDDEN = "**********"


class Secret(Late, Generic[T]):
    """A secret, by where it is kept: `Secret("db")`, `Secret("env:DB_PASSWORD")`. See `secret_sources`.

    As in Prefect: `Secret(value="...").save("db")`, and `Secret.load("db").get()`. In async code `load` and `save` are awaited.
    Its `str()` shows asterisks, its `repr()` where it is kept.
    """

    __slots__ = ("_reference", "_value")
    __wfengine_by_name__ = True  # see __reduce__

    def __init__(self, name: str | None = None, *, value: T = _NOTHING) -> None:
        """Raises SecretError for what cannot name a secret. `value`: one that is not kept anywhere yet, see `save`."""
        if (name is None) == (value is _NOTHING):
            raise SecretError("A secret is given its name, Secret('db'), or a value to save: Secret(value=...).save('db').")
        self._reference = None if name is None else checked_reference(name)
        self._value = value
        if value is not _NOTHING:
            KEEPER.learn(_plain(value))

    @property
    def name(self) -> str | None:
        """Where it is kept; None for one that was not saved."""
        return self._reference

    @property
    def __wfengine_key__(self) -> str | None:
        """What tells calls with it apart: where it is kept, and not its value."""
        return None if self._reference is None else f"secret {self._reference}"

    def get(self) -> T:
        """Return the value, as it is now. Raises SecretError where it cannot be had."""
        if self._reference is None:
            return self._value
        value = _read(self._reference)
        KEEPER.learn(value, self._reference)  # on a worker it was read in the flow's process
        return cast(T, value)

    @classmethod
    @awaited_in_async_code
    def load(cls, name: str) -> Secret[T]:
        """Return the secret of that name in the journal. SecretError if there is none."""
        return cls._loaded(name)

    @classmethod
    async def aload(cls, name: str) -> Secret[T]:
        """Do what `load` does; its answer is awaited in any code."""
        return cls._loaded(name)

    @awaited_in_async_code
    def save(self, name: str, overwrite: bool = False) -> str:
        """Keep the value in the journal, encrypted, under a name, and return that. Raises SecretError where it is taken."""
        return self._save(name, overwrite)

    async def asave(self, name: str, overwrite: bool = False) -> str:
        """Do what `save` does; its answer is awaited in any code."""
        return self._save(name, overwrite)

    def as_reference(self) -> str:
        """Return the text that stands for it in the parameters of a deployment. SecretError where there is none."""
        if self._reference is None or ":" in self._reference:
            raise SecretError(
                f"{self!r} cannot stand in the parameters of a deployment: only a secret with a name can. Give it one: "
                "wfengine secrets set NAME --from ..."
            )
        return f"{{{{ secrets.{self._reference} }}}}"

    @classmethod
    def _loaded(cls, name: str) -> Secret[T]:
        made = cls(checked_name(name))
        if not _exists(name):
            raise SecretError(f"There is no secret '{name}'. Set it: wfengine secrets set {name}")
        return made

    def _save(self, name: str, overwrite: bool) -> str:
        set(name, self.get(), overwrite=overwrite)
        self._reference, self._value = name, _NOTHING
        return name

    def __repr__(self) -> str:
        return f"Secret({self._reference!r})" if self._reference is not None else f"Secret(value={_HIDDEN!r})"

    def __str__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self is other or (self._reference is not None and self._reference == other._reference)

    def __hash__(self) -> int:
        return hash((Secret, self._reference))

    def __reduce__(self) -> tuple[object, ...]:
        if self._reference is None:
            raise SecretError("a secret with a value was not saved: call its save(NAME) first, or pass Secret('NAME')")
        return (Secret, (self._reference,))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let a pydantic model have a field of it."""
        from pydantic_core import core_schema  # slow to import

        return core_schema.is_instance_schema(cls, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say what stands for it in JSON: the text of a reference."""
        return {"type": "string", "format": "password"}


def get(name: str) -> object:
    """Return the value of a secret: `Secret(name).get()`."""
    return Secret[object](name).get()


@asks_the_flow
def set(name: str, value: object = _NOTHING, *, source: str | None = None, overwrite: bool = False) -> None:
    """Keep a value under a name, encrypted; or with `source` say where it is kept: "env:DB_PASSWORD".

    The value may be any JSON. One that exists is changed only with `overwrite=True`. A value needs the extra `secrets`, and a
    key, which is made with the first one (see `secret_keys`). Raises SecretError; nothing is written then.
    """
    checked_name(name)
    if (value is _NOTHING) == (source is None):
        raise SecretError(f"Secret '{name}' is given a value, or the source that keeps it.")
    ciphertext = key_id = None
    if source is not None:
        checked_reference(source, is_source=True)
    else:
        text = _checked_text(name, value)
        from wfengine.secret_keys import writing_key  # imports what encrypts, which is an extra

        key = writing_key()
        key_id, ciphertext = key.id, key.encrypt(name, text)
        KEEPER.learn(json.loads(text), name)
    scope = current_scope()
    if scope is None and leaves_no_trace():
        return
    journal = journal_of(scope)
    change = SetSecret(name, ciphertext, key_id, source, overwrite=overwrite, at=journal.clock.now_text())
    try:
        journal.write(change, synced=waits_for_disk(journal, scope))
    except WriteRefused:
        if is_executed_again(scope) and source is None and read_secret(name, journal) == json.loads(text):
            return
        raise SecretError(
            f"Secret '{name}' exists already. To change it: wfengine secrets set {name} --overwrite, or overwrite=True"
        ) from None


@asks_the_flow
def unset(name: str) -> bool:
    """Delete a secret; tell whether there was one."""
    checked_name(name)
    scope = current_scope()
    if scope is None and leaves_no_trace():
        return False
    journal = journal_of(scope)
    change = UnsetSecret(name)
    journal.write(change, synced=waits_for_disk(journal, scope))
    return change.existed


@asks_the_flow
def _read(reference: str) -> object:
    return read_secret(reference, journal_of(current_scope()))


@asks_the_flow
def _exists(name: str) -> bool:
    return journal_of(current_scope()).records.read(lambda connection: find_secret(connection, name)) is not None


def _plain(value: object) -> object:
    """Return what a pydantic SecretStr or SecretBytes hides, and any other value as it is."""
    reveal = getattr(value, "get_secret_value", None)
    return reveal() if callable(reveal) else value


def _checked_text(name: str, value: object) -> str:
    try:
        text = plain_json(_plain(value), f"the value of secret '{name}'", secrets="keep")
    except ValueError as error:
        KEEPER.learn(_plain(value))
        raise SecretError(f"Secret '{name}' was not set: {hide(str(error))}") from None
    if text in ('""', "null"):
        raise SecretError(f"Secret '{name}' was not set: its value is empty.")
    if len(text) > VALUE_LIMIT:
        raise SecretError(f"Secret '{name}' was not set: its value has more than {VALUE_LIMIT:,} characters.")
    return text
