"""The page on capacity is a test: its lines print what it shows, and the bounds that it names are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from pages import assert_page_is_true

from benchmarks.__main__ import WORKLOADS
from wfengine import file_watch, run_worker, schedules
from wfengine.automations import definitions
from wfengine.runners import threads
from wfengine_journal import codec
from wfengine_scheduler import backfill

PAGE = Path(__file__).parents[2] / "docs" / "capacity.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 10


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert f"{codec.MAX_VALUE_BYTES // 2**20} MiB" in text
    assert f"| {schedules.CATCH_UP_LIMIT} (`catch_up_limit`) |" in text
    assert f"| runs of one backfill | {backfill.BACKFILL_LIMIT} |" in text
    assert f"| files in a watched folder | {file_watch.FILES_LIMIT:,} |" in text
    assert f"| {definitions.CHAIN_LIMIT} (`chain_limit`) |" in text
    assert (
        f"| {run_worker.DEFAULT_LIMIT} in each daemon, unless `--limit` says otherwise; {run_worker.MOST_RUNS} at the" in text
    )
    assert f"| {threads.DEFAULT_MAX_WORKERS}, unless its task runner" in text


def test_the_workloads_that_the_page_names_are_measured_by_the_benchmarks() -> None:
    named = set(re.findall(r"\b([WC]\d+[ap]?)\b", PAGE.read_text(encoding="utf-8")))

    assert named <= set(WORKLOADS)
