"""Journals as files, from Python: copy one run out, take runs in, back up, prune, export, rescue a damaged file.

    from wfengine.files import extract_run

    extract_run("quiet-heron", "heron.db")

None of these runs code of a flow or turns a stored value back into an object. Every function takes `journal=`, the path of the
journal; the default is the one that a flow run started now would go to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from wfengine import stored_files
from wfengine.journals import default_path
from wfengine_journal import backing_up, exporting, extraction, importing, pruning, recovering
from wfengine_journal.backing_up import BackedUp
from wfengine_journal.clock import SystemClock, text_from_seconds
from wfengine_journal.connection import open_reader
from wfengine_journal.errors import UsageError
from wfengine_journal.extraction import Extracted
from wfengine_journal.importing import Imported, ImportedRun
from wfengine_journal.location import find_path
from wfengine_journal.pruning import Pruned
from wfengine_journal.queries import get_run, reading
from wfengine_journal.recovering import Recovered
from wfengine_journal.run_rows import run_family
from wfengine_journal.store import close_open, flush_open, open_journal

__all__ = [
    "BackedUp",
    "Extracted",
    "Imported",
    "ImportedRun",
    "Pruned",
    "Recovered",
    "backup_journal",
    "export_runs",
    "extract_run",
    "import_runs",
    "prune_runs",
    "recover_journal",
    "render_run",
]

#: Where a file is.
PathLike: TypeAlias = "str | os.PathLike[str]"


def extract_run(run: int | str, target: PathLike, *, journal: PathLike | None = None, overwrite: bool = False) -> Extracted:
    """Copy a flow run with its subflow runs into a small journal of its own; the run may be going on.

    `run`: an id, a name, the beginning of a name, or '@last'. In the copy a run that is being executed is CRASHED, so that it
    can be resumed there; the original is only read. Raises NotFoundError, UsageError if the target exists, JournalError.
    """
    source = _path(journal)
    return extraction.extract_run(source, _run_id(source, run), _target(target), overwrite=overwrite)


def import_runs(
    source: PathLike, runs: Sequence[int | str] = (), *, journal: PathLike | None = None, again: bool = False
) -> Imported:
    """Take runs of another journal into this one under new ids, with their subflow runs; all of them or none.

    `runs`: as in `extract_run`, in the other journal; default all. A run that was going on arrives CRASHED, and a resume goes
    on with it. A run that is here already is left out unless `again`. The other journal is only read; no code runs. Raises
    NotFoundError, JournalCorruptError where the other journal is damaged, JournalError.
    """
    other = _path(source)
    run_ids = [_run_id(other, run) for run in runs]
    mine = open_journal(default_path() if journal is None else find_path(journal))
    return importing.import_runs(mine, other, run_ids, again=again)


def backup_journal(target: PathLike | None = None, *, journal: PathLike | None = None, overwrite: bool = False) -> BackedUp:
    """Copy a journal that may be in use, as it is at one moment, and check the copy; no writer waits for it.

    `target`: a file, or a folder in which the file is named by the time; default: beside the journal. To restore it, end what
    uses the journal, move that and its -wal away, and put the copy in its place. Raises UsageError if the target exists,
    JournalCorruptError if the journal is damaged, JournalError.
    """
    source = _path(journal)
    named = backing_up.default_target(source, SystemClock())
    place = named if target is None else _target(target)
    return backing_up.backup(source, place / named.name if place.is_dir() else place, overwrite=overwrite)


def prune_runs(
    *,
    older_than: str | timedelta | None = None,
    keep: int = 0,
    keep_failed: bool = False,
    flow: str | None = None,
    dry_run: bool = False,
    journal: PathLike | None = None,
    tell: Callable[[Pruned], object] | None = None,
) -> Pruned:
    """Delete whole runs that have ended, with their subflow runs, and let the file shrink; other processes may go on meanwhile.

    `older_than`: how long ago a run ended at least ('30d', '12h', '45m', '2w', a timedelta). `keep`: so many of the newest
    ended runs of each flow stay. One of both is needed. Runs that are CRASHED or PAUSED, or go on, always stay. Files of
    `result_storage` to which no run refers any more are deleted at the end, but not those in storages of one's own making.
    `tell` is called with what was deleted so far. Raises UsageError, JournalError.
    """
    if older_than is None and keep < 1:
        raise UsageError("Say which runs may go: older_than='30d', or keep=100 for the newest 100 of each flow.")
    seconds = None if older_than is None else age_seconds(older_than)
    before = None if seconds is None else text_from_seconds(max(0.0, SystemClock().wall_seconds() - seconds))
    rule = pruning.Rule(before, keep, keep_failed, flow)
    path = _path(journal)
    if dry_run or not path.exists():
        with reading(path) as connection:
            return pruning.estimate(connection, rule)
    with reading(path):  # refuses what is no journal, which opening it for writing would make one
        pass
    pruned = pruning.prune(open_journal(path), rule, tell=tell)
    stored_files.delete(pruned.unreferenced_files)
    return pruned


def export_runs(runs: Sequence[int | str] | None = None, *, journal: PathLike | None = None) -> Iterator[dict[str, object]]:
    """Yield what the views show as plain objects, each with its `kind`: a run, its calls, attempts, transitions, logs ...

    `runs`: these with their subflow runs; default the whole journal. Read as they are yielded, all of one moment. A result is
    JSON where it was stored as JSON, else its preview; nothing is unpickled. Raises NotFoundError, JournalError.
    """
    path = _path(journal)
    with reading(path) as connection:
        chosen = None
        if runs is not None:
            named = [get_run(connection, run).id for run in runs]
            chosen = list(dict.fromkeys(each for run_id in named for each in run_family(connection, run_id)))
        yield from exporting.rows(connection, chosen)


def render_run(run: int | str, *, journal: PathLike | None = None) -> Iterator[str]:
    """Yield the parts of one HTML page that shows a run: its timeline, calls, errors, history and logs.

    The page needs no other file, no script and no request. Long runs are shown in part, and the page says so.
    """
    from wfengine import run_page

    path = _path(journal)
    with reading(path) as connection:
        yield from run_page.render(connection, get_run(connection, run).id)


def recover_journal(source: PathLike, target: PathLike, *, overwrite: bool = False) -> Recovered:
    """Write what can be saved of a damaged journal to a new one; the damaged file is only copied. End what uses it before.

    Only results that match their checksums are taken. A call whose result is lost runs again in a resume, and a run of which
    anything is missing is CRASHED and says what. Raises NotAJournalError where nothing can be read, UsageError if the target
    exists.
    """
    damaged = find_path(source)
    close_open(damaged)
    return recovering.recover(damaged, _target(target), overwrite=overwrite)


_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_AGE_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def age_seconds(age: str | timedelta) -> float:
    """Return the seconds of a text such as '30d', '12h', '45m' or '2w'. Raises UsageError."""
    if isinstance(age, timedelta):
        if age.total_seconds() < 0:
            raise UsageError(f"{age} is not an age: it is negative.")
        return age.total_seconds()
    found = _AGE.fullmatch(age.strip())
    if found is None:
        raise UsageError(f"{age!r} is not an age. Write a number and a unit: 45m, 12h, 30d, 2w.")
    return float(found[1]) * _AGE_SECONDS[found[2]]


def _path(journal: PathLike | None) -> Path:
    """Return the journal that is meant, with what this process has queued for it committed."""
    path = default_path() if journal is None else find_path(journal)
    flush_open(path)
    return path


def _target(path: PathLike) -> Path:
    return Path(path).expanduser().absolute()


def _run_id(source: Path, run: int | str) -> int:
    if isinstance(run, int):
        return run
    with closing(open_reader(source)) as connection:
        return get_run(connection, run).id
