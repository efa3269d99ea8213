"""Programs that are recorded: plain SQLite, whose documented promises calibrate the harness, and flows.

python -m tests.power_loss.workloads plain JOURNAL JOURNAL_MODE SYNCHRONOUS
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

from tests.crash.effects import acknowledged, append
from tests.crash.nursery import FLAG, serve
from tests.crash.zoo import add
from tests.power_loss.recording import read
from wfengine import Flow, flow, journals, task


def upkeep(path: Path) -> None:
    """Let runs end, prune all but the newest, copy the file and one run of it; mark what a command says is done."""
    from wfengine.cli import _run

    journals.use_journal(path, durability="power")
    for _ in range(RUNS):
        many()
    append("ack", "runs")
    assert _run(["prune", "--older-than", "0s", "--keep", str(KEPT), "--journal", str(path), "-q"]) == 0
    append("ack", "pruned")
    assert _run(["backup", str(path.with_name("copy.db")), "--journal", str(path), "-q"]) == 0
    append("ack", "copied")
    assert _run(["extract", "@last", str(path.with_name("small.db")), "--journal", str(path), "-q"]) == 0
    append("ack", "extracted")


@flow
def many() -> int:
    """Leave rows, values and events enough for pruning to take several transactions."""
    return sum(len(blow_up(number)) for number in range(8))


@task
def blow_up(number: int) -> str:
    return f"{number}" * 5000


#: Runs that end, and those of them that pruning leaves.
RUNS, KEPT = 8, 2
#: What is marked once nothing is left to be synced, and the variable that says where the recorder writes.
QUIET, RECORDING = "quiet", "POWER_LOSS_LOG"
#: Rows that the plain program commits and acknowledges one by one, enough to fold the log several times.
ROWS = 60


def plain(path: Path, journal_mode: str, synchronous: str) -> None:
    """Commit rows by plain SQLite and acknowledge each after its commit."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint = 40")
    connection.execute("CREATE TABLE plain (number INTEGER PRIMARY KEY, filling BLOB, UNIQUE (filling))")
    for number in range(ROWS):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO plain VALUES (?, ?)", (number, os.urandom(1500)))
        connection.execute("DELETE FROM plain WHERE number = ?", (number - 30,))
        connection.execute("COMMIT")
        append("ack", str(number))
    connection.close()


@flow
def folded() -> int:
    """Have the log folded into the file in the middle, again and again."""
    total = 0
    for number in range(60):
        total = acknowledged(f"add/{number}", add(f"add/{number}", total, number))
        if number % 7 == 6:
            journals.default_journal().fold_log()
    return total


@flow
def falls_quiet() -> int:
    """Do a little, and then nothing, until what was done last is synced without anything that follows it."""
    total = 0
    for number in range(5):
        total = acknowledged(f"add/{number}", add(f"add/{number}", total, number))
    while RECORDING in os.environ and _has_unsynced_log(Path(os.environ[RECORDING])):
        threading.Event().wait(0.02)
    append(QUIET, "nothing follows")
    return total


def _has_unsynced_log(recording: Path) -> bool:
    return [each.kind for each in read(recording) if each.name.endswith("-wal")][-1] != "S"


FLOWS: dict[str, Flow[[], Any]] = {"folded": folded, "falls_quiet": falls_quiet}


def main() -> None:
    """Do what the command line asks for: the plain program, or to be a child of the crash harness."""
    if sys.argv[1] == "plain":
        plain(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
        return
    if sys.argv[1] == "upkeep":
        upkeep(Path(sys.argv[2]))
        return
    if sys.argv[1:] == [FLAG]:
        serve(main)
        return
    from tests.crash.child import main as child

    append("start", str(os.getpid()))
    child(FLOWS)


if __name__ == "__main__":
    main()
