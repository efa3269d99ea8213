"""What an operation is told: each parameter described once, for requests to be checked, and for the OpenAPI document."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wfengine_journal.errors import UsageError
from wfengine_journal.queries import MAX_ID

Kind = Literal["integer", "string", "boolean", "json", "object", "integers", "strings", "count"]

#: Characters of a text, items of a list, and levels of a JSON value.
TEXT_CHARACTERS = 50_000
ITEMS = 1000
LEVELS = 50
#: The largest id that is asked about: the one after it is a number that SQLite can hold too.
LARGEST_ID = MAX_ID - 1
#: The largest number of a limit, and what takes it away.
COUNT = 999_999_999
NONE = "none"


class Typed(str):
    """A text that a person typed in a form, to be read by the type of the parameter that it is for."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `place`: 'path' and 'query' hold text, 'body' is a field of the request's JSON object."""

    name: str
    kind: Kind
    place: Literal["path", "query", "body"]
    description: str
    required: bool = False
    default: object = None
    choices: tuple[str, ...] = ()
    smallest: int = 0
    largest: int = LARGEST_ID

    def schema(self) -> dict[str, object]:
        """Return its JSON schema."""
        found: dict[str, object] = {
            "integer": {"type": "integer", "minimum": self.smallest, "maximum": self.largest},
            "string": {"type": "string", "maxLength": TEXT_CHARACTERS, "pattern": "^[^\\u0000\\ud800-\\udfff]*$"},
            "boolean": {"type": "boolean"},
            "json": {},
            "object": {"type": "object"},
            "integers": {"type": "array", "maxItems": ITEMS, "items": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID}},
            "strings": {"type": "array", "maxItems": ITEMS, "items": {"type": "string", "maxLength": TEXT_CHARACTERS}},
            "count": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": COUNT}, {"const": NONE}]},
        }[self.kind]  # type: ignore[assignment]
        if self.choices:
            found = {"type": "string", "enum": list(self.choices)}
        if self.default is not None:
            found["default"] = self.default
        return found

    def of_text(self, text: str) -> object:
        """Return the value that a text of an address means. Raises UsageError."""
        if self.kind == "integer":
            if not (text.isascii() and text.isdigit() and len(text) <= 19):
                raise UsageError(f"{self.name} is a whole number, not {text[:100]!r}.")
            return self.checked(int(text))
        if self.kind == "boolean":
            if text.lower() not in ("true", "false", "1", "0", "on"):
                raise UsageError(f"{self.name} is true or false, not {text[:100]!r}.")
            return text.lower() in ("true", "1", "on")
        if self.kind == "count" and text != NONE:
            if not (text.isascii() and text.isdigit() and len(text) <= 9):
                raise UsageError(f"{self.name} is a whole number, or {NONE!r}, and not {text[:100]!r}.")
            return self.checked(int(text))
        if self.kind in ("json", "object"):
            try:
                return self.checked(json.loads(text, parse_constant=_refuse_constant))
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{self.name} is not JSON: {error}.") from None
        return self.checked(text)

    def checked(self, value: object) -> object:
        """Return a value if it fits. Raises UsageError."""
        if not _FITS[self.kind](value):
            raise UsageError(f"{self.name} is to be of the kind {self.kind}.")
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name} is one of {', '.join(self.choices)}.")
        if isinstance(value, int) and not isinstance(value, bool) and not self.smallest <= value <= self.largest:
            raise UsageError(f"{self.name} is a number from {self.smallest} to {self.largest}.")
        if isinstance(value, str):
            _check_text(self.name, value)
        if isinstance(value, list):
            if len(value) > ITEMS:
                raise UsageError(f"{self.name} has at most {ITEMS} items.")
            for item in value:
                if isinstance(item, str):
                    _check_text(self.name, item)
        if self.kind in ("json", "object"):
            _check_depth(self.name, value, LEVELS)
        return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _check_text(name: str, text: str) -> None:
    if len(text) > TEXT_CHARACTERS:
        raise UsageError(f"{name} has at most {TEXT_CHARACTERS} characters.")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"{name} holds a NUL, or a character that is not valid in UTF-8.")


def _check_depth(name: str, value: object, left: int) -> None:
    if left == 0:
        raise UsageError(f"{name} is nested deeper than {LEVELS} levels.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} holds a number that JSON has not.")
    if isinstance(value, str):
        _check_text(name, value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(name, key)
            _check_depth(name, item, left - 1)
    elif isinstance(value, list):
        for item in value:
            _check_depth(name, item, left - 1)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_FITS: dict[str, Callable[[object], bool]] = {
    "integer": _is_integer,
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "json": lambda value: True,
    "object": lambda value: isinstance(value, dict),
    "count": lambda value: value == NONE or (_is_integer(value) and 0 <= value <= COUNT),  # type: ignore[operator]  # a number
    "integers": lambda value: isinstance(value, list) and all(_is_integer(item) and 1 <= item <= LARGEST_ID for item in value),
    "strings": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
}


def collect(
    parameters: Sequence[Parameter], path: Mapping[str, str], query: Sequence[tuple[str, str]], body: Mapping[str, object]
) -> dict[str, object]:
    """Return the checked values of a request by name. Raises UsageError for what is missing, unknown, or given twice."""
    known = {each.name: each for each in parameters}
    for place, names in (("query", [name for name, _ in query]), ("body", list(body))):
        for name in names:
            if name not in known or known[name].place != place:
                there = ", ".join(each.name for each in parameters if each.place == place)
                raise UsageError(f"There is no parameter {name[:100]!r} here. In the {place} there is: {there or 'none'}.")
            if names.count(name) > 1:
                raise UsageError(f"{name} is given twice.")
    given = {**path, **dict(query)}
    found: dict[str, object] = {}
    for each in parameters:
        if each.place != "body" and each.name in given:
            found[each.name] = each.of_text(given[each.name])
        elif each.place == "body" and (body.get(each.name) is not None or (each.kind == "json" and each.name in body)):
            found[each.name] = each.checked(body[each.name])
        elif each.required:
            raise UsageError(f"{each.name} is missing: {each.description}")
        else:
            found[each.name] = each.default
    return found
