"""Texts that must not be written in the clear: who knows them is asked here, before a value or a line is written.

The journal knows no secrets itself. The engine posts a guard, which is asked only once a secret is known in the process:
until then it costs one look at a flag. This module must not keep a secret, and does not touch the file.
"""

from __future__ import annotations

import json
from typing import Protocol

from wfengine_journal.errors import ValueNotStorableError

#: What stands where a secret stood.
MASK = "***"


class Guard(Protocol):
    """Who knows the secrets of this process."""

    def holds(self, data: bytes) -> bool:
        """Tell whether bytes contain a secret, in one of the forms in which texts are written."""
        ...

    def hide(self, text: str) -> str:
        """Return the text with `MASK` for each secret in it."""
        ...

    def name(self, data: bytes) -> bytes:
        """Return JSON bytes with each secret in it replaced by its name: the same while the secret's value changes."""
        ...

    def note(self, found: list[str | bytes]) -> None:
        """Take notice of secrets that an object hides from its repr, and is now written with."""
        ...

    def seal(self, codec: str, raw: bytes, what: str) -> tuple[str, bytes]:
        """Return codec and bytes of an encrypted value. Raises ValueNotStorableError where there is no key for it."""
        ...


class _Post:
    """Where the guard stands."""

    __slots__ = ("guard", "hides_output", "is_alert")

    def __init__(self) -> None:
        self.guard: Guard | None = None
        self.is_alert = False  # a secret is known
        self.hides_output = False  # what this process prints is hidden as well: it is no program of the user's own


POST = _Post()


def post_guard(guard: Guard) -> None:
    """Have this guard asked from now on."""
    POST.guard = guard


def hide(text: str) -> str:
    """Return a text as it may be written and shown."""
    return POST.guard.hide(text) if POST.is_alert and POST.guard is not None else text


def holds(data: bytes) -> bool:
    """Tell whether bytes contain a secret."""
    return POST.is_alert and POST.guard is not None and POST.guard.holds(data)


def named(data: bytes) -> bytes:
    """Return JSON bytes with the names of secrets in place of their values."""
    return POST.guard.name(data) if POST.is_alert and POST.guard is not None else data


def holds_any(data: bytes, hidden: list[str | bytes]) -> bool:
    """Tell whether bytes contain a secret: one that is known, or one of those that were met when they were made."""
    if hidden and POST.guard is not None:
        POST.guard.note(hidden)
    return bool(hidden) or holds(data)


def hidden_form(value: object) -> bytes:
    """Return what stands for a SecretStr or SecretBytes where values are compared."""
    secret = value.get_secret_value()  # type: ignore[attr-defined]  # of the two, and of no other class
    if POST.guard is not None:
        POST.guard.note([secret])
    text = secret.decode("utf-8", "backslashreplace") if isinstance(secret, bytes) else str(secret)
    return named(json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def seal(codec: str, raw: bytes, what: str) -> tuple[str, bytes]:
    """Return codec and bytes of a value that holds a secret: encrypted. ValueNotStorableError where there is no key for it."""
    if POST.guard is None:
        raise ValueNotStorableError(f"{what} cannot be stored: it holds a secret, and nobody here can encrypt it.")
    return POST.guard.seal(codec, raw, what)
