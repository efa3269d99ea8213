"""A journal for the length of a test, in a folder that is gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wfengine.journals import Durability, journal_in_use
from wfengine_journal.clock import Clock
from wfengine_journal.store import Journal, open_journal
from wfengine_journal.view_rows import list_rows, list_runs, list_tasks


class TemporaryJournal:
    """The journal of a test: where it lies, and what stands in it, as plain dicts by the columns of its views."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.path: Path = journal.path
        self.clock: Clock = journal.clock

    def __repr__(self) -> str:
        return f"<TemporaryJournal {self.path}>"

    def runs(self) -> list[dict[str, object]]:
        """Return the rows of the view `runs`, oldest first."""
        self._journal.flush()
        return list_runs(self.path)

    def tasks(self) -> list[dict[str, object]]:
        """Return the rows of the view `tasks`, in the order in which the calls were written."""
        self._journal.flush()
        return list_tasks(self.path)

    def sql(self, statement: str) -> list[dict[str, object]]:
        """Return the rows of a SELECT that `wfengine sql` would allow."""
        self._journal.flush()
        return list_rows(self.path, statement)


@contextmanager
def temporary_journal(*, clock: Clock | None = None, durability: Durability = "process") -> Iterator[TemporaryJournal]:
    """Use a new journal, in a temporary folder, for all runs started in the block; then the one that was used before.

    `clock`: such as a VirtualClock, so that nothing waits; default the machine's. Blocks may be nested, and processes that
    run tests at the same time do not meet. The default of a process is one for all its threads, as with `use_journal`.
    """
    with tempfile.TemporaryDirectory(prefix="wfengine-", ignore_cleanup_errors=True) as folder:
        journal = open_journal(Path(folder, "journal.db"), clock)
        try:
            with journal_in_use(journal.path, durability):
                yield TemporaryJournal(journal)
        finally:
            journal.close()
