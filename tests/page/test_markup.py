"""Whatever a text holds, wherever it comes from, it is a text: no element, no attribute, no address is made of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest
from serving_page import LIMIT, Page, copy_program, environment, page_over

from wfengine_journal import store

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "javascript:alert(1)",
    "<a href=javascript:alert(1)>x</a>",
    "<iframe src=//evil.example>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<style>@import '//evil.example'</style>",
    "</textarea><b>x</b>",
    "</title><b>x</b>",
    "</pre><b>x</b>",
    "<!--",
    "--><b>x</b>",
    "<![CDATA[<b>x</b>]]>",
    "&lt;script&gt;",
    "&#60;b&#62;x",
    "{{ 7 * 7 }}",
    "{% include '/etc/passwd' %}",
    "${7*7}",
    "<form action=//evil.example><input name=token>",
    "<object data=x>",
    "<embed src=x>",
    "<link rel=stylesheet href=//evil.example>",
    "<math><mtext><b>x",
    "<b hx-get=/runs hx-trigger=load>x",
    "<div data-stream=/events>x",
    "\u202egnp.exe",
    "\x1b[31mred\x1b]0;title\x07",
    "\x9b31m",
    "a\x00b",
    "<scr\x00ipt>alert(1)",
    "\ufeff<b>x</b>",
    "\uff1cscript\uff1e",
    "<b/x='\n'>x</b>",
    "<template><b>x</b></template>",
    "x" * 300 + "<b>",
]
STORED = [payload for payload in PAYLOADS if "\x00" not in payload]

#: What templates themselves make, and nothing else may appear.
PAGES = [
    "/runs", "/runs/1", "/runs/1?from=0&to=100", "/runs/1?show=graph", "/runs/1?show=tasks", "/runs/1?show=logs",
    "/runs/1?show=history", "/runs/1?show=values", "/runs/1?show=code", "/flows", "/timeline",
]  # fmt: skip


class Elements(HTMLParser):
    """Collects what a browser would make elements, attributes and addresses of."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src", "action", "hx-get", "data-stream"):
                self.addresses.append(value or "")

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        """Note a comment, of which there is none."""
        self.tags.add(f"<!--{data}")


def is_own(address: str) -> bool:
    """Tell whether an address is one of this very page."""
    return address == "#main" or (address.startswith("/") and not address.startswith("//"))


