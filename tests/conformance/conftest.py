"""What the cases share: each runner in turn, with a journal of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import wfengine
from tests.conformance.runners import CANDIDATES, Candidate, Place, importable_for_workers
from tests.conformance.table import pytest_runtest_logreport, pytest_terminal_summary  # noqa: F401 - hooks
from tests.engine.conftest import Program, Rows, clock, program  # noqa: F401 - fixtures
from wfengine_journal import store

#: Seconds after which a case counts as hanging.
LIMIT = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limit each case: most of what may go wrong here is a wait without end. The start of a cluster is not part of a case."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIMIT, func_only=True))


@pytest.fixture(scope="session")
def clusters() -> Iterator[dict[str, Place]]:
    """The runners that were asked for so far; their clusters end with the session."""
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: None)
        places = _Places(stack)
        yield places


class _Places(dict[str, Place]):
    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, name: str) -> Place:
        candidate = next(candidate for candidate in CANDIDATES if candidate.name == name)
        with importable_for_workers():
            found = self[name] = Place(candidate, self._stack.enter_context(candidate.cluster()))
        return found


@pytest.fixture(autouse=True)
def journal(tmp_path: Path) -> Iterator[store.Journal]:
    """Use a journal in the test's own folder for all runs of the test."""
    yield wfengine.use_journal(tmp_path / "journal.db", durability="process")
    store.close_all()
    wfengine.journals._chosen = None


@pytest.fixture(params=[candidate for candidate in CANDIDATES if candidate.is_there], ids=lambda candidate: candidate.name)
def place(request: pytest.FixtureRequest, clusters: dict[str, Place], journal: store.Journal) -> Place:
    """Each runner in turn."""
    candidate: Candidate = request.param
    request.node.user_properties.append(("runner", candidate.name))
    return clusters[candidate.name]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """The rows of the test's journal."""
    return Rows(tmp_path / "journal.db")
