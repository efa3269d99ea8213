"""Flows, and all of them on one axis of time; neighbours of a task run; keys; saved searches."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from serving_page import LIMIT, Page, environment, page_over, run_program

from wfengine.page.flow_chart import axis, trend
from wfengine_journal import store
from wfengine_journal.flow_page_queries import CELL_CALLS, list_cells
from wfengine_journal.queries import reading


def test_the_flows_are_listed_with_how_their_runs_ended(page: Page) -> None:
    found = {each["name"]: each for each in page.json("/flows.json")["flows"]}  # type: ignore[attr-defined]
    assert (found["failing"]["runs"], found["failing"]["failed"], found["failing"]["success_rate"]) == (1, 1, 0.0)
    assert found["fine"]["success_rate"] == 1.0
    assert found["asking"]["open"] == 1
    assert found["asking"]["success_rate"] is None
    text = page.client.get("/flows").text
    assert 'href="/flow?name=failing"' in text
    assert page.json("/api/v1/flows") == page.json("/flows.json")


def test_a_flow_shows_its_runs_by_what_they_called(page: Page) -> None:
    found = page.json("/flow.json", name="failing")
    assert found["tasks"] == ["load", "check"]
    cells = {cell["task"]: cell for cell in found["cells"]}  # type: ignore[attr-defined]
    assert (cells["load"]["calls"], cells["load"]["failed"]) == (3, 0)
    assert (cells["check"]["calls"], cells["check"]["completed"], cells["check"]["failed"]) == (3, 2, 1)
    text = page.client.get("/flow?name=failing").text
    assert "check in " in text
    assert "2 of 3 completed, 1 failed" in text
    assert "It has no deployment" in text
    assert page.json("/api/v1/flows/failing") == found
    subflows = page.json("/flow.json", name="fine")["runs"]
    assert [run["id"] for run in subflows] == [1, 4], "those that other flows called too"  # type: ignore[attr-defined]
    for name in ("nothing", "", "<b>", "x" * 6000):
        assert page.client.get("/flow", params={"name": name}).status_code == 404


LATE = """
from wfengine import flow, task
@task
def step(number):
    return number
@task
def last():
    raise ValueError("at the end")
@flow(durability="process")
def late(count):
    for number in range(count):
        step(number)
    last()
if __name__ == "__main__":
    import sys
    late(int(sys.argv[1]), return_state=True)
