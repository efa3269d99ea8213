"""Journals as files, from Python: copy one run out, take runs in, back up, prune, export, rescue a damaged file.

    from wfengine.files import extract_run

    extract_run("quiet-heron", "heron.db")

None of these runs code of a flow or turns a stored value back into an object. Every function takes `journal=`, the path of the
journal; the default is the one that a flow run started now would go to.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from wfengine.journals import default_path
from wfengine_journal import extraction
from wfengine_journal.connection import open_reader
from wfengine_journal.extraction import Extracted
from wfengine_journal.location import find_path
from wfengine_journal.queries import get_run
from wfengine_journal.store import flush_open

__all__ = ["Extracted", "extract_run"]

#: Where a file is.
PathLike: TypeAlias = "str | os.PathLike[str]"


def extract_run(run: int | str, target: PathLike, *, journal: PathLike | None = None, overwrite: bool = False) -> Extracted:
    """Copy a flow run with its subflow runs into a small journal of its own; the run may be going on.

    `run`: an id, a name, the beginning of a name, or '@last'. In the copy a run that is being executed is CRASHED, so that it
    can be resumed there; the original is only read. Raises NotFoundError, UsageError if the target exists, JournalError.
    """
    source = _path(journal)
    return extraction.extract_run(source, _run_id(source, run), _target(target), overwrite=overwrite)


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
