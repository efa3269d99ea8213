"""Make a whole journal of what can be read of a damaged one. The damaged file is only copied, never opened or changed.

A result is taken only if it matches its checksum, and only for a call whose identity the index confirms. A call whose result is
lost becomes cut off (CRASHED, Interrupted), so that a resume runs it again instead of giving it a wrong value. A run of which
anything is missing becomes CRASHED and says what. Where a checksum is missing by design - names, messages, arguments shown
as JSON - damage that SQLite does not notice either cannot be seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from wfengine_journal import owners, schema
from wfengine_journal.clock import Clock, SystemClock
from wfengine_journal.connection import explain, open_writer
from wfengine_journal.errors import JournalNotFoundError, NotAJournalError, UsageError
from wfengine_journal.extraction import new_file
from wfengine_journal.health import is_intact
from wfengine_journal.run_rows import ERROR_REFERENCES, VALUE_REFERENCES, columns_of
from wfengine_journal.salvage import Reader, looks_like_a_journal, open_damaged, private_copy
from wfengine_journal.task_events import keep_task_events

#: Tables that are read by their numbers, and those that are read by their keys.
NUMBERED = (
    "owner",
    "flow",
    "task",
    "code",
    "error",
    "flow_run",
    "task_run",
    "log",
    "artifact",
    "message",
    "deployment",
    "schedule",
    "event",
    "automation",
    "firing",
    "notification",
)
KEYED = (
    *("execution", "transition", "task_code", "argument", "item", "hook_run", "cache_use", "dependency", "cache", "variable"),
    *("tick", "quota", "secret", "notification_target"),
)
LOST = "its result was lost when the file was damaged; a resume runs it again"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was saved: rows by table, calls whose result is lost, and the runs that are marked CRASHED, with the reason."""

    target: Path
    rows: dict[str, int]
    lost_results: tuple[tuple[int, int], ...]  # (flow run, task run)
    crashed_runs: dict[int, str]
    unreadable: dict[str, int]  # table -> how often SQLite refused to read on
    unusable_rows: int  # read, but not such as a journal may hold


def recover(source: Path, target: Path, *, overwrite: bool = False, clock: Clock | None = None) -> Recovered:
    """Write what can be saved of a damaged journal to a new one. Stop whatever uses the damaged file before.

    Raises JournalNotFoundError, NotAJournalError where nothing can be read, UsageError if the target exists.
    """
    if not source.is_file():
        raise JournalNotFoundError(f"There is no file {source}. Name the damaged journal.")
    if target.exists() and source.samefile(target):
        raise UsageError(f"{target} is the damaged file itself. Name another file.")
    if not looks_like_a_journal(source):
        raise NotAJournalError(f"{source} is not a wfengine journal: none of the marks of one can be found in it.")
    used = clock or SystemClock()
    with TemporaryDirectory(prefix="wfengine-") as name, new_file(target, overwrite=overwrite) as building:
        folder = Path(name)
        template = folder / "template.db"
        _make_empty(template, used)
        copy = private_copy(source, folder)
        _make_empty(building, used)
        writing, _ = open_writer(building)
        with closing(writing), closing(open_damaged(copy, template, source)) as damaged:
            try:
                found = _Recovery(Reader(damaged, copy.stat().st_size), writing, used).run()
                writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                raise explain(error, target) from error
    return Recovered(target, *found)


def _make_empty(path: Path, clock: Clock) -> None:
    connection, _ = open_writer(path)
    with closing(connection):
        schema.create(connection, clock, owners.role())


