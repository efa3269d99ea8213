"""Full-text search of what runs logged, with an index in a file of its own beside the journal, made when somebody asks for it.

The journal knows nothing of that file: logging costs the same with it and without, no writer waits for it, and copies, extracts
and repairs leave it out. It holds nothing that is not in the journal and may be deleted at any time. It is indexed up to the
id of a line; whoever searches and may write brings it up to date first, in pieces. Whoever may not, and whoever has no index,
has the newest lines indexed in memory, so that the same words mean the same everywhere.

Ids of lines are given again only after the newest line was deleted. So the index notes what its own newest line is: where the
journal has another one, or none, it is made anew. Lines that were pruned leave it with the next pruning, search or `update`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from wfengine_journal.connection import create_beside, explain, heed_signals, open_beside_journal, open_in_memory, primary_code
from wfengine_journal.errors import JournalError, UsageError
from wfengine_journal.queries import MAX_ID, reading

#: What follows the journal's name in that of the index.
SUFFIX = "-search"
#: "WFLS" in ASCII, and the format of the index.
APPLICATION_ID, VERSION = 0x57464C53, 1
#: So many of the newest lines are searched where there is no index, or none that holds them.
SCANNED_LINES = 100_000
#: Lines of one transaction of the index, and ids that are looked up at a time.
AT_ONCE = 5000
#: Words of one search, and characters of one of them.
WORDS_LIMIT, WORD_CHARACTERS = 50, 500

_TABLE = "CREATE VIRTUAL TABLE line USING fts5(message, tokenize = 'unicode61 remove_diacritics 2')"


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A line that was found."""

    id: int
    at: str
    level: int
    run_id: int
    run: str
    flow: str
    task_id: int | None
    task: str | None
    logger: str
    message: str


@dataclass(frozen=True, slots=True)
class Filter:
    """Which lines are meant beside the words; None: any."""

    run_id: int | None = None
    flow: str | None = None
    level: int = 0
    since: str | None = None
    before_id: int = MAX_ID


@dataclass(slots=True)
class Found:
    """What a search found, the newest first. `is_whole` is False where older lines were left out, for want of an index."""

    lines: list[FoundLine]
    is_indexed: bool
    is_whole: bool = True
    more: bool = False


@dataclass(slots=True)
class Updated:
    """What became of an index."""

    lines: int = 0
    added: int = 0
    removed: int = 0


def index_path(journal: Path) -> Path:
    """Return where the index of a journal is, or would be."""
    return journal.with_name(journal.name + SUFFIX)


def match_of(words: Sequence[str]) -> str:
    """Return what SQLite is asked for: every one of the words, each a word, several in their order, or the beginning of one.

    Nothing in a word is a sign of SQLite's own language. Raises UsageError.
    """
    if not 1 <= len(words) <= WORDS_LIMIT:
        raise UsageError(f"A search is for 1 to {WORDS_LIMIT} words, not {len(words)}.")
    parts = []
    for word in words:
        text = "".join(sign if sign.isprintable() else " " for sign in word.encode("utf-8", "replace").decode())
        if not any(sign.isalnum() for sign in text) or len(text) > WORD_CHARACTERS:
            shown = text if len(text) <= 60 else f"{text[:60]} ..."
            raise UsageError(
                f"'{shown}' cannot be searched for: a word has letters or digits, {WORD_CHARACTERS} signs at most."
            )
        is_beginning = text.endswith("*")
        parts.append('"' + text.rstrip("*").replace('"', '""') + '"' + (" *" if is_beginning else ""))
    return " ".join(parts)


