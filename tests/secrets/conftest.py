"""What the tests of secrets share: a journal and a key file of their own, and a process that knows no secret yet."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import use_journal
from wfengine.redaction import KEEPER
from wfengine_journal import store
from wfengine_journal.guarding import POST


@pytest.fixture(autouse=True)
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep the key in the test's own folder, and let the process forget what secrets it learned."""
    for name in ("WFENGINE_SECRETS_KEY", "WFENGINE_SECRETS_KEYRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WFENGINE_SECRETS_KEY_FILE", str(tmp_path / "keys" / "secrets.key"))
    factory = logging.getLogRecordFactory()
    yield tmp_path / "keys" / "secrets.key"
    KEEPER.__init__()  # type: ignore[misc]  # as a new process begins
    POST.is_alert = False
    logging.setLogRecordFactory(factory)


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, empty_journal: Path, key_file: Path) -> Iterator[store.Journal]:
    """Use a journal in the test's own folder for all runs of the test."""
    shutil.copy(empty_journal, tmp_path)
    yield use_journal(tmp_path / "journal.db")
    store.close_all()


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Ask the journal of the test by SQL."""
    return Rows(tmp_path / "journal.db")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A script in the test's folder, for processes of their own."""
    return Program(tmp_path)


class Written:
    """The bytes of the journal's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, text: str) -> bool:
        opened = list(store._OPEN.values())
        for each in opened:
            each.flush()
        return any(text.encode() in file.read_bytes() for file in self.folder.glob("journal.db*"))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """What stands in the files of the journal."""
    return Written(tmp_path)
