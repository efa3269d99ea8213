"""A scheduler that decides once what is due, or is killed meanwhile: `python -m tests.scheduler.stepping JOURNAL KILL WHAT`.

It is killed before the statement of number KILL; 0 is none. WHAT is `decide`, or `unpause` for the resuming of deployment 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from tests.crash.plan import StatementPlan
from wfengine_journal import store
from wfengine_scheduler.loop import Scheduler
from wfengine_scheduler.pausing import unpause_deployment


def execute() -> None:
    """Take the one step."""
    path, kill, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if kill:
        StatementPlan(kill, path.with_name("killed-before.sql")).install()
    journal = store.open_journal(path)
    if what == "decide":
        Scheduler(journal).step()
    else:
        unpause_deployment(journal, 1)
    store.close_all()


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