def elements(html: str) -> Elements:
    """Return what is in a page."""
    found = Elements()
    found.feed(html)
    found.close()
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page over a run whose every text is such a payload."""
    folder = tmp_path_factory.mktemp("told")
    copy_program(folder)
    (folder / "texts.json").write_text(json.dumps(STORED))
    start = "telling.with_options(flow_run_name='<b>run</b>')(json.load(open('texts.json')))"
    code = f"import json; from program import telling; {start}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    with page_over(folder) as served:
        yield served
    store.close_all()


@pytest.fixture(scope="module")
def expected(page: Page) -> Elements:
    """What the templates make of a run without such texts."""
    found = Elements()
    for path in [
        "/",
        "/runs",
        "/runs?q=state:failed",
        "/sql",
        "/sql?q=select+1",
        "/nothing",
        "/tasks/1",
        "/runs/5",
        "/flows",
        "/flow?name=failing",
        "/timeline",
    ]:
        found.feed(page.client.get(path).text)
    for part in ("timeline", "graph", "tasks", "logs", "history", "values", "code"):
        found.feed(page.client.get(f"/runs/2?show={part}").text)
    for task in page.json("/api/v1/runs/2/tasks")["tasks"]:  # type: ignore[attr-defined]
        found.feed(page.client.get(f"/tasks/{task['id']}").text)
    return found


def test_no_text_of_a_journal_becomes_markup_on_any_page(told: Page, expected: Elements) -> None:
    tasks = told.json("/api/v1/runs/1/tasks", limit=200)["tasks"]
    assert len(tasks) == 2 * len(STORED)  # type: ignore[arg-type]
    paths = [*PAGES, "/", "/flow?name=telling", *(f"/tasks/{task['id']}" for task in tasks)]  # type: ignore[attr-defined]
    paths.append("/sql?q=SELECT+name,+inputs,+result,+error,+tags+FROM+tasks+LIMIT+200")
    for path in paths:
        answer = told.client.get(path)
        assert answer.status_code == 200, path
        found = elements(answer.text)
        assert found.tags <= expected.tags, path
        assert found.attributes <= expected.attributes, path
        assert all(is_own(address) for address in found.addresses), path
        assert not set("\x1b\x07\x9b\u202e\ufeff\x00") & set(answer.text), path


def test_what_was_typed_into_a_form_and_refused_is_shown_as_text_in_its_fields(told: Page) -> None:
    fields = [("run_id", "1"), *((f"param.{payload}", payload) for payload in STORED), ("key", "'><b>x</b>")]
    headers = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
    answer = told.client.post("/do/runs.fork", content=urlencode(fields), headers=headers)
    assert answer.status_code == 400
    found = elements(answer.text)
    assert not found.tags & {"b", "img", "svg", "iframe", "base", "object", "embed", "math", "style", "template", "a/"}
    assert len(re.findall("<textarea", answer.text)) == len(STORED)
    assert all(is_own(address) for address in found.addresses)
    assert not {"onerror", "onload", "onfocus", "onmouseover", "hx-get", "hx-trigger", "data-stream"} & found.attributes


def test_every_payload_is_shown_as_the_text_that_it_is(told: Page) -> None:
    shown = "".join(
        "".join(elements(told.client.get(f"/tasks/{task['id']}").text).text)
        for task in told.json("/api/v1/runs/1/tasks", limit=200)["tasks"]  # type: ignore[attr-defined]
    )
    for payload in ("<script>alert(1)</script>", "{{ 7 * 7 }}", "<b hx-get=/runs hx-trigger=load>x", "&lt;script&gt;"):
        assert payload in shown


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_of_an_address_becomes_markup(page: Page, expected: Elements, payload: str) -> None:
    places = [
        ("/runs", "q"),
        ("/sql", "q"),
        ("/runs/2?show=logs", "q"),
        ("/runs/2?show=tasks", "task"),
        ("/", "since"),
        ("/flow", "name"),
        ("/timeline", "ahead"),
    ]
    # Each payload in two of them; over all payloads each place meets more than a quarter of them.
    for number in range(2):
        path, name = places[(PAYLOADS.index(payload) + number) % len(places)]
        answer = page.client.get(path, params={**dict(page_query(path)), name: payload})
        assert answer.status_code in (200, 400, 404), path
        found = elements(answer.text)
        assert found.tags <= expected.tags, path
        assert found.attributes <= expected.attributes, path
        assert all(is_own(address) for address in found.addresses), path


def page_query(path: str) -> list[tuple[str, str]]:
    """Return the parameters that stand in a path already."""
    query = path.partition("?")[2]
    return [(pair.partition("=")[0], pair.partition("=")[2]) for pair in query.split("&") if pair]


def test_the_api_answers_json_that_no_browser_takes_for_a_page(told: Page) -> None:
    for path in ("/api/v1/runs/1", "/api/v1/runs/1/tasks", "/api/v1/runs/1/logs", "/runs/1.json", "/api/v1/sql?q=%3Cb%3E"):
        answer = told.client.get(path)
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_reading_the_pages_never_turns_a_stored_value_back_into_an_object(tmp_path: Path) -> None:
    traps = Path(__file__).parents[1] / "security" / "test_reading_runs_no_code.py"
    source = traps.read_text(encoding="utf-8").split('PROGRAM = """', 1)[1].split('"""', 1)[0]
    (tmp_path / "traps.py").write_text(source, encoding="utf-8")
    subprocess.run([sys.executable, "traps.py"], cwd=tmp_path, env=environment(tmp_path), check=True, timeout=LIMIT)
    (tmp_path / "sprung").unlink(missing_ok=True)
    with page_over(tmp_path) as served:
        paths = [
            "/",
            *PAGES,
            "/tasks/1",
            "/tasks/2",
            "/sql?q=SELECT+*+FROM+tasks",
            "/overview.json",
            "/runs/1.json",
            "/tasks/1.json",
        ]
        paths += ["/api/v1/runs", "/api/v1/runs/1", "/api/v1/runs/1/tasks", "/api/v1/runs/1/failures", "/api/v1/runs/1/history"]
        paths += ["/api/v1/runs/1/logs/file", "/api/v1/runs/1/extract", "/api/v1/runs/1/artifacts"]
        paths += [f"/flow?name={flow['name']}" for flow in served.json("/flows.json")["flows"]]  # type: ignore[attr-defined]
        for path in paths:
            assert served.client.get(path).status_code == 200, path
    store.close_all()
    assert not (tmp_path / "sprung").exists()
