"""The pages that are not about runs, in a real browser: what somebody starts, steers and sets there."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from managed import daemon, manage, wfengine
from serving_page import Page, page_over, run_program
from test_browser import CHROMIUM, Visitor, browser, playwright
from test_managing import PATHS

from wfengine_journal import store

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")

__all__ = ["browser"]  # the fixture


@pytest.fixture
def managing(browser: object, tmp_path: Path) -> Iterator[Visitor]:
    """Somebody at a page over a journal that holds some of everything."""
    run_program(tmp_path, "making")
    manage(tmp_path)
    with page_over(tmp_path) as served:
        found = Visitor(browser, served)
        yield found
        found.close()
    store.close_all()


def runs_of(page: Page, deployment: str) -> list[dict[str, object]]:
    """Return the runs of a deployment."""
    return page.json(f"/api/v1/deployments/{deployment}/runs")["runs"]  # type: ignore[return-value]


def test_a_run_is_started_from_a_form_once_for_a_double_click_and_watched_live(managing: Visitor) -> None:
    page, tab = managing.page, managing.tab
    # Nothing is to be started by the daemon but what is asked for here.
    wfengine(page.folder, "deployments", "pause", "choosing/nightly")
    wfengine(page.folder, "automations", "pause", "ship")
    with daemon(page.folder):
        managing.press("d")
        tab.wait_for_url("**/deployments")
        tab.get_by_role("link", name="choosing/nightly").click()
        tab.get_by_role("link", name="Start a run…").click()
        tab.locator("input[name='param.count']").fill("many")
        tab.locator("input[name='param.note']").fill("kept")
        tab.get_by_role("button", name="Start").click()
        managing.sees("count is a whole number, and not 'many'", "label.bad")
        playwright.expect(tab.locator("input[name='param.note']")).to_have_value("kept")
        assert runs_of(page, "choosing/nightly") == []
        tab.locator("input[name='param.count']").fill("3")
        tab.locator("select[name='param.colour']").select_option(label="blue")
        tab.locator("textarea[name='param.box']").fill('{"width": 7}')
        tab.get_by_role("button", name="Start").dblclick()
        tab.wait_for_url("**/runs/*")
        managing.sees("Completed", ".head .state")  # it is executed by the daemon, and the page follows by itself
        # What the page refused is said in the log of the browser too, and nothing else is.
        refused, managing.said = managing.said, []
        assert [line for line in refused if "400" not in line] == []
        runs = runs_of(page, "choosing/nightly")
        assert [run["result"] for run in runs] == [[0, 1, 2, "blue", False, "kept", 7, "2026-11-22"]]


def test_a_schedule_is_paused_and_backfilled_after_a_look(managing: Visitor) -> None:
    page, tab = managing.page, managing.tab
    managing.press("c")
    tab.wait_for_url("**/schedules")
    managing.sees("every 5 minutes")
    tab.get_by_role("link", name="#1").click()
    tab.get_by_role("button", name="Pause").click()
    managing.sees("paused", ".head .state")
    managing.sees("what is due is recorded as skipped")
    tab.get_by_role("button", name="Resume").click()
    managing.sees("active", ".head .state")
    tab.locator("input[name=start]").fill("2026-11-01T12:00")
    tab.locator("input[name=end]").fill("2026-11-01T12:10")
    tab.get_by_role("button", name="Look at it first…").click()
    managing.sees("Backfill 3 instants of schedule #1?")
    assert runs_of(page, "choosing/nightly") == []
    tab.get_by_role("button", name="Start 3").click()
    managing.sees("3 runs were put into the queue")
    assert len(runs_of(page, "choosing/nightly")) == 3
    tab.get_by_role("link", name="Back to the schedule").click()
    managing.sees("2026-11-01 12:10:00Z", "#live")
    managing.go("/schedules/calendar?schedule=1&month=2026-11")
    managing.sees(re.compile("✓ 3 started"), ".calendar")


def test_a_limit_is_set_and_an_event_appears_by_itself_and_an_automation_is_tried(managing: Visitor) -> None:
    page, tab = managing.page, managing.tab
    managing.press("q")
    tab.wait_for_url("**/queues")
    tab.locator("input[name=name]").fill("gpu")
    tab.locator("input[name=slots]").fill("2")
    tab.get_by_role("button", name="Set", exact=True).click()
    managing.sees("0 of 2 taken")
    tab.locator("input[name=slots]").fill("5")
    tab.get_by_role("button", name="Change").click()
    managing.sees("0 of 5 taken")
    managing.press("e")
    tab.wait_for_url("**/events/all")
    managing.sees("order.placed")
    assert page.do("/events", name="disk.full", resource="host.a").status_code == 201
    managing.sees("disk.full", "#live")  # without being loaded anew
    managing.press("a")
    tab.wait_for_url("**/automations")
    tab.get_by_role("link", name="ship").click()
    playwright.expect(tab.locator("textarea[name=event]")).to_have_value(re.compile("order.placed"))
    tab.get_by_role("button", name="Test").click()
    managing.sees("ship would fire")
    managing.sees("waiting/by-hand")
    assert runs_of(page, "waiting/by-hand") == []
    tab.get_by_role("link", name="Back to the automation").click()
    tab.get_by_role("button", name="Disable").click()
    managing.sees("paused", ".head .state")


def test_with_scripts_off_each_page_is_read_and_its_forms_work(browser: object, tmp_path: Path) -> None:
    run_program(tmp_path, "making")
    manage(tmp_path)
    with page_over(tmp_path) as served:
        visitor = Visitor(browser, served, java_script_enabled=False)
        for path in PATHS:
            visitor.go(path)
            assert visitor.tab.locator("main h1").count() == 1, path
            assert visitor.tab.locator("text=A fault").count() == 0, path
        visitor.go("/deployments/2?show=start")
        visitor.tab.locator("input[name='param.name']").fill("other")
        visitor.tab.get_by_role("button", name="Start").click()
        visitor.tab.wait_for_url("**/runs/*")
        assert [run["parameters"] for run in runs_of(served, "waiting/by-hand")] == [{"name": "other"}]
        visitor.go("/secrets")
        visitor.tab.locator("input[name=name]").fill("password")
        visitor.tab.locator("input[name=value]").fill("s3cr3t")
        visitor.tab.get_by_role("button", name="Set").click()
        visitor.sees("here, encrypted")
        visitor.tab.get_by_role("button", name="Check").click()
        visitor.sees("can be read here")
        assert "s3cr3t" not in visitor.tab.content()
        visitor.go("/variables")
        visitor.tab.get_by_role("link", name="change").click()
        visitor.tab.locator("textarea[name=value]").fill('{"a": 1}')
        visitor.tab.get_by_role("button", name="Change").click()
        visitor.sees('{"a": 1}', "#live")
        visitor.tab.locator("summary", has_text="Delete").click()
        visitor.tab.get_by_role("button", name="Delete").click()
        visitor.sees("There is no variable yet.")
        visitor.said = [line for line in visitor.said if not line.startswith("verbose:")]  # advice on fields for passwords
        visitor.close()
    store.close_all()


def test_no_text_of_these_pages_is_executed(browser: object, tmp_path: Path) -> None:
    from test_managing_markup import fill_with, pages_over
    from test_markup import STORED

    run_program(tmp_path, "making")
    manage(tmp_path)
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        fill_with(connection, STORED)
    connection.close()
    with page_over(tmp_path) as served:
        visitor = Visitor(browser, served)
        visitor.tab.on("dialog", lambda dialog: visitor.said.append("dialog"))
        for path in [*pages_over(served)][::7]:
            visitor.go(path)
            assert visitor.tab.locator("main").count() == 1
        assert json.dumps(visitor.said) == "[]"
        visitor.close()
    store.close_all()
