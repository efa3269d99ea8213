"""A target that does not answer delays only what goes to itself, whoever sends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Rows
from tests.notifications.services import HttpService
from wfengine.notifications import notify, set_target
from wfengine_journal import store

#: Seconds within which something has to happen on a machine that is busy with other things; nothing waits so long otherwise.
LIMIT = 120

SEND = """
import sys
from wfengine import use_journal
from wfengine.notifying.courier import Courier

courier = Courier(use_journal("journal.db"))
if sys.argv[1] == "step":
    while courier.step():
        pass
elif sys.argv[1] == "finish":
    courier.finish(300)
else:
    courier.start()
    courier._thread.join(300)
print(courier.sent)
"""


@pytest.fixture
def other(certificate: Path) -> Iterator[HttpService]:
    """A second service."""
    found = HttpService(certificate)
    yield found
    found.close()


@pytest.mark.parametrize("way", ["step", "finish", "background"])
def test_a_target_that_does_not_answer_delays_only_what_goes_to_itself(
    way: str, tmp_path: Path, rows: Rows, service: HttpService, other: HttpService
) -> None:
    set_target("hangs", url=service.url, allow_private=True, rate=None)
    set_target("works", url=other.url, allow_private=True, rate=None)
    service.answers.append("wait")
    for number in (1, 2):
        notify(["hangs", "works"], f"message {number}")
    store.close_all()
    environment = {name: value for name, value in os.environ.items() if name != "WFENGINE_NOTIFICATIONS"}
    with subprocess.Popen(
        [sys.executable, "-c", SEND, way], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as sender:
        try:
            assert service.held.wait(LIMIT)
            assert other.arrived.acquire(timeout=LIMIT), "the other target was told nothing"
            assert other.arrived.acquire(timeout=LIMIT), "the other target was told only once"
            states = dict(rows("SELECT target || ' ' || body, state FROM notifications"))
            service.may_answer.set()
            assert sender.communicate(timeout=LIMIT)[0] == "4\n"
        finally:
            service.may_answer.set()
            sender.kill()
    assert (states["hangs message 1"], states["hangs message 2"]) == ("pending", "pending")
    assert states["works message 1"] == "sent"
    assert rows("SELECT DISTINCT state, attempts FROM notifications") == [("sent", 1)]
    assert [payload["message"].split()[1] for _, _, payload in service.got] == ["1", "2"]
