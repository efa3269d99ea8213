"""A daemon whose life ends: with a kill after a commit, or when every tick has its run and every run has ended.

`python -m tests.crash.served JOURNAL KILL` serves a journal and kills itself after the commit of that number; 0 is none. It
prints how many commits there were.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from tests.crash.plan import kill_this_process
from wfengine import use_journal
from wfengine.serving import Served, ServeOptions, make_daemon
from wfengine_journal.threads import start_thread

#: Seconds after which it ends by itself.
SECONDS = 50


def execute() -> None:
    """Serve the journal that the command line names."""
    path, kill = Path(sys.argv[1]), int(sys.argv[2])
    journal = use_journal(path)
    commits = 0

    def probe(moment: str, number: int, changes: Sequence[object]) -> None:
        nonlocal commits
        commits = max(commits, number)
        if moment == "after" and number == kill:
            what = ", ".join(type(change).__name__ for change in changes)
            path.with_name("killed-after.txt").write_text(what, encoding="utf-8")
            kill_this_process()

    journal.probe_commits(probe)
    daemon = make_daemon(journal, Served("test"), ServeOptions(limit=2))

    def is_done(connection: sqlite3.Connection) -> bool:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM flow_run) = 2 AND NOT EXISTS (SELECT 1 FROM flow_run WHERE state <> 'COMPLETED')"
        ).fetchone()
        return bool(found[0])

    def watch() -> None:
        while True:
            mark = journal.changes.mark()
            if journal.read(is_done):
                return daemon.stop()
            journal.changes.wait(mark, 1.0)

    start_thread("until-done", watch)
    daemon.run(SECONDS)
    print(commits)


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
