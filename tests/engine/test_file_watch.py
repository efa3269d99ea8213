"""Watched folders: each file is an event once it rests, over restarts of the watcher, and with two of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Rows
from wfengine.file_watch import FileWatch, Folder
from wfengine.journals import default_journal
from wfengine_journal import store
from wfengine_journal.errors import UsageError
from wfengine_journal.pruning import Rule, prune


@pytest.fixture
def folder(tmp_path: Path, clock: FakeClock) -> Path:
    found = tmp_path / "in"
    found.mkdir()
    return found


def watch(folder: Path, **options: str) -> FileWatch:
    journal = default_journal()
    return FileWatch(journal, [Folder(folder, **options)])


def look_twice(watcher: FileWatch, clock: FakeClock) -> int:
    """Look, let everything rest, and look again."""
    found = watcher.step()
    clock.now += 1
    return found + watcher.step()


def events(rows: Rows) -> list[tuple[str, str]]:
    return [
        (str(name), str(json.loads(str(payload))["name"]))
        for name, payload in rows("SELECT name, payload FROM events ORDER BY id")
    ]


def test_a_file_is_an_event_once_it_rests(folder: Path, clock: FakeClock, rows: Rows) -> None:
    watcher = watch(folder)
    file = folder / "a.csv"
    file.write_text("1")
    assert watcher.step() == 0
    clock.now += 0.9
    file.write_text("12")  # it is still being written
    assert watcher.step() == 0
    clock.now += 0.9
    assert watcher.step() == 0
    clock.now += 0.1
    assert watcher.step() == 1
    ((name, resource, payload),) = rows("SELECT name, resource, payload FROM events")
    assert (name, resource) == ("file.added", f"file.{file}")
    assert json.loads(str(payload))["size"] == 2


def test_what_happened_while_the_watcher_was_off_is_found_and_nothing_repeated(
    folder: Path, clock: FakeClock, rows: Rows
) -> None:
    for name in ("kept", "changed", "gone", "back"):
        (folder / name).write_text(name)
    assert look_twice(watch(folder), clock) == 4
    assert look_twice(watch(folder), clock) == 0
    (folder / "changed").write_text("other text")
    (folder / "gone").unlink()
    back = folder / "back"
    shutil.move(back, folder.parent / "elsewhere")
    assert look_twice(watch(folder), clock) == 3
    shutil.move(folder.parent / "elsewhere", back)  # the very same time and size
    (folder / "new").write_text("x")
    assert look_twice(watch(folder), clock) == 2
    assert look_twice(watch(folder), clock) == 0
    assert sorted(events(rows)[4:]) == sorted(
        [
            ("file.changed", "changed"),
            ("file.deleted", "gone"),
            ("file.deleted", "back"),
            ("file.added", "back"),
            ("file.added", "new"),
        ]
    )


def test_two_watchers_write_one_event(folder: Path, clock: FakeClock, rows: Rows) -> None:
    first, second = watch(folder), watch(folder)
    for text in ("1", "22", None, "1"):
        if text is None:
            (folder / "a").unlink()
        else:
            (folder / "a").write_text(text)
        for watcher in (first, second):
            watcher.step([str(folder / "a")])
        clock.now += 1
        for watcher in (first, second):
            watcher.step([])
    assert events(rows) == [("file.added", "a"), ("file.changed", "a"), ("file.deleted", "a"), ("file.added", "a")]


def test_only_files_that_fit_count(folder: Path, clock: FakeClock, rows: Rows) -> None:
    (folder / "below" / ".hidden").mkdir(parents=True)
    for name in ("a.csv", "a.txt", ".a.csv", "below/b.csv", "below/.hidden/c.csv"):
        (folder / name).write_text("x")
    assert look_twice(watch(folder, pattern="*.csv"), clock) == 2
    assert sorted(events(rows)) == [("file.added", "a.csv"), ("file.added", "b.csv")]
    journal = default_journal()
    assert look_twice(FileWatch(journal, [Folder(folder, "*.txt", recursive=False)]), clock) == 1


def test_any_name_of_a_file_is_taken(folder: Path, clock: FakeClock, rows: Rows) -> None:
    names = [b"a|b", b"a", b"a|b|1-1|0", b"a%7Cb", "é\n".encode(), b"\xff\xfe", b"{{ event }}"]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("x")
    assert look_twice(watch(folder), clock) == len(names)
    assert look_twice(watch(folder), clock) == 0
    (folder / "a").unlink()
    assert look_twice(watch(folder), clock) == 1


def test_pruning_forgets_no_file_that_is_there(folder: Path, clock: FakeClock, rows: Rows) -> None:
    journal = default_journal()
    for name in ("kept", "gone"):
        (folder / name).write_text(name)
    look_twice(watch(folder), clock)
    (folder / "kept").write_text("longer")
    (folder / "gone").unlink()
    assert look_twice(watch(folder), clock) == 2
    assert prune(journal, Rule(ended_before="2030-01-01T00:00:00.000000Z")).events == 3
    assert events(rows) == [("file.changed", "kept")]
    assert look_twice(watch(folder), clock) == 0


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, journal: store.Journal) -> None:
    with pytest.raises(UsageError, match="is not there"):
        FileWatch(journal, [tmp_path / "gone"])


def test_the_service_is_woken_by_the_system(tmp_path: Path, journal: store.Journal, rows: Rows) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "before").write_text("x")
    service = FileWatch(journal, [tmp_path / "in"], rest_seconds=0.05)
    service.start()
    (tmp_path / "in" / "below" / "after").write_text("x")
    while len(events(rows)) < 2:
        journal.changes.wait(journal.changes.mark(), 0.05)
        assert service.fault is None
    (tmp_path / "in" / "before").unlink()
    while len(events(rows)) < 3:
        journal.changes.wait(journal.changes.mark(), 0.05)
    service.stop_taking()
    service.stop(10)
    assert sorted(events(rows)) == [("file.added", "after"), ("file.added", "before"), ("file.deleted", "before")]
