"""What somebody has to see of a run to go on with it: whether it waits for them, why, what took whose place, since when."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
from html import unescape
from pathlib import Path

from managed import manage, wfengine
from serving_page import LIMIT, Page, environment, run_program, start_flow, until
from test_managing import FORM

CHANGING = """
from pathlib import Path
from wfengine import flow, task

FACTOR = int(Path("factor").read_text())

@task
def scaled(number, factor):
    return number * factor

@task
def last(total):
    if Path("broken").exists():
        raise ValueError("broken")
    return total

@flow
def changing():
    return last(sum([scaled(number, FACTOR) for number in (1, 2)]))
"""


def try_to(folder: Path, *words: str) -> None:
    """Run a command that may fail."""
    command = [sys.executable, "-m", "wfengine", *words]
    subprocess.run(command, cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)


def change(folder: Path, factor: int) -> None:
    """Have the flow call its task with another argument from now on."""
    (folder / "factor").write_text(str(factor))


def start_changing(folder: Path) -> None:
    """Leave run 2, which called its task with 3 and then failed."""
    (folder / "changing.py").write_text(CHANGING)
    (folder / "broken").touch()
    change(folder, 3)
    try_to(folder, "run", "changing.py", "-q")


def test_a_run_that_stopped_at_other_inputs_is_among_what_waits_for_people_and_its_history_says_which(own_page: Page) -> None:
    start_changing(own_page.folder)
    change(own_page.folder, 7)
    try_to(own_page.folder, "resume", "2", "--on-drift=error")
    assert own_page.state(2) == "PAUSED"
    waiting = own_page.json("/overview.json")["parked"]
    assert [(each["run_id"], each["state_name"]) for each in waiting] == [(2, "Drifted")]  # type: ignore[attr-defined]
    shown = unescape(own_page.client.get("/").text)
    assert re.search(r"Waiting for people.*/runs/2\".*other inputs: ", shown, re.DOTALL)
    for path in ("/runs/2", "/runs/2?show=history"):
        assert "factor: recorded 3, now 7" in unescape(own_page.client.get(path).text), path
    plan = own_page.client.post("/do/runs.plan", data={"run_id": "2"}, headers=FORM)
    assert plan.status_code == 200
    assert 'name="on_drift"' in plan.text, "what to do about other inputs can be chosen, whatever the default would do"


def test_a_call_in_doubt_is_among_what_waits_for_people_and_is_not_said_to_have_run_again(own_page: Page) -> None:
    process = start_flow(own_page.folder, "doubtful")
    until((own_page.folder / "begun").exists, "it began")
    process.kill()
    process.wait(LIMIT)
    try_to(own_page.folder, "resume", "2", "-q")
    (waiting,) = own_page.json("/overview.json")["parked"]  # type: ignore[misc]
    assert (waiting["run_id"], waiting["state_name"]) == (2, "InDoubt")  # type: ignore[index]
    task_id = own_page.json("/api/v1/runs/2")["in_doubt"]["task_run_id"]  # type: ignore[index]
    shown = own_page.client.get(f"/tasks/{task_id}").text
    assert "may have taken effect or not" in shown
    assert "ran again" not in shown
    assert "cut off once" in shown
    assert own_page.do("/runs/2/resolve", task_run_id=task_id, result="sent").status_code == 200
    (waiting,) = own_page.json("/overview.json")["parked"]  # type: ignore[misc]
    assert waiting["is_settled"] is True  # type: ignore[index]
    for path in ("/", "/runs/2"):
        shown = own_page.client.get(path).text
        assert "settled" in shown
        assert "wfengine resolve" not in shown
    wfengine(own_page.folder, "resume", "2", "-q")
    assert own_page.state(2) == "COMPLETED"
    assert own_page.json("/overview.json")["parked"] == []


def test_calls_that_took_the_place_of_others_are_found_though_the_attempt_that_made_them_failed(own_page: Page) -> None:
    start_changing(own_page.folder)
    change(own_page.folder, 5)
    try_to(own_page.folder, "resume", "2", "--on-drift=rerun", "-q")
    (own_page.folder / "broken").unlink()
    wfengine(own_page.folder, "resume", "2", "--on-drift=rerun", "-q")
    orphans = own_page.json("/runs/2.json", show="code")["code"]["orphans"]  # type: ignore[index]
    said = [(each["inputs"], each["instead_inputs"], each["orphaned_in"], each["instead_in"]) for each in orphans]
    assert said == [(f'{{"factor":3,"number":{n}}}', f'{{"factor":5,"number":{n}}}', 3, 2) for n in (1, 2)]
    shown = unescape(own_page.client.get("/runs/2?show=code").text)
    assert "factor: recorded <code>3</code>, now <code>5</code>" in shown
    assert "in attempt 2" in shown


def test_the_time_of_a_fork_begins_with_the_fork_however_old_the_calls_are_that_it_brought_along(own_page: Page) -> None:
    with sqlite3.connect(own_page.folder / "journal.db") as connection:
        for column in ("started_at", "ended_at"):
            connection.execute(f"UPDATE task_run SET {column} = '2020-01-01T00:00:00.000000Z'")
    connection.close()
    wfengine(own_page.folder, "fork", "1")
    wfengine(own_page.folder, "resume", "2", "-q")
    shown = own_page.client.get("/runs/2").text
    assert "before this run began" in shown
    drawn = re.search(r'<text class="ticktext"[^>]*>([^<]*)</text>', shown)
    assert drawn is not None
    assert drawn[1] == "0 ms"


def test_what_is_due_next_is_on_the_overview_before_any_daemon_has_looked(own_page: Page) -> None:
    manage(own_page.folder)
    upcoming = own_page.json("/overview.json")["upcoming"]
    assert [each["deployment"] for each in upcoming] == ["choosing/nightly"]  # type: ignore[attr-defined]
    assert len(own_page.json("/api/v1/overview")["upcoming"]) == 1  # type: ignore[arg-type]
    assert "choosing/nightly" in own_page.client.get("/").text
    wfengine(own_page.folder, "deployments", "pause", "choosing/nightly")
    assert own_page.json("/overview.json")["upcoming"] == []


def test_the_command_that_answers_an_input_is_one_that_a_shell_takes_as_it_is_shown(own_page: Page) -> None:
    run_program(own_page.folder, "asking")
    shown = unescape(own_page.client.get("/runs/2").text)
    (command,) = set(re.findall(r'data-copy="(wfengine resume .*?)">', shown))
    words = shlex.split(command)
    assert any(word.startswith('--input={"approved":') for word in words)
    assert f"{own_page.folder / 'journal.db'}" in words
    wfengine(own_page.folder, *words[1:], "-q")
    assert own_page.state(2) == "COMPLETED"
