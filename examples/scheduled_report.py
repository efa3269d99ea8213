"""A report on the runs of the day before, at seven in the morning, on working days.

    python examples/scheduled_report.py                             serve it, until Ctrl-C
    wfengine deployments run report/mornings -p day=2026-11-27      write that of one day now
    wfengine schedules next report/mornings                         when it is due

Whatever becomes of the process, each morning has one report: one that was missed is written when the daemon is back, and one
that was cut off goes on.
"""

from __future__ import annotations

from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import wfengine
from wfengine import flow, task
from wfengine.sql import connect

FOLDER = Path("reports")


@task
def runs_of(day: date) -> list[dict[str, object]]:
    """Return how many runs of each flow began that day, and how they ended: from the journal itself."""
    question = (
        "SELECT flow, state, count(*) AS runs FROM runs WHERE started_at GLOB ? || '*' GROUP BY flow, state ORDER BY 1, 2"
    )
    with closing(connect()) as connection:
        return [dict(row) for row in connection.execute(question, (day.isoformat(),))]


@task
def lines_of(rows: list[dict[str, object]]) -> list[str]:
    """Return the lines of the report."""
    return [f"| {row['flow']} | {row['state']} | {row['runs']} |" for row in rows] or ["nothing ran"]


@task
def write(day: date, lines: list[str]) -> str:
    """Write the file: whole or not at all, and the same if it is written again."""
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / f"{day}.md"
    building = target.with_suffix(".part")
    building.write_text("\n".join([f"# {day}", "", *lines, ""]), encoding="utf-8")
    building.replace(target)
    return str(target)


@flow(log_prints=True)
def report(day: date | None = None) -> str:
    """Write the report of a day: of yesterday, unless it is said."""
    of = day or wfengine.today() - timedelta(days=1)
    path = write(of, lines_of(runs_of(of)))
    print(f"wrote {path}")
    return path


if __name__ == "__main__":
    report.serve(name="mornings", cron="0 7 * * mon-fri", timezone="Europe/Berlin")
