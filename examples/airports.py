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

import airportsdata

from wfengine import current_task_run, flow, get_run_logger, task, unmapped

Facts = dict[str, str | int | float]

TABLE = """
CREATE TABLE IF NOT EXISTS country (
    country TEXT PRIMARY KEY, airports INTEGER, without_city INTEGER, time_zones INTEGER,
    median_feet REAL, highest TEXT, highest_feet REAL, high_airports INTEGER
)
"""


@cache
def airports_by_code() -> dict[str, dict[str, str | float]]:
    """A plain function: read again in each process, never journaled."""
    return airportsdata.load("ICAO")


@task
def extract() -> dict[str, list[str]]:
    """Country -> codes of its airports. Plain data like this stands in the journal as readable JSON."""
    codes: dict[str, list[str]] = {}
    for code, airport in airports_by_code().items():
        codes.setdefault(str(airport["country"]), []).append(code)
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
    feet = [float(row["elevation"]) for row in rows]
    highest = max(rows, key=lambda row: float(row["elevation"]))
    return {
        "country": country,
        "airports": len(rows),
        "without_city": sum(not str(row["city"]).strip() for row in rows),
        "time_zones": len({row["tz"] for row in rows}),
        "median_feet": median(feet),
        "highest": " ".join(str(highest["name"]).split()),
        "highest_feet": max(feet),
        "high_airports": sum(height > high_limit for height in feet),
    }


@task
def write_table(facts: list[Facts], path: str) -> int:
    """Replace rows by their key: cut off in the middle and run again, this task leaves the same table."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(TABLE)
        connection.executemany(
            "INSERT OR REPLACE INTO country VALUES (:country, :airports, :without_city, :time_zones,"
            " :median_feet, :highest, :highest_feet, :high_airports)",
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
        "airports": sum(int(fact["airports"]) for fact in facts),
        "most_airports": str(most["country"]),
        "high_airports": sum(int(fact["high_airports"]) for fact in facts),
    }


if __name__ == "__main__":
    for name, value in airports(str(Path("airports-report.db").absolute())).items():
        print(f"{name}: {value}")
