"""Where two flow runs part: the first call whose inputs or outcome differ. Reads for people; loads no value."""

from __future__ import annotations

import sqlite3
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import NamedTuple

_Path = tuple[tuple[str, bytes, int], ...]  # task key, call key and occurrence of a call and of those around it, innermost last


@dataclass(frozen=True, slots=True)
class Side:
    """One call of one of the two runs."""

    task_run_id: int
    task: str
    inputs: str
    state: str
    outcome: str  # the result, or the error, as text


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where two runs differ. `what`: 'inputs', 'outcome', or 'only' for a call that the other run does not have."""

    what: str
    first: Side | None
    second: Side | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two runs compare: calls that are alike, and where they are not, in the order of the first run."""

    alike: int
    differences: list[Difference]


class _Row(NamedTuple):
    id: int
    scope: int
    key: str
    task: str
    call_key: bytes
    occurrence: int
    inputs: str
    state: str
    mark: bytes | None  # of the outcome: hash of the result, or the error
    outcome: str

    @property
    def side(self) -> Side:
        return Side(self.id, self.task, self.inputs, self.state, self.outcome)


def compare_runs(connection: sqlite3.Connection, first_id: int, second_id: int, limit: int = 1000) -> Comparison:
    """Return how the calls of two flow runs compare, without their subflows' own; at most `limit` differences."""
    first, second = _calls(connection, first_id), _calls(connection, second_id)
    left = defaultdict[tuple[_Path, str], deque[tuple[_Path, _Row]]](deque)
    for path, row in second.items():
        if path not in first:
            left[(path[:-1], row.key)].append((path, row))
    taken: set[_Path] = set()
    alike, found = 0, list[Difference]()
    for path, row in first.items():
        other = second.get(path)
        if other is not None:
            if (row.state, row.mark) == (other.state, other.mark):
                alike += 1
            else:
                found.append(Difference("outcome", row.side, other.side))
        elif waiting := left[(path[:-1], row.key)]:  # the next call of that task which has no counterpart
            place, other = waiting.popleft()
            taken.add(place)
            found.append(Difference("inputs", row.side, other.side))
        else:
            found.append(Difference("only", row.side, None))
    found += [Difference("only", None, row.side) for path, row in second.items() if path not in first and path not in taken]
    return Comparison(alike, found[:limit])


def _calls(connection: sqlite3.Connection, run_id: int) -> dict[_Path, _Row]:
    rows = connection.execute(
        "SELECT t.id, t.scope, k.kind || ':' || k.key, k.name, t.call_key, t.occurrence, t.inputs, t.state,"
        " coalesce(t.result_hash, CAST(e.type || ':' || e.message AS BLOB)),"
        " coalesce(e.type || ': ' || e.message,"
        "          CASE WHEN t.result_codec = 'json' AND t.result IS NOT NULL THEN t.result ELSE t.result_preview END, '')"
        " FROM task_run t JOIN task k ON k.id = t.task_id LEFT JOIN error e ON e.id = t.error_id"
        " WHERE t.flow_run_id = ? AND t.orphaned_in IS NULL ORDER BY t.id",
        (run_id,),
    )
    paths: dict[int, _Path] = {0: ()}
    found: dict[_Path, _Row] = {}
    for row in map(_Row._make, rows):
        path = (*paths.get(row.scope, ()), (row.key, row.call_key, row.occurrence))
        paths[row.id] = path
        found[path] = row
    return found
