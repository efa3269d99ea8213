"""Retention and backups at intervals, on a clock that only moves when the test says so."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, use_journal
from wfengine.upkeep import Backups, Retention, UpkeepService
from wfengine_journal import store
from wfengine_journal.errors import UsageError
from wfengine_journal.store import Journal

DAY = 86400.0


def opened(tmp_path: Path, clock: FakeClock) -> Journal:
    journal = store.open_journal(tmp_path / "journal.db")
    assert journal.clock is clock
    return journal


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def test_backups_are_made_once_an_interval_and_so_many_are_kept(tmp_path: Path, clock: FakeClock) -> None:
    folder = tmp_path / "copies"
    upkeep = UpkeepService(opened(tmp_path, clock), backups=Backups(folder, "1d", 3))
    for day in range(5):
        upkeep.step()
        assert len(names(folder)) == min(day + 1, 3)
        for _ in range(3):  # within the day nothing more happens
            clock.now += DAY / 4
            upkeep.step()
        assert len(names(folder)) == min(day + 1, 3)
        clock.now += DAY / 4
    newest = folder / names(folder)[-1]
    with closing(sqlite3.connect(newest)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_restart_neither_repeats_nor_forgets_a_backup(tmp_path: Path, clock: FakeClock) -> None:
    folder = tmp_path / "copies"
    for _ in range(4):  # a daemon each, in half a day
        UpkeepService(opened(tmp_path, clock), backups=Backups(folder, "1d")).step()
        clock.now += DAY / 8
    assert len(names(folder)) == 1
    clock.now += 10 * DAY  # nobody served
    UpkeepService(opened(tmp_path, clock), backups=Backups(folder, "1d")).step()
    assert len(names(folder)) == 2


def test_of_two_daemons_one_makes_the_backup(tmp_path: Path, clock: FakeClock, rows: Rows) -> None:
    journal, folder = opened(tmp_path, clock), tmp_path / "copies"
    first, second = (UpkeepService(journal, backups=Backups(folder, "1d")) for _ in range(2))
    first.step()
    second.step()
    assert len(names(folder)) == 1
    assert rows("SELECT count(*) FROM meta WHERE key = 'upkeep:backup'") == [(1,)]


def test_a_clock_that_was_set_back_far_does_not_stop_backups(tmp_path: Path, clock: FakeClock) -> None:
    upkeep = UpkeepService(opened(tmp_path, clock), backups=Backups(tmp_path / "copies", "1d"))
    clock.now += 3650 * DAY  # a board without a battery says 2035
    upkeep.step()
    clock.now -= 3650 * DAY
    upkeep.step()
    upkeep.step()
    assert len(names(tmp_path / "copies")) == 2
    clock.now -= 3600  # an hour is within the interval: nothing is repeated
    upkeep.step()
    assert len(names(tmp_path / "copies")) == 2


def test_a_backup_that_cannot_be_made_is_said_and_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    blocked = tmp_path / "copies"
    blocked.write_text("a file where the folder should be")
    upkeep = UpkeepService(opened(tmp_path, clock), backups=Backups(blocked, "1d"))
    upkeep.step()
    assert upkeep.fault is None
    blocked.unlink()
    clock.now += 300
    upkeep.step()
    assert names(tmp_path / "copies") == []
    assert "cannot be made" in str(upkeep.report()["backup"])
    clock.now += 301
    upkeep.step()
    assert len(names(tmp_path / "copies")) == 1
    upkeep.step()
    assert upkeep.report()["backup"]["failed"] is None  # type: ignore[index]


def test_files_that_are_no_backups_of_this_journal_stay(tmp_path: Path, clock: FakeClock) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    others = ["journal.db.by-hand.backup", "other.db.2020-01-01T000000Z.backup", "a.txt"]
    for name in others:
        (folder / name).write_text("mine")
    upkeep = UpkeepService(opened(tmp_path, clock), backups=Backups(folder, "1d", 1))
    for _ in range(3):
        upkeep.step()
        clock.now += DAY
    assert len(names(folder)) == 4
    assert set(others) < set(names(folder))


@flow
def short() -> None: ...


def test_old_runs_are_deleted_once_an_interval(tmp_path: Path, journal: Journal, rows: Rows) -> None:
    upkeep = UpkeepService(journal, retention=Retention(keep="0s", every="1h"))
    short()
    upkeep.step()
    assert rows("SELECT count(*) FROM runs") == [(0,)]
    short()
    upkeep.step()
    assert rows("SELECT count(*) FROM runs") == [(1,)]
    assert upkeep.report()["prune"]["result"] == "1 runs deleted"  # type: ignore[index]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Retention(keep="soon"), "is not an age"),
        (lambda: Retention(keep="30d", every="1s"), "every"),
        (lambda: Retention(keep="30d", keep_runs=-1), "keep_runs"),
        (lambda: Backups("x", every="0d"), "every"),
        (lambda: Backups("x", keep=0), "keep"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()  # type: ignore[operator]


def test_nothing_is_done_that_is_not_configured(journal: Journal, rows: Rows) -> None:
    upkeep = UpkeepService(journal)
    assert not upkeep.is_configured
    upkeep.start()
    upkeep.step()
    upkeep.stop(1)
    assert rows("SELECT count(*) FROM meta WHERE key GLOB 'upkeep:*'") == [(0,)]


KILLED = """
import os, sys
from pathlib import Path
from wfengine import use_journal
from wfengine.upkeep import Backups, UpkeepService

journal = use_journal(None)
kill, folder = sys.argv[1:]

def probe(moment, number, changes):
    if f"{moment}:{number}" == kill:
        os.kill(os.getpid(), 9)

journal.probe_commits(probe)
UpkeepService(journal, backups=Backups(folder, "1d")).step()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.crash
def test_killed_at_any_commit_the_next_daemon_has_one_backup_at_least(
    program: Program, rows: Rows, moment: str, number: int
) -> None:
    use_journal(program.folder / "journal.db").close()
    folder = program.folder / "copies"
    killed = program.python("-c", KILLED, f"{moment}:{number}", str(folder))
    assert killed.code == -signal.SIGKILL, killed
    assert program.python("-c", KILLED, "", str(folder)).code == 0
    assert program.python("-c", KILLED, "", str(folder)).code == 0
    made = [name for name in names(folder) if name.endswith(".backup")]
    assert 1 <= len(made) <= 2
    assert '"owner_id": null' in str(rows.value("SELECT value FROM meta WHERE key = 'upkeep:backup'"))
