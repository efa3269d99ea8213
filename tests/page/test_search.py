"""The search box: what it means, that nothing in it is taken for SQL, and that pages join without a gap or an overlap."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_page import LIMIT, Page

from wfengine.page.search import parse
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import RunFilter, limited_reading, search_runs


def names(page: Page, search: str) -> list[int]:
    """Return the ids of the runs that a search finds."""
    return [run["id"] for run in page.json("/api/v1/runs", search=search)["runs"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("search", "ids"),
    [
        ("", [5, 3, 2, 1]),
        ("is:subflow", [5, 4, 3, 2, 1]),
        ("state:failed", [2]),
        ("state:failed,completed", [3, 2, 1]),
        ("state:paused", [5]),
        ("flow:fine", [1]),
        ("flow:fine is:subflow", [4, 1]),
        ("flow:FINE", []),
        ("2", [3, 2]),  # its id, or a parameter
        ("failing", [2]),
        ("FAIL", [2]),
        ("param.day:2026-11-22", [2]),
        ("param.worst:2", [2]),
        ("param.count:3 state:completed", [1]),
        ("param.nothing:3", []),
        ("2026-11-22", [2]),
        ("log:loading flow:failing", [2]),
        ('log:"loading 0" flow:fine', [1]),
        ("since:2h", [5, 3, 2, 1]),
        ("until:2020-01-01", []),
        ("since:2999-01-01", []),
        ("duration<1d state:completed,failed", [3, 2, 1]),
        ("duration>1h", []),
        ('"worst: nothing"', []),
    ],
)
def test_a_search_finds(page: Page, search: str, ids: list[int]) -> None:
    assert names(page, search) == ids


@pytest.mark.parametrize(
    "search",
    ["state:", "state:happy", "colour:red", "duration>long", "since:yesterday", '"open', "duration:5s", "is:nice", "x " * 40],
)
def test_a_search_that_means_nothing_is_refused_in_words(page: Page, search: str) -> None:
    with pytest.raises(UsageError):
        parse(search)
    answer = page.client.get("/runs", params={"q": search})
    assert answer.status_code == 200
    assert 'role="alert"' in answer.text
    assert page.client.get("/api/v1/runs", params={"search": search}).status_code == 400


@pytest.mark.parametrize(
    "text",
    ["'", "' OR 1=1 --", "%", "_", "\\", "param.a')) OR (1=1:1", 'param."x:1', "param.$[0]:1", "flow:'||(SELECT 1)||'", "?1"],
)
def test_no_text_is_taken_for_sql(page: Page, text: str) -> None:
    for search in (text, f'"{text}"'):
        try:
            parse(search)
        except UsageError:
            continue
        assert names(page, search) == []


WORDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        ["state:", "flow:", "param.", "duration>", "since:", "log:", "tag:", "is:subflow", '"', "failed", "1h", "2"]
    ),
)


def test_whatever_is_typed_is_answered_or_refused(filled: Path) -> None:
    with limited_reading(filled / "journal.db", LIMIT) as connection:

        @settings(max_examples=200, deadline=None)
        @given(st.lists(WORDS, max_size=8).map("".join))
        def check(search: str) -> None:
            try:
                wanted = parse(search)
            except UsageError:
                return
            search_runs(connection, wanted)

        check()


def test_pages_join_without_gap_or_overlap_while_runs_are_added(tmp_path: Path, empty_journal: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(empty_journal.read_bytes())
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO flow (id, name, first_seen_at) VALUES (1, 'f', '2026-01-01T00:00:00.000000Z')")

        def add(count: int) -> None:
            connection.executemany(
                "INSERT INTO flow_run (name, flow_id, state, version, epoch, durability, parameters, created_at, ended_at)"
                " VALUES (?, 1, ?, 1, 1, 'power', '{}', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z')",
                [(f"run-{number}", "FAILED" if number % 7 == 0 else "COMPLETED") for number in range(count)],
            )
            connection.commit()

        add(500)
        seen: list[int] = []
        before = None
        while before != 0:
            with limited_reading(path, 30.0) as reader:
                found = search_runs(
                    reader, RunFilter(states=("FAILED",)), limit=10, **({} if before is None else {"before_id": before})
                )
            seen += [run.id for run in found.runs]
            before = found.next_before or 0
            add(5)
        expected = [
            row[0]
            for row in connection.execute("SELECT id FROM flow_run WHERE state = 'FAILED' AND id <= 500 ORDER BY id DESC")
        ]
    connection.close()
    assert seen == expected
