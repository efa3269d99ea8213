"""What the tests of the command line share: a journal made by hand, and the command line itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "journal")]  # the hand-made journal is shared with the tests of the views

from command_line import Cli  # noqa: E402
from handmade import make_journal  # noqa: E402


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line in an empty folder."""
    return Cli(tmp_path)


@pytest.fixture(scope="session")
def journal_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal made by hand, to be copied."""
    return make_journal(tmp_path_factory.mktemp("made") / "journal.db")


@pytest.fixture
def journal(tmp_path: Path, journal_made: Path) -> Path:
    """A journal made by hand, where the command line finds it by itself."""
    folder = tmp_path / ".wfengine"
    folder.mkdir()
    return Path(shutil.copy(journal_made, folder))
