"""Searches and queries that people save under a name: kept as variables, applied by a link, forgotten."""

from __future__ import annotations

import json
import re
import sqlite3
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_page import Page, page_over
from test_browser import CHROMIUM, Visitor, browser, playwright
from test_managing import FORM, landed
from test_markup import STORED, elements

from wfengine.page.saved import NAME_CHARACTERS, QUERIES, SAVED_LIMIT, SEARCHES, variable_name
from wfengine.variables import NAME_LIMIT
from wfengine_journal.errors import UsageError

__all__ = ["browser"]  # the fixture


def kept(folder: Path) -> dict[str, object]:
    """Return the variables of a journal, by name."""
    with sqlite3.connect(folder / "journal.db") as connection:
        found = {name: json.loads(value) for name, value in connection.execute("SELECT name, value FROM variables")}
    connection.close()
    return found


def put(folder: Path, variables: dict[str, object]) -> None:
    """Write variables, as somebody else's program might."""
    with sqlite3.connect(folder / "journal.db") as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO variable VALUES (?, ?, NULL, '2026-10-01T00:00:00.000000Z', '2026-10-01T00:00:00.000000Z')",
            [(name, json.dumps(value)) for name, value in variables.items()],
        )
    connection.close()


def test_a_search_is_saved_applied_by_its_address_replaced_and_forgotten_by_commands_that_are_shown(own_page: Page) -> None:
    saved = own_page.client.post("/do/searches.save", data={"name": "Late ones", "search": "duration>5m"}, headers=FORM)
    assert landed(saved) == "/runs?q=duration%3E5m"
    name = variable_name(SEARCHES, "Late ones")
    assert name.startswith("saved-search-late-ones-")
    assert kept(own_page.folder) == {name: {"name": "Late ones", "search": "duration>5m"}}
    shown = own_page.client.get("/runs", params={"q": "duration>5m"}).text
    assert '<a href="/runs?q=duration%3E5m" aria-current="true">Late ones</a>' in shown
    assert re.search(rf'title="wfengine variables unset [^"]*{name}"', unescape(shown)), "its button shows its command"
    assert "wfengine variables set --tag=saved-search" in unescape(shown)
    again = own_page.do("/searches/Late%20ones", search="state:failed")
    assert again.status_code == 400
    assert "already" in again.json()["error"]["message"]
    replaced = own_page.do("/searches/Late%20ones", search="state:failed", overwrite=True)
    assert replaced.status_code == 200, replaced.text
    assert replaced.json()["command"].startswith("wfengine variables set --overwrite --tag=saved-search")
    assert own_page.json("/api/v1/searches") == {
        "searches": [{"name": "Late ones", "search": "state:failed", "variable": name}]
    }
    assert own_page.json("/runs.json")["own"][0]["search"] == "state:failed"  # type: ignore[index]
    assert landed(own_page.client.post("/do/searches.forget", data={"name": "Late ones"}, headers=FORM)) == "/runs"
    assert kept(own_page.folder) == {}
    assert own_page.client.delete("/api/v1/searches/Late%20ones").status_code == 404


def test_a_query_is_saved_on_the_page_of_sql_and_searches_do_not_see_it(own_page: Page) -> None:
    query = "SELECT name\nFROM runs -- ü"
    saved = own_page.client.post("/do/queries.save", data={"name": "names", "query": query.replace("\n", "\r\n")}, headers=FORM)
    shown = own_page.client.get(landed(saved)).text
    assert 'aria-current="true">names</a>' in shown
    assert kept(own_page.folder) == {"saved-query-names": {"name": "names", "query": query}}
    assert own_page.json("/api/v1/searches") == {"searches": []}
    assert own_page.client.delete("/api/v1/queries/names").status_code == 200
    assert own_page.json("/api/v1/queries") == {"queries": []}


@pytest.mark.parametrize(
    ("name", "search"),
    [
        ("", "state:failed"),
        (" a", "state:failed"),
        ("a\nb", "state:failed"),
        ("a\u202eb", "state:failed"),
        ("x" * (NAME_CHARACTERS + 1), "state:failed"),
        ("fine", ""),
        ("fine", "  "),
        ("fine", "state:happy"),
        ("fine", "x" * 1001),
    ],
)
def test_what_means_nothing_is_not_saved(page: Page, name: str, search: str) -> None:
    answers = [page.client.post("/do/searches.save", data={"name": name, "search": search}, headers=FORM)]
    if name:
        answers.append(page.do(f"/searches/{quote(name, safe='')}", search=search))
    assert [answer.status_code for answer in answers] == [400] * len(answers)
    assert kept(page.folder) == {}


