"""Every example runs, and gives the same when its process is killed half-way and the run resumed in another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import EXAMPLES, python, query, resume, run_until_killed

GREETINGS = ["Hello, Ada!", "Hello, Grace!", "Hello, Barbara!", "Hello, Radia!"]
FACTS = {"countries": 234, "airports": 28_298, "most_airports": "US"}
COUNTRIES = "SELECT * FROM country ORDER BY country"


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the airports example that nobody killed."""
    folder = tmp_path_factory.mktemp("unharmed")
    ended = python(folder, EXAMPLES / "airports.py")
    assert ended.returncode == 0, ended.stderr
    assert "airports: 28298" in ended.stdout
    return folder


def test_every_example_has_a_main_guard_and_is_run_here() -> None:
    known = {
        "hello.py",
        "airports.py",
        "scheduled_report.py",
        "rate_limited_queue.py",
        "approval.py",
        "file_drop.py",
        "endless_stream.py",
        "grid_search.py",
        "scrape.py",
    }

    assert {path.name for path in EXAMPLES.glob("*.py")} == known
    assert all('if __name__ == "__main__":' in (EXAMPLES / name).read_text(encoding="utf-8") for name in known)


def test_hello_prints_its_greetings(tmp_path: Path) -> None:
    ended = python(tmp_path, EXAMPLES / "hello.py")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split("\n")[:-1] == GREETINGS


@pytest.mark.crash
def test_hello_killed_half_way_greets_nobody_twice(tmp_path: Path) -> None:
    names = [greeting[7:-1] for greeting in GREETINGS]

    run_until_killed(tmp_path, f"{EXAMPLES / 'hello.py'}", "greet", 2, names)
    resume(tmp_path)

    journal = tmp_path / "journal.db"
    assert query(journal, "SELECT attempts, replayed FROM tasks ORDER BY id") == [(1, 1), (1, 1), (1, 0), (1, 0)]
    assert json.loads(str(query(journal, "SELECT result FROM runs")[0][0])) == GREETINGS


def test_airports_reports_on_every_airport_of_the_package(unharmed: Path) -> None:
    import airportsdata

    totals = query(unharmed / "airports-report.db", "SELECT count(*), sum(airports), sum(high_airports > 0) FROM country")
    airports = airportsdata.load("ICAO").values()
    high = {airport["country"] for airport in airports if airport["elevation"] > 8000}

    assert totals == [(len({airport["country"] for airport in airports}), len(airports), len(high))]


def test_airports_asks_its_service_again_after_a_failure(unharmed: Path) -> None:
    attempts = query(
        unharmed / "journal.db",
        "SELECT attempt, outcome, error FROM attempts WHERE task = 'fetch_high_limit' ORDER BY attempt",
    )

    assert attempts == [(1, "FAILED", "ConnectionError: the service did not answer"), (2, "COMPLETED", None)]


@pytest.mark.crash
@pytest.mark.parametrize(
    ("task", "limit"), [("extract", 1), ("fetch_high_limit", 1), ("summarise", 117), ("summarise", 234), ("write_table", 1)]
)
def test_airports_killed_after_a_task_reports_the_same_when_resumed(
    tmp_path: Path, unharmed: Path, task: str, limit: int
) -> None:
    journal, report = tmp_path / "journal.db", tmp_path / "report.db"

    run_until_killed(tmp_path, f"{EXAMPLES / 'airports.py'}:airports", task, limit, str(report))
    done = query(journal, "SELECT id FROM tasks WHERE state = 'COMPLETED' ORDER BY id")
    resume(tmp_path)

    assert len(done) >= limit
    replayed = query(journal, "SELECT id FROM tasks WHERE replayed ORDER BY id")
    assert replayed == done
    assert query(journal, "SELECT count(*) FROM tasks WHERE state = 'COMPLETED'") == [(237,)]
    assert query(report, COUNTRIES) == query(unharmed / "airports-report.db", COUNTRIES)
    result = json.loads(str(query(journal, "SELECT result FROM runs WHERE flow = 'airports'")[0][0]))
    assert result | FACTS == result
