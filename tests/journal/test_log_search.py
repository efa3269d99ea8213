"""Search of what runs logged: the same with an index and without, over prunings, kills, ids given again, and damage."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from wfengine import flow, get_run_logger, use_journal
from wfengine.files import prune_runs
from wfengine_journal import log_search, store
from wfengine_journal.errors import JournalError, UsageError
from wfengine_journal.log_search import SCANNED_LINES, Filter, index_path

ANY = Filter()
WORDS = ("disk", "Disk", "full", "timeout", "naïve", "größer", "日本", "a1", "x-y", "http://host/path", "{}", "''", '"', "NULL")


@flow
def say(lines: list[str]) -> None:
    for line in lines:
        get_run_logger().warning("%s", line)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal whose runs 1 and 2 logged something."""
    made = tmp_path / "journal.db"
    use_journal(made)
    say(["the disk is full", "a timeout of the Disk"])
    say(["disk quota", "nothing"])
    store.close_all()
    return made


def found(path: Path, *words: str, wanted: Filter = ANY, limit: int = 1000, updates: bool = True) -> list[str]:
    """Return the messages that are found, the newest first."""
    return [line.message for line in log_search.search(path, words, wanted, limit=limit, updates=updates).lines]


def log_directly(path: Path, messages: Iterable[str], run_id: int = 1) -> None:
    """Put lines into the journal, as a run with very many would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO log (flow_run_id, task_run_id, at, level, logger, message)"
            " VALUES (?, NULL, '2026-01-01T00:00:00.000000Z', 20, 'test', ?)",
            ((run_id, message) for message in messages),
        )


def log_in_a_run(path: Path, *lines: str) -> None:
    use_journal(path)
    say(list(lines))
    store.close_all()


def test_lines_hold_every_word_whatever_its_case_and_its_marks(path: Path) -> None:
    log_in_a_run(path, "naïve café", "disks")
    assert found(path, "disk") == ["disk quota", "a timeout of the Disk", "the disk is full"]
    assert found(path, "DISK", "full") == ["the disk is full"]
    assert found(path, "disk is") == ["the disk is full"]
    assert found(path, "is disk") == []
    assert found(path, "dis*") == ["disks", "disk quota", "a timeout of the Disk", "the disk is full"]
    assert found(path, "naive", "CAFE") == ["naïve café"]
    assert found(path, "disk", limit=2) == ["disk quota", "a timeout of the Disk"]


def test_lines_are_searched_by_run_flow_level_time_and_id(path: Path) -> None:
    log_directly(path, ["an old disk"])
    for _ in range(2):
        assert found(path, "disk", wanted=Filter(run_id=2)) == ["disk quota"]
        assert found(path, "disk", wanted=Filter(flow="other")) == []
        assert len(found(path, "disk", wanted=Filter(flow="say"))) == 4
        assert found(path, "disk", wanted=Filter(level=30, before_id=3)) == ["a timeout of the Disk", "the disk is full"]
        assert "an old disk" not in found(path, "disk", wanted=Filter(since="2026-02-01T00:00:00.000000Z"))
        log_search.update(path)


def test_the_index_finds_what_a_look_at_each_line_finds(path: Path) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    made = random.Random(seed)
    log_directly(path, (" ".join(made.choices(WORDS, k=made.randrange(1, 9))) for _ in range(1500)))
    searches = [made.sample([word for word in WORDS if any(map(str.isalnum, word))], k=made.randrange(1, 4)) for _ in range(12)]
    without = [found(path, *words) for words in searches]
    assert any(without)
    log_search.update(path)
    log_directly(path, ["not indexed"])
    assert [found(path, *words, updates=False) for words in searches] == without
    assert log_search.search(path, ["disk"], ANY, limit=1).is_indexed


def test_what_is_logged_after_the_index_was_made_is_found_by_whoever_may_write_it_and_by_who_may_not(path: Path) -> None:
    assert log_search.update(path).lines == 4
    log_in_a_run(path, "a disk more")
    before = index_path(path).read_bytes()
    assert found(path, "more", updates=False) == ["a disk more"]
    assert index_path(path).read_bytes() == before
    assert found(path, "more") == ["a disk more"]
    assert index_path(path).read_bytes() != before
    assert log_search.update(path) == log_search.Updated(lines=5, added=0, removed=0)


def test_without_an_index_the_newest_lines_are_searched_and_that_is_said(path: Path) -> None:
    assert log_search.search(path, ["quota"], ANY, limit=5).is_whole
    log_directly(path, ("filler" for _ in range(SCANNED_LINES)))
    searched = log_search.search(path, ["quota"], ANY, limit=5)
    assert (searched.lines, searched.is_whole, searched.is_indexed) == ([], False, False)
    log_search.update(path)
    searched = log_search.search(path, ["quota"], ANY, limit=5)
    assert (len(searched.lines), searched.is_whole, searched.is_indexed) == (1, True, True)


def test_a_pruned_line_leaves_no_word_in_the_index(path: Path) -> None:
    log_in_a_run(path, "kept unforgettable", "kept quota")
    log_search.update(path)
    assert b"timeout" in index_path(path).read_bytes()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE flow_run SET ended_at = '2020-01-01T00:00:00.000000Z' WHERE id <= 2")
    prune_runs(older_than="30d", journal=path)
    store.close_all()
    raw = index_path(path).read_bytes()
    assert b"timeout" not in raw
    assert b"unforgettable" in raw
    assert found(path, "quota", updates=False) == ["kept quota"]


def test_an_id_that_is_given_again_stands_for_the_new_line(path: Path) -> None:
    log_search.update(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM log WHERE id >= 3")
    log_directly(path, ["another one", "nothing", "and more"])
    for updates in (False, True, False):
        assert found(path, "another", updates=updates) == ["another one"]
        assert found(path, "quota", updates=updates) == []
    assert log_search.update(path) == log_search.Updated(lines=5, added=0, removed=0)


BUILD = """
import os, sys
from pathlib import Path
from wfengine_journal import log_search

