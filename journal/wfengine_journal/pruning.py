"""Delete old flow runs that have ended: whole runs with their subflow runs, in batches, while the journal is in use.

Each batch is one transaction, which looks again whether its runs may go. A run is never half deleted, and `meta` holds
'pruning' only within such a transaction. What nothing refers to any more - values, errors - is found without a lock, so that
there is none to take where nothing is found, and looked for again under the lock that deletes it. At last free pages are given
back, some at a time.

Never deleted: what has not ended (CRASHED and PAUSED can be gone on with), a run that an open one waits for, a background run
that was put into its queue while a run that is still open was there already (it may ask for the outcome), cache entries, and
values of codec 'cloudpickle-flow', which are written before the run that refers to them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from wfengine_journal.log_search import forget_pruned
from wfengine_journal.run_rows import ERROR_REFERENCES, RUN_TABLES, VALUE_REFERENCES, run_family
from wfengine_journal.store import Journal

#: Calls deleted in one transaction, unless one run alone has more; other processes write between two of them.
BATCH_CALLS = 1000
#: Runs looked at in one transaction at the most.
BATCH_RUNS = 200
#: Values, or errors, deleted in one transaction: each of these looks at all rows that may refer to one.
BATCH_VALUES = 10_000
#: Events, firings, notifications and ticks deleted in one transaction, of each.
BATCH_EVENTS = 10_000
#: Pages given back in one transaction.
BATCH_PAGES = 1000
#: The states in which a run may be deleted: they are the ends that nobody goes on from.
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which runs are to go. Subflow runs go with the run that called them."""

    ended_before: str | None  # as the journal writes instants; None: whenever
    keep_newest: int = 0  # so many ended runs of each flow stay
    keep_failed: bool = False  # runs that failed stay
    flow: str | None = None  # only runs of this flow


@dataclass(slots=True)
class Pruned:
    """What was deleted, or would be. `bytes`: what the file became smaller by; of a dry run an estimate."""

    runs: int = 0
    subflow_runs: int = 0
    task_runs: int = 0
    values: int = 0
    errors: int = 0
    events: int = 0  # events outside of runs, firings of automations, notifications, and ticks of schedules
    bytes: int = 0
    kept_for_open: int = 0  # fit the rule, but an open run needs them or may ask, or an automation has not seen their events
    unreferenced_files: list[str] = field(default_factory=list)  # references (JSON) to stored results that no row has any more


@dataclass(frozen=True, slots=True)
class _Family:
    """A run that may go, with its subflow runs, as they were when they were looked at: id -> version."""

    run_id: int
    versions: dict[int, int]
    calls: int


#: Up to which event every automation has looked; null: there is no automation.
_SEEN = "SELECT min(seen_to) FROM automation WHERE active = 1 AND removed_at IS NULL"


def plan(connection: sqlite3.Connection, rule: Rule) -> tuple[list[_Family], int]:
    """Return the families that may go, oldest first, and the number of runs that only stay because they are needed still."""
    rows = connection.execute(
        """
        SELECT id, queue IS NOT NULL AND created_at >= coalesce((
                   SELECT min(created_at) FROM flow_run
                   WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND queue IS NULL), '~')
        FROM (SELECT r.id, r.state, r.queue, r.created_at, r.ended_at,
                     row_number() OVER (PARTITION BY r.flow_id ORDER BY r.id DESC) AS place
              FROM flow_run r JOIN flow f ON f.id = r.flow_id
              WHERE r.parent_task_run_id IS NULL AND r.state IN ('COMPLETED', 'FAILED', 'CANCELLED')
                AND (:flow IS NULL OR f.name = :flow))
        WHERE place > :keep AND (:before IS NULL OR ended_at < :before) AND NOT (:keep_failed AND state = 'FAILED')
        ORDER BY id
        """,
        {
            "flow": rule.flow,
            "keep": rule.keep_newest,
            "before": rule.ended_before,
            "keep_failed": rule.keep_failed,
        },
    ).fetchall()
    families, kept = [], 0
    for run_id, may_be_asked_for in rows:
        family = None if may_be_asked_for else _look_at(connection, int(run_id))
        if family is None:
            kept += 1
        else:
            families.append(family)
    return families, kept


