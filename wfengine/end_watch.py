"""Telling who waits when flow runs end: one thread for each journal watches for all of them.

The runs may be executed by any process. An end is noticed at once where it happens in this process, and within a few
milliseconds otherwise.
"""

from __future__ import annotations

import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from wfengine_journal.background import list_ended
from wfengine_journal.errors import WfengineError
from wfengine_journal.threads import start_thread

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.engine")

#: How long the watching thread waits for a change before it looks again all the same, in seconds.
WATCH_SECONDS = 60.0


class EndWatch:
    """Calls back when flow runs of one journal end. Its thread lives as long as somebody waits."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[int, Callable[[WfengineError | None], object]]] = {}
        self._tickets = itertools.count(1)
        self._runs = False
        self._wake = threading.Event()  # something changed: in the file, or who waits

    def add(self, flow_run_id: int, callback: Callable[[WfengineError | None], object]) -> int:
        """Call back once when the run has ended, or with the error that keeps us from knowing. Returns a ticket."""
        with self._lock:
            ticket = next(self._tickets)
            self._waiting[ticket] = (flow_run_id, callback)
            if not self._runs:
                start_thread("wfengine-ends", self._work)  # it waits for this lock before it looks
                self._runs = True
        self._wake.set()  # the thread is to look at this one too, which may have ended meanwhile
        return ticket

    def remove(self, ticket: int) -> None:
        """Call back no more."""
        with self._lock:
            self._waiting.pop(ticket, None)
        self._wake.set()

    def _work(self) -> None:
        try:
            while True:
                self._wake.clear()
                mark = self._journal.changes.mark()
                with self._lock:
                    runs = {run_id for run_id, _ in self._waiting.values()}
                    if not runs:
                        self._runs = False
                        return
                self._tell(set(list_ended(self._journal.records, sorted(runs))), None)
                forget = self._journal.changes.call(mark, self._wake.set)
                self._wake.wait(WATCH_SECONDS)
                forget()
        except WfengineError as error:  # the journal was closed, or cannot be read
            with self._lock:
                self._runs = False
                runs = {run_id for run_id, _ in self._waiting.values()}
            self._tell(runs, error)

    def _tell(self, ended: set[int], problem: WfengineError | None) -> None:
        with self._lock:
            tickets = [ticket for ticket, (run_id, _) in self._waiting.items() if run_id in ended]
            callbacks = [self._waiting.pop(ticket)[1] for ticket in tickets]
        for callback in callbacks:
            try:
                callback(problem)
            except Exception:
                _logger.exception("A callback of a background run failed; nothing else is concerned.")


_watches: weakref.WeakKeyDictionary[Journal, EndWatch] = weakref.WeakKeyDictionary()
_watches_lock = threading.Lock()


def watch_of(journal: Journal) -> EndWatch:
    """Return the watch of a journal; there is one."""
    with _watches_lock:
        watch = _watches.get(journal)
        if watch is None:
            watch = _watches[journal] = EndWatch(journal)
        return watch