make = log_search.create_beside
left = int(sys.argv[2])

def make_and_watch(path):
    def watch(statement):
        global left
        left -= statement == "COMMIT"
        if left == 0:
            os.kill(os.getpid(), 9)
    index = make(path)
    index.set_trace_callback(watch)
    return index

log_search.create_beside = make_and_watch
print(log_search.update(Path(sys.argv[1])).lines)
"""


@pytest.mark.crash
def test_a_process_that_is_killed_while_it_indexes_leaves_an_index_that_the_next_one_goes_on_with(path: Path) -> None:
    number = 2 * log_search.AT_ONCE + 10
    log_directly(path, (f"line number{n}" for n in range(number)))
    kills, done = 0, ""
    while not done:
        command = [sys.executable, "-c", BUILD, str(path), str(1 + kills % 4)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        kills, done = kills + 1, ended.stdout
        assert found(path, "number7", updates=False) == ["line number7"]
        assert found(path, f"number{number - 1}", updates=False) == [f"line number{number - 1}"]
        assert kills < 20
    assert kills > 3
    assert int(done) == number + 4
    with closing(sqlite3.connect(index_path(path))) as index:
        index.execute("INSERT INTO line (line) VALUES ('integrity-check')")
        assert index.execute("SELECT count(*) FROM line").fetchone()[0] == number + 4


def test_nothing_that_is_searched_for_is_taken_for_a_sign_of_the_language(path: Path) -> None:
    log_search.update(path)
    seed = random.randrange(10**9)
    print("seed", seed)
    made = random.Random(seed)
    nasty = ["AND", "OR", "NOT", "NEAR(a b)", "message:disk", "-disk", "^disk", "disk + full", "{a}", "a\0b", "\udcff",
             "'; DROP", "(", ")", '"', "**", "*", "", " ", "\x1b[31m", "a" * 600]  # fmt: skip
    for word in [*nasty, *("".join(made.choices("ab\" *^()+-:{}\0'\\.", k=made.randrange(12))) for _ in range(150))]:
        for words in ([word], ["disk", word]):
            with contextlib.suppress(UsageError):
                log_search.search(path, words, ANY, limit=5)
    with pytest.raises(UsageError, match="cannot be searched for"):
        log_search.search(path, ["disk", "-"], ANY, limit=5)
    with pytest.raises(UsageError, match="1 to 50 words"):
        log_search.search(path, ["a"] * 51, ANY, limit=5)


def test_a_file_of_somebody_else_is_left_alone_and_a_damaged_index_is_said(path: Path) -> None:
    index = index_path(path)
    with closing(sqlite3.connect(index)) as other:
        other.execute("CREATE TABLE theirs (x)")
    theirs = index.read_bytes()
    for work in (log_search.update, log_search.delete, lambda path: found(path, "disk")):
        with pytest.raises(UsageError, match="no search index of wfengine"):
            work(path)
    log_search.forget_pruned(path)
    assert index.read_bytes() == theirs
    index.unlink()
    log_search.update(path)
    index.write_bytes(index.read_bytes()[:4096] + b"\xff" * 8192)
    with pytest.raises(JournalError, match=r"cannot be used: .* delete it, then: wfengine logs index"):
        found(path, "disk")
    index.write_bytes(b"no database at all, and long enough to be looked at" * 100)
    with pytest.raises(JournalError, match="cannot be used"):
        log_search.update(path)
