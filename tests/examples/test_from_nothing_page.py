"""The page from nothing to production is a test: a bucket, an alert in Slack, a daemon; only systemd is not there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import assert_page_is_true
from programs import environment, query

from tests.daemons import DaemonProcess
from tests.engine.bucket_server import BucketServer, make_empty_bucket
from tests.notifications.services import SLACK, HttpService, make_certificate
from wfengine_journal import store

PAGE = Path(__file__).parents[2] / "docs" / "from-nothing-to-production.md"


def _wait_until_sent(folder: Path) -> None:
    """Wait until the journal says that Slack took the alert; the time limit of the test is the bound."""
    journal = store.open_journal(folder / ".wfengine" / "journal.db")
    while True:
        mark = journal.changes.mark()
        if query(folder / ".wfengine" / "journal.db", "SELECT 1 FROM notifications WHERE state = 'sent'"):
            break
        journal.changes.wait(mark, 1.0)
    store.close_all()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    server = BucketServer()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    make_empty_bucket("my-bucket")
    yield server
    server.stop()


@pytest.fixture
def slack(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpService]:
    """Slack by its real name and over TLS: what is tunnelled through the proxy that the environment names ends here."""
    server = HttpService(make_certificate(tmp_path_factory.mktemp("certificate")))
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.close()


@pytest.mark.crash
def test_the_page_leads_to_a_scheduled_flow_whose_results_are_in_a_bucket_and_whose_failure_is_told(
    tmp_path: Path, bucket: BucketServer, slack: HttpService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WFENGINE_SECRETS_KEY", "WFENGINE_SECRETS_KEYRING", "WFENGINE_SECRETS_KEY_FILE", "WFENGINE_NOTIFICATIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "ops-url.txt").write_text(SLACK, encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    target = "wfengine notifications set ops --url-secret ops_url"
    assert text.count(target) == 1
    # Slack is on this machine, behind a proxy: neither is used without being asked for.
    before, middle, after = text.replace(target, f"{target} --allow-private").partition("\nA moment later:\n")
    for name, part in (("before.md", before), ("after.md", middle + after)):
        (tmp_path / name).write_text(part, encoding="utf-8")

    assert assert_page_is_true(tmp_path / "before.md", tmp_path) == 9
    assert any(line.startswith("PUT /my-bucket/reports/") for line in bucket.requests)
    ((host, _, tried),) = slack.got
    assert host == "hooks.slack.com"
    assert "It works." in str(tried)
    with DaemonProcess(tmp_path, "-m", "wfengine", "serve", environment=environment()) as daemon:
        daemon.wait_until_ready()
        _wait_until_sent(tmp_path)
        assert assert_page_is_true(tmp_path / "after.md", tmp_path) == 9
        assert daemon.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    told = [str(payload) for _, _, payload in slack.got[1:]]
    assert len(told) == 1
    assert "report failed" in told[0]
    assert "Look: wfengine runs show 2" in told[0]
    assert slack.refused == []