def search(journal_path: Path, words: Sequence[str], wanted: Filter, *, limit: int, updates: bool = True) -> Found:
    """Return the newest lines that hold all the words; where `updates`, after the index was brought up to date.

    Raises UsageError, JournalError.
    """
    match = match_of(words)
    with reading(journal_path) as journal, contextlib.ExitStack() as stack:
        index = _open_current(journal_path, journal, updates)
        last_id = 0
        if index is not None:
            stack.callback(index.close)
            last_id = _mark(index)[0]
        newest = stack.enter_context(closing(_in_memory(journal, last_id, wanted)))
        found = Found([], is_indexed=index is not None, is_whole=_is_whole(journal, newest, last_id))
        ids = _matching(newest, match, MAX_ID)
        for each in _lines(journal, ids, wanted, limit + 1):
            found.lines.append(each)
        if index is not None and len(found.lines) <= limit:
            with _explained(journal_path):
                ids = _matching(index, match, wanted.before_id)
                found.lines += _lines(journal, ids, wanted, limit + 1 - len(found.lines))
    found.more = len(found.lines) > limit
    del found.lines[limit:]
    return found


def update(journal_path: Path) -> Updated:
    """Make the index, or bring it up to date; return what it holds then. A process killed meanwhile leaves a whole index, which
    the next call goes on with. Raises UsageError, JournalError.
    """
    path = index_path(journal_path)
    with reading(journal_path) as journal, _explained(journal_path), closing(create_beside(path)) as index:
        heed_signals(index)
        _prepare(index, path)
        return _bring_up_to_date(index, journal)


def delete(journal_path: Path) -> bool:
    """Delete the index; tell whether there was one. Raises UsageError where the file is none."""
    path = index_path(journal_path)
    if not path.exists():
        return False
    with _explained(journal_path), closing(open_beside_journal(path, "ro")) as index:
        _check(index, path)
    for name in (path, path.with_name(path.name + "-journal")):
        name.unlink(missing_ok=True)
    return True


def forget_pruned(journal_path: Path) -> None:
    """Take out of the index, if there is one, what the journal holds no longer. What fails here is left for the next time."""
    path = index_path(journal_path)
    if path.exists():
        with (
            contextlib.suppress(JournalError, UsageError), reading(journal_path) as journal, _explained(journal_path),
            closing(create_beside(path)) as index,
        ):  # fmt: skip
            _prepare(index, path)
            _remove_gone(index, journal)


# ------------------------------------------------------------------------------------------- the file of the index


@contextlib.contextmanager
def _explained(journal_path: Path) -> Iterator[None]:
    """Raise what SQLite reports about the index as an error of ours."""
    path = index_path(journal_path)
    try:
        yield
    except sqlite3.Error as error:
        if "no such module" in str(error):
            raise UsageError(
                "The SQLite of this Python has no full-text search (FTS5): wfengine runs logs RUN --grep"
            ) from error
        if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error
        raise JournalError(
            f"The search index {path} cannot be used: {explain(error, path)} It holds nothing of its own: delete it, "
            "then: wfengine logs index"
        ) from error


def _is_empty(index: sqlite3.Connection) -> bool:
    """Tell whether nothing was made in the file yet: whoever wanted to was killed."""
    return not index.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]


def _check(index: sqlite3.Connection, path: Path) -> None:
    if not _is_empty(index) and index.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise UsageError(f"{path} is no search index of wfengine. It was not changed. Move it away, then: wfengine logs index")


