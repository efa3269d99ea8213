"""The page of one run: its parts, what can be zoomed into and followed, what can be taken away."""

from __future__ import annotations

import gc
import json
import re
import sqlite3
import warnings
from pathlib import Path

import pytest
from serving_page import Page, page_over, run_program, start_flow, until

from wfengine.page.graph import graph_of_calls, graph_of_tasks
from wfengine.page.lineage import Link, links
from wfengine_journal import store
from wfengine_journal.queries import reading
from wfengine_journal.rows import TaskGroup
from wfengine_journal.run_page_queries import CallValues, list_orphans


def call(number: int, inputs: object, result: object, *, scope: int = 0, state: str = "COMPLETED") -> CallValues:
    """Return a call that took the second of its number."""
    at = f"2026-11-22T00:00:{number:02d}.000000Z"
    end = f"2026-11-22T00:00:{number:02d}.500000Z" if state == "COMPLETED" else None
    return CallValues(number, scope, "task", "t", state, at, end, json.dumps(inputs), json.dumps(result), b"%d" % number)


def test_a_line_leads_from_the_call_that_gave_a_value_to_the_one_that_was_given_it() -> None:
    calls = [
        call(1, {}, {"rows": [1, 2]}), call(2, {"table": {"rows": [1, 2]}}, "a long text"),
        call(3, {"text": "a long text"}, 77),
        call(4, {"all": ["a long text", 77]}, None), call(5, {"by": {"x": 77}}, None),
    ]  # fmt: skip
    assert links(calls) == [
        Link(1, 2, "table"), Link(2, 3, "text"), Link(2, 4, "all"), Link(3, 4, "all"), Link(3, 5, "by")
    ]  # fmt: skip


def test_no_line_leads_from_what_says_nothing_or_had_not_ended_or_is_not_the_only_one_that_can_be_meant() -> None:
    for value in (None, True, False, "", [], {}):
        assert links([call(1, {}, value), call(2, {"x": value}, 5)]) == []
    assert links([call(1, {}, 7), call(2, {}, 7), call(3, {"x": 7}, None)]) == [], "two gave it"
    assert links([call(1, {}, 7, scope=9), call(2, {"x": 7}, None)]) == [], "it is a small number of another scope"
    assert links([call(1, {}, "a long text", state="RUNNING"), call(2, {"x": "a long text"}, None)]) == []
    assert links([call(2, {}, "a long text"), call(1, {"x": "a long text"}, None)]) == [], "it began later"
    assert links([call(1, {}, 1), call(2, {"x": True}, None)]) == []
    latest = links([call(1, {}, "a long text"), call(2, {}, "a long text"), call(3, {"x": "a long text"}, None)])
    assert latest == [Link(2, 3, "x")]


def test_large_values_are_followed_by_their_checksums() -> None:
    calls = [call(1, {}, None), call(2, {"x": "the beginning of a preview"}, None)]
    assert links(calls, [(2, "x", b"1")]) == [Link(1, 2, "x")]


def test_lines_are_never_more_than_can_be_drawn_and_what_is_no_json_is_passed_over() -> None:
    broken = CallValues(3, 0, "task", "t", "COMPLETED", "a", "b", "{", "[" * 100_000, None)
    assert links([broken, call(4, {}, 1)]) == []
    many = [call(1, {}, "a long text"), *(call(2, {f"x{n}": "a long text" for n in range(9)}, None) for _ in range(3000))]
    assert len(links(many)) <= 2000


def test_boxes_stand_to_the_right_of_what_they_depend_on_even_where_tasks_go_round() -> None:
    calls = [call(1, {}, 1), call(2, {}, 2), call(3, {}, 3)]
    drawn = graph_of_calls(calls, [Link(1, 2, "x"), Link(2, 3, "y"), Link(1, 3, "z")])
    assert [box.left for box in drawn.boxes] == sorted({box.left for box in drawn.boxes})
    assert len(drawn.lines) == 3
    groups = [TaskGroup("task", name, 2, 2, 0, 0, 0, 0, 0, n, 0.0, None, 0.0, 1.0) for n, name in enumerate("ab", 1)]
    turns = [CallValues(n, 0, "task", "ab"[n % 2], "COMPLETED", None, None, None, None, None) for n in range(1, 5)]
    circle = graph_of_tasks(groups, turns, [Link(1, 2, "x"), Link(2, 3, "x"), Link(3, 4, "x")])
    assert {line.title for line in circle.lines} == {"b gave a 2 results", "a gave b 1 result"}


def test_the_run_page_draws_who_was_given_whose_result(page: Page) -> None:
    found = page.json("/runs/2.json", show="graph")["graph"]
    tasks = {each["id"]: each["task"] for each in found["calls"]}  # type: ignore[index]
    pairs = [(tasks[each["source"]], tasks[each["target"]], each["argument"]) for each in found["links"]]  # type: ignore[index]
    assert pairs[0] == ("load", "check", "number")
    assert set(pairs) == {("load", "check", "number")}
    assert 'class="arrow"' in page.client.get("/runs/2").text
    text = page.client.get("/runs/2?show=graph").text
    assert text.count('class="box"') == 6
    assert "load #" in text
    assert page.client.get("/runs/2?show=graph&by=task").text.count('class="box"') == 2


