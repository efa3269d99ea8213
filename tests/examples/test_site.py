"""The site is built without a warning, its links lead somewhere, it asks nothing of others, its references are whole."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

import wfengine
from wfengine.cli import root
from wfengine.page.api import OPERATIONS
from wfengine_journal import store

pytest.importorskip("mkdocs", reason="install the extra docs")

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"
BUILD_SECONDS = 240
BROWSER_SECONDS = 60
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built such that a warning ends the build."""
    folder = tmp_path_factory.mktemp("built") / "site"
    # Not --quiet: a warning that is not said is not counted, and ends nothing.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(SITE / "mkdocs.yml"), "-d", str(folder)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "WFENGINE_SITE_URL": ""}
    ended = subprocess.run(command, env=variables, capture_output=True, encoding="utf-8", timeout=BUILD_SECONDS, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.fixture(scope="module")
def references() -> Iterator[dict[str, str]]:
    """The pages that are made of the code, by the name of the module that makes each."""
    sys.path.insert(0, str(SITE))
    names = ("cli_reference", "python_reference", "journal_reference", "rest_reference")
    yield {name: importlib.import_module(name).page() for name in names}
    sys.path.remove(str(SITE))


#: What a browser fetches by itself when it shows a page, by the attribute that says where from.
LOADS = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "use": "href"}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing of requests."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Reader(HTMLParser):
    """What a page has that others may link to, where it links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and (link := given.get("href")):
            self.links.append(link)
        if load := given.get(LOADS.get(tag, "")):
            self.loads.append(load)


def test_the_site_is_whole_and_asks_nothing_of_others(built: Path) -> None:
    pages = {path: Reader(path.read_text(encoding="utf-8")) for path in built.rglob("*.html")}
    broken, foreign = [], []
    for path, page in pages.items():
        foreign += [f"{path.name}: {load}" for load in page.loads if urlsplit(load).netloc]
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids):
                broken.append(f"{path.relative_to(built)}: {link}")
    styles = "".join(path.read_text(encoding="utf-8") for path in built.rglob("*.css"))

    assert len(pages) > 50
    assert broken == []
    assert foreign == []
    assert re.findall(r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//[^)]*", styles) == []


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")
def test_a_browser_that_reads_and_searches_the_site_asks_nobody_but_its_server(built: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="install the extra tests")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    asked: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=BROWSER_SECONDS * 1000)
        tab = browser.new_page()
        tab.set_default_timeout(BROWSER_SECONDS * 1000)
        tab.on("request", lambda request: asked.append(request.url))
        # What is typed before the page's program listens is not searched for; what the address asks for is.
        tab.goto(f"http://127.0.0.1:{server.server_port}/start.html?q=drift")
        tab.wait_for_selector(".md-search-result__item")
        browser.close()
    server.shutdown()
    thread.join(BROWSER_SECONDS)
    server.server_close()

    assert {urlsplit(url).netloc for url in asked if urlsplit(url).netloc} == {f"127.0.0.1:{server.server_port}"}


def test_every_page_of_the_folder_docs_is_in_the_lists_for_people_and_for_programs(built: Path) -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    configured = set(re.findall(r": ([\w-]+\.md)$", (SITE / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    text = (built / "llms.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[([^\]]+)\]\(([^)]+)\): (.+)$", text, re.MULTILINE)

    assert pages - configured == set()
    assert re.match(r"# wfengine\n\n> .+\n", text)
    assert pages - {link for _, link, _ in listed} == set()
    assert len(listed) == text.count("\n- ")
    for name, link, _ in listed:
        assert (built / link).read_text(encoding="utf-8").startswith(f"# {name}\n")
        assert f"# {name}\n" in (built / "llms-full.txt").read_text(encoding="utf-8")


def _commands(group: click.Group, path: str) -> Iterator[str]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield f"{path} {name}"
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")


def test_the_reference_of_the_command_line_has_every_command(references: dict[str, str]) -> None:
    described = re.findall(r"^##+ (wfengine .*)$", references["cli_reference"], re.MULTILINE)

    assert described == list(_commands(root, "wfengine"))
    assert "`--on-drift" in references["cli_reference"]


def test_the_reference_of_python_has_every_public_name(references: dict[str, str]) -> None:
    described = set(re.findall(r"^### wfengine\.(\w+)$", references["python_reference"], re.MULTILINE))
    modules = {"artifacts", "context", "runtime", "secrets", "variables"}

    assert set(wfengine.__all__) - modules - {"__version__"} - described == set()
    assert " object at 0x" not in references["python_reference"]


def test_the_reference_of_the_journal_has_every_table_and_column_that_a_journal_has(
    tmp_path: Path, references: dict[str, str]
) -> None:
    store.open_journal(tmp_path / "journal.db")
    store.close_all()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '*sqlite_*' ORDER BY name"
        tables = [row[0] for row in connection.execute(names)]
        there = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    parts = re.split(r"^## (\w+)$", references["journal_reference"], flags=re.MULTILINE)[1:]
    described = {
        name: re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) for name, text in zip(parts[::2], parts[1::2], strict=True)
    }

    assert described == there


def test_the_reference_of_the_api_has_every_operation(references: dict[str, str]) -> None:
    described = set(re.findall(r"^### ([A-Z]+ \S+)$", references["rest_reference"], re.MULTILINE))

    assert described == {f"{each.method} /api/v1{each.path}".replace("{", "&#123;") for each in OPERATIONS}
