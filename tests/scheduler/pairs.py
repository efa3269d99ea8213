"""Pairs of schedulers that are started together on one file: each due instant starts one run.

    python -m tests.scheduler.pairs --pairs 1000

Each pair is two new processes that open the journal, wait for the word, and decide what is due. In every second pair one of
them is killed somewhere in the middle, and a third process does the rest.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tests.scheduler.test_ticks import cron
from wfengine_journal import store
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.deployments import DeploymentColumns, PutDeployment

ROOT = Path(__file__).resolve().parents[2]
SCHEDULES = 12
#: For how long nobody has looked at the schedules, each of which is due every hour, in seconds.
ABSENCE_SECONDS = 2 * 86400.0
CAUGHT_UP = 5

CHILD = """
import sys
from pathlib import Path
from wfengine_journal import store
from wfengine_journal.clock import text_from_seconds
from wfengine_scheduler.loop import Scheduler
journal = store.open_journal(Path(sys.argv[1]))
scheduler = Scheduler(journal)
print("ready", flush=True)
sys.stdin.readline()
scheduler.step()
store.close_all()
"""


def make_journal(path: Path, schedules: int = SCHEDULES, absence_seconds: float = ABSENCE_SECONDS) -> None:
    """Write a journal with schedules that nobody has looked at for so long."""
    store.close_all()
    journal = store.open_journal(path)
    at = text_from_seconds(journal.clock.wall_seconds() - absence_seconds)
    for number in range(schedules):
        schedule = cron("0 * * * *", catch_up="all", catch_up_limit=CAUGHT_UP, overlap="allow")
        columns = DeploymentColumns(f"d{number}", None, None, None, "{}", None)
        journal.write(PutDeployment(journal.flow_id("f", None), columns, [schedule], paused=None, at=at), synced=False)
    store.close_all()


def start(path: Path) -> subprocess.Popen[str]:
    """Start a child that has the journal open and waits for the word."""
    roots = os.pathsep.join(str(ROOT / name) for name in ("", "journal", "scheduler"))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": roots},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    """Say the word."""
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def violations(path: Path, schedules: int = SCHEDULES) -> list[str]:
    """Return what is wrong with the file after somebody has decided all that was due."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT s.id, (SELECT count(*) FROM tick t WHERE t.schedule_id = s.id AND t.outcome = 'started'),"
            " (SELECT count(*) FROM flow_run r WHERE r.deployment_id = s.deployment_id),"
            " (SELECT count(DISTINCT nominal_at) FROM flow_run r WHERE r.deployment_id = s.deployment_id) FROM schedule s"
        ).fetchall()
    started = {row[1:] for row in found}
    # On the hour between two of the children's looks there is one more, which is in time.
    fine = {(count, count, count) for count in (CAUGHT_UP, CAUGHT_UP + 1, CAUGHT_UP + 2)}
    return [f"schedules differ or doubled: {found}"] if not started <= fine or len(found) != schedules else []


def pair(path: Path, is_killed: bool) -> list[str]:
    """Let two schedulers decide at once, or one be killed meanwhile and a third go on."""
    make_journal(path)
    children = [start(path), start(path)]
    for child in children:
        go(child)
    if is_killed:
        children[0].send_signal(signal.SIGKILL)
    codes = [child.wait(60) for child in children]
    for child in children:
        child.communicate()
    problems = [f"a scheduler ended with {code}" for code in codes if code not in (0, -signal.SIGKILL)]
    if is_killed:
        third = start(path)
        go(third)
        third.communicate(timeout=60)
        problems += [] if third.returncode == 0 else [f"the third scheduler ended with {third.returncode}"]
    return problems + violations(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args()
    chosen = random.Random(options.seed)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.pairs):
            path = Path(folder) / f"{number}" / "journal.db"
            path.parent.mkdir()
            problems += pair(path, is_killed=chosen.random() < 0.5)
    print(f"seed {options.seed}: {options.pairs} pairs, {len(problems)} violations")
    for problem in problems[:20]:
        print(problem)
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
