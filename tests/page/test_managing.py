"""Deployments, schedules, limits, events, automations and values over HTTP: what is shown of them, and what is done."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from managed import manage, wfengine
from serving_page import LIMIT, Page, environment, page_over, run_program

from wfengine_journal import store

#: Each page that is not about runs; their twins have .json behind the path.
PATHS = (
    "/deployments", "/deployments/1", "/deployments/1?show=start", "/deployments/1?show=schedules",
    "/deployments/1?show=settings", "/deployments/2?show=start", "/schedules", "/schedules/1", "/schedules/calendar",
    "/schedules/calendar?schedule=1&month=2027-02&zone=America/New_York", "/queues", "/queues/one?name=slow",
    "/limits/one?name=database", "/limits/one?name=heavy&tag=true", "/events/all", "/events/all?name=order.*", "/events/1",
    "/automations", "/automations/1", "/variables", "/variables?edit=batch_size", "/secrets", "/artifacts", "/artifacts/1",
    "/doctor",
)  # fmt: skip
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def managed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose journal holds some of everything."""
    folder = tmp_path_factory.mktemp("managed")
    run_program(folder, "making")
    manage(folder)
    return folder


@pytest.fixture(scope="module")
def managed(managed_folder: Path) -> Iterator[Page]:
    """A page over that journal; what a test changes stays for the ones after it."""
    with page_over(managed_folder) as served:
        yield served
    store.close_all()


def send(page: Page, operation: str, **fields: str) -> httpx.Response:
    """Send a form, as a button does."""
    return page.client.post(f"/do/{operation}", data={**fields}, headers=FORM)


