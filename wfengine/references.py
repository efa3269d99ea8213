"""References in the parameters of deployments and runs: `{{ variables.NAME }}` and `{{ secrets.NAME }}`.

A variable is read when the run begins, and its value is what the journal keeps: a resumed run has the same one. A secret is
kept as a reference; its value is read in the process that executes the run, and nowhere else. References are followed where a
person wrote them: in parameters of deployments, schedules and runs. They are not followed in values of variables, and refused
in what an automation takes from an event.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from wfengine_journal.errors import ParameterError

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: Levels of lists and dicts that are looked through; JSON of parameters has no more.
DEPTH_LIMIT = 100
_KINDS = r"(?:(?:wfengine|prefect)\.)?(?P<kind>variables|secrets|blocks\.secret)"
_REFERENCE = re.compile(r"\{\{\s*" + _KINDS + r"\.(?P<name>[A-Za-z0-9_-]{1,255})\s*\}\}")
_BEGINNING = re.compile(r"\{\{\s*" + _KINDS + r"\b")


class Late:
    """A value that is known only later: no type hint judges it before."""

    __slots__ = ()


PENDING = Late()


def holds_late(value: object) -> bool:
    """Tell whether a value is one that is known only later, or a list or dict that holds one."""
    if isinstance(value, Late):
        return True
    if "wfengine.secrets" not in sys.modules or not isinstance(value, list | tuple | dict):
        return False  # most programs have no secrets, and large lists
    seen: set[int] = set()
    waiting: list[object] = [value]
    while waiting:
        container = waiting.pop()
        if id(container) not in seen:
            seen.add(id(container))
            for each in container.values() if isinstance(container, dict) else container:  # type: ignore[attr-defined]  # or a list
                if isinstance(each, Late):
                    return True
                if isinstance(each, list | tuple | dict):
                    waiting.append(each)
    return False


def mentions(value: object, depth: int = 0) -> bool:
    """Tell whether a JSON value holds a reference, or what begins like one."""
    if isinstance(value, str):
        return "{{" in value and _BEGINNING.search(value) is not None
    if depth < DEPTH_LIMIT:
        if isinstance(value, list | tuple):
            return any(mentions(each, depth + 1) for each in value)
        if isinstance(value, Mapping):
            return any(mentions(each, depth + 1) for each in value.values())
    return False


def unjudged(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return parameters with a placeholder for each that holds references, which fits every hint."""
    return {name: PENDING if mentions(value) else value for name, value in parameters.items()}


def written(value: object, depth: int = 0) -> object:
    """Return a value with the text of a reference in place of each Secret in it."""
    if isinstance(value, Late):
        return value.as_reference() if hasattr(value, "as_reference") else value
    if depth < DEPTH_LIMIT:
        if isinstance(value, list | tuple) and holds_late(value):
            return [written(each, depth + 1) for each in value]
        if isinstance(value, Mapping) and holds_late(value):
            return {key: written(each, depth + 1) for key, each in value.items()}
    return value


def resolved(parameters: Mapping[str, object], journal: Journal, owner: str) -> dict[str, object]:
    """Return parameters with variables read, and a Secret for each text that names one.

    Raises ParameterError, which names everything that is missing; no secret's value is read.
    """
    if not mentions(parameters):
        return dict(parameters)
    problems: list[str] = []
    walk = _Resolving(journal, problems)
    found = {name: walk.value(value) for name, value in parameters.items()}
    if problems:
        raise ParameterError(f"{owner}: {' '.join(dict.fromkeys(problems))}")
    return found


class _Resolving:
    def __init__(self, journal: Journal, problems: list[str]) -> None:
        self._journal = journal
        self._problems = problems

    def value(self, value: object) -> object:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        if isinstance(value, Mapping):
            return {key: self.value(each) for key, each in value.items()}
        return value

    def _text(self, text: str) -> object:
        if _BEGINNING.search(_REFERENCE.sub("", text)):
            self._problems.append(
                f"{text!r} is no reference: write {{{{ secrets.NAME }}}} or {{{{ variables.NAME }}}}, with letters, digits, "
                "dashes and underscores in the name."
            )
            return text
        whole = _REFERENCE.fullmatch(text.strip())
        if whole is not None and whole["kind"] == "variables":
            return self._variable(whole["name"])
        names = [found["name"] for found in _REFERENCE.finditer(text) if found["kind"] != "variables"]
        filled = _REFERENCE.sub(self._in_text, text)
        return self._secret(names, filled, is_whole=whole is not None) if names else filled

    def _in_text(self, found: re.Match[str]) -> str:
        if found["kind"] != "variables":
            return found[0]
        value = self._variable(found["name"])
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def _variable(self, name: str) -> object:
        from wfengine_journal.variables import find_variable  # few runs have references

        row = self._journal.records.read(lambda connection: find_variable(connection, name))
        if row is None:
            self._problems.append(f"There is no variable '{name}'. Set it: wfengine variables set {name} VALUE")
            return None
        value: object = json.loads(row.value)
        if mentions(value):
            self._problems.append(f"Variable '{name}' holds a reference itself, and those are not followed. Write it out.")
        return value

    def _secret(self, names: list[str], text: str, *, is_whole: bool) -> object:
        from wfengine.secrets import Secret
        from wfengine_journal.secrets import find_secret

        for name in names:
            if self._journal.records.read(lambda connection, name=name: find_secret(connection, name)) is None:  # type: ignore[misc]  # name is bound per turn
                self._problems.append(f"There is no secret '{name}'. Set it: wfengine secrets set {name}")
        return Secret(names[0]) if is_whole else Secret(f"text:{text}")


def filled_text(text: str, value_of: Callable[[str], object]) -> str:
    """Return a text with the value of each secret that it names."""

    def put(found: re.Match[str]) -> str:
        value = value_of(found["name"])
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _REFERENCE.sub(put, text)


def revealed(value: object, depth: int = 0) -> object:
    """Return a value with the value of each Secret in it. Raises SecretError."""
    if isinstance(value, Late):
        return cast("Callable[[], object]", value.get)() if hasattr(value, "get") else value
    if isinstance(value, list | tuple):
        return type(value)(revealed(each, depth + 1) for each in value) if type(value) in (list, tuple) else value
    if type(value) is dict:
        return {key: revealed(each, depth + 1) for key, each in value.items()}
    return value
