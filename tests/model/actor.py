"""One process that does one thing to the journal of a model-based test.

    python -m tests.model.actor FOLDER ACTION ARGUMENTS KILL

ACTION is a method of `Actor`; ARGUMENTS are JSON. It is killed around commit number KILL of what it does; 0 is none. It says
what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.crash import effects
from tests.crash.nursery import FLAG, serve
from tests.crash.plan import kill_this_process
from tests.simulation.clock import MachineClock
from wfengine import use_journal
from wfengine.cancellation import cancel_run
from wfengine.executor import Executor
from wfengine.forks import fork_run
from wfengine.input_requests import give_input
from wfengine.loading import load_entrypoint
from wfengine.messages import send
from wfengine.recovery import resumable_runs, resume_run
from wfengine_journal import store
from wfengine_journal.codec import json_text
from wfengine_journal.deployments import DeploymentColumns, PutDeployment, ScheduleColumns
from wfengine_scheduler.loop import Scheduler

HOUR = 3600.0
#: Names a bug that is planted, to see the model find it.
BUG = "WFENGINE_MODEL_BUG"
#: What a bug would have done to the file.
DAMAGE = {
    "outcome not recorded": "UPDATE task_run SET state = 'RUNNING'"
    " WHERE id = (SELECT max(id) FROM task_run WHERE state = 'COMPLETED')",
    "value of another call": "UPDATE flow_run SET result = replace(result, 'work', 'shaky')",
    "orphan not noted": "UPDATE task_run SET orphaned_in = NULL",
    "tick without run": "DELETE FROM flow_run WHERE state = 'SCHEDULED' AND epoch = 0",
}


class Actor:
    """What can be done."""

    def __init__(self, folder: Path) -> None:
        self.file = f"file:{folder / 'program.py'}:main"
        self.clock = MachineClock(folder / "clock", 1_780_000_000.0)
        store.open_journal(folder / "journal.db", self.clock)
        self.journal = use_journal(folder / "journal.db", durability="process")

    def deploy(self) -> None:
        """Have the flow run every hour from now on, and every missed hour be caught up."""
        columns = DeploymentColumns("hourly", self.file, None, None, json_text({}), None, max_recoveries=1_000_000)
        hourly = ScheduleColumns("interval", "3600", None, "UTC", True, "{}", "", True, catch_up="all", overlap="allow")
        at = self.journal.clock.now_text()
        self.journal.write(
            PutDeployment(self.journal.flow_id("main", None), columns, [hourly], paused=None, at=at), synced=False
        )

    def start(self) -> None:
        main = load_entrypoint(self.file)
        assert callable(main)
        main(return_state=True)

    def resume(self, run: int) -> None:
        resume_run(self.journal, run)

    def recover(self) -> None:
        """Do what `resume --all` does."""
        for run in resumable_runs(self.journal):
            resume_run(self.journal, run, recovery=True)

    def fork(self, run: int) -> None:
        fork_run(self.journal, run)

    def cancel(self, run: int) -> None:
        cancel_run(self.journal, run)

    def answer(self, run: int, key: str) -> None:
        give_input(self.journal, run, 7, key)

    def tell(self, run: int, topic: str, value: int) -> None:
        send(run, value, topic=topic)

    def tick(self, hours: float) -> None:
        """Let hours pass, and have the scheduler look."""
        self.clock.advance(hours * HOUR)
        Scheduler(self.journal).step()

    def serve(self) -> None:
        """Execute what was scheduled, one after the other."""
        Executor(self.journal, limit=1, recover="none").run_once()


def plant(folder: Path, bug: str) -> None:
    """Leave what an engine with that bug would have left."""
    if bug == "executed twice":
        seen = effects.read(folder / "effects.txt")
        if seen:
            effects.append(*seen[-1])
        return
    with closing(sqlite3.connect(folder / "journal.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(DAMAGE[bug])


def execute() -> None:
    """Do the one thing."""
    folder, action, arguments, kill = sys.argv[1:]
    actor = Actor(Path(folder))
    begun = 0

    def probe(moment: str, number: int, _changes: Sequence[object]) -> None:
        nonlocal begun
        begun += moment == "before"
        if begun == int(kill) and moment == ("before", "after")[int(kill) % 2]:
            kill_this_process()

    if int(kill):
        actor.journal.probe_commits(probe)
    try:
        getattr(actor, action)(*json.loads(arguments))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    else:
        said = ""
    store.close_all()
    if os.environ.get(BUG):
        plant(Path(folder), os.environ[BUG])
    print(json.dumps(said), flush=True)
    sys.stderr.flush()
    os._exit(0)  # taking down an interpreter that was forked with all its modules takes longer than the action


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