class _Recovery:
    """Fills a new journal from a damaged one, then makes it hold. History stays as it is: a value that it names may be lost."""

    def __init__(self, reader: Reader, writing: sqlite3.Connection, clock: Clock) -> None:
        self._reader = reader
        self._writing = writing
        self._now = clock.now_text()
        self._rows: dict[str, int] = {}
        self._unusable = 0
        self._lost: list[tuple[int, int]] = []
        self._reasons: dict[int, list[str]] = {}

    def run(self) -> tuple[dict[str, int], tuple[tuple[int, int], ...], dict[int, str], dict[str, int], int]:
        """Do all of it in one transaction."""
        writing = self._writing
        writing.execute("PRAGMA foreign_keys = OFF")
        writing.execute("PRAGMA synchronous = OFF")  # the file is synced as a whole
        writing.execute("BEGIN IMMEDIATE")
        self._read_tables()
        self._put_back_parents()
        self._check_values()
        self._check_calls()
        self._check_runs()
        self._stop_runs()
        keep_task_events(writing)
        writing.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('recovered_at', ?)", (self._now,))
        writing.execute("COMMIT")
        reasons = {run_id: "; ".join(dict.fromkeys(reasons)) for run_id, reasons in sorted(self._reasons.items())}
        return self._rows, tuple(self._lost), reasons, self._reader.refusals, self._unusable

    # ---- reading

    def _read_tables(self) -> None:
        for row in self._reader.keyed("meta", "key, value", ""):
            if row[0] in ("journal_id", "created_at", "created_by") or str(row[0]).startswith("imported:"):
                self._insert("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", row)
        for table in NUMBERED:
            names = self._shared(table)
            self._take(table, names, self._reader.numbered(table, names) if names else ())
        for table in KEYED:
            self._take_keyed(table)
        self._take_keyed("value")

    def _shared(self, table: str) -> str:
        """Return the columns that the damaged table has too: it may be of an older format."""
        there = set(self._reader.columns(table))
        return ", ".join(name for name in columns_of(self._writing, table) if name in there)

    def _take_keyed(self, table: str) -> None:
        names = self._shared(table)
        if not names:
            return
        refused = self._reader.refusals.get(table, 0)
        self._take(table, names, self._reader.keyed(table, names, ""))
        if self._reader.refusals.get(table, 0) == refused:
            return
        key = self._reader.primary_key(table)
        for number, parameters in enumerate(self._known_keys(table, key)):
            if number > 1_000_000:  # a bound on a table that cannot be read at all
                break
            condition = " AND ".join(f"{column} = ?" for column in key[: len(parameters)])
            self._take(table, names, self._reader.keyed(table, names, condition, parameters))

    def _known_keys(self, table: str, key: list[str]) -> list[tuple[object, ...]]:
        """Return the beginnings of keys that the rows read so far name."""
        if table == "value":
            named = " UNION ".join(
                f"SELECT {column} FROM {where} WHERE {column} IS NOT NULL" for where, column, _ in VALUE_REFERENCES
            )
            return self._writing.execute(named).fetchall()
        runs = self._writing.execute("SELECT id FROM flow_run UNION SELECT flow_run_id FROM task_run").fetchall()
        if key[:2] != ["flow_run_id", "task_run_id"]:
            return runs if key[0] == "flow_run_id" else []
        calls = self._writing.execute("SELECT flow_run_id, id FROM task_run").fetchall()
        return [(*run, 0) for run in runs] + calls

    def _take(self, table: str, names: str, rows: Iterable[tuple[object, ...]]) -> None:
        statement = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * (names.count(',') + 1))})"
        for row in rows:
            self._rows[table] = self._rows.get(table, 0) + self._insert(statement, row)

    def _insert(self, statement: str, row: tuple[object, ...]) -> int:
        try:
            return self._writing.execute(statement, row).rowcount
        except (sqlite3.Error, OverflowError, ValueError):  # a state that there is not, a text where a number belongs
            self._unusable += 1
            return 0

    # ---- making it hold

    def _put_back_parents(self) -> None:
        """Let each reference lead somewhere: what is lost is named so."""
        run = self._writing.execute
        runs = "SELECT flow_run_id FROM task_run UNION SELECT flow_run_id FROM execution"
        for (run_id,) in run(f"{runs} EXCEPT SELECT id FROM flow_run").fetchall():
            run("INSERT OR IGNORE INTO flow (name, first_seen_at) VALUES ('lost-flow', ?)", (self._now,))
            run(
                "INSERT INTO flow_run (id, name, flow_id, state, version, epoch, durability, parameters, created_at, ended_at)"
                " SELECT ?, 'lost-run-' || ?, id, 'CRASHED', 0, 0, 'power', '{}', ?, ? FROM flow WHERE name = 'lost-flow'",
                (run_id, run_id, self._now, self._now),
            )
            self._blame(run_id, "its own row is lost, so it cannot be resumed")
        run(
            "INSERT INTO flow (id, name, first_seen_at) SELECT DISTINCT flow_id, 'lost-flow-' || flow_id, ? FROM flow_run"
            " WHERE flow_id NOT IN (SELECT id FROM flow)",
            (self._now,),
        )
        run(
            "INSERT INTO task (id, kind, key, name, first_seen_at) SELECT DISTINCT task_id, 'task', 'lost-task-' || task_id,"
            " 'lost-task-' || task_id, ? FROM (SELECT task_id FROM task_run UNION SELECT task_id FROM task_code)"
            " WHERE task_id NOT IN (SELECT id FROM task)",
            (self._now,),
        )
        run(
            "INSERT INTO owner (id, pid, host, role, started_at, ended_at)"
            " SELECT DISTINCT owner_id, 0, 'lost', 'lost', ?, ? FROM"
            " (SELECT owner_id FROM flow_run UNION SELECT owner_id FROM execution)"
            " WHERE owner_id IS NOT NULL AND owner_id NOT IN (SELECT id FROM owner)",
            (self._now, self._now),
        )
        run("UPDATE execution SET code_id = NULL WHERE code_id NOT IN (SELECT id FROM code)")
        run("UPDATE flow_run SET parent_task_run_id = NULL WHERE parent_task_run_id NOT IN (SELECT id FROM task_run)")
        run(
            "DELETE FROM dependency WHERE flow_run_id NOT IN (SELECT id FROM flow_run)"
            " OR needs_run_id NOT IN (SELECT id FROM flow_run)"
        )
        run("DELETE FROM message WHERE flow_run_id NOT IN (SELECT id FROM flow_run)")
        run("DELETE FROM deployment WHERE flow_id NOT IN (SELECT id FROM flow)")
        run("DELETE FROM schedule WHERE deployment_id NOT IN (SELECT id FROM deployment)")
        run("DELETE FROM tick WHERE schedule_id NOT IN (SELECT id FROM schedule)")
        run("UPDATE flow_run SET deployment_id = NULL WHERE deployment_id NOT IN (SELECT id FROM deployment)")
        run("DELETE FROM firing WHERE automation_id NOT IN (SELECT id FROM automation)")
        run("UPDATE owner SET ended_at = ? WHERE ended_at IS NULL", (self._now,))

    def _check_values(self) -> None:
        """Drop what does not match its checksum, and what led to it where nothing else needs it."""
        run = self._writing.execute
        for hash_, codec, data in run("SELECT hash, codec, data FROM value").fetchall():
            if not is_intact(codec, data, hash_):
                run("DELETE FROM value WHERE hash = ?", (hash_,))
        for id_, codec, data, hash_ in run("SELECT id, codec, data, hash FROM error WHERE data IS NOT NULL").fetchall():
            if not is_intact(codec, data, hash_):  # it comes back by its type, text and traceback
                run("UPDATE error SET data = NULL, codec = NULL, hash = NULL WHERE id = ?", (id_,))
        for rowid, codec, data, hash_ in self._kept("cache", "key", "result", "result_codec", "result_hash"):
            if not is_intact(codec, data, hash_):
                run("DELETE FROM cache WHERE key = ?", (rowid,))
        for id_, codec, data, hash_ in self._kept("message", "id", "value", "codec", "hash"):
            if not is_intact(codec, data, hash_):
                for (run_id,) in run("SELECT flow_run_id FROM message WHERE id = ? AND received_by IS NULL", (id_,)).fetchall():
                    self._blame(run_id, "a message that was sent to it is lost")
                run("DELETE FROM message WHERE id = ?", (id_,))
        run("UPDATE argument SET hash = NULL WHERE task_run_id > 0 AND hash NOT IN (SELECT hash FROM value)")

    def _kept(self, table: str, key: str, inline: str, codec: str, hash_: str) -> list[tuple[object, ...]]:
        return self._writing.execute(
            f"SELECT t.{key}, coalesce(v.codec, t.{codec}), coalesce(t.{inline}, v.data), t.{hash_} FROM {table} t"
            f" LEFT JOIN value v ON v.hash = t.{hash_} AND t.{inline} IS NULL"
        ).fetchall()

    def _check_calls(self) -> None:
        """Let a call whose outcome does not hold count as cut off."""
        items: set[object] = set()
        for run_id, task_run_id, key in self._writing.execute("SELECT flow_run_id, task_run_id, key FROM item").fetchall():
            row = self._writing.execute(
                "SELECT i.codec, coalesce(i.value, v.data), i.hash FROM item i LEFT JOIN value v ON v.hash = i.hash"
                " WHERE i.flow_run_id = ? AND i.task_run_id = ? AND i.key = ?",
                (run_id, task_run_id, key),
            ).fetchone()
            if not is_intact(*row):  # what came after it in its stream would be taken for it
                self._writing.execute(
                    "DELETE FROM item WHERE flow_run_id = ? AND task_run_id = ? AND key >= ?", (run_id, task_run_id, key)
                )
                items.add(task_run_id)
                self._blame(run_id, "an item of a stream, or a value of a transaction, is lost")
        rows = self._writing.execute(
            "SELECT t.id, t.flow_run_id, t.scope, t.task_id, t.call_key, t.occurrence, t.state, t.state_name, t.result_codec,"
            " coalesce(t.result, v.data), t.result_hash, t.error_id, e.id FROM task_run t"
            " LEFT JOIN value v ON v.hash = t.result_hash AND t.result IS NULL LEFT JOIN error e ON e.id = t.error_id"
        ).fetchall()
        for id_, run_id, scope, task_id, call_key, occurrence, state, name, codec, data, hash_, error_id, error in rows:
            lost = state == "COMPLETED" and name != "RolledBack" and hash_ is None
            lost = lost or (hash_ is not None and not is_intact(codec, data, hash_))
            lost = lost or (error_id is not None and error is None) or (state == "FAILED" and error is None)
            identity = (run_id, scope, task_id, call_key, occurrence)
            if lost or id_ in items or not self._is_confirmed(identity, id_):
                self._lose(run_id, id_)

    def _is_confirmed(self, identity: tuple[object, ...], id_: object) -> bool:
        """Tell whether the index over identities leads to this row; where the index cannot be read, the row is believed."""
        found = self._reader.confirms(
            "SELECT 1 FROM task_run INDEXED BY sqlite_autoindex_task_run_1 WHERE flow_run_id = ? AND scope = ? AND task_id = ?"
            " AND call_key = ? AND occurrence = ? AND id = ?",
            (*identity, id_),
        )
        return found is not False

    def _lose(self, run_id: int, task_run_id: int) -> None:
        run = self._writing.execute
        self._lost.append((run_id, task_run_id))
        self._blame(run_id, "results of calls are lost, and run again")
        (seq,) = run(
            "SELECT 1 + max(t.version, coalesce((SELECT max(seq) FROM transition h WHERE h.flow_run_id = t.flow_run_id"
            " AND h.task_run_id = t.id), 0)) FROM task_run t WHERE t.id = ?",
            (task_run_id,),
        ).fetchone()
        run(
            "UPDATE task_run SET state = 'CRASHED', state_name = 'Interrupted', state_message = ?, version = ?, result = NULL,"
            " result_codec = NULL, result_hash = NULL, result_preview = NULL, error_id = NULL, fatal = NULL, ended_at = ?"
            " WHERE id = ?",
            (LOST, seq, self._now, task_run_id),
        )
        run(
            "INSERT INTO transition (flow_run_id, task_run_id, seq, state, state_name, message, epoch, attempt, at)"
            " SELECT flow_run_id, id, ?, 'CRASHED', 'Interrupted', ?, epoch, attempt, ? FROM task_run WHERE id = ?",
            (seq, LOST, self._now, task_run_id),
        )

    def _check_runs(self) -> None:
        """Note what is missing of each run."""
        run = self._writing.execute
        for run_id, count in run(
            "SELECT flow_run_id, count(DISTINCT task_run_id) FROM transition WHERE task_run_id > 0"
            " AND task_run_id NOT IN (SELECT id FROM task_run) GROUP BY flow_run_id"
        ).fetchall():
            if run("SELECT 1 FROM flow_run WHERE id = ?", (run_id,)).fetchone():
                self._blame(run_id, f"{count} calls are lost, and would run again")
        for run_id, recorded, there in run(
            "SELECT r.id, r.tasks_total, (SELECT count(*) FROM task_run t JOIN task k ON k.id = t.task_id AND k.kind = 'task'"
            " WHERE t.flow_run_id = r.id) AS there FROM flow_run r WHERE r.tasks_total > there"
        ).fetchall():
            self._blame(run_id, f"{recorded - there} calls are lost, and would run again")
        for run_id, codec, data, hash_ in self._kept("flow_run", "id", "result", "result_codec", "result_hash"):
            if hash_ is not None and not is_intact(codec, data, hash_):
                run(
                    "UPDATE flow_run SET result = NULL, result_codec = NULL, result_hash = NULL, result_preview = NULL"
                    " WHERE id = ?",
                    (run_id,),
                )
                self._blame(int(str(run_id)), "its result is lost")
        for (run_id,) in run("SELECT id FROM flow_run WHERE state = 'COMPLETED' AND result_hash IS NULL").fetchall():
            self._blame(run_id, "its result is lost")
        for run_id, name in run(
            "SELECT flow_run_id, name FROM argument WHERE task_run_id = 0 AND hash IS NOT NULL"
            " AND hash NOT IN (SELECT hash FROM value) AND flow_run_id IN (SELECT id FROM flow_run)"
        ).fetchall():
            self._blame(run_id, f"its parameter {name} is lost, so it cannot be resumed")
        history = "(SELECT max(seq) FROM transition h WHERE h.flow_run_id = r.id AND h.task_run_id = 0)"
        for (run_id,) in run(f"SELECT id FROM flow_run r WHERE version <> coalesce({history}, 0)").fetchall():
            self._blame(run_id, "a part of its history is lost")
        for table, column in ERROR_REFERENCES[:1]:
            run(f"UPDATE {table} SET {column} = NULL WHERE {column} NOT IN (SELECT id FROM error)")

    def _stop_runs(self) -> None:
        """Mark what is incomplete, and what was going on, as CRASHED."""
        run = self._writing.execute
        going_on = "SELECT id FROM flow_run WHERE state IN ('RUNNING', 'CANCELLING', 'PENDING')"
        for (run_id,) in run(f"{going_on} OR (state = 'SCHEDULED' AND owner_id IS NOT NULL)").fetchall():
            self._reasons.setdefault(run_id, []).append("it was going on when the file was damaged")
        there = {row[0] for row in run("SELECT id FROM flow_run").fetchall()}
        self._reasons = {run_id: reasons for run_id, reasons in self._reasons.items() if run_id in there}
        for run_id, reasons in list(self._reasons.items()):
            message = f"rescued from a damaged file: {'; '.join(dict.fromkeys(reasons))}"
            row = run(
                "SELECT 1 + max(version, coalesce((SELECT max(seq) FROM transition h WHERE h.flow_run_id = r.id"
                " AND h.task_run_id = 0), 0)) FROM flow_run r WHERE id = ?",
                (run_id,),
            ).fetchone()
            run(
                "UPDATE flow_run SET state = 'CRASHED', state_name = NULL, state_message = ?, version = ?, ended_at = ?,"
                " wake_at = NULL,"
                " tasks_done = NULL, tasks_total = NULL,"
                " epoch = max(epoch, coalesce((SELECT max(epoch) FROM execution x WHERE x.flow_run_id = flow_run.id), 0))"
                " WHERE id = ?",
                (message, row[0], self._now, run_id),
            )
            run(
                "INSERT INTO transition (flow_run_id, task_run_id, seq, state, message, epoch, attempt, at)"
                " SELECT id, 0, version, 'CRASHED', ?, epoch, epoch, ? FROM flow_run WHERE id = ?",
                (message, self._now, run_id),
            )
            for (call,) in run("SELECT id FROM task_run WHERE flow_run_id = ? AND state = 'RUNNING'", (run_id,)).fetchall():
                self._lose(run_id, call)

    def _blame(self, run_id: int, reason: str) -> None:
        self._reasons.setdefault(run_id, []).append(reason)