def _look_at(connection: sqlite3.Connection, run_id: int) -> _Family | None:
    """Return a run with its subflow runs, or None if it must stay for now."""
    ids = json.dumps(run_family(connection, run_id))
    rows = connection.execute(
        f"SELECT id, version, state IN {ENDED} FROM flow_run WHERE id IN (SELECT value FROM json_each(?))", (ids,)
    ).fetchall()
    needed = connection.execute(
        f"""
        SELECT 1 FROM dependency d JOIN flow_run w ON w.id = d.flow_run_id
        WHERE d.needs_run_id IN (SELECT value FROM json_each(?)) AND w.state NOT IN {ENDED} LIMIT 1
        """,
        (ids,),
    ).fetchone()
    unseen = connection.execute(
        f"SELECT 1 FROM event WHERE flow_run_id IN (SELECT value FROM json_each(?)) AND id > ({_SEEN}) LIMIT 1", (ids,)
    ).fetchone()
    if not rows or needed is not None or unseen is not None or not all(row[2] for row in rows):
        return None
    calls = connection.execute(
        "SELECT count(*) FROM task_run WHERE flow_run_id IN (SELECT value FROM json_each(?))", (ids,)
    ).fetchone()
    return _Family(run_id, {int(row[0]): int(row[1]) for row in rows}, int(calls[0]))


def estimate(connection: sqlite3.Connection, rule: Rule) -> Pruned:
    """Return what pruning would delete, without writing anything. The bytes are those of the texts and values, roughly."""
    families, kept = plan(connection, rule)
    ids = json.dumps([run_id for family in families for run_id in family.versions])
    inside = "IN (SELECT value FROM json_each(:ids))"
    rows = connection.execute(
        f"""
        SELECT (SELECT coalesce(sum(200 + length(parameters) + coalesce(length(result), 0)), 0) FROM flow_run WHERE id {inside})
             + (SELECT coalesce(sum(200 + length(inputs) + coalesce(length(result), 0)), 0) FROM task_run
                WHERE flow_run_id {inside})
             + (SELECT coalesce(sum(60 + coalesce(length(message), 0)), 0) FROM transition WHERE flow_run_id {inside})
             + (SELECT coalesce(sum(60 + length(message)), 0) FROM log WHERE flow_run_id {inside})
        """,
        {"ids": ids},
    ).fetchone()
    values = connection.execute(
        f"SELECT count(*), coalesce(sum(size), 0) FROM value WHERE codec <> 'cloudpickle-flow'"
        f" AND hash NOT IN ({_references(VALUE_REFERENCES, 'NOT ' + inside)})",
        {"ids": ids},
    ).fetchone()
    errors = connection.execute(
        f"SELECT count(*), coalesce(sum(length(traceback) + coalesce(length(data), 0)), 0) FROM error"
        f" WHERE id NOT IN ({_references(_ERRORS, 'NOT ' + inside)})",
        {"ids": ids},
    ).fetchone()
    return Pruned(
        runs=len(families),
        subflow_runs=sum(len(family.versions) - 1 for family in families),
        task_runs=sum(family.calls for family in families),
        values=int(values[0]),
        errors=int(errors[0]),
        bytes=int(rows[0]) + int(values[1]) + int(errors[1]),
        kept_for_open=kept,
    )


_ERRORS = tuple((table, column, "") for table, column in ERROR_REFERENCES)


def _references(references: Sequence[tuple[str, str, str]], runs: str = "") -> str:
    """Return the question for what the journal's rows refer to; `runs`: a condition on the run to which a row belongs.

    Entries of the cache belong to no run: they keep their values whatever becomes of the run that computed them.
    """
    parts = []
    for table, column, inline in references:
        condition = f" AND {inline} IS NULL" if inline else ""
        if runs and table != "cache":
            condition += f" AND {'id' if table == 'flow_run' else 'flow_run_id'} {runs}"
        parts.append(f"SELECT {column} FROM main.{table} WHERE {column} IS NOT NULL{condition}")
    return " UNION ALL ".join(parts)