def _prepare(index: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a file that is empty, or of another format."""
    index.execute("BEGIN IMMEDIATE")
    _check(index, path)
    if not _is_empty(index) and index.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        index.execute("COMMIT")
        return
    for statement in (
        "DROP TABLE IF EXISTS line",
        "DROP TABLE IF EXISTS mark",
        _TABLE,
        "CREATE TABLE mark (last_id INTEGER NOT NULL, last_row TEXT NOT NULL, lines INTEGER NOT NULL) STRICT",
        "INSERT INTO mark VALUES (0, '', 0)",
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {VERSION}",
        "COMMIT",
    ):
        index.execute(statement)


def _mark(index: sqlite3.Connection) -> tuple[int, str, int]:
    last_id, last_row, lines = index.execute("SELECT last_id, last_row, lines FROM mark").fetchone()
    return int(last_id), str(last_row), int(lines)


def _row_text(journal: sqlite3.Connection, line_id: int) -> str:
    """Return what makes a line the same one; '' where it is gone."""
    row = journal.execute(
        "SELECT (SELECT value FROM meta WHERE key = 'journal_id'), at, flow_run_id, length(message) FROM log WHERE id = ?",
        (line_id,),
    ).fetchone()
    return "" if row is None else " ".join(map(str, tuple(row)))


def _is_outlived(index: sqlite3.Connection, journal: sqlite3.Connection) -> bool:
    """Tell whether the newest line of the index is gone from the journal: its id may be that of another line by now."""
    last_id, last_row, _ = _mark(index)
    return last_id > 0 and (not last_row or _row_text(journal, last_id) != last_row)


def _bring_up_to_date(index: sqlite3.Connection, journal: sqlite3.Connection) -> Updated:
    updated = Updated(removed=_remove_gone(index, journal))
    while True:
        index.execute("BEGIN IMMEDIATE")  # beside another process that does the same, each piece is taken once
        try:
            last_id, _, lines = _mark(index)
            rows = journal.execute(
                "SELECT id, message FROM log WHERE id > ? ORDER BY id LIMIT ?", (last_id, AT_ONCE)
            ).fetchall()
            if rows:
                index.executemany("INSERT INTO line (rowid, message) VALUES (?, ?)", map(tuple, rows))
                last_id = rows[-1][0]
                index.execute(
                    "UPDATE mark SET last_id = ?, last_row = ?, lines = ?",
                    (last_id, _row_text(journal, last_id), lines + len(rows)),
                )
            index.execute("COMMIT")
        except BaseException:
            _roll_back(index)
            raise
        updated.lines = lines + len(rows)
        updated.added += len(rows)
        if len(rows) < AT_ONCE:
            return updated


def _remove_gone(index: sqlite3.Connection, journal: sqlite3.Connection) -> int:
    """Take out lines that were pruned, and everything where the newest line is another one than it was."""
    index.execute("BEGIN IMMEDIATE")
    try:
        last_id, _, lines = _mark(index)
        there = journal.execute("SELECT count(*) FROM log WHERE id <= ?", (last_id,)).fetchone()[0]
        gone = _gone(index, journal, last_id) if there != lines else []
        # A journal that has more lines than were indexed is the whole one, in the place of one that had lost some.
        if _is_outlived(index, journal) or lines - len(gone) != there:
            index.execute("DROP TABLE line")
            index.execute(_TABLE)
            index.execute("UPDATE mark SET last_id = 0, last_row = '', lines = 0")
            index.execute("COMMIT")
            return lines
        if gone:
            for piece in _pieces(gone):
                index.executemany("DELETE FROM line WHERE rowid = ?", piece)
            index.execute("UPDATE mark SET lines = lines - ?", (len(gone),))
            index.execute("INSERT INTO line (line) VALUES ('optimize')")  # else their words would stay in old pieces
        index.execute("COMMIT")
        return len(gone)
    except BaseException:
        _roll_back(index)
        raise


def _roll_back(index: sqlite3.Connection) -> None:
    if index.in_transaction:  # SQLite may have done so itself
        index.execute("ROLLBACK")


def _gone(index: sqlite3.Connection, journal: sqlite3.Connection, last_id: int) -> list[tuple[int]]:
    there = {row[0] for row in journal.execute("SELECT id FROM log WHERE id <= ?", (last_id,))}
    return [(row[0],) for row in index.execute("SELECT rowid FROM line") if row[0] not in there]


def _pieces(ids: list[tuple[int]]) -> Iterator[list[tuple[int]]]:
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def _open_current(journal_path: Path, journal: sqlite3.Connection, updates: bool) -> sqlite3.Connection | None:
    """Open the index, up to date where this process may write it; None where there is none that can be used."""
    path = index_path(journal_path)
    if not path.exists():
        return None
    with _explained(journal_path):
        if updates and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            try:
                with closing(create_beside(path)) as index:
                    _prepare(index, path)
                    heed_signals(index)
                    _bring_up_to_date(index, journal)
            except sqlite3.OperationalError as error:
                # Who may not write after all, or finds no room, or waits too long for another one, searches what is there.
                if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                    raise
        return _open_as_it_is(path, journal)


def _open_as_it_is(path: Path, journal: sqlite3.Connection) -> sqlite3.Connection | None:
    """Open the index to read; None where it holds nothing that counts, or cannot be opened since somebody was killed in it."""
    index = open_beside_journal(path, "ro")
    try:
        _check(index, path)
        if not _is_empty(index) and not _is_outlived(index, journal):
            heed_signals(index)
            return index
    except sqlite3.OperationalError as error:
        if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
            index.close()
            raise
    except BaseException:
        index.close()
        raise
    index.close()
    return None


# ------------------------------------------------------------------------------------------- searching


def _in_memory(journal: sqlite3.Connection, last_id: int, wanted: Filter) -> sqlite3.Connection:
    """Return an index of the newest lines after an id."""
    newest = open_in_memory()
    try:
        newest.execute(_TABLE)
    except sqlite3.OperationalError as error:
        newest.close()
        raise UsageError("The SQLite of this Python has no full-text search (FTS5): wfengine runs logs RUN --grep") from error
    rows = journal.execute(
        "SELECT id, message FROM log WHERE id > ? AND id < ? AND (? IS NULL OR flow_run_id = ?) ORDER BY id DESC LIMIT ?",
        (last_id, wanted.before_id, wanted.run_id, wanted.run_id, SCANNED_LINES),
    )
    newest.executemany("INSERT INTO line (rowid, message) VALUES (?, ?)", map(tuple, rows))
    return newest


def _is_whole(journal: sqlite3.Connection, newest: sqlite3.Connection, last_id: int) -> bool:
    number, oldest = newest.execute("SELECT count(*), min(rowid) FROM line").fetchone()
    if number < SCANNED_LINES:
        return True
    older = journal.execute("SELECT 1 FROM log WHERE id > ? AND id < ? LIMIT 1", (last_id, oldest)).fetchone()
    return older is None


def _matching(index: sqlite3.Connection, match: str, before_id: int) -> Iterator[int]:
    rows = index.execute("SELECT rowid FROM line WHERE line MATCH ? AND rowid < ? ORDER BY rowid DESC", (match, before_id))
    return (int(row[0]) for row in rows)


def _lines(journal: sqlite3.Connection, ids: Iterator[int], wanted: Filter, limit: int) -> Iterator[FoundLine]:
    """Yield the lines of these ids that are meant, as many as asked for."""
    left = limit
    while left > 0 and (piece := list(islice(ids, AT_ONCE))):
        rows = journal.execute(
            """
            SELECT l.id, l.at, l.level, r.id, r.name, f.name, l.task_run_id, k.name, l.logger, l.message
            FROM log l JOIN flow_run r ON r.id = l.flow_run_id JOIN flow f ON f.id = r.flow_id
            LEFT JOIN task_run t ON t.id = l.task_run_id LEFT JOIN task k ON k.id = t.task_id
            WHERE l.id BETWEEN :first AND :last AND l.id IN (SELECT value FROM json_each(:ids))
              AND l.level >= :level AND (:run IS NULL OR r.id = :run) AND (:flow IS NULL OR f.name = :flow)
              AND (:since IS NULL OR l.at >= :since)
            ORDER BY l.id DESC LIMIT :limit
            """,
            {
                "ids": f"[{','.join(map(str, piece))}]", "first": piece[-1], "last": piece[0], "level": wanted.level,
                "run": wanted.run_id, "flow": wanted.flow, "since": wanted.since, "limit": left,
            },
        ).fetchall()  # fmt: skip
        for row in rows:
            yield FoundLine(*row)
        left -= len(rows)
