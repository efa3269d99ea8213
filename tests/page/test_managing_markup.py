"""Whatever a name, a value or an artifact holds, it is a text on each of these pages too."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from managed import manage
from serving_page import Page, page_over, run_program
from test_managing import PATHS
from test_markup import PAYLOADS, STORED, Elements, elements, is_own

from wfengine_journal import store

AT = "2026-10-01T00:00:00.000000Z"


def fill_with(connection: sqlite3.Connection, texts: list[str]) -> None:
    """Put each text wherever a text can be: by SQL, so that no check of ours stands before it."""
    (flow_id,) = connection.execute("SELECT flow_id FROM deployment WHERE id = 1").fetchone()
    schema = connection.execute("SELECT parameter_schema FROM deployment WHERE id = 1").fetchone()[0]
    for number, text in enumerate(texts):
        odd = json.loads(schema)
        odd["properties"] = {text: {"type": "string", "default": text, "description": text}, "b": {"enum": [text, 1]}}
        described = json.dumps({text: text})
        connection.execute(
            "INSERT INTO deployment (flow_id, name, entrypoint, version, description, parameters, tags, queue,"
            " parameter_schema, applied_from, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (flow_id, f"{number} {text}", text, text, text, described, json.dumps([text]), text, json.dumps(odd), text, AT, AT),
        )
        cursor = connection.execute(
            "INSERT INTO schedule (deployment_id, kind, rule, timezone, day_or, parameters, slug, active, created_at)"
            " SELECT max(id), 'cron', '0 3 * * *', 'UTC', 1, ?, ?, 1, ? FROM deployment",
            (described, text, AT),
        )
        connection.execute("INSERT INTO tick VALUES (?, ?, 'skipped', ?, NULL, ?)", (cursor.lastrowid, AT, text, AT))
        for name in (f"queue:{text}", f"tag:{text}", text):
            connection.execute(
                "INSERT INTO quota (name, slots, description, created_at, updated_at) VALUES (?, 1, ?, ?, ?)",
                (name, text, AT, AT),
            )
        connection.execute("INSERT INTO variable VALUES (?, ?, ?, ?, ?)", (text, json.dumps(text), json.dumps([text]), AT, AT))
        connection.execute("INSERT INTO secret VALUES (?, NULL, NULL, ?, 1, ?, ?)", (text, text, AT, AT))
        connection.execute(
            "INSERT INTO event (name, resource, labels, related, payload, idempotency_key, occurred_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (text, text, described, json.dumps([{text: text}]), json.dumps(text), text, AT),
        )
        cursor = connection.execute(
            "INSERT INTO automation (name, description, definition, active, wants_tasks, seen_to, state, applied_from,"
            " created_at, updated_at) VALUES (?, ?, ?, 0, 0, 0, ?, ?, ?, ?)",
            (
                f"{number} {text}",
                text,
                json.dumps({"trigger": {"expect": [text]}, "actions": [{text: text}]}),
                described,
                text,
                AT,
                AT,
            ),
        )
        connection.execute(
            "INSERT INTO firing (automation_id, event_id, context, state, actions_done, results, fired_at)"
            " VALUES (?, (SELECT max(id) FROM event), '{}', 'failed', 0, ?, ?)",
            (cursor.lastrowid, json.dumps([{"reason": text}]), AT),
        )
        table = f"| {text} | b |\n|---|---|\n| {text} | 1 |"
        markdown = f"# {text}\n\n- {text}\n\n> {text}\n\n[{text}]({text})\n\n**{text}** `{text}`\n\n{table}"
        for kind, data in (
            ("markdown", markdown), ("table", json.dumps([{text: text}])), ("table", json.dumps([[text]])),
            ("link", json.dumps({"link": text, "text": text})), ("image", json.dumps(text)), ("image", described),
        ):  # fmt: skip
            connection.execute(
                "INSERT INTO artifact (key, type, data, description, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
                (text, kind, data, text, AT, AT),
            )


def pages_over(page: Page) -> Iterator[str]:
    """Give the address of each page on which such a text stands."""
    for row in page.json("/api/v1/sql", q="SELECT id FROM deployments")["rows"]:  # type: ignore[attr-defined]
        yield from (f"/deployments/{row[0]}{part}" for part in ("?show=start", "?show=schedules", "?show=settings"))
    for table, path in (
        ("schedules", "schedules"),
        ("events", "events"),
        ("automations", "automations"),
        ("artifacts", "artifacts"),
    ):
        for row in page.json("/api/v1/sql", q=f"SELECT id FROM {table}")["rows"]:  # type: ignore[attr-defined]
            yield f"/{path}/{row[0]}"
    for text in STORED:
        yield "/queues/one?" + urlencode({"name": text})
        yield "/limits/one?" + urlencode({"name": text})
        yield "/limits/one?" + urlencode({"name": text, "tag": "true"})
        yield "/variables?" + urlencode({"edit": text})
    yield from ("/deployments", "/schedules", "/queues", "/events/all", "/automations", "/variables", "/secrets", "/artifacts")


def is_outside(address: str) -> bool:
    """Tell whether it is an address that an artifact may lead to, in a link that somebody has to follow."""
    return address.startswith(("http://", "https://"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Elements]]:
    """A page over such texts, and what the templates make where there are none."""
    folder = tmp_path_factory.mktemp("odd")
    run_program(folder, "making")
    manage(folder)
    found = Elements()
    with page_over(folder) as served:
        for path in [*PATHS, "/nothing", "/artifacts/2"]:
            found.feed(served.client.get(path).text)
    found.tags |= {"em", "pre", "ol", "blockquote", "h3", "hr", "br", "progress", "p"}  # of the part of Markdown that there is
    found.attributes |= {"selected", "checked", "rel", "max", "open"}
    with sqlite3.connect(folder / "journal.db") as connection:
        fill_with(connection, STORED)
    connection.close()
    with page_over(folder) as served:
        yield served, found
    store.close_all()


def test_no_text_becomes_markup_on_any_of_these_pages(expected: tuple[Page, Elements]) -> None:
    page, known = expected
    seen = 0
    for path in pages_over(page):
        answer = page.client.get(path)
        assert answer.status_code == 200, (path, answer.text[-1500:])
        found = elements(answer.text)
        assert found.tags <= known.tags, path
        assert found.attributes <= known.attributes, (path, found.attributes - known.attributes)
        assert all(is_own(address) or is_outside(address) for address in found.addresses), path
        # A hidden field of a form holds the very name that is meant; what is shown holds nothing that steers.
        assert not set("\x1b\x07\x9b\u202e\ufeff\x00") & set("".join(found.text)), path
        seen += 1
    assert seen > 15 * len(STORED)


def test_no_text_of_an_address_or_a_form_becomes_markup(expected: tuple[Page, Elements]) -> None:
    page, known = expected
    places = [
        ("/deployments", "text"), ("/schedules", "text"), ("/events/all", "name"), ("/events/all", "resource"),
        ("/variables", "text"), ("/artifacts", "key"), ("/schedules/calendar", "month"), ("/schedules/calendar", "zone"),
        ("/queues/one", "name"), ("/deployments", "after"), ("/secrets", "after"), ("/schedules/1", "before"),
    ]  # fmt: skip
    for number, payload in enumerate(PAYLOADS):
        for path, name in (places[number % len(places)], places[(number * 5 + 1) % len(places)]):
            answer = page.client.get(path, params={name: payload})
            assert answer.status_code in (200, 400, 404), (path, payload)
            check(answer.text, known, path)
        form = {"deployment_id": "1", "param.count": payload, "param.note": payload, "tags": payload, "json": payload}
        answer = page.client.post("/do/deployments.run", data=form)
        assert answer.status_code == 400, payload
        check(answer.text, known, payload)


def check(html: str, known: Elements, where: str) -> None:
    """Look for what the templates do not make."""
    found = elements(html)
    assert found.tags <= known.tags, where
    assert found.attributes <= known.attributes, where
    assert all(is_own(address) for address in found.addresses), where
