"""A flow that is given a value and sleeps, started or gone on with: `python -m tests.engine.timed_child FOLDER KILL WHAT`.

The process is killed before the statement of number KILL; 0 is none. WHAT is `start` or `resume`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.crash.nursery import FLAG, serve
from tests.crash.plan import StatementPlan
from wfengine import flow, now, sleep, use_journal, uuid4
from wfengine.recovery import resumable_runs, resume_run


def note(text: object) -> None:
    """Append a line to the effects of the folder."""
    with (Path(sys.argv[1]) / "effects.txt").open("a", encoding="utf-8") as effects:
        effects.write(f"{text}\n")


@flow
def main() -> str:
    unique = uuid4()
    note(unique)
    sleep(0.001)
    note(f"{unique}-{now():%Y}")
    return str(unique)


def execute() -> None:
    """Start a run, or go on with those that were cut off."""
    folder, kill, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if kill:
        StatementPlan(kill, folder / "note.sql").install()
    journal = use_journal(folder / "journal.db")
    if what == "start":
        main()
    else:
        for run_id in resumable_runs(journal):
            resume_run(journal, run_id, recovery=True)


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        serve(execute)
    else:
        execute()
