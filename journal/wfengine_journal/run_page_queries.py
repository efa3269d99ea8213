"""What the page reads of one run beside `page_queries`: calls in a stretch of time, what calls gave and took, orphans, code.

As there: no read goes through all there is of something that grows, but for the calls of the one run that is asked for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from wfengine_journal.call_counts import Stretch
from wfengine_journal.rows import Bar

#: Characters of inputs that are compared with results, and hashes of large arguments that are read.
COMPARED_CHARACTERS = 20_000
ARGUMENTS = 5_000
#: Calls that one call without counterpart is compared with.
COUNTERPARTS = 50
#: Calls that are looked at for the names of what was called.
CALLS_FOR_NAMES = 5_000

_FIRST = (
    "(SELECT task_run_id FROM transition WHERE flow_run_id = :run AND task_run_id > 0 ORDER BY task_run_id LIMIT 1)"
)  # fmt: skip
_LAST = "(SELECT task_run_id FROM transition WHERE flow_run_id = :run ORDER BY task_run_id DESC LIMIT 1)"


#: Of calls whose ids lie between two: in ascending order, so that statements one after the other give all in that order.
_BARS_BETWEEN = f"""
    SELECT k.kind, k.name, t.id, t.state,
           strftime('%s', t.started_at) - strftime('%s', r.started_at)
               + (substr(t.started_at, 21, 6) - substr(r.started_at, 21, 6)) / 1e6,
           strftime('%s', t.ended_at) - strftime('%s', t.started_at)
               + (substr(t.ended_at, 21, 6) - substr(t.started_at, 21, 6)) / 1e6
    FROM flow_run r CROSS JOIN task_run t ON +t.flow_run_id = r.id JOIN task k ON k.id = t.task_id
    WHERE r.id = :run AND t.id >= :first AND t.id <= coalesce(:last, {_LAST})
      AND t.started_at <= :to_at AND (t.ended_at IS NULL OR t.ended_at >= :from_at)
    ORDER BY t.id LIMIT :limit
