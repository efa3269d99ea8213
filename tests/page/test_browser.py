"""The page in a real browser: the system's own Chromium, which asks nobody but this page."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_page import LIMIT, TOKEN, Page, run_program, start_flow, until

playwright = pytest.importorskip("playwright.sync_api", reason="install the extra tests")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip


# Not for the session: while it lives, an event loop counts as running on this thread, which tests of others do not expect.
@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A browser with a profile of its own."""
    playwright.expect.set_options(timeout=LIMIT * 1000)
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=LIMIT * 1000)
        yield chromium
        chromium.close()


class Visitor:
    """Somebody who opened the link."""

    def __init__(self, browser: object, page: Page, **options: object) -> None:
        self.context = browser.new_context(**options)  # type: ignore[attr-defined]
        self.context.set_default_timeout(LIMIT * 1000)
        self.tab = self.context.new_page()
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(f"{page.base}/?token={TOKEN}")

    def go(self, path: str) -> None:
        """Open a page."""
        self.tab.goto(f"{self.page.base}{path}")

    def sees(self, text: str | re.Pattern[str], where: str = "main") -> None:
        """Wait until a text is there."""
        playwright.expect(self.tab.locator(where).first).to_contain_text(text, timeout=LIMIT * 1000)

    def press(self, key: str) -> None:
        """Press a key, once the page listens to it."""
        playwright.expect(self.tab.locator("#live-switch")).to_be_visible(timeout=LIMIT * 1000)
        self.tab.keyboard.press(key)

    def close(self) -> None:
        """Leave, and look whether the browser complained, or anybody else was asked."""
        self.context.close()
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(f"{self.page.base}/")] == []


@pytest.fixture
def visitor(browser: object, own_page: Page) -> Iterator[Visitor]:
    """Somebody at a page of their own."""
    found = Visitor(browser, own_page)
    yield found
    found.close()


def test_a_run_is_watched_live_killed_seen_crashed_and_resumed_with_its_plan(visitor: Visitor) -> None:
    page, tab = visitor.page, visitor.tab
    assert "token" not in tab.url
    visitor.sees("Nothing runs.")
    process = start_flow(page.folder, "waiting")
    visitor.sees("waiting", ".two")  # without being loaded anew
    tab.locator(".two a", has_text=re.compile("-")).first.click()
    visitor.sees("Running", ".head .state")
    visitor.sees("wait_for", "#live")
    run_path = re.sub("^.*(?=/runs/)", "", tab.url)
    process.kill()
    process.wait(LIMIT)
    visitor.sees("Crashed", ".head .state")
    tab.get_by_role("button", name="Resume…").click()
    visitor.sees("What a resume would do")
    visitor.sees("replayed, not run")
    assert page.state(2) == "CRASHED"
    (page.folder / "go").touch()
    tab.get_by_role("button", name="Resume now").click()
    tab.wait_for_url(f"**{run_path}")
    visitor.sees("Completed", ".head .state")


def test_an_update_of_a_run_asks_once_for_all_that_is_shown_of_it(visitor: Visitor) -> None:
    visitor.go("/runs/1")
    visitor.press("p")  # no other update comes
    heading, table = "#live-head h1", "#live table thead"
    said = {place: visitor.tab.locator(place).first.inner_text() for place in (heading, table)}
    for place in said:
        visitor.tab.eval_on_selector(place, "found => { found.textContent = 'of earlier'; }")
    asked = len(visitor.asked)
    visitor.tab.evaluate("document.body.dispatchEvent(new Event('changed'))")
    for place, text in said.items():
        playwright.expect(visitor.tab.locator(place).first).to_have_text(text, use_inner_text=True, timeout=LIMIT * 1000)
    assert [url for url in visitor.asked[asked:] if url.endswith("/runs/1")] == [f"{visitor.page.base}/runs/1"]


def test_lines_of_a_log_appear_while_a_run_goes_on_and_it_is_cancelled(visitor: Visitor) -> None:
    page, tab = visitor.page, visitor.tab
    process = start_flow(page.folder, "waiting")
    until(lambda: page.json("/api/v1/runs", search="flow:waiting state:running")["runs"], "it runs")
    visitor.go("/runs/2?show=logs")
    visitor.sees("waiting for go", "#log-lines")
    tab.get_by_role("button", name="Cancel").click()
    until(lambda: page.state(2) in ("CANCELLING", "CANCELLED"), "it was asked to stop")
    (page.folder / "go").touch()
    visitor.go("/runs/2")
    visitor.sees("Cancelled", ".head .state")
    process.wait(LIMIT)


