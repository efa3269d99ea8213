"""The one door: what is opened, with which pragmas and modes, and what is refused and left as it was."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wfengine_journal import location, store
from wfengine_journal.connection import APPLICATION_ID, FORMAT_VERSION, inspect_file, open_reader, open_writer
from wfengine_journal.errors import (
    JournalCorruptError,
    JournalNotFoundError,
    JournalUnwritableError,
    NetworkFileSystemError,
    NewerJournalError,
    NotAJournalError,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def make(path: Path) -> Path:
    store.open_journal(path)
    store.close_all()
    return path


def test_the_pragmas_are_those_that_were_promised(tmp_path: Path) -> None:
    make(tmp_path / "journal.db")
    connection, version = open_writer(tmp_path / "journal.db")
    found = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in (
            "journal_mode", "foreign_keys", "trusted_schema", "cell_size_check", "mmap_size", "wal_autocheckpoint",
            "auto_vacuum", "application_id", "user_version",
        )
    }  # fmt: skip
    assert connection.isolation_level is None
    connection.close()
    assert found == {
        "journal_mode": "wal", "foreign_keys": 1, "trusted_schema": 0, "cell_size_check": 1, "mmap_size": 0,
        "wal_autocheckpoint": 0, "auto_vacuum": 2, "application_id": APPLICATION_ID, "user_version": FORMAT_VERSION,
    }  # fmt: skip
    assert version == FORMAT_VERSION


def test_all_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    program = """
import os, sys
os.umask(0)
from pathlib import Path
from wfengine_journal import store
journal = store.open_journal(Path(sys.argv[1]))
journal.owner_id
for file in sorted(Path(sys.argv[1]).parent.iterdir()):
    print(file.name, oct(file.stat().st_mode & 0o777))
print(oct(Path(sys.argv[1]).parent.stat().st_mode & 0o777))
"""
    path = tmp_path / ".wfengine" / "journal.db"
    shown = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True).stdout
    lines = dict(line.split() for line in shown.splitlines()[:-1])
    lines.pop(".gitignore")
    assert lines == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm", "journal.db-lock"), "0o600")
    assert shown.splitlines()[-1] == "0o700"


def test_a_missing_journal_is_not_created_by_reading(tmp_path: Path) -> None:
    with pytest.raises(JournalNotFoundError, match="There is no journal at"):
        open_reader(tmp_path / "journal.db")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    assert inspect_file(tmp_path / "journal.db") == 0
    make(tmp_path / "journal.db")
    assert inspect_file(tmp_path / "journal.db") == FORMAT_VERSION


@pytest.mark.parametrize("text", [b"not a database", b"SQLite format 3\0" + b"x" * 200, os.urandom(8192)])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "journal.db").write_bytes(text)
    before = contents(tmp_path)
    with pytest.raises((NotAJournalError, JournalCorruptError)) as caught:
        store.open_journal(tmp_path / "journal.db")
    assert str(tmp_path / "journal.db") in str(caught.value)
    assert contents(tmp_path) == before


def test_the_database_of_somebody_else_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = contents(tmp_path)
    with pytest.raises(NotAJournalError, match=r"not a wfengine journal\. It was not changed"):
        store.open_journal(tmp_path / "journal.db")
    assert contents(tmp_path) == before


def test_a_database_with_another_application_id_is_refused_even_if_it_holds_nothing(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("PRAGMA application_id = 1234")
    connection.close()
    before = contents(tmp_path)
    with pytest.raises(NotAJournalError):
        store.open_journal(tmp_path / "journal.db")
    assert contents(tmp_path) == before


def newer(path: Path) -> None:
    make(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    connection.close()


def test_a_newer_journal_is_refused_and_left_byte_for_byte(tmp_path: Path) -> None:
    newer(tmp_path / "journal.db")
    before = contents(tmp_path)
    with pytest.raises(NewerJournalError, match=rf"has format {FORMAT_VERSION + 1}.*not changed.*pip install -U"):
        store.open_journal(tmp_path / "journal.db")
    after = contents(tmp_path)
    assert after["journal.db"] == before["journal.db"]
    assert after.get("journal.db-wal", b"") == b""  # SQLite makes the side files of a reader; nothing is in the log


def test_a_newer_journal_whose_process_was_killed_is_left_byte_for_byte_with_its_log(tmp_path: Path) -> None:
    newer(tmp_path / "journal.db")
    program = f"""
import os, sqlite3
connection = sqlite3.connect({str(tmp_path / "journal.db")!r})
connection.execute("PRAGMA wal_autocheckpoint = 0")
connection.execute("INSERT INTO meta VALUES ('from the future', 'x')")
connection.commit()
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    before = contents(tmp_path)
    assert len(before["journal.db-wal"]) > 0
    with pytest.raises(NewerJournalError):
        store.open_journal(tmp_path / "journal.db")
    after = contents(tmp_path)
    # The index of the log is rebuilt by whoever reads it; the journal and its log are what they were.
    assert (after["journal.db"], after["journal.db-wal"]) == (before["journal.db"], before["journal.db-wal"])


