"""What the tests of notifications share: services on loopback, and a journal whose outbox only the test sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Rows
from tests.notifications.services import HttpService, MailService, make_certificate
from tests.secrets.conftest import journal, key_file, program  # noqa: F401  # fixtures
from wfengine import use_journal
from wfengine.journals import default_journal
from wfengine.notifying.courier import Courier
from wfengine_journal import store


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the names of the services."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def service(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpService]:
    """Slack, Teams and any webhook."""
    found = HttpService(certificate)
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    yield found
    found.close()


@pytest.fixture
def mail() -> Iterator[MailService]:
    """A mail server."""
    found = MailService()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _nobody_else_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFENGINE_NOTIFICATIONS", "off")


@pytest.fixture
def clock(journal: store.Journal) -> FakeClock:  # noqa: F811  # a fixture of that name
    """A clock that stands still, for the journal of the test."""
    path = journal.path
    store.close_all()
    found = FakeClock()
    store.open_journal(path, found)
    use_journal(path)
    return found


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Ask the journal of the test by SQL."""
    return Rows(tmp_path / "journal.db")


def send_all() -> Courier:
    """Send what is due, and return who did."""
    courier = Courier(default_journal())
    while courier.step():
        pass
    return courier