def text_of(answer: httpx.Response) -> str:
    """Return what stands on a page, without its elements."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.text))


def landed(answer: httpx.Response) -> str:
    """Return where a button leads."""
    assert answer.status_code == 303, text_of(answer)
    return answer.headers["location"]


def test_each_page_and_its_twin_are_answered(managed: Page) -> None:
    for path in PATHS:
        answer = managed.client.get(path)
        assert answer.status_code == 200, (path, text_of(answer)[-500:])
        name, _, query = path.partition("?")
        twin = managed.client.get(f"{name}.json?{query}")
        assert twin.status_code == 200, (path, twin.text)
        assert f'href="{name}.json' in answer.text, path


def test_what_there_is_not_is_answered_404_and_what_makes_no_sense_400(managed: Page) -> None:
    for path in (
        "/deployments/99", "/schedules/99", "/queues/one?name=none", "/limits/one?name=none", "/events/99999", "/artifacts/99",
        "/automations/99", "/variables?edit=none", f"/schedules/{2**62}", "/schedules/calendar?schedule=99",
    ):  # fmt: skip
        assert managed.client.get(path).status_code == 404, path
    for path in (
        "/schedules/calendar?month=2026-13", "/schedules/calendar?zone=Nowhere", "/schedules/calendar?month=9999-12",
        "/schedules/calendar?month=0001-01", "/schedules/calendar?zone=../../etc/passwd", "/artifacts?type=none",
        "/schedules/1?outcome=none", "/deployments/1?show=none", "/events/all?before=x",
    ):  # fmt: skip
        assert managed.client.get(path).status_code == 400, path


def test_a_start_form_tells_at_the_field_what_is_wrong_and_keeps_what_was_typed(managed: Page) -> None:
    typed = {
        "param.count": "abc", "param.colour": '"green"', "param.box": '{"label": "x"}', "param.note": "kept <b>", "at": "soon",
    }  # fmt: skip
    before = managed.json("/api/v1/deployments/choosing/nightly/runs")["runs"]
    answer = send(managed, "deployments.run", deployment_id="1", idempotency_key="one-key", **typed)
    assert answer.status_code == 400
    shown = text_of(answer)
    for said in ("count is a whole number", "colour is none of what can be chosen", "box needs"):
        assert said in shown
    assert 'value="abc"' in answer.text
    assert 'value="kept &lt;b&gt;"' in answer.text
    assert 'value="one-key"' in answer.text, "nothing was started with it"
    assert 'value="soon"' in answer.text
    assert managed.json("/api/v1/deployments/choosing/nightly/runs")["runs"] == before
    right = {name: text for name, text in typed.items() if name == "param.note"}
    refused = send(managed, "deployments.run", deployment_id="1", idempotency_key="one-key", at="soon", **right)
    assert refused.status_code == 400
    assert "soon" in text_of(refused)
    assert send(managed, "deployments.run", deployment_id="x").status_code == 400
    assert send(managed, "deployments.run", deployment_id="99").status_code == 404


def test_a_form_that_is_sent_twice_starts_one_run_with_exactly_what_was_typed(managed: Page) -> None:
    typed = {
        "param.count": "4", "param.colour": '"blue"', "param.is_loud": "true", "param.box": '{"width": 3}', "param.day": "5",
        "param.note": "null", "tags": "a, b", "run_name": "by-form",
    }  # fmt: skip
    answers = [send(managed, "deployments.run", deployment_id="1", idempotency_key="twice", **typed) for _ in range(2)]
    assert landed(answers[0]) == landed(answers[1])
    runs = managed.json("/api/v1/deployments/choosing/nightly/runs")["runs"]
    assert [run["parameters"] for run in runs if run["name"] == "by-form"] == [  # type: ignore[attr-defined]
        {"count": 4, "colour": "blue", "is_loud": True, "note": "null", "box": {"width": 3}, "day": "5"}
    ]


def test_what_is_given_over_http_is_what_a_run_is_given(managed: Page) -> None:
    parameters = {"day": "2026", "note": "5", "count": 1}
    answer = managed.do("/deployments/choosing/nightly/runs", parameters=parameters, idempotency_key="--help")
    assert answer.status_code == 201, answer.text
    run_id = answer.json()["answer"]["run"]["id"]
    found = managed.json(f"/api/v1/runs/{run_id}")["run"]["parameters"]  # type: ignore[index]
    assert found == parameters
    refused = managed.do("/deployments/choosing/nightly/runs", parameters={"nothing": 1})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "WF101"


def test_schedules_are_paused_triggered_and_backfilled_after_a_look(managed: Page) -> None:
    assert landed(send(managed, "deployments.pause", flow="choosing", deployment="nightly")) == "/deployments/1"
    assert managed.json("/schedules/1.json")["schedule"]["active"] is False  # type: ignore[index]
    assert landed(send(managed, "deployments.resume", flow="choosing", deployment="nightly")) == "/deployments/1"
    assert landed(send(managed, "schedules.pause", schedule_id="1")) == "/schedules/1"
    assert "paused" in text_of(managed.client.get("/schedules/1"))
    assert landed(send(managed, "schedules.resume", schedule_id="1")) == "/schedules/1"
    assert landed(send(managed, "schedules.trigger", schedule_id="1")).startswith("/runs/")
    fields = {"schedule_id": "1", "start": "2026-11-01T00:00", "end": "2026-11-01T00:10"}
    look = send(managed, "schedules.backfill", dry_run="true", **fields)
    assert "Backfill 3 instants of schedule #1?" in text_of(look)
    assert managed.json("/schedules/1.json")["ticks"] == []
    assert "3 runs were put into the queue" in text_of(send(managed, "schedules.backfill", **fields))
    ticks = managed.json("/schedules/1.json")["ticks"]
    assert [tick["nominal_at"][:16] for tick in ticks] == ["2026-11-01T00:10", "2026-11-01T00:05", "2026-11-01T00:00"]  # type: ignore[attr-defined]
    month = managed.json("/schedules/calendar.json", schedule=1, month="2026-11")
    days = {day["date"]: day for day in month["days"]}  # type: ignore[attr-defined]
    assert days["2026-11-01"]["started"] == 3, "the first of November in Berlin"
    assert "No instant is left" in text_of(send(managed, "schedules.backfill", **fields))
    wrong = send(managed, "schedules.backfill", schedule_id="1", start="x", end="y")
    assert wrong.status_code == 400


def test_limits_and_queues_are_set_and_taken_away(managed: Page) -> None:
    assert landed(send(managed, "limits.set", name="a b", slots="2", rate="10/s")) == "/limits/one?name=a+b"
    assert managed.json("/limits/one.json", name="a b")["limit"]["rate"] == "10/s"  # type: ignore[index]
    assert landed(send(managed, "limits.set", name="a b", rate="none")) == "/limits/one?name=a+b"
    assert managed.json("/limits/one.json", name="a b")["limit"]["slots"] == 2, "what is not said stays"  # type: ignore[index]
    assert send(managed, "limits.set", name="a b", slots="many").status_code == 400
    assert landed(send(managed, "limits.delete", name="a b")) == "/queues"
    assert landed(send(managed, "queues.set", name="slow", slots="1", per_partition="none", rate="none")).endswith("name=slow")
    assert landed(send(managed, "queues.pause", name="slow")).endswith("name=slow")
    found = managed.json("/queues/one.json", name="slow")["queue"]
    assert (found["slots"], found["paused"]) == (1, True)  # type: ignore[index]
    assert landed(send(managed, "queues.resume", name="slow")).endswith("name=slow")


def test_an_automation_is_tried_and_switched_off(managed: Page) -> None:
    event = json.dumps({"name": "order.placed", "payload": {"id": 1}})
    assert "ship would fire" in text_of(send(managed, "automations.test", name="ship", event=event))
    assert "ship does not fire" in text_of(send(managed, "automations.test", name="ship", event='{"name": "other"}'))
    assert landed(send(managed, "automations.pause", name="ship")) == "/automations/1"
    assert managed.json("/automations/1.json")["automation"]["active"] is False  # type: ignore[index]
    assert landed(send(managed, "automations.resume", name="ship")) == "/automations/1"
    assert landed(send(managed, "events.emit", name="a.b", resource="c", payload="hi")).startswith("/events/")


def test_the_value_of_a_secret_is_on_no_page_in_no_answer_and_in_no_command_line(managed: Page, managed_folder: Path) -> None:
    value = "-s3cr3t value of 'this' test\nover two lines"
    assert landed(send(managed, "secrets.set", name="password", value=value)) == "/secrets"
    again = send(managed, "secrets.set", name="password", value=value)
    assert again.status_code == 400, "it exists"
    assert landed(send(managed, "secrets.set", name="password", value=value, overwrite="true")) == "/secrets"
    answers = [again, send(managed, "secrets.set", name="no name!", value=value), managed.client.get("/secrets")]
    answers += [managed.do("/secrets/password", value=value), managed.client.get("/secrets.json")]
    answers += [managed.client.get("/api/v1/secrets"), send(managed, "secrets.check", name="password")]
    for answer in answers:
        assert "s3cr3t" not in answer.text
    assert "The secret 'password' can be read here." in text_of(answers[-1]).replace("&#39;", "'")
    for file in managed_folder.glob("journal.db*"):
        assert b"s3cr3t" not in file.read_bytes()
    script = "from wfengine.secrets import Secret; print(repr(Secret('password').get()))"
    assert wfengine_python(managed_folder, script).strip() == repr(value)
    assert landed(send(managed, "secrets.delete", name="password")) == "/secrets"


def wfengine_python(folder: Path, script: str) -> str:
    """Run a script beside the journal."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_request_says_where_a_secret_is_kept_or_what_an_automation_does(managed: Page) -> None:
    for fields in ({"from": "command:touch x"}, {"source": "command:touch x"}):
        assert managed.do("/secrets/x", value="y", **fields).status_code == 400
    headers = {"content-type": "application/json"}
    answer = managed.client.post("/api/v1/automations", content=b"{}", headers=headers)
    assert answer.status_code in (404, 405)