def test_a_reader_can_neither_write_nor_run_code_of_the_schema(tmp_path: Path) -> None:
    make(tmp_path / "journal.db")
    connection = open_reader(tmp_path / "journal.db")
    for statement in ("INSERT INTO meta VALUES ('a', 'b')", "DROP TABLE log", "PRAGMA user_version = 9"):
        with pytest.raises(sqlite3.OperationalError, match=r"readonly|read-only|query_only"):
            connection.execute(statement)
    assert connection.execute("PRAGMA query_only").fetchone()[0] == 1
    assert connection.execute("PRAGMA trusted_schema").fetchone()[0] == 0
    connection.close()


def test_a_folder_that_cannot_be_made_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalUnwritableError, match=r"cannot be created.*--journal"):
        open_writer(tmp_path / "file" / "folder" / "journal.db")


def test_a_damaged_page_is_reported_as_damage(tmp_path: Path) -> None:
    path = make(tmp_path / "journal.db")
    data = bytearray(path.read_bytes())
    data[100:600] = os.urandom(500)  # the root page of the schema
    path.write_bytes(data)
    with pytest.raises((JournalCorruptError, NotAJournalError), match=str(path)):
        store.open_journal(path)


def test_a_write_error_of_the_disk_is_told_in_plain_words_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    # A limit on the size of files makes the write itself fail (EFBIG), which SQLite reports as an I/O error.
    program = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from wfengine import flow, task, use_journal
from wfengine_journal.errors import JournalUnwritableError

@task
def grow(number):
    return str(number) * 20_000

@flow(name="growing")
def growing(n):
    for number in range(n):
        grow(number)
    return "grown"

if __name__ == "__main__":
    use_journal(sys.argv[1])
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        growing(60)
    except JournalUnwritableError as error:
        print(error)
        sys.exit(7)
"""
    script = tmp_path / "program.py"
    script.write_text(program, encoding="utf-8")
    path = tmp_path / "journal.db"
    done = subprocess.run(
        [sys.executable, str(script), str(path), "700000"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 7, done
    assert "The disk failed under the journal" in done.stdout
    assert "wfengine resume" in done.stdout
    connection = open_reader(path)
    completed = connection.execute("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'").fetchone()[0]
    states = [row[0] for row in connection.execute("SELECT DISTINCT state FROM tasks").fetchall()]
    connection.close()
    assert completed > 5
    assert "FAILED" not in states  # it was the disk that failed, not the task
    resumed = subprocess.run(
        [sys.executable, "-m", "wfengine", "--journal", str(path), "resume", "@last"],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    if resumed.returncode == 2:  # the option belongs to the subcommand
        resumed = subprocess.run(
            [sys.executable, "-m", "wfengine", "resume", "@last", "--journal", str(path)],
            capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
        )  # fmt: skip
    assert resumed.returncode == 0, resumed
    connection = open_reader(path)
    assert connection.execute("SELECT count(*) FROM tasks WHERE state = 'COMPLETED'").fetchone()[0] == 60
    assert connection.execute("SELECT count(*) FROM tasks WHERE replayed").fetchone()[0] == completed
    connection.close()


def test_a_file_on_a_network_file_system_is_known_by_the_mount_table(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    here = os.path.realpath(tmp_path)
    spaced = f"{here}/with space".replace(" ", "\\040")
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\nserver:/export {here}/share nfs4 rw 0 0\n//host/x {spaced} cifs rw 0 0\n"
        f"tmpfs {here}/share/local tmpfs rw 0 0\nshort\n",
        encoding="utf-8",
    )

    def kind(name: str) -> str | None:
        return location.file_system_type(tmp_path / name / "journal.db", str(mounts))

    assert kind("other") == "ext4"
    assert kind("share") == "nfs4"
    assert kind("share/deep/er") == "nfs4"
    assert kind("sharedsomethingelse") == "ext4"
    assert kind("share/local") == "tmpfs"
    assert kind("with space") == "cifs"
    assert location.file_system_type(tmp_path / "x", str(tmp_path / "missing")) is None
    assert {"nfs4", "cifs"} <= location.NETWORK_TYPES


def test_a_network_file_system_is_refused_unless_forced(tmp_path: Path) -> None:
    # What the machine's own mount table says of /proc is a type of its own; made a network type, it is refused.
    kind = location.file_system_type(tmp_path / "journal.db")
    assert kind is not None
    program = f"""
import sys
from pathlib import Path
from wfengine_journal import location
location.NETWORK_TYPES = location.NETWORK_TYPES | {{{kind!r}}}
location.refuse_network_file_system(Path(sys.argv[1]))
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "journal.db")]
    refused = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert NetworkFileSystemError.__name__ in refused.stderr
    assert "WFENGINE_ALLOW_NETWORK_FS=1" in refused.stderr
    forced = subprocess.run(arguments, check=False, env={**os.environ, "WFENGINE_ALLOW_NETWORK_FS": "1"})
    assert forced.returncode == 0


def test_the_side_file_is_not_executable_and_holds_nothing(tmp_path: Path) -> None:
    make(tmp_path / "journal.db")
    side = (tmp_path / "journal.db-lock").stat()
    assert side.st_size == 0
    assert stat.S_IMODE(side.st_mode) == 0o600