def test_a_stretch_of_time_is_in_the_address_and_holds_the_calls_that_were_under_way_in_it(page: Page) -> None:
    bars = page.json("/runs/2.json")["timeline"]["bars"]  # type: ignore[index]
    low, high = bars[2]["offset_s"], bars[2]["offset_s"] + bars[2]["duration_s"]
    found = page.json("/runs/2.json", **{"from": f"{low:.6f}", "to": f"{high:.6f}"})["timeline"]["bars"]  # type: ignore[index]
    assert bars[2] in found
    assert len(found) < len(bars)
    whole = page.client.get("/runs/2").text
    for link in re.findall(r'href="(/runs/2\?from=[^"]*)"', whole):
        assert page.client.get(link.replace("&amp;", "&")).status_code == 200
    assert ">closer</a>" in whole
    assert ">wider</a>" not in whole
    assert ">wider</a>" in page.client.get("/runs/2?from=0&to=0.01").text
    assert (
        ">wider</a>" in page.client.get("/runs/2?from=900000&to=900001").text
    )  # no call took place then: the way back is there
    for query in ("from=x", "from=2&to=1", "from=-1", "to=nan", "from=0&to=inf", "from=1&to=1", "to=1e99"):
        assert page.client.get(f"/runs/2?{query}").status_code == 400, query


def test_a_log_is_taken_away_as_text_and_as_lines_of_json(page: Page) -> None:
    text = page.client.get("/api/v1/runs/2/logs/file")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.headers["content-disposition"] == 'attachment; filename="run-2.log"'
    assert [line.split()[-1] for line in text.text.splitlines()] == ["0", "1", "2"]
    lines = [json.loads(line) for line in page.client.get("/api/v1/runs/2/logs/file?format=jsonl").text.splitlines()]
    assert [line["message"] for line in lines] == ["loading 0", "loading 1", "loading 2"]
    assert page.client.get("/api/v1/runs/2/logs/file?text=LOADING+1").text.count("\n") == 1
    assert page.client.get("/api/v1/runs/2/logs/file?level=40").text == ""
    assert page.client.get("/api/v1/runs/99/logs/file").status_code == 404
    assert page.client.get("/api/v1/runs/2/logs/file?format=xml").status_code == 400


def test_a_long_log_is_sent_whole_piece_by_piece(tmp_path: Path) -> None:
    run_program(tmp_path, "fine")
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)"
            " INSERT INTO log (flow_run_id, task_run_id, at, level, logger, message)"
            " SELECT 1, NULL, '2026-11-22T00:00:00.000000Z', 20, 'x', 'line ' || n || char(27) || '[31m' FROM n"
        )
    connection.close()
    with page_over(tmp_path) as served:
        with served.client.stream("GET", "/api/v1/runs/1/logs/file") as answer:
            text = "".join(answer.iter_text())
        assert text.count("\n") == 2503
        assert "line 2500" in text
        assert "\x1b" not in text
    store.close_all()