def test_variables_are_set_as_json_and_deleted(managed: Page) -> None:
    assert landed(send(managed, "variables.set", name="a", value='{"x": "1"}')) == "/variables"
    assert managed.json("/api/v1/variables/a")["variable"]["value"] == {"x": "1"}  # type: ignore[index]
    assert send(managed, "variables.set", name="a", value="2").status_code == 400, "it exists"
    assert managed.do("/variables/a", value="-2", overwrite=True).status_code == 200
    assert managed.json("/api/v1/variables/a")["variable"]["value"] == "-2", "a text stays one"  # type: ignore[index]
    assert managed.client.delete("/api/v1/variables/a").status_code == 200
    assert managed.client.delete("/api/v1/variables/a").status_code == 404


def test_an_artifact_is_shown_as_what_it_is(managed: Page) -> None:
    found = {each["key"]: each["id"] for each in managed.json("/artifacts.json")["artifacts"]}  # type: ignore[attr-defined]
    html = managed.client.get(f"/artifacts/{found['report']}").text
    for element in ("<h2>Report", "<li>one</li>", "<strong>bold</strong>", "<code>code</code>", "<th>a</th>", "<td>1</td>"):
        assert element in html
    assert '<a href="https://example.org/a?b=c" rel="noopener noreferrer">link</a>' in html
    assert "&lt;script&gt;" in html
    assert "<th>day</th>" in managed.client.get(f"/artifacts/{found['numbers']}").text


def test_the_code_of_deployments_is_checked(managed: Page) -> None:
    answer = managed.client.post("/do/deployments.check", content=b"", headers=FORM)
    assert answer.status_code == 200
    assert "choosing/nightly" in text_of(answer)
    assert "✓ fine" in text_of(answer)


def test_the_doctor_finds_what_the_command_finds(managed: Page, managed_folder: Path) -> None:
    told = json.loads(wfengine(managed_folder, "doctor", "--json"))["checks"]
    found = managed.json("/api/v1/doctor")
    assert [(each["name"], each["verdict"]) for each in found["checks"]] == [  # type: ignore[attr-defined]
        (each["name"], each["verdict"]) for each in told
    ]
    assert found["sound"] is True
    (managed_folder / "journal.db").chmod(0o644)
    try:
        assert "chmod 600 " in text_of(managed.client.get("/doctor"))
    finally:
        (managed_folder / "journal.db").chmod(0o600)