def test_a_person_answers_what_a_run_asks_for(visitor: Visitor) -> None:
    run_program(visitor.page.folder, "asking")
    visitor.go("/")
    visitor.sees("Waiting for people")
    visitor.go("/runs/2")
    visitor.sees("Waits for an input")
    visitor.tab.locator("select[name='field.approved']").select_option("true")
    visitor.tab.locator("input[name='field.note']").fill("<b>fine</b>")
    visitor.tab.get_by_role("button", name="Answer").click()
    visitor.sees("Completed", ".head .state")
    visitor.go("/runs/2?show=values")
    visitor.sees("yes")


def test_failures_are_searched_for_and_retried_in_bulk(visitor: Visitor) -> None:
    run_program(visitor.page.folder, "failing", "failing")
    tab = visitor.tab
    visitor.go("/runs")
    tab.locator("main input[type=search]").fill("state:failed flow:failing")
    tab.get_by_role("button", name="Search").click()
    playwright.expect(tab.locator("tbody tr")).to_have_count(2)
    assert "q=state%3Afailed" in tab.url
    tab.get_by_label("all that match").check()
    tab.locator("select[name=action]").select_option("retry")
    tab.get_by_role("button", name="Look at it first…").click()
    visitor.sees("Retry 2 runs?")
    (visitor.page.folder / "mended").touch()
    tab.get_by_role("button", name="Retry 2", exact=True).click()
    visitor.sees(re.compile("Retry: 2 of 2"))
    until(lambda: len(visitor.page.json("/api/v1/runs", search="state:completed flow:failing")["runs"]) == 2, "both completed")  # type: ignore[arg-type]


def test_a_run_is_forked_with_an_edited_parameter(visitor: Visitor) -> None:
    run_program(visitor.page.folder, "failing")
    visitor.go("/runs/2?show=values")
    visitor.tab.locator("textarea[name='param.day']").fill("2027-01-01")
    visitor.tab.get_by_role("button", name="Fork").click()
    visitor.tab.wait_for_url("**/runs/3")
    assert visitor.page.json("/api/v1/runs/3")["run"]["parameters"] == {"worst": 2, "day": "2027-01-01"}  # type: ignore[index]


def test_sql_is_asked_and_the_keyboard_goes_where_it_says(visitor: Visitor) -> None:
    tab = visitor.tab
    visitor.press("s")
    tab.wait_for_url("**/sql")
    tab.locator("textarea").fill("SELECT name, state FROM runs")
    visitor.press("Control+Enter")
    visitor.sees("COMPLETED", ".scroll")
    tab.locator("h1").click()
    visitor.press("r")
    tab.wait_for_url("**/runs")
    visitor.press("/")
    tab.keyboard.type("state:failed")
    visitor.press("Enter")
    visitor.sees("No run is like that")
    visitor.press("o")
    tab.wait_for_url(f"{visitor.page.base}/")
    visitor.press("p")
    playwright.expect(tab.locator("#live-switch")).to_have_attribute("aria-pressed", "false")


def test_with_scripts_off_everything_is_read_and_done(browser: object, own_page: Page) -> None:
    run_program(own_page.folder, "failing")
    visitor = Visitor(browser, own_page, java_script_enabled=False)
    visitor.go("/runs")
    visitor.sees("Failed")
    visitor.tab.get_by_label("Choose run 2").check()
    visitor.tab.locator("select[name=action]").select_option("retry")
    visitor.tab.get_by_role("button", name="Look at it first…").click()
    visitor.sees("Retry 1 run?")
    for part in ("timeline", "graph", "tasks", "logs", "history", "values", "code"):
        visitor.go(f"/runs/2?show={part}")
        visitor.sees("failing")
    visitor.go("/runs/2")
    (own_page.folder / "mended").touch()
    visitor.tab.get_by_role("button", name="Resume…").click()
    visitor.tab.get_by_role("button", name="Resume now").click()
    until(lambda: own_page.state(2) == "COMPLETED", "it is resumed")
    visitor.close()


def test_a_value_that_does_not_fit_is_told_at_its_field_corrected_and_the_run_taken_up(visitor: Visitor) -> None:
    run_program(visitor.page.folder, "failing")
    tab = visitor.tab
    visitor.go("/runs/2?show=values")
    tab.locator("textarea[name='param.worst']").fill("many")
    tab.locator("select[name=from_task]").select_option("load")
    tab.get_by_label("and take it up at once").check()
    tab.get_by_role("button", name="Fork").click()
    visitor.sees("does not fit int")
    wrong = tab.locator("textarea[name='param.worst']")
    playwright.expect(wrong).to_have_attribute("aria-invalid", "true")
    playwright.expect(wrong).to_have_value("many")
    visitor.said.clear()  # the browser notes the status of the answer
    wrong.fill("1")
    (visitor.page.folder / "mended").touch()
    tab.get_by_role("button", name="Try again").click()
    tab.wait_for_url("**/runs/3")
    visitor.sees("Completed", ".head .state")
    assert visitor.page.json("/api/v1/runs/3")["run"]["result"] == 1  # type: ignore[index]


