"""`wfengine logs search` and `wfengine logs index`."""

from __future__ import annotations

import json

import pytest
from command_line import Cli

PROGRAM = """
from wfengine import flow, get_run_logger, task

@task
def load():
    get_run_logger().warning("the disk is full")

@flow(flow_run_name="monday")
def etl():
    get_run_logger().info("disk quota: %d\\nand more", 5)
    load()

if __name__ == "__main__":
    etl()
"""


@pytest.fixture
def ran(cli: Cli) -> Cli:
    (cli.folder / "etl.py").write_text(PROGRAM)
    assert cli("run", "etl.py", "--quiet").code == 0
    return cli


def test_words_are_found_with_and_without_an_index_which_no_copy_takes_along(ran: Cli) -> None:
    for _ in range(2):
        shown = ran("logs", "search", "disk")
        assert [line.partition("  ")[2] for line in shown.out.splitlines()] == [
            "INFO     1 monday  disk quota: 5", "  and more", "WARNING  1 monday load  the disk is full",
        ]  # fmt: skip
        found = ran(
            "logs", "search", "disk", "--level", "warning", "--run", "monday", "--flow", "etl", "--since", "1h", "--json"
        )
        answer = json.loads(found.out)
        assert [(line["run"], line["task"], line["message"]) for line in answer["logs"]] == [
            ("monday", "load", "the disk is full")
        ]
        made = ran("logs", "index", "--json")
        assert json.loads(made.out)["lines"] == 2
    assert answer["indexed"]
    page = json.loads(ran("logs", "search", "disk", "--limit", "1", "--json").out)
    assert [line["message"] for line in page["logs"]] == ["the disk is full"]
    older = ran("logs", "search", "disk", "--before", str(page["next_before_id"]))
    assert "quota" in older.out
    assert ran("doctor").code == 0
    assert ran("backup", "copy.db").code == 0
    assert ran("extract", "1", "small.db").code == 0
    assert not [*ran.folder.glob("*-search")]
    for copy in ("copy.db", "small.db"):
        assert "full" in ran("--journal", copy, "logs", "search", "disk").out
    assert ran("logs", "index", "--drop").code == 0
    assert not [*ran.folder.rglob("*-search")]
    assert "there is no index" in ran("logs", "index", "--drop").err


def test_nonsense_is_answered_with_what_to_type(ran: Cli) -> None:
    assert "no such lines" in ran("logs", "search", "nowhere").err
    for words in (["--", "-*"], ['"'], ["disk", "("], [""], ["x" * 501]):
        answer = ran("logs", "search", *words)
        assert answer.code == 2, answer
        assert "cannot be searched for" in answer.err
    assert ran("logs", "search").code == 2
    assert ran("logs", "search", "disk", "--run", "nobody").code == 3
    assert ran("--journal", "none.db", "logs", "search", "disk").code == 5
    assert ran("--journal", "none.db", "logs", "index").code == 5
    assert not (ran.folder / "none.db-search").exists()
