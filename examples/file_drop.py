"""Sales as CSV files that somebody drops into a folder: each file is booked once, by a run of its own.

    python examples/file_drop.py                                    serve it, until Ctrl-C
    printf 'item,amount\\npen,3\\nbook,12\\n' > incoming/monday.csv    drop a file; it is put away in `booked`
    wfengine sql "SELECT * FROM user_sales"                         what was booked
    wfengine events ls                                              which files came

What is dropped while nobody serves is found by the next daemon. A file that cannot be read stays where it is, and its run has
failed: mend it, and `wfengine resume` that run. Needs `pip install 'wfengine[watch]'`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from wfengine import flow, task, use_journal
from wfengine.automations import Automation, EventTrigger, RunDeployment
from wfengine.file_watch import FileWatch, Folder
from wfengine.sql import current_connection

INCOMING, BOOKED = Path("incoming"), Path("booked")


@task
def read(path: Path) -> list[dict[str, object]]:
    """Return the rows of a file, or raise what is wrong with it."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{"item": row["item"], "amount": float(row["amount"])} for row in csv.DictReader(file)]


@task(transaction=True)
def book(name: str, rows: list[dict[str, object]]) -> int:
    """Write the rows to a table of ours, in the transaction that records that this is done: so exactly once."""
    connection = current_connection()
    connection.execute("CREATE TABLE IF NOT EXISTS user_sales (file TEXT, item TEXT, amount REAL)")
    connection.executemany("INSERT INTO user_sales VALUES (?, ?, ?)", [(name, row["item"], row["amount"]) for row in rows])
    return len(rows)


@task
def put_away(path: Path) -> None:
    """Move the file. One that was moved just before the process died is not there any more, and that is fine."""
    if path.exists():
        path.replace(BOOKED / path.name)


@flow(log_prints=True)
def sales(path: Path) -> int:
    """Book one file."""
    count = book(path.name, read(path))
    put_away(path)
    print(f"booked {count} sales of {path.name}")
    return count


if __name__ == "__main__":
    INCOMING.mkdir(exist_ok=True)
    BOOKED.mkdir(exist_ok=True)
    Automation(
        name="book what comes",
        trigger=EventTrigger(expect={"file.added"}, match={"folder": str(INCOMING.resolve())}),
        actions=[RunDeployment(deployment="sales/drop", parameters={"path": "{{ event.payload.path }}"})],
    ).create()
    # `wfengine serve` does the same for a table [[watch]] of wfengine.toml.
    watch = FileWatch(use_journal(None), [Folder(INCOMING, "*.csv", recursive=False)])
    watch.start()
    try:
        sales.serve(name="drop", limit=1)  # one file at a time
    finally:
        watch.stop(5)
