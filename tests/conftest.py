"""What the tests of programs share: a journal of the test's own, and a clock that only moves when it is slept on."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wfengine import use_journal
from wfengine_journal import store
from wfengine_journal.clock import text_from_seconds

# Read when Google's library is imported, which any test may do first: else it asks a service on the internet for the kind of
# each bucket, again and again, on the one thread that all buckets of a process share.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


class VirtualClock:
    """A clock that stands still until somebody sleeps on it, or a test sets `now`."""

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self._lock = threading.Lock()
        self.now = start
        self.slept: list[float] = []
        self.on_sleep: Callable[[list[float]], object] = len

    def now_text(self) -> str:
        return text_from_seconds(self.now)

    def wall_seconds(self) -> float:
        return self.now

    def monotonic_seconds(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds
        self.on_sleep(self.slept)

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture(scope="session")
def empty_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal that was just made; to copy it takes a fifth of the time that it takes to make one."""
    path = tmp_path_factory.mktemp("empty") / "journal.db"
    use_journal(path)
    store.close_all()
    return path


@pytest.fixture
def own_journal(tmp_path: Path, empty_journal: Path) -> Iterator[store.Journal]:
    """Use a journal in the test's own folder for all runs of the test."""
    shutil.copy(empty_journal, tmp_path)
    yield use_journal(tmp_path / "journal.db")
    store.close_all()


@pytest.fixture
def virtual_clock(tmp_path: Path, empty_journal: Path) -> Iterator[VirtualClock]:
    """Use a journal in the test's own folder with a clock that only moves when it is slept on."""
    store.close_all()
    shutil.copy(empty_journal, tmp_path)
    clock = VirtualClock()
    store.open_journal(tmp_path / "journal.db", clock)
    use_journal(tmp_path / "journal.db")
    yield clock
    store.close_all()
