"""A scheduler that decides once what is due, or is killed meanwhile: `python -m tests.scheduler.stepping JOURNAL KILL`.

It is killed before the statement of number KILL; 0 is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from tests.crash.plan import StatementPlan
from wfengine_journal import store
from wfengine_scheduler.loop import Scheduler


def execute() -> None:
    """Take the one step."""
    path, kill = Path(sys.argv[1]), int(sys.argv[2])
    if kill:
        StatementPlan(kill, path.with_name("killed-before.sql")).install()
    Scheduler(store.open_journal(path)).step()
    store.close_all()


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