"""


def run_text(folder: Path, source: str, *words: str) -> None:
    """Run a program."""
    (folder / "of_its_own.py").write_text(source)
    command = [sys.executable, "of_its_own.py", *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr


def test_a_failure_late_in_a_large_run_is_seen_in_its_cell(tmp_path: Path) -> None:
    run_text(tmp_path, LATE, str(CELL_CALLS + 20))
    with reading(tmp_path / "journal.db") as connection:
        cells = {cell.task: cell for cell in list_cells(connection, 1)}
    assert (cells["step"].calls, cells["step"].failed) == (CELL_CALLS, 0)
    assert (cells["last"].calls, cells["last"].failed) == (1, 1)


def test_what_was_and_what_is_due_stand_on_one_axis(tmp_path: Path) -> None:
    run_program(tmp_path, "fine", "failing")
    words = ["-m", "wfengine", "deploy", "program.py:fine", "--name", "often", "--cron", "* * * * *"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with page_over(tmp_path) as served:
        found = served.json("/timeline.json", since="1h", ahead="30m")
        assert {run["flow"] for run in found["runs"]} == {"fine", "failing"}  # type: ignore[attr-defined]
        fires = found["fires"]
        assert len(fires) == 30, "as many minutes begin in half an hour"  # type: ignore[arg-type]
        assert all(fire["deployment"] == "fine/often" and fire["at"] > found["read_at"] for fire in fires)  # type: ignore[attr-defined]
        text = served.client.get("/timeline?since=1h&ahead=30m").text
        assert 'class="now"' in text
        assert text.count('class="due"') == len(fires)  # type: ignore[arg-type]
        assert served.json("/timeline.json", since="1h", ahead="365d")["is_more_due"] is True
        for query in ("ahead=x", "ahead=0s", "ahead=400d", "since=nonsense"):
            assert served.client.get(f"/timeline?{query}").status_code == 400, query
        schema = served.json("/flow.json", name="fine")["deployments"][0]["parameter_schema"]  # type: ignore[index]
        assert schema["properties"]["count"]["type"] == "integer"
        assert "integer" in served.client.get("/flow?name=fine").text
    store.close_all()


def test_drawings_hold_whatever_there_is_within_their_edges() -> None:
    assert trend([]) is None
    run = {"id": 1, "name": "a", "state": "COMPLETED", "duration_s": 0.0}
    drawn = trend([run, {**run, "duration_s": None}, {**run, "state": "FAILED", "duration_s": 9.0}])
    assert drawn is not None
    assert [point.height for point in drawn.points] == [2.0, 120.0]
    at = "2026-11-22T0{}:00:00.000000Z".format
    runs = [
        {"id": 1, "name": "a", "flow": f"f{n}", "state": "RUNNING", "started_at": at(0), "ended_at": None} for n in range(9)
    ]
    data = {"since": at(1), "read_at": at(3), "until": at(4), "runs": runs, "fires": [{"at": at(9), "deployment": "z/d"}]}
    found = axis(data, 5)
    assert (len(found.lanes), found.hidden) == (5, 5)
    assert all(0 <= mark.left <= 1000 for lane in found.lanes for mark in lane.marks)
    assert found.lanes[0].marks[0].left + found.lanes[0].marks[0].width == pytest.approx(found.now, abs=0.1)


def test_a_task_run_says_whose_results_it_was_given_and_who_was_given_its_own(page: Page) -> None:
    calls = page.json("/api/v1/runs/2/tasks")["tasks"]
    load, check = calls[2], calls[3]  # type: ignore[index]
    assert (load["task"], check["task"]) == ("load", "check")
    given = page.json(f"/tasks/{check['id']}.json")["given_by"]
    assert given == [{"task_run_id": load["id"], "task": "load", "argument": "number"}]
    assert [each["task_run_id"] for each in page.json(f"/tasks/{load['id']}.json")["gave_to"]] == [check["id"]]  # type: ignore[attr-defined]
    assert "it was given those of" in page.client.get(f"/tasks/{check['id']}").text


RETRIED = """
from wfengine import flow, task
tries = []
@task(retries=1, retry_delay_seconds=0.2)
def shaky():
    tries.append(1)
    if len(tries) == 1:
        raise ValueError("not yet")
@flow
def retried():
    shaky()
if __name__ == "__main__":
    retried()
"""


def test_attempts_are_told_with_the_time_between_them(tmp_path: Path) -> None:
    run_text(tmp_path, RETRIED)
    with page_over(tmp_path) as served:
        first, second = served.json("/tasks/1.json")["attempts"]  # type: ignore[misc]
        assert first["waited_s"] is None
        assert second["waited_s"] >= 0.1
        assert re.search(r'<td class="n">\d+ ms</td>|<td class="n">\d\.\d+ s</td>', served.client.get("/tasks/1").text)
    store.close_all()


def test_the_keys_are_a_page_that_needs_no_script(page: Page) -> None:
    text = page.client.get("/keys").text
    for each in page.json("/keys.json")["keys"]:  # type: ignore[attr-defined]
        assert f"<kbd>{each['key']}</kbd>" in text
        if each["path"]:
            assert page.client.get(each["path"]).status_code == 200
    for path in ("/", "/runs", "/runs/2", "/keys"):
        assert re.search(r'href="/keys" data-key="\?"', page.client.get(path).text)
    keys = re.findall(r'data-key="([^"]+)"', page.client.get("/runs/2").text)
    assert len(keys) == len(set(keys)), "each means one thing"
    assert {"1", "7"} <= set(keys)