# ---------------------------------------------------------------------------------------------------- deleting


def prune(journal: Journal, rule: Rule, *, tell: Callable[[Pruned], object] | None = None) -> Pruned:
    """Delete the runs that the rule names, then what nothing refers to any more, and give the free pages back.

    `tell` is called after each batch with what was deleted so far. A process killed in the middle leaves a whole journal;
    the next call goes on. Raises JournalError.
    """
    before = _file_bytes(journal)
    families, kept = _planned(journal, rule)
    pruned = Pruned(kept_for_open=kept)
    references: set[str] = set()
    for batch in _batches(families):
        deletion = _DeleteRuns(batch)
        journal.write(deletion, synced=True)
        pruned.runs += len(deletion.deleted)
        pruned.subflow_runs += sum(len(family.versions) - 1 for family in deletion.deleted)
        pruned.task_runs += sum(family.calls for family in deletion.deleted)
        pruned.kept_for_open += len(batch) - len(deletion.deleted)
        references |= deletion.files
        if tell is not None:
            tell(pruned)
    if rule.ended_before is not None and rule.flow is None:
        pruned.events = _delete_events(journal, rule.ended_before)
    pruned.values, pruned.errors, more = _delete_unreferenced(journal)
    pruned.unreferenced_files = without_a_row(journal, references | more)
    _give_back_pages(journal)
    forget_pruned(journal.path)
    pruned.bytes = max(0, before - _file_bytes(journal))
    return pruned


def _planned(journal: Journal, rule: Rule) -> tuple[list[_Family], int]:
    found: list[tuple[list[_Family], int]] = []
    journal.read_itself(lambda connection: found.append(plan(connection, rule)))
    return found[0]


def _batches(families: Sequence[_Family]) -> Iterator[list[_Family]]:
    batch: list[_Family] = []
    for family in families:
        if batch and (sum(each.calls for each in batch) + family.calls > BATCH_CALLS or len(batch) >= BATCH_RUNS):
            yield batch
            batch = []
        batch.append(family)
    if batch:
        yield batch


