"""Keys: where they stand, who may read them, what a wrong or missing one says, and how a new one takes their place."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine.conftest import Rows
from wfengine import flow, secrets, task
from wfengine.secret_keys import new_key
from wfengine.secret_rotation import rotate_key
from wfengine.secrets import Secret
from wfengine_journal.errors import SecretError
from wfengine_journal.store import Journal

ROOT = Path(__file__).parents[2]


def test_the_key_file_is_made_with_the_first_secret_for_its_owner_only(key_file: Path) -> None:
    before = os.umask(0)
    try:
        secrets.set("db", "a-value")
    finally:
        os.umask(before)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["secrets.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o610])
def test_a_key_file_that_others_can_read_or_write_is_refused(key_file: Path, mode: int) -> None:
    secrets.set("db", "a-value")
    key_file.chmod(mode)
    for attempt in (lambda: secrets.get("db"), lambda: secrets.set("other", "v")):
        with pytest.raises(SecretError, match=rf"mode 0{mode:o}\), so it was not used. Type: chmod 600"):
            attempt()
    key_file.chmod(0o600)
    assert secrets.get("db") == "a-value"


def test_a_missing_key_and_a_wrong_one_are_said_plainly(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets.set("db", "a-value")
    shutil.move(key_file, key_file.with_name("elsewhere"))
    with pytest.raises(
        SecretError, match=r"Secret 'db' cannot be read: it is encrypted with key \w{16}, and that is not in .*none"
    ):
        secrets.get("db")
    monkeypatch.setenv("WFENGINE_SECRETS_KEY", new_key().text())
    with pytest.raises(SecretError, match=r"is not in the environment variable WFENGINE_SECRETS_KEY, which has \w{16}"):
        secrets.get("db")
    monkeypatch.setenv("WFENGINE_SECRETS_KEY", "nonsense")
    with pytest.raises(SecretError, match=r"Line 1 of the environment variable WFENGINE_SECRETS_KEY is no key"):
        secrets.get("db")
    monkeypatch.delenv("WFENGINE_SECRETS_KEY")
    shutil.move(key_file.with_name("elsewhere"), key_file)
    assert secrets.get("db") == "a-value"


def test_a_folder_or_a_fifo_is_no_key_file(key_file: Path) -> None:
    key_file.mkdir(parents=True)
    with pytest.raises(SecretError, match=r"is no file|cannot be read"):
        secrets.set("db", "a-value")
    key_file.rmdir()
    os.mkfifo(key_file, 0o600)
    with pytest.raises(SecretError, match=r"is no file, so it holds no key"):
        secrets.set("db", "a-value")


def test_a_key_does_not_show_itself() -> None:
    key = new_key()
    assert key.text() not in repr(key)
    assert key.raw.hex()[:8] not in key.id


def test_a_secret_is_bound_to_its_name(journal: Journal, tmp_path: Path) -> None:
    secrets.set("low", "harmless-value")
    secrets.set("admin", "powerful-value")
    journal.flush()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection, connection:
        connection.execute(
            "UPDATE secret SET ciphertext = (SELECT ciphertext FROM secret WHERE name = 'admin') WHERE name = 'low'"
        )
    with pytest.raises(SecretError, match=r"Secret 'low' cannot be decrypted with its key"):
        secrets.get("low")


def test_every_changed_bit_of_a_secret_is_noticed() -> None:
    key = new_key()
    whole = key.encrypt("db", "a-value")
    assert key.decrypt("db", whole) == "a-value"
    for place in range(len(whole) * 8):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SecretError):
            key.decrypt("db", bytes(changed))
    for length in range(len(whole)):
        with pytest.raises(SecretError):
            key.decrypt("db", whole[:length])
    assert key.encrypt("db", "a-value") != whole


def test_a_new_key_takes_the_place_of_the_old_one_for_all_secrets(journal: Journal, key_file: Path, rows: Rows) -> None:
    for number in range(5):
        secrets.set(f"s{number}", f"value-{number}")
    secrets.set("elsewhere", source="env:X")
    (old,) = {row[0] for row in rows("SELECT key_id FROM secrets WHERE key_id IS NOT NULL")}
    done = rotate_key(journal)
    assert (done.secrets, done.kept_keys, done.sealed) == (5, 1, 0)
    assert {row[0] for row in rows("SELECT key_id FROM secrets WHERE key_id IS NOT NULL")} == {done.key_id} != {old}
    assert [secrets.get(f"s{number}") for number in range(5)] == [f"value-{number}" for number in range(5)]
    rotate_key(journal, forget_old=True)
    assert len([line for line in key_file.read_text().splitlines() if not line.startswith("#")]) == 1
    assert secrets.get("s3") == "value-3"


@pytest.mark.parametrize("where", ["journal", "folder"])
def test_old_keys_are_kept_while_a_recorded_value_needs_them(
    journal: Journal, key_file: Path, tmp_path: Path, where: str
) -> None:
    secrets.set("db", "a-value")

    @task(result_storage=tmp_path / "results" if where == "folder" else None)
    def bare() -> object:
        return Secret[object]("db").get()

    @flow
    def main() -> None:
        bare()

    main()
    assert rotate_key(journal).sealed == 1
    with pytest.raises(SecretError, match=r"The old keys are kept: 1 recorded values"):
        rotate_key(journal, forget_old=True)
    assert len(key_file.read_text().splitlines()) == 3
    assert secrets.get("db") == "a-value"


def test_a_key_in_the_environment_is_changed_by_its_owner(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    old, new = new_key(), new_key()
    monkeypatch.setenv("WFENGINE_SECRETS_KEY", old.text())
    secrets.set("db", "a-value")
    with pytest.raises(SecretError, match=r"WFENGINE_SECRETS_KEY=NEW,OLD, and type: wfengine secrets rotate-key"):
        rotate_key(journal)
    monkeypatch.setenv("WFENGINE_SECRETS_KEY", f"{new.text()},{old.text()}")
    assert rotate_key(journal).key_id == new.id
    monkeypatch.setenv("WFENGINE_SECRETS_KEY", new.text())
    assert secrets.get("db") == "a-value"


def test_nothing_is_changed_where_a_secret_cannot_be_read(journal: Journal, key_file: Path) -> None:
    secrets.set("lost", "a-value")
    key_file.unlink()
    secrets.set("db", "b-value")
    before = key_file.read_text()
    with pytest.raises(SecretError, match=r"The key was not changed: lost cannot be read"):
        rotate_key(journal)
    assert key_file.read_text() == before


KILLING = """
import json, os, shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import cryptography.hazmat.primitives.ciphers.aead
from tests.crash.plan import StatementPlan
from wfengine import secrets, use_journal
from wfengine.secret_keys import FileKeys
from wfengine.secret_rotation import rotate_key
from wfengine_journal.secrets import list_secrets