"""


def list_bars_between(
    connection: sqlite3.Connection, run_id: int, *, from_at: str, to_at: str, limit: int, stretches: Sequence[Stretch]
) -> list[Bar]:  # fmt: skip
    """Return when the calls of a run took place that were under way between two instants, in the order of the calls.

    `stretches`: what `count_calls` gave of the run: where no call was under way then is not looked again.
    """
    parts: list[tuple[int, int | None]] = [
        (each.first_id, each.last_id) for each in stretches
        if (each.first_started_at is None or each.first_started_at <= to_at)
        and (each.last_ended_at is None or each.last_ended_at >= from_at)
    ]  # fmt: skip
    if stretches:
        parts.append((stretches[-1].last_id + 1, None))  # calls that were made since it was counted
    found: list[Bar] = []
    for first, last in parts:
        values = {
            "run": run_id, "from_at": from_at, "to_at": to_at, "limit": limit - len(found), "first": first, "last": last,
        }  # fmt: skip
        rows = connection.execute(_BARS_BETWEEN, values).fetchall()
        found += [Bar(*row) for row in rows if row[4] is not None]  # None: an instant that is none, in a damaged file
        if len(found) >= limit:
            break
    return found


# ---------------------------------------------------------------------------------------------------- what calls gave and took


@dataclass(frozen=True, slots=True)
class CallValues:
    """One call with what it took and gave, as far as it can be compared: JSON text, or the checksum of a larger value."""

    id: int
    scope: int
    kind: str
    task: str
    state: str
    started_at: str | None
    ended_at: str | None
    inputs: str | None
    result: str | None
    result_hash: bytes | None


def list_call_values(
    connection: sqlite3.Connection, run_id: int, *, after_id: int = 0, limit: int
) -> list[CallValues]:  # fmt: skip
    """Return calls of a run in their order, subflow calls included, with values that stand in full in their rows."""
    rows = connection.execute(
        """
        SELECT t.id, t.scope, k.kind, k.name, t.state, t.started_at, t.ended_at,
               CASE WHEN length(t.inputs) <= ? THEN t.inputs END,
               CASE WHEN t.result_codec = 'json' AND t.result IS NOT NULL THEN t.result END, t.result_hash
        FROM transition h CROSS JOIN task_run t ON t.id = h.task_run_id JOIN task k ON k.id = t.task_id
        WHERE h.flow_run_id = ? AND h.task_run_id > ? AND h.seq = 1 ORDER BY h.task_run_id LIMIT ?
        """,
        (COMPARED_CHARACTERS, run_id, after_id, limit),
    )
    return [CallValues(*row) for row in rows.fetchall()]


def list_argument_hashes(
    connection: sqlite3.Connection, run_id: int, first_id: int, last_id: int
) -> list[tuple[int, str, bytes]]:  # fmt: skip
    """Return call, name and checksum of arguments that do not stand in full in the rows of their calls."""
    rows = connection.execute(
        """
        SELECT task_run_id, name, hash FROM argument
        WHERE flow_run_id = ? AND task_run_id BETWEEN ? AND ? AND hash IS NOT NULL LIMIT ?
        """,
        (run_id, max(1, first_id), last_id, ARGUMENTS),
    )
    return [tuple(row) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- orphans


@dataclass(frozen=True, slots=True)
class Orphan:
    """A completed call that a later execution did not ask for, and the call that it made in its place, if it made one."""

    id: int
    task: str
    orphaned_in: int
    inputs: str
    result: str | None
    instead_id: int | None
    instead_inputs: str | None
    instead_in: int | None  # the attempt in which that call was made for the first time


def list_orphans(connection: sqlite3.Connection, run_id: int, limit: int) -> list[Orphan]:
    """Return the orphans of a run in the order of their calls."""
    rows = connection.execute(
        f"""
        SELECT t.id, t.scope, t.task_id, t.epoch, k.name, t.orphaned_in, t.inputs,
               CASE WHEN t.result_codec = 'json' AND t.result IS NOT NULL THEN t.result ELSE t.result_preview END
        FROM task_run t JOIN task k ON k.id = t.task_id
        WHERE t.orphaned_in IS NOT NULL AND t.id >= {_FIRST} AND t.id <= {_LAST} AND +t.flow_run_id = :run
        ORDER BY t.id LIMIT :limit
        """,
        {"run": run_id, "limit": limit},
    ).fetchall()
    newer: dict[tuple[int, int, int], list[tuple[int, str, int]]] = {}
    found = []
    for row_id, scope, task_id, completed_in, task, orphaned_in, inputs, result in rows:
        key = (scope, task_id, orphaned_in)
        if key not in newer:
            newer[key] = _calls_begun_until(connection, run_id, *key)
        has_one = bool(newer[key]) and newer[key][0][2] > completed_in
        instead = newer[key].pop(0) if has_one else (None, None, None)
        found.append(Orphan(row_id, task, orphaned_in, inputs, result, *instead))
    return found


def _calls_begun_until(
    connection: sqlite3.Connection, run_id: int, scope: int, task_id: int, epoch: int
) -> list[tuple[int, str, int]]:  # fmt: skip
    """Return the first calls of the last attempt up to one that made any: id, inputs, attempt. Orphans are left out.

    Only an attempt that comes to its end says which calls it did not ask for; the one that made others may have failed before.
    """
    rows = connection.execute(
        """
        WITH made AS MATERIALIZED (
            SELECT t.id, h.epoch
            FROM task_run t JOIN transition h ON h.flow_run_id = t.flow_run_id AND h.task_run_id = t.id
            WHERE t.flow_run_id = ? AND t.scope = ? AND t.task_id = ? AND t.orphaned_in IS NULL AND h.seq = 1 AND h.epoch <= ?
        )
        SELECT m.id, t.inputs, m.epoch FROM made m JOIN task_run t ON t.id = m.id
        WHERE m.epoch = (SELECT max(epoch) FROM made) ORDER BY m.id LIMIT ?
        """,
        (run_id, scope, task_id, epoch, COUNTERPARTS),
    )
    return [tuple(row) for row in rows.fetchall()]


# ---------------------------------------------------------------------------------------------------- code


@dataclass(frozen=True, slots=True)
class RunCode:
    """With which code one execution of a run took place. `version`: the id of the code in this journal."""

    attempt: int
    reason: str
    started_at: str
    version: int | None
    source: str | None
    run_id: int
    run_name: str


@dataclass(frozen=True, slots=True)
class ChangedTask:
    """A task whose own code is not the same in all executions of a run that called it."""

    task: str
    versions: int
    first_attempt: int
    last_attempt: int


_CODE = """
    SELECT e.epoch, e.reason, e.started_at, c.id, c.source, r.id, r.name
    FROM flow_run r JOIN execution e ON e.flow_run_id = r.id LEFT JOIN code c ON c.id = e.code_id
