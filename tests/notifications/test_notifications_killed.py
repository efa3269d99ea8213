"""Who asks for a notification, or sends it, may be killed at any commit: nothing is lost; a repeat has the same id."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.notifications.services import SLACK, TEAMS, HttpService, MailService
from wfengine.testing import crashtest

pytestmark = pytest.mark.crash

SEND = """
import os, sys
from wfengine import use_journal
from wfengine.notifying.courier import Courier

journal = use_journal("journal.db")
commits = 0

def probe(moment, number, changes):
    global commits
    commits += moment == "before"
    if f"{moment}:{commits}" == sys.argv[1]:
        os.kill(os.getpid(), 9)

courier = Courier(journal)
assert journal.lead_notifications()
journal.probe_commits(probe)
while courier.step():
    pass
print(commits)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "WFENGINE_NOTIFICATIONS": "off", "PYTHONDONTWRITEBYTECODE": "1"}


def prepared(folder: Path, url: str | None = None) -> Path:
    """Make a folder with a journal whose outbox has two notifications that go out together. URL: that of $OPS_URL, or `url`."""
    folder.mkdir()
    (folder / "send.py").write_text(SEND, encoding="utf-8")
    where = {"url": url} if url else {"url_secret": "ops_url"}
    if not url:
        command = ["-m", "wfengine", "secrets", "set", "ops_url", "--from", "env:OPS_URL", "--journal", "journal.db", "-q"]
        subprocess.run([sys.executable, *command], cwd=folder, check=True, env=environment())
    program = (
        "from wfengine import use_journal; from wfengine.notifications import *; use_journal('journal.db');"
        f"set_target('ops', **{where!r}, allow_private=True, digest_seconds=1e-6);"
        "notify('ops', 'one'); notify('ops', 'two')"
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, env=environment())
    return folder


def send(folder: Path, kill: str) -> int:
    done = subprocess.run([sys.executable, "send.py", kill], cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def outbox(folder: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / "journal.db")
    try:
        return connection.execute("SELECT body, state, attempts, message_id FROM notifications ORDER BY id").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("kill", "times", "tries", "says_so"),
    [("before:1", 1, 1, False), ("after:1", 1, 2, True), ("before:2", 2, 2, True), ("after:2", 1, 1, False)],
)
def test_a_message_arrives_wherever_who_sends_it_is_killed(
    tmp_path: Path, service: HttpService, kill: str, times: int, tries: int, says_so: bool
) -> None:
    folder = prepared(tmp_path / "folder", url=service.url)
    assert send(folder, kill) == -signal.SIGKILL
    assert send(folder, "") == 0
    assert send(folder, "") == 0  # and there is nothing left
    found = outbox(folder)
    assert [row[:3] for row in found] == [("one", "sent", tries), ("two", "sent", tries)]
    assert len(service.got) == times
    ids = {headers["Idempotency-Key"] for _, headers, _ in service.got}
    assert ids == {row[3] for row in found}
    assert len(ids) == 1
    assert ("this may be a repeat" in service.got[-1][2]["message"]) == says_so
    assert all("one" in payload["message"] and "two" in payload["message"] for _, _, payload in service.got)


@pytest.mark.parametrize("name", ["slack", "teams", "mail"])
def test_each_service_is_told_again_under_the_same_id_by_the_next_process(
    tmp_path: Path, service: HttpService, mail: MailService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_URL", {"slack": SLACK, "teams": TEAMS, "mail": mail.url}[name])
    folder = prepared(tmp_path / "folder")
    assert send(folder, "before:2") == -signal.SIGKILL  # the service took it, and that was not committed
    assert send(folder, "") == 0
    assert [row[:3] for row in outbox(folder)] == [("one", "sent", 2), ("two", "sent", 2)]
    ((number,),) = {row[3:] for row in outbox(folder)}
    if name == "mail":
        first, again = mail.got
        assert first["Message-ID"] == again["Message-ID"] == f"<{number}@notifications.wfengine>"
        texts = [str(first.get_content()), str(again.get_content())]
    else:
        (_, headers, first_payload), (_, headers_again, payload_again) = service.got
        assert headers["Idempotency-Key"] == headers_again["Idempotency-Key"] == number
        texts = [str(first_payload), str(payload_again)]
    assert ["this may be a repeat" in text for text in texts] == [False, True]
    assert service.refused == mail.faults == []


def test_what_sends_for_a_process_ends_when_that_is_killed(tmp_path: Path, service: HttpService) -> None:
    folder = prepared(tmp_path / "folder", url=service.url)
    service.answers.append("hold")
    process = subprocess.Popen([sys.executable, "send.py", ""], cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    assert service.held.wait(120)
    process.kill()
    process.wait()
    assert service.let_go.wait(120)  # the connection was closed by the other end
    assert send(folder, "") == 0
    assert [row[:3] for row in outbox(folder)] == [("one", "sent", 2), ("two", "sent", 2)]
    assert "this may be a repeat" in service.got[-1][2]["message"]


FLOW = """
from wfengine import flow, task
from wfengine.notifications import notify, notify_hook, set_target

@task(on_completion=[notify_hook("ops")])
def work():
    notify(["ops", "dev"], "the task works")
    return 1

@flow
def main():
    set_target("ops", url="json://192.0.2.1/x", overwrite=True)
    set_target("dev", url="json://192.0.2.1/y", overwrite=True)
    notify("ops", "the flow begins")
    return work()
"""


def told(folder: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder.parent / "journal.db")
    try:
        return connection.execute(
            "SELECT target, CASE WHEN body LIKE 'Task run%' THEN substr(idempotency_key, 1, 10) ELSE body END, state"
            " FROM notifications ORDER BY id"
        ).fetchall()
    finally:
        connection.close()


@pytest.mark.timeout(600)
def test_a_flow_that_is_killed_around_any_commit_tells_each_thing_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFENGINE_NOTIFICATIONS", "off")
    (tmp_path / "program.py").write_text(FLOW, encoding="utf-8")
    # What the witness shows is the same after each kill. Without `kills` it is killed before and after each commit: 24 times.
    report = crashtest(f"{tmp_path / 'program.py'}:main", witness=told, kills=12)
    assert len(report.kills) == 12
    found = report.kills[0].witness
    assert [list(row) for row in found] == [  # type: ignore[attr-defined]  # what `told` returns
        ["ops", "the flow begins", "pending"], ["ops", "the task works", "pending"], ["dev", "the task works", "pending"],
        ["ops", "task-run:2", "pending"],
    ]  # fmt: skip