class _DeleteRuns:
    """Delete some families of runs, those of them that are as they were. Sets `deleted` and `files`."""

    def __init__(self, families: Sequence[_Family]) -> None:
        self._families = families
        self.deleted: list[_Family] = []
        self.files: set[str] = set()

    def apply(self, connection: sqlite3.Connection) -> None:
        self.deleted = [family for family in self._families if _look_at(connection, family.run_id) == family]
        self.files = set()
        if not self.deleted:
            return
        ids = json.dumps([run_id for family in self.deleted for run_id in family.versions])
        inside = "IN (SELECT value FROM json_each(?))"
        for table, column, codec, key in _STORED:
            rows = connection.execute(
                f"SELECT {column} FROM {table} WHERE {codec} = 'stored' AND {column} IS NOT NULL AND {key} {inside}", (ids,)
            )
            self.files.update(str(row[0]) for row in rows.fetchall())
        connection.execute("INSERT INTO meta (key, value) VALUES ('pruning', 'runs')")
        connection.execute(f"DELETE FROM dependency WHERE flow_run_id {inside} OR needs_run_id {inside}", (ids, ids))
        connection.execute(f"UPDATE flow_run SET parent_task_run_id = NULL WHERE id {inside}", (ids,))
        for table in (*reversed(RUN_TABLES), "slot", "event"):
            connection.execute(f"DELETE FROM {table} WHERE flow_run_id {inside}", (ids,))
        connection.execute(f"DELETE FROM flow_run WHERE id {inside}", (ids,))
        connection.execute(
            f"DELETE FROM meta WHERE key = 'pruning' OR (key LIKE 'imported:%' AND CAST(value AS INTEGER) {inside})", (ids,)
        )

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the runs are gone."""
        gone = "SELECT 1 FROM flow_run WHERE id = ?"
        return not self.deleted or connection.execute(gone, (self.deleted[0].run_id,)).fetchone() is None


#: What may go of what belongs to no run. An automation has to have seen an event; the last one of a watched file says what was
#: seen of it, and stays, but of a file that is gone it goes after the others. A tick stays as long as its run does, and until
#: its instant cannot be decided again.
_EVENTS = (
    "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE flow_run_id IS NULL AND occurred_at < ? AND id <= coalesce("
    f"({_SEEN}), id) AND id NOT IN ("
    "SELECT max(id) FROM event WHERE name IN ('file.added', 'file.changed', 'file.deleted') AND idempotency_key IS NOT NULL"
    " GROUP BY resource HAVING count(*) > 1 OR max(name) <> 'file.deleted') LIMIT ?)",
    "DELETE FROM firing WHERE id IN (SELECT id FROM firing WHERE state <> 'pending' AND fired_at < ? LIMIT ?)",
    "DELETE FROM notification WHERE id IN (SELECT id FROM notification WHERE state <> 'pending' AND created_at < ? LIMIT ?)",
    "DELETE FROM tick WHERE (schedule_id, nominal_at) IN (SELECT t.schedule_id, t.nominal_at FROM tick t"
    " JOIN schedule s ON s.id = t.schedule_id AND t.nominal_at <= s.decided_to"
    " WHERE t.nominal_at < ? AND NOT EXISTS (SELECT 1 FROM flow_run r WHERE r.id = t.flow_run_id) LIMIT ?)",
)


def _delete_events(journal: Journal, before: str) -> int:
    total = 0
    while True:
        deletion = _DeleteEvents(before)
        journal.write(deletion, synced=True)
        total += deletion.deleted
        if deletion.deleted == 0:
            return total


class _DeleteEvents:
    """Delete some of the events, firings, notifications and ticks from before an instant. Sets `deleted`."""

    def __init__(self, before: str) -> None:
        self._before = before
        self.deleted = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        self.deleted = sum(connection.execute(sql, (self._before, BATCH_EVENTS)).rowcount for sql in _EVENTS)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Say no unless there was nothing to do: what is left goes with the next pruning, and none is counted that stayed."""
        return self.deleted == 0


#: Where a reference to a file outside may stand: table, column, column of its codec, column of the run's id.
_STORED = (
    ("task_run", "result", "result_codec", "flow_run_id"),
    ("flow_run", "result", "result_codec", "id"),
    ("item", "value", "codec", "flow_run_id"),
    ("message", "value", "codec", "flow_run_id"),
)


def without_a_row(journal: Journal, references: set[str]) -> list[str]:
    """Return those references to files outside that no row has any more."""
    if not references:
        return []
    still: list[set[str]] = []
    journal.read_itself(lambda connection: still.append(stored_references(connection)))
    places = {place_of(text) for text in still[0]}
    return sorted(text for text in references if place_of(text) not in places)


def stored_references(connection: sqlite3.Connection) -> set[str]:
    """Return the references to files outside that rows have, as JSON."""
    found: set[str] = set()
    for table, column, codec in (
        *((table, column, codec) for table, column, codec, _ in _STORED),
        ("cache", "result", "result_codec"),
        ("value", "data", "codec"),
    ):
        rows = connection.execute(f"SELECT {column} FROM {table} WHERE {codec} = 'stored' AND {column} IS NOT NULL")
        found.update(str(row[0]) for row in rows)
    return found


