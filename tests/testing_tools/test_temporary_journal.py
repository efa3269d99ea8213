"""A journal for the length of a test."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wfengine import WfengineError, flow, task, use_journal
from wfengine.journals import default_durability, default_journal
from wfengine.testing import VirtualClock, temporary_journal
from wfengine_journal import store


@task
def double(number: int) -> int:
    return 2 * number


@flow
def doubled(number: int) -> int:
    return double(number)


@flow
async def doubled_async(number: int) -> int:
    return double(number)


def test_runs_in_the_block_go_to_a_journal_that_is_gone_afterwards(own_journal: store.Journal) -> None:
    with temporary_journal() as journal:
        assert doubled(2) == 4
        assert asyncio.run(doubled_async(3)) == 6
        assert [(run["flow"], run["state"], run["result"]) for run in journal.runs()] == [
            ("doubled", "COMPLETED", "4"),
            ("doubled-async", "COMPLETED", "6"),
        ]
        assert [(call["task"], call["inputs"]) for call in journal.tasks()] == [
            ("double", '{"number":2}'),
            ("double", '{"number":3}'),
        ]
        assert journal.sql("SELECT count(*) AS n FROM history WHERE task_id IS NOT NULL") == [{"n": 4}]
        assert journal.path != own_journal.path
    assert not journal.path.parent.exists()
    assert default_journal() is own_journal


def test_the_block_uses_durability_process_and_leaves_no_setting_behind(own_journal: store.Journal) -> None:
    with temporary_journal() as journal:
        doubled(1)
        assert [run["durability"] for run in journal.runs()] == ["process"]
    with temporary_journal(durability="power") as journal:
        doubled(1)
        assert [run["durability"] for run in journal.runs()] == ["power"]
    assert default_durability(own_journal) == "power"


def test_nested_blocks_have_a_journal_each(own_journal: store.Journal) -> None:
    with temporary_journal() as outer:
        doubled(1)
        with temporary_journal() as inner:
            doubled(2)
            doubled(3)
        doubled(4)
        assert len(outer.runs()) == 2
    assert outer.path != inner.path
    doubled(5)
    assert len(own_journal.list_open_runs()) == 0


def test_the_journal_used_before_is_used_again_whatever_the_block_did(tmp_path: Path, own_journal: store.Journal) -> None:
    def leave() -> None:
        with temporary_journal():
            use_journal(tmp_path / "another.db")
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert default_journal() is own_journal


def test_only_reading_statements_are_answered(own_journal: store.Journal) -> None:
    with temporary_journal() as journal, pytest.raises(WfengineError, match="Only reading is allowed"):
        journal.sql("DELETE FROM flow_run")


def test_an_open_journal_keeps_its_clock_to_itself(own_journal: store.Journal) -> None:
    clock = VirtualClock()
    with temporary_journal(clock=clock) as journal:
        doubled(1)
        assert journal.clock is clock
        assert journal.runs()[0]["created_at"] == "2026-01-01T00:00:00.000000Z"
    assert own_journal.clock is not clock