def forked(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def look():
    journal = use_journal("journal.db")
    key_ids = {row.key_id for row in journal.records.read(list_secrets)}
    print(json.dumps({
        "values": [secrets.get(f"s{number}") for number in range(3)],
        "keys": len(key_ids),
        "known": key_ids <= {key.id for key in FileKeys(Path("secrets.key")).load()},
        "again": rotate_key(journal).secrets,
    }), flush=True)

base = Path.cwd()
for number in range(1, 200):
    folder = base / f"kill-{number}"
    folder.mkdir()
    for file in (*base.glob("journal.db*"), base / "keys" / "secrets.key"):
        shutil.copy(file, folder)
    os.chdir(folder)
    os.environ["WFENGINE_SECRETS_KEY_FILE"] = str(folder / "secrets.key")

    def rotate():
        StatementPlan(number, Path("killed.txt")).install()
        rotate_key(use_journal("journal.db"))

    status = forked(rotate)
    if forked(look) or status == 0:
        sys.exit(0 if status == 0 else 1)
"""


@pytest.mark.crash
def test_a_rotation_killed_before_each_of_its_statements_loses_nothing(
    tmp_path: Path, journal: Journal, key_file: Path
) -> None:
    for number in range(3):
        secrets.set(f"s{number}", f"value-{number}")
    journal.close()
    done = subprocess.run(
        [sys.executable, "-c", KILLING, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) > 5
    expected = {"values": [f"value-{number}" for number in range(3)], "keys": 1, "known": True, "again": 3}
    assert seen == [expected] * len(seen)
    statements = [file.read_text().split()[0] for file in tmp_path.glob("kill-*/killed.txt")]
    assert {"BEGIN", "UPDATE", "COMMIT"} <= set(statements)
