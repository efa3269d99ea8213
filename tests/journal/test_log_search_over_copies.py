"""Search of what runs logged, beside an index made of another state of the journal: imported into, recovered, restored."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from wfengine import flow, get_run_logger, use_journal
from wfengine_journal import log_search, store
from wfengine_journal.importing import import_runs
from wfengine_journal.log_search import Filter
from wfengine_journal.recovering import recover


@flow
def say(lines: list[str]) -> None:
    for line in lines:
        get_run_logger().warning("%s", line)


def log(path: Path, *lines: str) -> None:
    use_journal(path)
    say(list(lines))
    store.close_all()


def found(path: Path, word: str) -> list[str]:
    """Return the messages that are found, the newest first: by one who may not write the index, and then by one who may."""
    ways = [log_search.search(path, [word], Filter(), limit=100, updates=updates) for updates in (False, True, False)]
    messages = [[line.message for line in way.lines] for way in ways]
    assert messages[0] == messages[1] == messages[2]
    assert ways[1].is_whole
    return messages[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal that has an index of the lines it had."""
    made = tmp_path / "journal.db"
    log(made, "the disk is full", "a quiet line", "a timeout of the disk")
    log_search.update(made)
    return made


def test_lines_of_imported_runs_are_found_beside_those_that_were_indexed(path: Path, tmp_path: Path) -> None:
    log(tmp_path / "other.db", "a disk elsewhere", "nothing")
    log_search.update(tmp_path / "other.db")
    import_runs(store.open_journal(path), tmp_path / "other.db")
    store.close_all()
    assert found(path, "disk") == ["a disk elsewhere", "a timeout of the disk", "the disk is full"]
    assert found(path, "elsewhere") == ["a disk elsewhere"]


def test_a_recovered_journal_is_searched_by_its_own_lines_whatever_index_lay_beside_its_name(
    path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "rescued.db"
    log(target, "another disk", "another timeout", "an old line", "an older line")
    log_search.update(target)
    recover(path, target, overwrite=True)
    assert found(target, "disk") == ["a timeout of the disk", "the disk is full"]
    assert found(target, "another") == found(target, "old") == []
    shutil.move(target, path)  # its index is now that of the journal that was damaged
    log(path, "a disk more")
    assert found(path, "disk") == ["a disk more", "a timeout of the disk", "the disk is full"]


def test_a_backup_in_the_place_of_a_later_journal_is_searched_by_its_own_lines(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "backup.db")
    log(path, "a lost disk", "a lost line")
    assert found(path, "lost") == ["a lost line", "a lost disk"]
    shutil.copy(tmp_path / "backup.db", path)
    assert found(path, "lost") == []
    log(path, "a disk again", "a line again", "and one beyond the index")
    assert found(path, "lost") == []
    assert found(path, "disk") == ["a disk again", "a timeout of the disk", "the disk is full"]


def test_a_whole_journal_in_the_place_of_one_that_had_lost_lines_is_searched_whole(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "whole.db")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM log WHERE message = 'a quiet line'")
    log_search.update(path)
    assert found(path, "quiet") == []
    shutil.copy(tmp_path / "whole.db", path)
    log_search.update(path)
    assert found(path, "quiet") == ["a quiet line"]
