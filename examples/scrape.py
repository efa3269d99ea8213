"""Read a site from a page on, politely: each address once, some at a time; what fails later again, nothing twice after a crash.

    python scrape.py http://127.0.0.1:8000/        read what somebody serves; or without an address: a folder of Python's own
    wfengine resume @last                          go on: pages that were read are not asked for again
    wfengine sql "SELECT inputs, error FROM tasks WHERE task = 'fetch' AND state = 'FAILED'"

It stays below the address that it begins at. What it needs comes with Python.
"""

from __future__ import annotations

import email
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypedDict
from urllib.error import HTTPError
from urllib.parse import urldefrag, urljoin
from urllib.request import urlopen

from wfengine import flow, task
from wfengine.concurrency.sync import rate_limit

PAGES_LIMIT = 1000
TIMEOUT_SECONDS = 10


class Reading(TypedDict):
    """What is kept of one page: plain data, so it stands in the journal as JSON."""

    address: str
    bytes: int
    words: int
    links: list[str]


class Links(HTMLParser):
    """Collects the addresses to which a page links."""

    def __init__(self, base: str, text: str) -> None:
        super().__init__()
        self._base = base
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the address of a link, without what stands behind its #."""
        link = dict(attrs).get("href")
        if tag == "a" and link:
            self.found.add(urldefrag(urljoin(self._base, link)).url)


def is_wanted(link: str, start: str) -> bool:
    """Tell whether a link is read: below where it began, and no file that Python makes by itself."""
    return link.startswith(start) and "__pycache__" not in link


def worth_another_try(error: BaseException) -> bool:
    """A page that is not there, or forbidden, is not there the next time either."""
    return not (isinstance(error, HTTPError) and error.code < 500)


@task(retries=3, retry_delay_seconds=[0.2, 2, 10], retry_condition_fn=worth_another_try, task_run_name="{address}")
def fetch(address: str) -> Reading:
    """Ask for a page, at the most so often as `wfengine limits set site --rate 10/s` says, if it was said."""
    rate_limit("site")
    with urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
        content: bytes = answer.read()
        html = answer.headers.get_content_type() == "text/html"
    text = content.decode("utf-8", "replace")
    links = sorted(Links(address, text).found) if html else []
    return {"address": address, "bytes": len(content), "words": len(text.split()), "links": links}


@flow
def scrape(start: str) -> dict[str, object]:
    """Read all pages below `start` that are linked from there, one ring of links after the other."""
    known, ring, read, missing = {start}, [start], [], []
    while ring:
        futures = fetch.map(ring)
        futures.wait()
        states = [future.state for future in futures]
        pages = [future.result() for future, state in zip(futures, states, strict=True) if state.is_completed()]
        missing += [address for address, state in zip(ring, states, strict=True) if not state.is_completed()]
        read += pages
        below = {link for page in pages for link in page["links"] if is_wanted(link, start)}
        ring = sorted(below - known)[: PAGES_LIMIT - len(known)]
        known.update(ring)
    return {"pages": len(read), "words": sum(page["words"] for page in read), "missing": missing}


def serve_a_folder() -> str:
    """Serve a folder of Python's own at a free port of this machine, and return its address."""
    folder = str(Path(email.__file__).parent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


if __name__ == "__main__":
    for name, value in scrape(sys.argv[1] if len(sys.argv) > 1 else serve_a_folder()).items():
        print(f"{name}: {value}")
