"""A run of 100,000 task runs, and a file of as many runs: how much SQLite does for a page is bounded, whatever there is.

What is counted are steps of SQLite's machine, which no other program on the machine changes; time is not measured.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
from serving_page import Page, page_over, run_program

from wfengine.page.asked import Asked
from wfengine.page.pages import PAGES
from wfengine.page.serving import Serving
from wfengine_journal import store
from wfengine_journal.call_counts import AT_ONCE, Stretch, count_calls, count_groups
from wfengine_journal.queries import reading
from wfengine_journal.run_page_queries import list_bars_between
from wfengine_journal.task_queries import list_task_groups

CALLS = 100_000
RUNS = 100_000
#: Thousands of steps that a page may take in the large file. Counting all calls of a run by task takes some 50 of them each;
#: everything else looks at no more than it shows, or at 20,000 rows.
LARGE_RUN = 7_500
BOUNDED = 1_500


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose journal holds run 1, then very many copies of it, then run `RUNS + 2` with very many calls."""
    folder = tmp_path_factory.mktemp("large")
    run_program(folder, "fine")
    connection = sqlite3.connect(folder / "journal.db")
    numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {})"

    def copy(table: str, source: str, count: int, **changed: str) -> None:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        chosen = [f"{changed[name]}" if name in changed else f"s.{name}" for name in columns]
        connection.execute(
            f"{numbers.format(count)} INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(chosen)}"
            f" FROM n CROSS JOIN (SELECT * FROM {source}) s"
        )

    large_id = RUNS + 2
    copy("flow_run", "flow_run WHERE id = 1", RUNS, id="s.id + n.n", name="'copy-' || n.n")
    copy(
        "flow_run", "flow_run WHERE id = 1", 1, id=str(large_id), name="'large'", tasks_done=str(CALLS), tasks_total=str(CALLS)
    )
    first = "task_run WHERE id = (SELECT min(id) FROM task_run)"
    copy("task_run", first, CALLS, id="1000 + n.n", flow_run_id=str(large_id), occurrence="n.n")
    source = "transition WHERE task_run_id = (SELECT min(id) FROM task_run)"
    copy("transition", source, CALLS, flow_run_id=str(large_id), task_run_id="1000 + n.n")
    copy("log", "log WHERE id = 1", CALLS, id="1000 + n.n", flow_run_id=str(large_id), task_run_id="1000 + n.n")
    connection.commit()
    connection.close()
    return folder


@pytest.fixture(scope="module")
def large_page(large: Path) -> Iterator[Page]:
    """A page over it."""
    with page_over(large) as served:
        yield served
    store.close_all()


def steps(folder: Path, path: str) -> int:
    """Return how many thousand steps SQLite takes to read what a page shows."""
    place, _, query = path.partition("?")
    name, number = ("run", int(place.rpartition("/")[2])) if place.startswith("/runs/") else ("", 0)
    if place.startswith("/tasks/"):
        name, number = "task_run", int(place.rpartition("/")[2])
    found = next(page for page in PAGES if page.name == name or page.path == place)
    asked = Asked({"run_id": number, "task_run_id": number}, dict(pair.split("=", 1) for pair in query.split("&") if pair))
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    serving = Serving(folder / "journal.db", read_only=True)
    with reading(folder / "journal.db") as connection:
        connection.set_progress_handler(count, 1000)
        found.load(connection, serving, asked)
    return taken


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/runs", 250),
        ("/runs?q=state:completed", 250),
        ("/runs?q=state:failed", 50),
        ("/runs?q=state:running", 50),
        ("/runs?q=nothing-is-called-so", BOUNDED),
        ("/runs?q=param.count:77", BOUNDED * 2),
        ("/runs?q=copy&before=50000", 250),
        ("/", BOUNDED * 2),
        (f"/runs/{RUNS + 2}", LARGE_RUN),
        (f"/runs/{RUNS + 2}?from=0&to=1", LARGE_RUN * 2),
        (f"/runs/{RUNS + 2}?show=graph", LARGE_RUN),
        (f"/runs/{RUNS + 2}?show=code", BOUNDED * 2),
        (f"/runs/{RUNS + 2}?show=tasks", BOUNDED),
        (f"/runs/{RUNS + 2}?show=tasks&after=90000", BOUNDED),
        (f"/runs/{RUNS + 2}?show=tasks&state=failed", BOUNDED * 3),
        (f"/runs/{RUNS + 2}?show=history", BOUNDED),
        (f"/runs/{RUNS + 2}?show=logs", BOUNDED * 2),
        (f"/runs/{RUNS + 2}?show=values", BOUNDED),
        ("/tasks/50000", BOUNDED),
        ("/flows", BOUNDED),
        ("/flow?name=fine", BOUNDED),
        ("/timeline?since=30d", BOUNDED),
        ("/timeline?since=1000d", BOUNDED),
    ],
)
def test_what_a_page_reads_is_bounded(large: Path, path: str, limit: int) -> None:
    assert steps(large, path) <= limit


@pytest.mark.parametrize("part", ["timeline", "graph", "tasks", "logs", "history", "values", "code"])
def test_each_part_of_the_large_run_is_shown_in_a_page_of_bounded_size(large_page: Page, part: str) -> None:
    answer = large_page.client.get(f"/runs/{RUNS + 2}?show={part}")
    assert answer.status_code == 200
    assert len(answer.content) < 500_000
    if part == "timeline":
        assert "100,000 calls, drawn by task" in answer.text