"""


def list_codes(connection: sqlite3.Connection, run_id: int, limit: int) -> list[RunCode]:
    """Return the code of the executions of a run, the newest first."""
    rows = connection.execute(f"{_CODE} WHERE r.id = ? ORDER BY e.epoch DESC LIMIT ?", (run_id, limit))
    return [RunCode(*row) for row in rows.fetchall()]


def find_newest_code(connection: sqlite3.Connection, flow: str, from_id: int) -> RunCode | None:
    """Return the code of the newest execution of any of the newest runs of a flow."""
    row = connection.execute(
        f"""
        {_CODE} WHERE r.id = (SELECT max(n.id) FROM flow_run n WHERE n.id >= ? AND n.started_at IS NOT NULL
                              AND n.flow_id = (SELECT id FROM flow WHERE name = ?))
        ORDER BY e.epoch DESC LIMIT 1
        """,
        (from_id, flow),
    ).fetchone()
    return None if row is None else RunCode(*row)


def list_changed_tasks(connection: sqlite3.Connection, run_id: int, limit: int) -> list[ChangedTask]:
    """Return the tasks of a run whose own code changed between its executions."""
    rows = connection.execute(
        """
        SELECT k.name, count(DISTINCT c.code_hash), min(c.epoch), max(c.epoch) FROM task_code c JOIN task k ON k.id = c.task_id
        WHERE c.flow_run_id = ? GROUP BY c.task_id HAVING count(DISTINCT c.code_hash) > 1 ORDER BY k.name LIMIT ?
        """,
        (run_id, limit),
    )
    return [ChangedTask(*row) for row in rows.fetchall()]


def list_task_names(connection: sqlite3.Connection, run_id: int, limit: int) -> list[str]:
    """Return the names of what the flow's body called, in the order of its first calls; of very many calls, the first ones'."""
    rows = connection.execute(
        """
        SELECT k.name, min(h.id) FROM
            (SELECT task_run_id AS id FROM transition WHERE flow_run_id = ? AND task_run_id > 0 AND seq = 1
             ORDER BY task_run_id LIMIT ?) h
        CROSS JOIN task_run t ON t.id = h.id JOIN task k ON k.id = t.task_id
        WHERE t.scope = 0 GROUP BY k.name ORDER BY 2 LIMIT ?
        """,
        (run_id, CALLS_FOR_NAMES, limit),
    )
    return [row[0] for row in rows.fetchall()]


def id_before(connection: sqlite3.Connection, run_id: int, task_run_id: int, count: int) -> int:
    """Return the id of a call after which so many of its run stand before another one; 0: there are not so many."""
    row = connection.execute(
        """
        SELECT task_run_id FROM transition WHERE flow_run_id = ? AND task_run_id > 0 AND task_run_id < ? AND seq = 1
        ORDER BY task_run_id DESC LIMIT 1 OFFSET ?
        """,
        (run_id, task_run_id, count),
    ).fetchone()
    return 0 if row is None else int(row[0])
