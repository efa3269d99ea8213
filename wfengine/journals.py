"""Which journal a flow run goes to."""

from __future__ import annotations

import os
from pathlib import Path

from wfengine_journal.location import find_path
from wfengine_journal.store import Journal, open_journal

_chosen: Path | None = None


def use_journal(path: str | os.PathLike[str] | None) -> Journal:
    """Use this journal file for every run started in this process from now on; open (and create) it.

    None goes back to the usual search: WFENGINE_JOURNAL, then `.wfengine/journal.db` here or above, else made here.
    """
    global _chosen  # noqa: PLW0603 - the one setting of a process, like the working directory
    _chosen = None if path is None else find_path(path)
    return default_journal()


def default_journal() -> Journal:
    """Return the open journal that a run started now goes to."""
    return open_journal(_chosen if _chosen is not None else find_path())
