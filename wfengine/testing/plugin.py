"""The pytest plugin: fixtures `wfengine_journal` and `wfengine_clock`.

pytest loads this module in every run of an environment that has wfengine, so it imports nothing that a fixture can import
when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wfengine.testing.clock import VirtualClock
    from wfengine.testing.temporary import TemporaryJournal


@pytest.fixture
def wfengine_journal(request: pytest.FixtureRequest) -> Iterator[TemporaryJournal]:
    """A journal of the test's own, to which all its runs go: `.path`, `.runs()`, `.tasks()`, `.sql(...)`."""
    from wfengine.testing import VirtualClock, temporary_journal

    clock = VirtualClock() if "wfengine_clock" in request.fixturenames else None
    with temporary_journal(clock=clock) as journal:
        yield journal


@pytest.fixture
def wfengine_clock(wfengine_journal: TemporaryJournal) -> VirtualClock:
    """A clock for the test's journal that only moves when somebody waits: a retry or a sleep of a day takes no time."""
    from wfengine.testing import VirtualClock

    if not isinstance(wfengine_journal.clock, VirtualClock):
        pytest.fail("Name wfengine_clock among the arguments of the test or fixture: the journal was opened without it.")
    return wfengine_journal.clock