def test_a_run_is_taken_away_as_a_journal_of_its_own(page: Page, tmp_path: Path) -> None:
    answer = page.client.get("/api/v1/runs/3/extract")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="run-3.db"'
    (tmp_path / "taken.db").write_bytes(answer.content)
    with reading(tmp_path / "taken.db") as connection:
        found = connection.execute("SELECT id, flow FROM runs ORDER BY id").fetchall()
    assert [tuple(row) for row in found] == [(3, "parent"), (4, "fine")]
    assert page.client.get("/api/v1/runs/99/extract").status_code == 404
    assert "wfengine extract 3" in page.client.get("/runs/3?show=values").text


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_who_does_not_take_a_run_away_leaves_no_file_open(page: Page, method: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(3):
            with page.client.stream(method, "/api/v1/runs/3/extract") as answer:
                assert answer.status_code == 200
        assert page.client.get("/runs.json").status_code == 200
        gc.collect()
    assert [str(each.message) for each in said if each.category is ResourceWarning] == []


def test_parameters_that_do_not_fit_are_told_at_their_field_and_stay_as_they_were_typed(own_page: Page) -> None:
    run_program(own_page.folder, "failing")
    headers = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
    form = "run_id=2&was.worst=2&param.worst=many&was.day=2026-11-22&param.day=2027-01-01"
    answer = own_page.client.post("/do/runs.fork", content=form, headers=headers)
    assert answer.status_code == 400
    assert re.search(r'name="param.worst"[^>]*aria-invalid="true"[^>]*>many</textarea>', answer.text)
    assert re.search(r'name="param.day"[^>]*>2027-01-01</textarea>', answer.text)
    assert not re.search(r'name="param.day"[^>]*aria-invalid', answer.text)
    assert 'name="run_id" value="2"' in answer.text
    assert len(own_page.json("/api/v1/runs")["runs"]) == 2  # type: ignore[arg-type]


def test_a_run_is_run_again_from_its_first_task_with_other_parameters_at_once(own_page: Page) -> None:
    run_program(own_page.folder, "failing")
    answer = own_page.do("/runs/2/fork", parameters={"worst": 1, "day": "later"}, from_task="load", resume=True)
    assert answer.status_code == 200, answer.text
    assert re.fullmatch("wfengine fork .* && wfengine resume 3 .*", answer.json()["command"])
    until(lambda: own_page.state(3) == "FAILED", "it ran")
    assert [each["task"] for each in own_page.json("/api/v1/runs/3/tasks")["tasks"]] == ["load", "check"] * 2  # type: ignore[attr-defined]


EDITED = """
from wfengine import flow, task
import sys, os

@task
def load(day):
    return {"day": day}

@task
def save(table):
    if os.path.exists("broken"):
        raise ValueError("broken")
    return table

@flow
def nightly():
    return save(load("monday"))

if __name__ == "__main__":
    nightly(return_state=True)
"""


def test_after_an_edit_the_page_shows_what_changed_in_the_code_and_which_call_took_the_place_of_which(tmp_path: Path) -> None:
    import subprocess
    import sys

    from serving_page import environment

    (tmp_path / "edited.py").write_text(EDITED)
    (tmp_path / "broken").touch()

    def run(*words: str) -> None:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("edited.py")
    (tmp_path / "broken").unlink()
    (tmp_path / "edited.py").write_text(EDITED.replace('load("monday")', 'load("tuesday")'))
    run("-m", "wfengine", "resume", "1")
    run("edited.py")
    with page_over(tmp_path) as served:
        found = served.json("/runs/1.json", show="code")["code"]
        orphan = found["orphans"][0]  # type: ignore[index]
        assert orphan["differences"] == [{"name": "day", "recorded": "'monday'", "now": "'tuesday'", "cause": None}]
        assert any('+    return save(load("tuesday"))' in line for line in found["edits"][0]["lines"])  # type: ignore[index]
        assert found["since"] is None, "the newest run had the code of this one's last attempt"
        assert found["newest"]["run_id"] == 2  # type: ignore[index]
        text = served.client.get("/runs/1?show=code").text
        assert "Not asked for again" in text
        assert "had the same code" in text
        with reading(tmp_path / "journal.db") as connection:
            assert [each.instead_id is not None for each in list_orphans(connection, 1, 10)] == [True]
    (tmp_path / "edited.py").write_text(EDITED.replace('load("monday")', 'load("friday")'))
    run("edited.py")
    with page_over(tmp_path) as served:
        assert "load(&#34;friday&#34;)" in served.client.get("/runs/1?show=code").text
    store.close_all()


def test_a_run_parked_for_drift_shows_recorded_and_present_arguments(tmp_path: Path) -> None:
    import subprocess
    import sys

    from serving_page import environment

    program = EDITED.replace('load("monday")', "load(os.environ['DAY'])")
    (tmp_path / "edited.py").write_text(program)
    (tmp_path / "broken").touch()
    kept = {**environment(tmp_path), "DAY": "monday"}
    subprocess.run([sys.executable, "edited.py"], cwd=tmp_path, env=kept, capture_output=True, check=True)
    resume = [sys.executable, "-m", "wfengine", "resume", "1"]
    subprocess.run(resume, cwd=tmp_path, env={**kept, "DAY": "tuesday"}, capture_output=True, check=False)
    with page_over(tmp_path) as served:
        text = served.client.get("/runs/1").text
        assert "Drifted" in text
        assert "day: recorded &#39;monday&#39;, now &#39;tuesday&#39;" in text
        assert "--on-drift rerun" in text
    store.close_all()


def test_time_that_is_left_is_told_while_calls_wait_and_not_afterwards(own_page: Page) -> None:
    process = start_flow(own_page.folder, "waiting")
    try:
        until(lambda: own_page.json("/api/v1/runs", search="flow:waiting log:waiting")["runs"], "it waits")
        groups = own_page.json("/runs/2.json")["timeline"]["groups"]  # type: ignore[index]
        assert [each["left_s"] for each in groups] == [None] * len(groups), "no call of a task ended while another goes on"
    finally:
        process.kill()
        process.wait(60)
    assert all(each["left_s"] is None for each in own_page.json("/runs/1.json")["timeline"]["groups"])  # type: ignore[index]


@pytest.mark.parametrize("part", ["timeline", "graph", "tasks", "logs", "history", "values", "code"])
def test_each_part_has_a_twin_that_holds_it(page: Page, part: str) -> None:
    for run_id in (1, 2, 3, 5):
        assert part in page.json(f"/runs/{run_id}.json", show=part)
        assert page.client.get(f"/runs/{run_id}?show={part}").status_code == 200
