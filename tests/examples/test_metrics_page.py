"""The page on metrics is a test: its lines print what it shows, and it names every metric there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from pages import assert_page_is_true

from wfengine import use_journal
from wfengine.listeners.metrics import MetricsServer
from wfengine_journal import tallies

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path) -> None:
    assert assert_page_is_true(PAGE, tmp_path) == 4


def test_the_page_names_every_metric_and_no_other(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `wfengine_"))
    suffixes = {"counter": "_total", "info": "_info"}
    registry = MetricsServer(use_journal(tmp_path / "journal.db"), port=0)._registry
    there = {metric.name + suffixes.get(metric.type, "") for metric in registry.collect()}

    assert set(re.findall(r"wfengine_\w+", table)) == there | {"wfengine_daemon_silence_seconds"}
    assert f"first {tallies.FLOWS_LIMIT} flows and the first {tallies.TASKS_LIMIT} pairs" in text
    assert f"newest {tallies.WATCHED_LIMIT:,}" in text
