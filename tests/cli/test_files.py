"""The commands about files: extract, import, backup, prune, export, recover."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli


def test_a_run_is_extracted_shown_and_imported_elsewhere(cli: Cli, journal: Path) -> None:
    answer = cli("extract", "quiet-heron", "small.db", "--json")
    assert answer.code == 0
    assert answer.object["run_ids"] == [1, 2]
    assert cli("runs", "show", "1", "--journal", "small.db").code == 0
    assert "exists and is not overwritten" in cli("extract", "1", "small.db").err
    assert cli("extract", "1", "small.db", "--force").code == 0
    assert cli("extract", "3").code == 0
    assert (cli.folder / "run-3.db").exists()

    taken = cli("import", "small.db", "--journal", "other.db")
    assert taken.code == 0
    assert "quiet-heron is run 1 here, COMPLETED (it was run 1)" in taken.err
    again = cli("import", "small.db", "--journal", "other.db", "--json")
    assert [run["is_new"] for run in again.object["runs"]] == [False]  # type: ignore[attr-defined]
    assert "quiet-heron is here already, as run 1" in again.err
    assert cli("extract", "nobody").code == 3
    assert cli("import", "missing.db", "--journal", "other.db").code == 5
    assert journal.exists()


def test_a_backup_lies_beside_the_journal_or_where_one_says(cli: Cli, journal: Path) -> None:
    first = cli("backup", "--json")
    assert first.code == 0
    assert Path(str(first.object["target"])).parent == journal.parent
    (cli.folder / "backups").mkdir()
    assert cli("backup", "backups").code == 0
    [copy] = (cli.folder / "backups").iterdir()
    assert cli("runs", "ls", "--journal", str(copy)).code == 0
    named = cli("backup", "named.db")
    assert "To restore it" in named.err
    assert cli("backup", "named.db").code == 2


def test_prune_wants_to_know_which_and_a_dry_run_deletes_nothing(cli: Cli, journal: Path) -> None:
    assert cli("prune").code == 2
    assert cli("prune", "--older-than", "soon").code == 2
    dry = cli("prune", "--older-than", "0s", "--dry-run", "--json")
    assert (dry.code, dry.object["runs"], dry.object["dry_run"]) == (0, 3, True)
    assert len(cli("runs", "ls", "--json").object["runs"]) == 5  # type: ignore[arg-type]
    done = cli("prune", "--older-than", "0s", "--keep-failed", "--json")
    assert done.object["runs"] == 1
    assert cli("prune", "--older-than", "0s").code == 0
    left = cli("runs", "ls", "--json").object["runs"]
    assert [run["state"] for run in left] == ["PAUSED", "CRASHED"]  # type: ignore[attr-defined]
    assert journal.exists()


def test_export_writes_lines_to_stdout_and_a_page_to_a_file(cli: Cli, journal: Path) -> None:
    lines = [json.loads(line) for line in cli("export").out.splitlines()]
    assert {line["kind"] for line in lines} >= {"journal", "run", "task", "transition", "attempt", "failure", "log"}
    assert {line["id"] for line in map(json.loads, cli("export", "3").out.splitlines()) if line["kind"] == "run"} == {3}
    page = cli("export", "quiet-heron", "--format", "html", "-o", "run.html")
    assert page.code == 0
    assert (cli.folder / "run.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert cli("export", "--format", "html").code == 2
    assert cli("export", "3", "-o", "run.html").code == 2
    assert journal.exists()


def test_recover_saves_what_it_can_and_says_what_it_cannot(cli: Cli, journal: Path) -> None:
    raw = bytearray(journal.read_bytes())
    place = raw.index(b"not a real pickle")
    raw[place] ^= 1
    (cli.folder / "damaged.db").write_bytes(raw)
    answer = cli("recover", "damaged.db")
    assert answer.code == 0
    assert "task run 3 of run 1: its result is lost" in answer.err
    rescued = cli.folder / "damaged.db.recovered"
    assert cli("doctor", "--thorough", "--journal", str(rescued)).code == 0
    assert cli("recover", "damaged.db").code == 2
    assert cli("recover", "damaged.db", "--force", "--json").object["lost_results"] == [[1, 3]]
    assert cli("recover", "missing.db").code == 5


@pytest.mark.parametrize("arguments", [["extract", "1"], ["backup"], ["prune", "--keep", "3"], ["export"]], ids=" ".join)
def test_a_missing_journal_is_said_and_none_is_made(cli: Cli, arguments: list[str]) -> None:
    answer = cli(*arguments)
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith("error[WF401]: There is no journal at ")
    assert list(cli.folder.iterdir()) == []