def test_of_a_call_in_doubt_a_person_says_by_a_button_that_it_took_effect(visitor: Visitor) -> None:
    page, tab = visitor.page, visitor.tab
    process = start_flow(page.folder, "doubtful")
    until(lambda: (page.folder / "begun").exists(), "the call began")
    process.kill()
    process.wait(LIMIT)
    until(lambda: page.state(2) == "CRASHED", "it is seen crashed")
    page.do("/runs/2/resume")
    visitor.go("/runs/2")
    visitor.sees("nobody knows whether it took effect")
    tab.get_by_label("Its result, as JSON").fill('"sent"')
    tab.get_by_role("button", name="It took effect").click()
    until(lambda: page.json("/api/v1/runs/2")["in_doubt"] is None, "it is settled")
    visitor.go("/runs/2")
    tab.get_by_role("button", name="Resume…").click()
    tab.get_by_role("button", name="Resume now").click()
    visitor.sees("Completed", ".head .state")


def test_the_timeline_is_looked_at_closer_followed_to_a_call_and_drawn_as_a_graph(visitor: Visitor) -> None:
    run_program(visitor.page.folder, "failing")
    tab = visitor.tab
    visitor.go("/runs/2")
    playwright.expect(tab.locator("path.arrow")).to_have_count(3)
    tab.get_by_role("link", name="closer").click()
    visitor.sees("of 6 calls")
    assert "from=" in tab.url
    tab.get_by_role("link", name="all", exact=True).click()
    visitor.sees("6 calls")
    visitor.press("2")
    visitor.sees("Graph", "main .card")
    playwright.expect(tab.locator("rect.box")).to_have_count(6)
    tab.locator("svg.graph a").first.click()
    visitor.sees("its own went to")


def test_keys_lead_to_flows_the_timeline_the_parts_of_a_run_and_to_what_they_are(visitor: Visitor) -> None:
    tab = visitor.tab
    visitor.press("f")
    tab.wait_for_url("**/flows")
    tab.get_by_role("link", name="fine").click()
    visitor.sees("Last 1 runs by what they called")
    visitor.press("t")
    tab.wait_for_url("**/timeline")
    visitor.press("?")
    tab.wait_for_url("**/keys")
    visitor.sees("pause the live updates")
    visitor.go("/runs/1")
    visitor.press("4")
    tab.wait_for_url("**/runs/1?show=logs")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="text", exact=True).click()
    assert download.value.suggested_filename == "run-1.log"
    assert Path(download.value.path()).read_text().count("loading") == 3


def test_with_scripts_off_a_stretch_is_looked_at_and_every_new_page_is_read(browser: object, own_page: Page) -> None:
    visitor = Visitor(browser, own_page, java_script_enabled=False)
    visitor.go("/runs/1")
    visitor.tab.locator("a:has(rect.zoom)").nth(1).click()
    visitor.sees("of 3 calls")
    visitor.tab.get_by_role("link", name="keys: ?").click()
    visitor.sees("Keys", "h1")
    for path, text in (("/flows", "fine"), ("/flow?name=fine", "How long they took"), ("/timeline", "Newest runs")):
        visitor.go(path)
        visitor.sees(text)
    visitor.close()


def test_no_text_of_a_run_is_executed(browser: object, tmp_path: Path) -> None:
    import json

    from serving_page import page_over
    from test_markup import STORED

    from wfengine_journal import store

    run_program(tmp_path, "telling=" + json.dumps({"texts": STORED}))
    with page_over(tmp_path) as served:
        visitor = Visitor(browser, served)
        visitor.tab.on("dialog", lambda dialog: visitor.said.append("dialog"))
        for path in (
            "/",
            "/runs",
            "/runs/1",
            "/runs/1?show=tasks",
            "/runs/1?show=logs",
            "/runs/1?show=history",
            "/tasks/1",
            "/runs/1?show=graph",
            "/runs/1?show=code",
            "/flow?name=telling",
            "/timeline",
        ):
            visitor.go(path)
            assert visitor.tab.locator("main").count() == 1
        visitor.close()
    store.close_all()
