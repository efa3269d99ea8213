"""Copy a whole journal while it is in use, and make sure that the copy is sound.

SQLite's own backup copies the pages of one moment, some at a time. A read transaction is held meanwhile: it blocks nobody, and
without it a commit of another process would make the copy begin anew, for ever under load.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from wfengine_journal.clock import Clock
from wfengine_journal.connection import explain, inspect_file, open_reader, uri
from wfengine_journal.errors import JournalCorruptError, UsageError
from wfengine_journal.extraction import new_file

#: Pages copied in one step; between two of them Ctrl-C is heard, and the caller told how far it is.
PAGES_PER_STEP = 2048


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A copy that was made and found sound."""

    target: Path
    bytes: int


def default_target(source: Path, clock: Clock) -> Path:
    """Return the name of a backup made now, beside the journal."""
    stamp = clock.now_text()[:19].replace(":", "")
    return source.with_name(f"{source.name}.{stamp}Z.backup")


def backup(
    source: Path, target: Path, *, overwrite: bool = False, tell: Callable[[int, int], object] | None = None
) -> BackedUp:
    """Copy a journal of any format to a new file of mode 0600, which is checked before it is put in its place.

    `tell` is called with the pages that are left and their number. Raises UsageError if the target exists, JournalCorruptError
    if the copy is not sound, JournalError.
    """
    inspect_file(source)
    if target.exists() and source.samefile(target):
        raise UsageError(f"{target} is the journal itself. Name another file.")
    with new_file(target, overwrite=overwrite) as building:
        try:
            with closing(open_reader(source)) as connection, closing(sqlite3.connect(building)) as copy:
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # from here on it is one moment
                copy.execute("PRAGMA synchronous = OFF")  # the file is synced as a whole
                copy.execute("PRAGMA journal_mode = OFF")
                told = tell or (lambda _left, _all: None)
                connection.backup(copy, pages=PAGES_PER_STEP, progress=lambda _, left, every: told(left, every), sleep=0)
        except sqlite3.Error as error:
            raise explain(error, source) from error
        _check(building, source)
    return BackedUp(target, target.stat().st_size)


def _check(copy: Path, source: Path) -> None:
    """Raise JournalCorruptError unless every page, index and reference of the copy holds."""
    try:
        # Immutable: a file that nobody else knows yet needs no log beside it.
        with closing(sqlite3.connect(uri(copy, "ro") + "&immutable=1", uri=True)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)").fetchall()]
            if found == ["ok"]:
                found = [
                    f"a row of {row[0]} refers to a missing {row[2]}" for row in connection.execute("PRAGMA foreign_key_check")
                ]
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    if found not in ([], ["ok"]):
        raise JournalCorruptError(
            f"The journal {source} is damaged ({'; '.join(found[:5])}), so no backup was made. Keep the file and its -wal, and "
            f"rescue what can be read with: wfengine recover {source}"
        )