def place_of(reference: str) -> tuple[object, object]:
    """Return where the file of a reference is: two references that differ in a name for people lead to one file."""
    try:
        fields = json.loads(reference)
        return fields["at"], fields["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return reference, None


# ---------------------------------------------------------------------------------------------------- values and errors


def _delete_unreferenced(journal: Journal) -> tuple[int, int, set[str]]:
    """Delete values and errors to which no row refers; return how many, and what the values say of files outside.

    A row written meanwhile may refer to a value that nothing referred to before: so both are asked under the lock again.
    """
    journal.read_itself(_note_unreferenced)
    deleted = {"value": 0, "error": 0}
    files: set[str] = set()
    for table in deleted:
        while True:
            deletion = _DeleteUnreferenced(table)
            journal.write(deletion, synced=True)
            deleted[table] += deletion.deleted
            files |= deletion.files
            if not deletion.looked_at:
                break
    journal.read_itself(lambda connection: [connection.execute(f"DROP TABLE temp.prune_{name}") for name in _NOTES])
    return deleted["value"], deleted["error"], files


_NOTES = ("value", "error")


def _note_unreferenced(connection: sqlite3.Connection) -> None:
    for name in _NOTES:
        connection.execute(f"DROP TABLE IF EXISTS temp.prune_{name}")
    connection.execute("CREATE TEMP TABLE prune_value (key ANY PRIMARY KEY) STRICT, WITHOUT ROWID")
    connection.execute("CREATE TEMP TABLE prune_error (key ANY PRIMARY KEY) STRICT, WITHOUT ROWID")
    connection.execute(
        "INSERT INTO temp.prune_value SELECT hash FROM main.value WHERE codec <> 'cloudpickle-flow' EXCEPT "
        f"SELECT * FROM ({_references(VALUE_REFERENCES)})"
    )
    connection.execute(f"INSERT INTO temp.prune_error SELECT id FROM main.error EXCEPT SELECT * FROM ({_references(_ERRORS)})")


class _DeleteUnreferenced:
    """Delete some of the values, or errors, that were noted, unless a row refers to them by now. Sets `deleted` and `files`."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._key = "hash" if table == "value" else "id"
        self._notes = f"temp.prune_{table}"
        self.looked_at = 0
        self.deleted = 0
        self.files: set[str] = set()

    def apply(self, connection: sqlite3.Connection) -> None:
        references = VALUE_REFERENCES if self._table == "value" else _ERRORS
        noted = connection.execute(f"SELECT 1 FROM {self._notes} LIMIT 1").fetchone()
        if noted is not None:
            connection.execute(f"DELETE FROM {self._notes} WHERE key IN ({_references(references)})")
        keys = [row[0] for row in connection.execute(f"SELECT key FROM {self._notes} LIMIT {BATCH_VALUES}").fetchall()]
        self.looked_at = len(keys)
        self.deleted = 0
        self.files = set()
        for key in keys:
            if self._table == "value":
                rows = connection.execute("SELECT data FROM value WHERE hash = ? AND codec = 'stored'", (key,)).fetchall()
                self.files.update(str(row[0]) for row in rows)
            self.deleted += connection.execute(f"DELETE FROM {self._table} WHERE {self._key} = ?", (key,)).rowcount
            connection.execute(f"DELETE FROM {self._notes} WHERE key = ?", (key,))

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Say no: what a lost connection had noted is gone with it, and whoever prunes again finds it again."""
        return False


# ---------------------------------------------------------------------------------------------------- free pages


class _VacuumSome:
    """Give some free pages at the end of the file back. Sets `left`, the pages that are free still."""

    def __init__(self) -> None:
        self.left = 0

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA incremental_vacuum({BATCH_PAGES})").fetchall()
        self.left = _free_pages(connection)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """Tell whether so few pages are free as it said."""
        return _free_pages(connection) <= self.left


def _give_back_pages(journal: Journal) -> None:
    """Let the file shrink, as far as it was made so that it can."""
    left = int(str(journal.read_itself(_free_pages)))
    while left:
        step = _VacuumSome()
        journal.write(step, synced=False)
        if step.left >= left:
            break
        left = step.left
    journal.fold_log()


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _file_bytes(journal: Journal) -> int:
    journal.fold_log()
    return journal.path.stat().st_size
