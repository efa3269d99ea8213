"""Which call took whose result: what the journal holds of it, which is the values themselves.

A call took the result of an earlier one where an argument of it - or an item of one that is a list, or a field of one that is
an object - is that very result, by content, and the earlier call had ended when it began; of several, the one that ended last.
A value that says little - a small number, a short text - is taken for a result only where a single call in the same scope gave
it. So nothing is recorded for it, and journals of any age have it; what a call only waited for (`wait_for`) is not seen.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wfengine_journal.run_page_queries import CallValues, id_before, list_argument_hashes, list_call_values

#: Items of one argument that are looked at, and links of one drawing.
ITEMS = 200
LINKS = 2_000
#: Calls before and after one that are looked at for it.
AROUND = 400
#: Characters of the JSON of a value that says enough.
TELLING = 6

Value = str | bytes
Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """A result that a later call was given."""

    source: int
    target: int
    argument: str


def read_links(
    connection: sqlite3.Connection, run_id: int, *, limit: int, after_id: int = 0
) -> tuple[list[CallValues], list[Link]]:  # fmt: skip
    """Return calls of a run in their order, and the links between them."""
    calls = list_call_values(connection, run_id, after_id=after_id, limit=limit)
    if not calls:
        return [], []
    return calls, links(calls, list_argument_hashes(connection, run_id, calls[0].id, calls[-1].id))


def links(calls: Sequence[CallValues], large: Sequence[tuple[int, str, bytes]] = ()) -> list[Link]:
    """Return the links between calls. `large`: call, name and checksum of arguments that do not stand in their rows."""
    hashes: dict[int, list[tuple[str, bytes]]] = {}
    for call_id, name, checksum in large:
        hashes.setdefault(call_id, []).append((name, checksum))
    given: dict[Value, list[CallValues]] = {}
    found: list[Link] = []
    # By when they began, so that a call comes after all whose results it can have; one that waits still comes last.
    for call in sorted(calls, key=lambda each: (each.started_at or "~", each.id)):
        seen: set[int] = set()
        taken: list[tuple[str, Value]] = [*_taken(call.inputs), *hashes.get(call.id, ())]
        for name, value in taken:
            source = _source(given.get(value, ()), call, value)
            if source is not None and source.id not in seen:
                seen.add(source.id)
                found.append(Link(source.id, call.id, name))
                if len(found) == LINKS:
                    return found
        for value in _gave(call):
            given.setdefault(value, []).append(call)
    return found


def _source(candidates: Sequence[CallValues], call: CallValues, value: Value) -> CallValues | None:
    began = call.started_at or "~"
    if isinstance(value, str) and len(value) < TELLING:
        alike = [each for each in candidates if each.scope == call.scope]
        fits = len(alike) == 1 and alike[0].ended_at is not None and alike[0].ended_at <= began
        return alike[0] if fits else None
    before = [each for each in candidates if each.ended_at is not None and each.ended_at <= began]
    return max(before, key=lambda each: (each.ended_at or "", each.id), default=None)


def _gave(call: CallValues) -> Iterator[Value]:
    if call.state != "COMPLETED":
        return
    if call.result_hash is not None:
        yield call.result_hash
    if call.result is not None:
        parsed = _parsed(call.result)
        if _is_something(parsed):
            yield _canonical(parsed)


def _taken(inputs: str | None) -> Iterator[tuple[str, Value]]:
    arguments = _parsed(inputs or "")
    for name, argument in arguments.items() if isinstance(arguments, dict) else ():
        parts: list[object] = [argument]
        if isinstance(argument, list):
            parts += argument[:ITEMS]
        elif isinstance(argument, dict):
            parts += list(argument.values())[:ITEMS]
        for part in parts:
            if _is_something(part):
                yield name, _canonical(part)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_something(value: object) -> bool:
    """Tell whether a value can be told from others at all: not null, true, false, nothing."""
    return value is not None and not isinstance(value, bool) and value not in ("", [], {})


def _canonical(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True)
    except RecursionError:
        return ""


def read_neighbours(connection: sqlite3.Connection, run_id: int, task_run_id: int) -> tuple[list[Data], list[Data]]:
    """Return from which calls one was given results, and which it gave its own to, as far as a window around it shows."""
    calls, found = read_links(
        connection, run_id, after_id=id_before(connection, run_id, task_run_id, AROUND), limit=2 * AROUND
    )  # fmt: skip
    by_id = {call.id: call for call in calls}

    def shown(call_id: int, argument: str) -> Data:
        return {"task_run_id": call_id, "task": by_id[call_id].task, "argument": argument}

    given = [shown(link.source, link.argument) for link in found if link.target == task_run_id]
    gave = [shown(link.target, link.argument) for link in found if link.source == task_run_id]
    return given, gave