def test_a_page_that_is_read_only_has_none_of_the_forms(managed_folder: Path) -> None:
    with page_over(managed_folder, read_only=True) as served:
        for path in PATHS:
            if path != "/variables?edit=batch_size":
                assert 'action="/do/' not in served.client.get(path).text, path
    store.close_all()


def test_lists_come_in_pages_without_gap_or_overlap_however_many_there_are(tmp_path: Path) -> None:
    run_program(tmp_path, "making")
    manage(tmp_path)
    fill(tmp_path / "journal.db")
    with page_over(tmp_path) as served:
        for path, rows, key, expected in (
            ("/api/v1/deployments", "deployments", "id", 302),
            ("/api/v1/schedules", "schedules", "id", 301),
            ("/api/v1/schedules/1/ticks", "ticks", "nominal_at", 900),
            ("/api/v1/variables", "variables", "name", 301),
            ("/api/v1/automations/ship/firings", "firings", "id", 300),
            ("/api/v1/artifacts", "artifacts", "id", 302),
        ):
            seen = walk(served, path, rows, limit=170)
            assert len({row[key] for row in seen}) == len(seen) == expected, path  # type: ignore[index]
        found = served.json("/api/v1/events", name="seldom", limit=5)
        assert (found["events"], found["next_before"] is not None) == ([], True), "so many are looked at, and no more"
        assert len(walk(served, "/api/v1/events", "events", name="seldom", limit=5)) == 1
        month = served.json("/api/v1/schedules/calendar", month="2026-10")
        assert month["is_past_cut"] is False
        assert sum(day["skipped"] for day in month["days"]) == 900  # type: ignore[attr-defined]
        following = (datetime.now(UTC).replace(day=1) + timedelta(days=70)).strftime("%Y-%m")
        ahead = served.json("/api/v1/schedules/calendar", schedule_id=1, month=following)
        assert all(day["is_cut"] and 0 < day["due"] < 50 for day in ahead["days"]), "of each day so many"  # type: ignore[attr-defined]
        for path in PATHS:
            assert len(served.client.get(path).text) < 400_000, path
    store.close_all()


def walk(page: Page, path: str, rows: str, **query: object) -> list[object]:
    """Return the rows of all pages of a list."""
    found: list[object] = []
    while True:
        answer = page.json(path, **query)
        found += answer[rows]  # type: ignore[misc]
        following = {"before": answer.get("next_before"), "after": answer.get("next_after"), **(answer.get("next") or {})}  # type: ignore[dict-item]
        following = {name: value for name, value in following.items() if value is not None}
        if not following:
            return found
        query |= following


def fill(path: Path) -> None:
    """Put hundreds of everything, and tens of thousands of events, into a journal."""
    at = "2026-10-01T00:00:00.000000Z"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        (flow_id,) = connection.execute("SELECT flow_id FROM deployment WHERE id = 1").fetchone()
        for number in range(300):
            connection.execute(
                "INSERT INTO deployment (flow_id, name, parameters, created_at, updated_at) VALUES (?, ?, '{}', ?, ?)",
                (flow_id, f"d{number:03}", at, at),
            )
            connection.execute(
                "INSERT INTO schedule (deployment_id, kind, rule, timezone, day_or, parameters, slug, active, created_at)"
                " SELECT id, 'cron', '0 3 * * *', 'UTC', 1, '{}', '', 1, ? FROM deployment WHERE name = ?",
                (at, f"d{number:03}"),
            )
            connection.execute("INSERT INTO variable VALUES (?, '1', NULL, ?, ?)", (f"v{number:03}", at, at))
            connection.execute(
                "INSERT INTO firing (automation_id, context, state, actions_done, results, fired_at)"
                " VALUES (1, '{}', 'done', 0, '[]', ?)",
                (at,),
            )
            connection.execute(
                "INSERT INTO artifact (type, data, created_at, updated_at) VALUES ('markdown', 'x', ?, ?)", (at, at)
            )
        connection.execute("INSERT INTO event (name, resource, occurred_at) VALUES ('seldom', 'x', ?)", (at,))
        connection.executemany("INSERT INTO event (name, resource, occurred_at) VALUES ('often', 'x', ?)", [(at,)] * 25_000)
        start = datetime(2026, 10, 2, tzinfo=UTC)
        connection.executemany(
            "INSERT INTO tick VALUES (1, ?, 'skipped', 'for the test', NULL, ?)",
            [((start + timedelta(minutes=5 * number)).strftime("%Y-%m-%dT%H:%M:%S.000000Z"), at) for number in range(900)],
        )
    connection.close()
