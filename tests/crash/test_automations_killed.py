"""Automations survive a kill before and after every commit of a look and of a firing: each is done once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.crash

SETUP = """
import sys
from collections.abc import Iterator
from pathlib import Path
from wfengine import flow, use_journal
from wfengine.automations import *
from wfengine.deployments import Deployment
from wfengine.events import emit_event

journal = use_journal("journal.db")

@flow
def ship(order: int):
    return order

def make():
    Deployment.build_from_flow(ship, "now").apply()
    Automation(
        name="ship",
        trigger=EventTrigger(expect={"order.placed"}, threshold=2, within=60, for_each={"payload.customer"}),
        actions=[
            RunDeployment(deployment="ship/now", parameters={"order": "{{ event.payload.id }}"}),
            RunCommand(command=[sys.executable, "-c", "open('effects.txt', 'a').write('ran ' )"]),
            EmitEvent(event="order.shipped"),
        ],
    ).create()
    Automation(name="chain", trigger=EventTrigger(expect={"order.shipped"}), actions=[EmitEvent(event="order.billed")]).create()
    Automation(
        name="both",
        trigger=SequenceTrigger(triggers=[EventTrigger(expect={"order.placed"}), EventTrigger(expect={"order.billed"})]),
        actions=[DoNothing()],
    ).create()
    for number in range(4):
        emit_event("order.placed", f"order.{number}", payload={"id": number, "customer": number % 2})
"""

#: Forks a child for each line it reads, 'FOLDER KILL', and says how that ended: all has to be imported once only.
SERVE = """
import gc, os, sys, traceback
import wfengine.automations.service, wfengine.deployments, wfengine.events

def serve(folder, kill):
    os.chdir(folder)
    sys.path.insert(0, folder)
    from program import journal
    commits = 0

    def probe(moment, number, changes):
        nonlocal commits
        commits += moment == "before"
        if f"{moment}:{commits}" == kill:
            os.kill(os.getpid(), 9)

    journal.probe_commits(probe)
    service = wfengine.automations.service.Automations(journal)
    while service.step():
        pass
    journal.close()
    return commits

gc.collect()
gc.freeze()  # no child looks at what was imported, so no page of it is copied
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            code = serve(*line[:-1].split(" "))
        except BaseException:
            traceback.print_exc()
            code = 255
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def prepared(folder: Path) -> Path:
    """Make a folder with a journal in which there is something to do."""
    folder.mkdir()
    (folder / "program.py").write_text(SETUP, encoding="utf-8")
    subprocess.run([sys.executable, "-c", "from program import *; make()"], cwd=folder, check=True, env=environment())
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}


class Nursery:
    """Runs services in children of one process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def serve(self, folder: Path, kill: str) -> int:
        """Let a service do all there is to do, or be killed; return how it ended: the number of its commits, or -9."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder} {kill}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    found = Nursery()
    yield found
    found.close()


def outcome(folder: Path) -> dict[str, object]:
    connection = sqlite3.connect(folder / "journal.db")
    try:
        return {
            "firings": connection.execute("SELECT automation, state, actions_done FROM firings ORDER BY 1, 2, 3").fetchall(),
            "runs": connection.execute("SELECT parameters, idempotency_key IS NULL FROM runs ORDER BY 1").fetchall(),
            "events": connection.execute("SELECT name, resource FROM events WHERE name LIKE 'order%' ORDER BY 1, 2").fetchall(),
            "refused": connection.execute("SELECT count(*) FROM firings WHERE results LIKE '%failed%'").fetchone(),
        }
    finally:
        connection.close()


@pytest.mark.timeout(300)
def test_each_firing_is_done_once_wherever_the_kill_comes(tmp_path: Path, nursery: Nursery) -> None:
    start = prepared(tmp_path / "start")
    whole = copied(start, tmp_path / "whole")
    commits = nursery.serve(whole, "")
    expected = outcome(whole)
    assert expected["runs"] == [('{"order":2}', 0), ('{"order":3}', 0)]
    assert len(expected["firings"]) == 5  # type: ignore[arg-type]
    assert 12 <= commits < 255
    for number in range(1, commits + 1):
        for moment in ("before", "after"):
            folder = copied(start, tmp_path / f"{moment}-{number}")
            assert nursery.serve(folder, f"{moment}:{number}") == -signal.SIGKILL, (moment, number)
            assert nursery.serve(folder, "") != 255
            assert outcome(folder) == expected, (moment, number)
            ran = (folder / "effects.txt").read_text(encoding="utf-8").count("ran")
            assert 2 <= ran <= 3, (moment, number, ran)  # a program is run at least once


def copied(source: Path, target: Path) -> Path:
    """Return a copy of a folder whose journal nobody has open."""
    target.mkdir()
    (target / "program.py").write_bytes((source / "program.py").read_bytes())
    from_, to = sqlite3.connect(source / "journal.db"), sqlite3.connect(target / "journal.db")
    try:
        from_.backup(to)
    finally:
        from_.close()
        to.close()
    return target


RACE = """
import sys
from program import *
from wfengine.automations.service import Automations

service = Automations(journal)
print("ready", flush=True)
sys.stdin.readline()
while service.step():
    pass
"""


def test_two_processes_that_look_at_the_same_time_do_each_firing_once(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "folder")
    (folder / "race.py").write_text(RACE, encoding="utf-8")
    racers = [
        subprocess.Popen(
            [sys.executable, "race.py"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.communicate("go\n", timeout=60)
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    found = outcome(folder)
    assert found["runs"] == [('{"order":2}', 0), ('{"order":3}', 0)]
    assert found["firings"] == [
        ("both", "done", 1), ("chain", "done", 1), ("chain", "done", 1), ("ship", "done", 3), ("ship", "done", 3),
    ]  # fmt: skip


LEAD = """
import sys, time
from program import *
from wfengine.automations.service import Automations

service = Automations(journal)
service.start()
for line in sys.stdin:
    print(service.report()["leads"], service.fault, flush=True)
"""


def test_another_daemon_takes_over_the_moment_the_first_is_killed(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "folder")
    (folder / "lead.py").write_text(LEAD, encoding="utf-8")

    def daemon() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "lead.py"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def until_it_leads(process: subprocess.Popen[str], leads: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(100_000):
            process.stdin.write("?\n")
            process.stdin.flush()
            if process.stdout.readline() == f"{leads} None\n":
                return
        raise AssertionError("it never led")

    first = daemon()
    until_it_leads(first, "True")
    second = daemon()
    until_it_leads(second, "False")
    first.kill()
    first.communicate()
    until_it_leads(second, "True")
    emit = "from program import *; [emit_event('order.placed', 'o', payload={'id': 9, 'customer': 9}) for _ in '12']"
    subprocess.run([sys.executable, "-c", emit], cwd=folder, check=True, env=environment())
    connection = sqlite3.connect(folder / "journal.db")
    for _ in range(100_000):
        if connection.execute("SELECT 1 FROM runs WHERE parameters = '{\"order\":9}'").fetchone():
            break
    else:
        raise AssertionError("the second daemon did nothing")
    connection.close()
    second.kill()
    second.communicate()
