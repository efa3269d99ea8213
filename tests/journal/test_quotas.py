"""Quotas: what is kept of them, and the arithmetic of rates against a model of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfengine_journal import store
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.quotas import (
    PauseQuota,
    PutQuota,
    RemoveQuota,
    TakeRate,
    find_quota,
    list_quotas,
    rate_wait_seconds,
    take_rate,
)

START = 1_750_000_000


def at(seconds: float | Fraction) -> str:
    whole = int(seconds * 1_000_000)
    return text_from_seconds(START + whole // 1_000_000)[:-8] + f".{whole % 1_000_000:06d}Z"


class Bucket:
    """The table, in memory, with one rate."""

    def __init__(self, count: int, seconds: float) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute(
            "CREATE TABLE quota (name TEXT PRIMARY KEY, slots INTEGER, partition_slots INTEGER, rate_count INTEGER,"
            " rate_seconds REAL, rate_level REAL NOT NULL DEFAULT 0, rate_at TEXT, paused INTEGER NOT NULL DEFAULT 0,"
            " description TEXT, applied_from TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL) STRICT, WITHOUT ROWID"
        )
        PutQuota("api", at=at(0), rate=(count, seconds)).apply(self.connection)

    def __del__(self) -> None:
        self.connection.close()

    def ask(self, seconds: float | Fraction, count: int = 1) -> float:
        """Start if it may be now, else return how long to wait."""
        self.connection.execute("BEGIN")
        wait = rate_wait_seconds(self.connection, "api", at(seconds), count)
        if wait == 0:
            take_rate(self.connection, "api", at(seconds), count)
        self.connection.execute("COMMIT")
        return wait


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[store.Journal]:
    yield store.open_journal(tmp_path / "journal.db")
    store.close_all()


def test_so_many_start_at_once_and_then_one_by_one() -> None:
    bucket = Bucket(10, 1.0)
    assert [bucket.ask(0) for _ in range(10)] == [0.0] * 10
    assert bucket.ask(0) == pytest.approx(0.1)
    starts = []
    now = Fraction(0)
    while len(starts) < 50:
        wait = bucket.ask(now)
        if wait:
            now += Fraction(wait).limit_denominator(1_000_000)
        else:
            starts.append(now)
    assert starts == [Fraction(n, 10) for n in range(1, 51)]


def test_more_than_the_rate_lets_in_at_once_is_paid_for_afterwards() -> None:
    bucket = Bucket(2, 1.0)
    assert bucket.ask(0, 6) == 0.0
    assert bucket.ask(0) == pytest.approx(2.5)
    assert bucket.ask(0, 6) == pytest.approx(3.0)
    assert bucket.ask(3, 6) == 0.0


def test_a_clock_that_is_set_back_neither_blocks_for_ever_nor_lets_a_burst_through() -> None:
    bucket = Bucket(2, 1.0)
    assert [bucket.ask(86_400), bucket.ask(86_400)] == [0.0, 0.0]
    assert bucket.ask(10) == pytest.approx(0.5)  # a day earlier
    assert bucket.ask(10.25) == pytest.approx(0.25)
    assert bucket.ask(10.5) == 0.0
    assert bucket.ask(10.5) == pytest.approx(0.5)


def test_a_clock_that_is_set_forward_lets_through_what_a_rest_does() -> None:
    bucket = Bucket(2, 1.0)
    assert [bucket.ask(0), bucket.ask(0)] == [0.0, 0.0]
    assert [bucket.ask(86_400) for _ in range(3)] == [0.0, 0.0, pytest.approx(0.5)]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 120),
    st.lists(st.tuples(st.integers(-90_000_000, 90_000_000), st.integers(1, 25)), max_size=60),
)  # fmt: skip
def test_the_rate_does_what_an_exact_model_of_it_does(count: int, seconds: int, steps: list[tuple[int, int]]) -> None:
    bucket = Bucket(count, float(seconds))
    level, last, now = Fraction(0), 200_000_000, 200_000_000
    for step, wanted in steps:
        now = max(0, now + step)
        present = max(Fraction(0), level - Fraction(max(0, now - last) * count, seconds * 1_000_000))
        wait = max(Fraction(0), (present - max(0, count - wanted)) * seconds / count)
        found = bucket.ask(Fraction(now, 1_000_000), wanted)
        assert found == pytest.approx(float(wait), abs=1e-5)
        if found == 0.0:
            level, last = present + wanted, now
        elif now < last:  # set back: what counted at the later instant counts now
            last = now


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10), st.integers(1, 30), st.lists(st.integers(0, 5_000_000), min_size=1, max_size=80))
def test_in_no_time_do_more_start_than_the_rate_and_what_may_come_at_once(count: int, seconds: int, gaps: list[int]) -> None:
    bucket = Bucket(count, float(seconds))
    starts, now = [], 0
    for gap in gaps:
        now += gap
        if bucket.ask(Fraction(now, 1_000_000)) == 0.0:
            starts.append(now)
    for first in range(len(starts)):
        for last in range(first, len(starts)):
            window = (starts[last] - starts[first]) / 1_000_000
            assert last - first + 1 <= count + window * count / seconds + 0.001


def test_a_rate_that_is_lowered_counts_no_more_than_it_lets_in() -> None:
    bucket = Bucket(100, 60.0)
    assert bucket.ask(0, 100) == 0.0
    PutQuota("api", at=at(0), rate=(1, 60.0)).apply(bucket.connection)
    assert bucket.ask(0) == pytest.approx(60.0)


def test_what_is_not_said_of_a_quota_stays_as_it_is(journal: store.Journal) -> None:
    first = PutQuota("queue:etl", at=at(0), slots=2, rate=(5, 30.0), description="of etl")
    journal.write(first, synced=False)
    second = PutQuota("queue:etl", at=at(1), partition_slots=1, rate=None)
    journal.write(second, synced=False)
    journal.write(PauseQuota("queue:etl", paused=True, at=at(2)), synced=False)
    row = journal.records.read(lambda connection: find_quota(connection, "queue:etl"))
    assert row is not None
    assert (first.created, second.created) == (True, False)
    assert row[1:5] == (2, 1, None, None)
    assert (row.paused, row.description, row.updated_at) == (1, "of etl", at(2))


def test_quotas_are_listed_by_the_beginning_of_their_names_and_removed(journal: store.Journal) -> None:
    for name in ("tag:b", "tag:a", "a", "tag%", "queue:x"):
        journal.write(PutQuota(name, at=at(0), slots=1), synced=False)
    names = [row.name for row in journal.records.read(lambda connection: list_quotas(connection, "tag:"))]
    assert names == ["tag:a", "tag:b"]
    remove, again = RemoveQuota("tag:a"), RemoveQuota("tag:a")
    journal.write(remove, synced=False)
    journal.write(again, synced=False)
    assert (remove.existed, again.existed) == (True, False)


def test_several_rates_are_counted_together_or_not_at_all(journal: store.Journal) -> None:
    journal.write(PutQuota("a", at=at(0), rate=(1, 10.0)), synced=False)
    journal.write(PutQuota("b", at=at(0), rate=(2, 10.0)), synced=False)
    waits = []
    for _ in range(3):
        take = TakeRate({"a": 1, "b": 1, "nothing": 1}, at=at(0))
        journal.write(take, synced=False)
        waits.append(take.wait_seconds)
    assert waits == [0.0, pytest.approx(10.0), pytest.approx(10.0)]
    levels = journal.records.rows("SELECT name, rate_level FROM quota ORDER BY name")
    assert levels == [("a", 1.0), ("b", 1.0)]


def test_nothing_starts_while_a_quota_is_paused(journal: store.Journal) -> None:
    journal.write(PauseQuota("a", paused=True, at=at(0)), synced=False)
    take = TakeRate({"a": 1}, at=at(timedelta(days=1).total_seconds()))
    journal.write(take, synced=False)
    assert take.wait_seconds > 0