def test_calls_are_counted_as_the_command_line_counts_them(large: Path, filled: Path) -> None:
    for folder, run_id in ((large, RUNS + 2), (filled, 2), (filled, 3), (filled, 5)):
        with reading(folder / "journal.db") as connection:
            ours = [replace(group, median_s=None, total_s=0.0) for group in count_groups(connection, run_id)]
            theirs = [replace(group, median_s=None, total_s=0.0) for group in list_task_groups(connection, run_id)]
            assert ours == theirs


@pytest.mark.parametrize("large_one", [True, False])
def test_only_calls_that_can_have_been_under_way_are_looked_at_and_none_is_missed(
    large: Path, filled: Path, large_one: bool
) -> None:  # fmt: skip
    seed = 20261128
    print(f"seed {seed}")
    random = Random(seed)
    folder, runs = (large, [RUNS + 2]) if large_one else (filled, [1, 2, 3, 5])
    for run_id in runs:
        with reading(folder / "journal.db") as connection:
            stretches = count_calls(connection, run_id)[1]
            assert len(stretches) == (CALLS // AT_ONCE if large_one else 1)
            times = [
                at for row in connection.execute(
                    "SELECT started_at, ended_at FROM task_run WHERE flow_run_id = ?", (run_id,)
                ) for at in row if at is not None
            ]  # fmt: skip
            everywhere = [Stretch(1, 10**9, None, None)]
            for _ in range(8):
                from_at, to_at = sorted(random.choices(times, k=2))
                asked = partial(list_bars_between, connection, run_id, from_at=from_at, to_at=to_at, limit=10**6)
                expected = asked(stretches=everywhere)
                assert asked(stretches=stretches) == expected != []
                assert asked(stretches=stretches[:1]) == expected  # all others were made since
                fewer = partial(list_bars_between, connection, run_id, from_at=from_at, to_at=to_at, limit=5)
                assert fewer(stretches=stretches) == expected[:5]


def test_its_calls_are_walked_through_a_page_at_a_time(large_page: Page) -> None:
    seen: list[int] = []
    after: object = 0
    for _ in range(5):
        found = large_page.json(f"/api/v1/runs/{RUNS + 2}/tasks", after=after, limit=200)
        seen += [task["id"] for task in found["tasks"]]  # type: ignore[attr-defined]
        after = found["next_after"]
    assert seen == list(range(1001, 2001))


def test_a_search_that_finds_nothing_says_how_far_it_looked(large_page: Page) -> None:
    found = large_page.json("/api/v1/runs", search="nothing-is-called-so")
    assert found["runs"] == []
    assert found["next_before"] == found["searched_to"] == RUNS + 2 - 20_000 + 1
    assert "down to #" in large_page.client.get("/runs?q=nothing-is-called-so").text


def _written(folder: Path, days: int) -> None:
    """Let the file look as if it had been written to so many days later."""
    for end in ("", "-wal"):
        place = folder / f"journal.db{end}"
        if place.exists():
            then = place.stat().st_mtime + days * 86_400
            os.utime(place, (then, then))


def test_the_counts_of_a_large_run_are_read_once_while_nothing_is_committed(large: Path) -> None:
    serving = Serving(large / "journal.db", read_only=True)
    asked = Asked({"run_id": RUNS + 2}, {})
    run = next(page for page in PAGES if page.name == "run")

    def look() -> tuple[int, int]:
        """Return thousands of steps, and how many calls failed."""
        with reading(large / "journal.db") as connection:
            taken = 0

            def count() -> int:
                nonlocal taken
                taken += 1
                return 0

            connection.set_progress_handler(count, 1000)
            groups = run.load(connection, serving, asked)["timeline"]["groups"]
        return taken, sum(group["failed"] for group in groups)

    def change(state: str) -> None:
        connection = sqlite3.connect(large / "journal.db")
        connection.execute("UPDATE task_run SET state = ? WHERE id = 60000", (state,))
        connection.commit()
        connection.close()

    _written(large, -1)
    first, kept = look(), look()
    assert first[0] > 1000 > kept[0]
    assert first[1] == kept[1] == 0
    change("FAILED")
    try:
        assert look()[1] == 1  # what was committed is seen at once
        _written(large, 1)
        look()
        assert look()[0] > 1000  # and it is not kept before the file has been left alone
        _written(large, -2)
        look()
        assert look()[0] < 1000
    finally:
        change("COMPLETED")
    assert look()[1] == 0


def test_calls_that_lie_far_apart_are_counted_in_a_bounded_number_of_statements(tmp_path: Path) -> None:
    run_program(tmp_path, "fine")
    connection = sqlite3.connect(tmp_path / "journal.db")
    far = 4_000_000_000_000_000_000
    last = connection.execute("SELECT max(id) FROM task_run").fetchone()[0]
    connection.execute(
        "INSERT INTO transition (flow_run_id, task_run_id, seq, state, epoch, attempt, at)"
        " SELECT flow_run_id, task_run_id + ?, seq, state, epoch, attempt, at FROM transition WHERE task_run_id = ?",
        (far, last),
    )
    connection.execute("UPDATE task_run SET id = id + ? WHERE id = ?", (far, last))
    connection.commit()
    connection.close()
    statements: list[str] = []
    with reading(tmp_path / "journal.db") as connection:
        connection.set_trace_callback(statements.append)
        groups = count_groups(connection, 1)
    assert sum(group.count for group in groups) == 3
    assert len(statements) < 1_100
