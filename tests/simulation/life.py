"""One life of a daemon on a simulated machine: it ends with a kill at a commit, or when its time is over.

    python -m tests.simulation.life FOLDER SEED NUMBER UNTIL KILL

It does what the daemon does - schedules, executes, recovers - with the parts of the daemon, one after the other, under a clock
that is moved by what it waits for; and what people do meanwhile. UNTIL is an instant of the wall clock; 0 asks it to do what is
left, to the end. KILL is the number of the commit around which it dies, or 0.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from tests.crash.plan import kill_this_process
from tests.simulation.clock import MachineClock
from tests.simulation.flows import FLOWS
from wfengine import use_journal
from wfengine.executor import Executor
from wfengine.input_requests import give_input
from wfengine_journal import store
from wfengine_journal.store import Journal
from wfengine_scheduler.loop import Scheduler

HOUR = 3600.0
#: Turns in which all that is left has to come to its end.
LAST_TURNS = 60
#: What may happen to the machine's clock, each turn: share, name, seconds by which the wall is set, seconds that pass.
DISTURBANCES = (
    (0.010, "suspended", 0.0, 4 * HOUR), (0.015, "set back", -HOUR, 0.0), (0.015, "set forward", HOUR, 0.0),
    (0.003, "set back a day", -24 * HOUR, 0.0),
)  # fmt: skip


class Life:
    """What the process does from its start to its end."""

    def __init__(self, folder: Path, seed: int, number: int, kill: int) -> None:
        self.dice = random.Random(f"{seed}/{number}")
        self.clock = MachineClock(folder / "clock", 0.0)
        self.noted = folder / "disturbances.txt"
        store.open_journal(folder / "journal.db", self.clock)
        self.journal: Journal = use_journal(folder / "journal.db", durability="process")
        moment = self.dice.choice(["before", "after"])

        def probe(when: str, commit: int, _changes: Sequence[object]) -> None:
            if commit == kill and when == moment:
                kill_this_process()

        if kill:
            self.journal.probe_commits(probe)
        self.schedulers = [Scheduler(self.journal), Scheduler(self.journal)]
        self.executor = Executor(self.journal, flows=FLOWS, limit=6)
        self.lock = threading.Lock()
        self.clock.on_sleep = self.while_others_sleep

    def while_others_sleep(self) -> None:
        """A run sleeps in this process: the scheduler goes on. What it starts waits until the run has ended."""
        if self.lock.acquire(blocking=False):  # another one that sleeps does it already
            try:
                self.schedulers[0].step()
            finally:
                self.lock.release()

    def live(self, until: float) -> None:
        """Serve until the wall shows `until`."""
        while self.clock.wall_seconds() < until:
            self.disturb()
            due = self.turn()
            rest = self.dice.uniform(60, 1800)
            now = self.clock.wall_seconds()
            self.clock.advance(max(0.001, min(rest, (due or until) - now)))

    def turn(self) -> float | None:
        """Do what is due now; return when the next schedule is due."""
        due = None
        with self.lock:
            for scheduler in self.dice.sample(self.schedulers, self.dice.choice((1, 2))):
                due = scheduler.step()
        self.executor.run_once()
        self.be_a_person(0.5)
        return due

    def finish(self) -> bool:
        """Do what is left without any more ticks; tell whether everything came to its end."""
        with self.lock:
            for _ in range(LAST_TURNS):
                self.executor.run_once()
                self.be_a_person(1.0)
                if not self.rows("SELECT 1 FROM flow_run WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') LIMIT 1"):
                    return True
                self.clock.advance(HOUR)
        return False

    def be_a_person(self, share: float) -> None:
        """Answer those who ask, as far as one comes to it, and resume them."""
        waiting = self.rows(
            "SELECT DISTINCT r.id FROM flow_run r JOIN task_run t ON t.flow_run_id = r.id"
            " WHERE r.state = 'PAUSED' AND t.state = 'PAUSED' AND r.wake_at IS NULL ORDER BY r.id"
        )
        for (run_id,) in waiting:
            if self.dice.random() < share:
                give_input(self.journal, int(str(run_id)), 7)
                FLOWS["asking"].resume(int(str(run_id)))

    def disturb(self) -> None:
        drawn = self.dice.random()
        for share, name, set_by, passed in DISTURBANCES:
            drawn -= share
            if drawn < 0:
                with self.noted.open("a", encoding="utf-8") as noted:
                    noted.write(f"{name}\n")
                self.clock.set_by(set_by)
                self.clock.advance(passed)
                return

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        def look(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(sql).fetchall()

        return self.journal.read(look)


def execute() -> None:
    """Live once."""
    folder, seed, number, until, kill = sys.argv[1:]
    life = Life(Path(folder), int(seed), int(number), int(kill))
    if float(until):
        life.live(float(until))
    else:
        print("ended" if life.finish() else "stuck")
    store.close_all()


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