def test_nothing_is_saved_for_another_site_nor_where_nothing_can_be_changed(page: Page, filled: Path) -> None:
    fields = {"name": "a", "search": "state:failed"}
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://elsewhere.example"}):
        assert page.client.post("/do/searches.save", data=fields, headers={**FORM, **headers}).status_code == 403
    assert page.stranger.post("/do/searches.save", data=fields, headers=FORM).status_code == 401
    with page_over(filled, read_only=True) as served:
        assert served.client.post("/do/searches.save", data=fields, headers=FORM).status_code == 403
        assert "/do/searches" not in served.client.get("/runs", params={"q": "state:failed"}).text
        assert "/do/queries" not in served.client.get("/sql", params={"q": "SELECT 1"}).text
    assert kept(filled) == {}


def test_whatever_stands_in_the_variables_the_pages_are_shown_and_it_is_text(own_page: Page) -> None:
    put(
        own_page.folder,
        {"saved-search-x": {"name": "x", "search": "state:failed"}, "saved-query-x": {"name": "x", "query": "SELECT 1"}},
    )
    known = elements("".join(own_page.client.get(path).text for path in ("/runs", "/runs?q=state:failed", "/sql?q=SELECT+1")))
    odd: list[object] = [1, None, "text", [], {}, {"name": 1, "search": 2}, {"name": "y", "search": "z"}, {"name": ""}]
    put(own_page.folder, {f"saved-search-{number}": value for number, value in enumerate(odd)})
    for kind in (SEARCHES, QUERIES):
        for text in STORED:
            name = "".join(letter for letter in text if letter.isprintable()).strip()[:NAME_CHARACTERS] or "-"
            put(own_page.folder, {variable_name(kind, name): {"name": name, kind.field: text}})
    for path in ("/runs", "/runs?q=state:failed", "/sql", "/sql?q=SELECT+1"):
        answer = own_page.client.get(path)
        assert answer.status_code == 200
        found = elements(answer.text)
        assert found.tags <= known.tags
        assert found.attributes <= known.attributes
        assert all(address.startswith("/") or address == "#main" for address in found.addresses)
    names = {each["name"] for each in own_page.json("/api/v1/searches")["searches"]}  # type: ignore[attr-defined]
    assert "x" in names
    assert not names & {"y", "", 1}


def test_more_than_a_bounded_number_is_not_saved(own_page: Page) -> None:
    put(own_page.folder, {f"saved-search-n{n}": {"name": f"n{n}", "search": "x"} for n in range(SAVED_LIMIT)})
    answer = own_page.do("/searches/more", search="x")
    assert answer.status_code == 400
    assert "Forget one first" in answer.json()["error"]["message"]
    assert own_page.do("/searches/n1", search="y", overwrite=True).status_code == 200


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=90), st.text(max_size=90))
def test_two_names_never_share_a_variable_and_each_is_a_name_of_one(one: str, other: str) -> None:
    try:
        names = [variable_name(SEARCHES, one), variable_name(SEARCHES, other)]
    except UsageError:
        return
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert re.fullmatch(r"[a-z0-9_-]+", name)
        assert len(name) <= NAME_LIMIT
        # A name that looks like one with its checksum gets a checksum of its own.
        own = name.removeprefix(SEARCHES.prefix)
        assert own in (one, other) or variable_name(SEARCHES, own) != name


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")
@pytest.mark.parametrize("scripts", [True, False])
def test_somebody_saves_a_search_comes_back_to_it_and_forgets_it(browser: object, own_page: Page, scripts: bool) -> None:
    visitor = Visitor(browser, own_page, java_script_enabled=scripts)
    tab = visitor.tab
    visitor.go("/runs")
    tab.locator("main input[type=search]").fill("state:completed flow:fine")
    tab.get_by_role("button", name="Search").click()
    tab.locator("summary", has_text="save this search").click()
    tab.locator(".saved input[name=name]").fill("what went <b>well</b>")
    tab.get_by_role("button", name="Save").click()
    playwright.expect(tab.locator(".pills a[aria-current]")).to_have_text("what went <b>well</b>")
    visitor.go("/runs?q=state:failed")
    playwright.expect(tab.locator("table.rows tbody input[name=run_ids]")).to_have_count(0)
    tab.locator(".pills a", has_text="what went").click()
    playwright.expect(tab.locator("main input[type=search]")).to_have_value("state:completed flow:fine")
    playwright.expect(tab.locator("table.rows tbody input[name=run_ids]")).to_have_count(1)
    tab.locator("summary", has_text="forget one").click()
    tab.get_by_role("button", name="Forget what went").click()
    tab.wait_for_url("**/runs")
    playwright.expect(tab.locator(".pills a", has_text="what went")).to_have_count(0)
    visitor.close()
