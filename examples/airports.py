"""Facts about the airports of every country, from the 28,298 of the package airportsdata, into a table of a SQLite file.

    python airports.py                 run it; stop it where you like, kill -9 included
    wfengine resume @last              go on: what finished is answered from the journal, the rest runs

It needs: pip install 'wfengine[examples]'
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from statistics import median
from typing import TypedDict

import airportsdata

from wfengine import current_task_run, flow, get_run_logger, task, unmapped


class Facts(TypedDict):
    """What is found out about one country: plain data, so it stands in the journal as JSON."""

    country: str
    airports: int
    without_city: int
    without_elevation: int
    time_zones: int
    median_feet: float | None
    highest: str
    high_airports: int


TABLE = """
CREATE TABLE IF NOT EXISTS country (
    country TEXT PRIMARY KEY, airports INTEGER, without_city INTEGER, without_elevation INTEGER, time_zones INTEGER,
    median_feet REAL, highest TEXT, high_airports INTEGER
)
"""


@cache
def airports_by_code() -> dict[str, airportsdata.Airport]:
    """A plain function: read again in each process, never journaled."""
    return airportsdata.load("ICAO")


@task
def extract() -> dict[str, list[str]]:
    """Country -> codes of its airports."""
    codes: dict[str, list[str]] = {}
    for code, airport in airports_by_code().items():
        codes.setdefault(airport["country"], []).append(code)
    return dict(sorted(codes.items()))


@task(retries=3, retry_delay_seconds=[0.2, 1, 5])
def fetch_high_limit() -> int:
    """Ask a service from how many feet on an airport counts as high. Like real ones, it fails now and then."""
    if current_task_run().attempt == 1:
        raise ConnectionError("the service did not answer")
    return 8000


@task(task_run_name="{country}")
def summarise(country: str, codes: list[str], high_limit: int) -> Facts:
    """Clean and aggregate the airports of one country."""
    rows = [airports_by_code()[code] for code in codes]
    feet = [row["elevation"] for row in rows if row["elevation"]]  # in this data, 0 mostly stands for "not known"
    highest = max(rows, key=lambda row: row["elevation"])
    return {
        "country": country,
        "airports": len(rows),
        "without_city": sum(not row["city"].strip() for row in rows),
        "without_elevation": len(rows) - len(feet),
        "time_zones": len({row["tz"] for row in rows}),
        "median_feet": median(feet) if feet else None,
        "highest": " ".join(highest["name"].split()),
        "high_airports": sum(height > high_limit for height in feet),
    }


@task
def write_table(facts: list[Facts], path: str) -> int:
    """Replace rows by their key: cut off in the middle and run again, this task leaves the same table."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(TABLE)
        connection.executemany(
            "INSERT OR REPLACE INTO country VALUES (:country, :airports, :without_city, :without_elevation,"
            " :time_zones, :median_feet, :highest, :high_airports)",
            facts,
        )
    return len(facts)


@flow
def report(facts: list[Facts], path: str) -> int:
    """A flow called by a flow has a run of its own in the journal."""
    rows = write_table(facts, path)
    get_run_logger().info("wrote %d rows to %s", rows, path)
    return rows


@flow
def airports(path: str) -> dict[str, str | int]:
    """The whole job. `path` is where the report goes."""
    codes = extract()
    high_limit = fetch_high_limit()
    facts = summarise.map(list(codes), list(codes.values()), unmapped(high_limit)).result()
    rows = report(facts, path)
    most = max(facts, key=lambda fact: fact["airports"])
    return {
        "countries": rows,
        "airports": sum(fact["airports"] for fact in facts),
        "most_airports": most["country"],
        "high_airports": sum(fact["high_airports"] for fact in facts),
    }


if __name__ == "__main__":
    for name, value in airports(str(Path("airports-report.db").absolute())).items():
        print(f"{name}: {value}")
