"""Templates in the values of actions: `{{ event.payload.order_id }}`. A place in what the action is told, and no more.

There is no code in them: no calls, no filters, no attributes of objects. What is filled in is never read as a template again.
A value that is one template and nothing else becomes what stands there, a number or a list too; inside a text it becomes text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from wfengine_journal.errors import UsageError

#: Characters of what one action's values may become.
FILLED_LIMIT = 1_000_000
#: Levels of lists and dicts in one value.
DEPTH_LIMIT = 50
#: What a template may begin with.
ROOTS = ("event", "events", "flow_run", "flow", "deployment", "automation", "firing", "key", "missed", "deadline", "since")

#: What there may be at most below a place; None: anything. What is in no table has nothing below it.
_RUN: dict[str, Any] = {"flow_run": {"id": {}, "name": {}}, "flow": {"name": {}}, "deployment": {"name": {}}}
_EVENT: dict[str, Any] = {
    "id": {}, "name": {}, "resource": {}, "labels": None, "related": None, "payload": None, "occurred": {}, **_RUN,
    "task_run": {"id": {}},
}  # fmt: skip
_KNOWN: dict[str, Any] = {
    **_RUN, "event": _EVENT, "since": _EVENT, "events": None, "key": None, "missed": {}, "deadline": {},
    "automation": {"name": {}}, "firing": {"id": {}, "fired": {}},
}  # fmt: skip

_TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PLACE = re.compile(r"([A-Za-z_][\w-]*)((?:\.[\w-]+|\[\d{1,9}\]|\['[^']*'\]|\[\"[^\"]*\"\])*)", re.ASCII)
_STEP = re.compile(r"\.([\w-]+)|\[(\d{1,9})\]|\['([^']*)'\]|\[\"([^\"]*)\"\]", re.ASCII)


class TemplateError(UsageError):
    """There is nothing at the place that a template names."""


def check(value: object, what: str, depth: int = 0) -> None:
    """Raise UsageError for a template that cannot be read, or names what no event has. `what` names the value."""
    if depth > DEPTH_LIMIT:
        raise UsageError(f"{what} is nested more than {DEPTH_LIMIT} levels deep.")
    if isinstance(value, str):
        for found in _TEMPLATE.finditer(value):
            _check_known(_steps(found.group(1), what), found.group(1), what)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            check(each, f"{what}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            check(each, f"{what}[{number}]", depth + 1)


def _check_known(steps: tuple[str | int, ...], place: str, what: str) -> None:
    known: dict[str, Any] | None = _KNOWN
    way = ""
    for step in steps:
        if known is None:
            return
        if step not in known:
            there = f"has only: {', '.join(known)}" if known else "has nothing below it"
            raise UsageError(f"{what}: '{{{{{place[:100]}}}}}' names {str(step)[:100]!r}, and {way} {there}.")
        known = known[str(step)]
        way = f"{way}.{step}" if way else str(step)


def fill(value: object, context: Mapping[str, object], what: str) -> object:
    """Return a value with its templates filled in. Raises TemplateError where there is nothing to fill in."""
    room = [FILLED_LIMIT]
    return _fill(value, context, what, room)


def _fill(value: object, context: Mapping[str, object], what: str, room: list[int]) -> object:
    if isinstance(value, str):
        return _filled(value, context, what, room)
    if isinstance(value, Mapping):
        return {str(key): _fill(each, context, f"{what}.{key}", room) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(each, context, f"{what}[{number}]", room) for number, each in enumerate(value)]
    return value


def _filled(text: str, context: Mapping[str, object], what: str, room: list[int]) -> object:
    whole = _TEMPLATE.fullmatch(text.strip())
    if whole is not None and "{{" not in whole.group(1):
        found = find(whole.group(1), context, what)
        _take(room, len(found) if isinstance(found, str) else len(json.dumps(found)), what)
        return found

    def shown(match: re.Match[str]) -> str:
        value = find(match.group(1), context, what)
        part = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        _take(room, len(part), what)
        return part

    return _TEMPLATE.sub(shown, text)


def _take(room: list[int], characters: int, what: str) -> None:
    room[0] -= characters
    if room[0] < 0:
        raise TemplateError(f"{what}: what the templates fill in is longer than {FILLED_LIMIT} characters.")


def find(place: str, context: Mapping[str, object], what: str) -> object:
    """Return what stands at a place such as `event.payload.items[0]`. Raises TemplateError, with what there is."""
    value: object = context
    way = ""
    for step in _steps(place, what):
        if isinstance(value, Mapping) and isinstance(step, str) and step in value:
            value = value[step]
        elif isinstance(value, list) and str(step).isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            there = ", ".join(list(map(str, value))[:20]) if isinstance(value, Mapping) else type(value).__name__
            raise TemplateError(
                f"{what}: '{{{{{place}}}}}' names {str(step)[:100]!r}, and {way or 'the context'} has: {there or 'nothing'}"
            )
        way = f"{way}.{step}" if way else str(step)
    return value


def find_in_event(context: Mapping[str, object], name: str) -> Mapping[str, object] | None:
    """Return what the event says of its run, flow or deployment; None: nothing."""
    found = context.get(name)
    return found if isinstance(found, Mapping) else None


@lru_cache(maxsize=1000)
def _steps(place: str, what: str) -> tuple[str | int, ...]:
    found = _PLACE.fullmatch(place.strip())
    if found is None or found.group(1) not in ROOTS:
        raise UsageError(
            f"{what}: '{{{{{place[:100]}}}}}' is no place. Write one such as {{{{ event.payload.order_id }}}} or "
            f"{{{{ event.labels['my.label'] }}}}; it begins with one of: {', '.join(ROOTS)}."
        )
    steps: list[str | int] = [found.group(1)]
    for name, index, single, double in _STEP.findall(found.group(2)):
        steps.append(int(index) if index else name or single or double)
    return tuple(steps)
