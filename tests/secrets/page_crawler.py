"""Ask a page for everything that can be asked: all routes, filled with ids and names of the journal, and what pages lead to.

Run in the folder of a journal; each answer becomes a file in the folder 'answers'. Prints which addresses were answered.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import httpx

from wfengine.page import PageServer, app

#: More pages than that are no journal of a test.
LIMIT = 1000
#: What the parts of a path may be; of any other, the word 'one'.
PARTS = {
    "run_id": "SELECT id FROM flow_run",
    "task_run_id": "SELECT id FROM task_run",
    "artifact_id": "SELECT id FROM artifacts",
    "event_id": "SELECT id FROM events",
    "flow": "SELECT name FROM flow",
}
#: How many lines of data a stream gives before it only waits. Of other streams none is waited for.
LINES = {
    "/events/stream": "SELECT count(*) FROM events",
    "/runs/1/logs/stream": "SELECT count(*) FROM log WHERE flow_run_id = 1",
}
ENDLESS = re.compile("month=|from=")  # months, and pieces of a timeline
ASKED = ("/sql?q=SELECT+*+FROM+tasks", "/sql?q=SELECT+*+FROM+logs", "/api/v1/sql?q=SELECT+*+FROM+value", "/runs?q=log:printed",
         "/runs/1?show=logs&q=printed")  # fmt: skip


def paths_of(path: str, connection: sqlite3.Connection) -> Iterator[str]:
    """Yield a route's path with everything that its parts may be."""
    names = re.findall(r"{(\w+)", path)
    choices = [[str(row[0]) for row in connection.execute(PARTS[name])] if name in PARTS else ["one"] for name in names]
    for values in itertools.product(*choices):
        found = path
        for value in values:
            found = re.sub(r"{[^}]*}", quote(value, safe=""), found, count=1)
        yield found


def answer_of(client: httpx.Client, path: str, lines: int) -> tuple[httpx.Response, bytes]:
    """Return an answer and its content; of a stream, so many lines of data."""
    bare = path.partition("?")[0]
    if bare != "/events" and not bare.endswith("/stream"):
        answer = client.get(path)
        return answer, answer.content
    with client.stream("GET", path, params={"after": "0"}) as answer:
        told, coming = [], answer.iter_lines()
        while lines and (line := next(coming, None)) is not None:
            told.append(line)
            lines -= line.startswith("data:")
    return answer, "\n".join(told).encode()


def links_of(path: str, answer: httpx.Response) -> Iterator[str]:
    """Yield where a page leads to."""
    if answer.headers.get("content-type", "").startswith("text/html"):
        for link in re.findall(r'(?:href|src|hx-get)="([^"]+)"', answer.text):
            target = urlsplit(urljoin(path, unescape(link)))
            if not target.netloc and not ENDLESS.search(target.query):
                yield target.path + (f"?{target.query}" if target.query else "")


def crawl(folder: Path, connection: sqlite3.Connection) -> set[str]:
    """Ask for everything; return the addresses that answered, without their queries."""
    lines = {path: int(connection.execute(sql).fetchone()[0]) for path, sql in LINES.items()}
    application = app("journal.db")
    server = PageServer(application, port=0)
    server.start()
    headers = {"authorization": f"Bearer {application.token}"}
    answered, seen = set(), set()
    with httpx.Client(base_url=server.address.rstrip("/"), headers=headers, trust_env=False, timeout=60) as client:
        routes = [route for route in application.starlette.routes if "GET" in getattr(route, "methods", ())]
        wanted = [*ASKED, *(path for route in routes for path in paths_of(str(getattr(route, "path", "")), connection))]
        while wanted:
            path = wanted.pop()
            if path in seen:
                continue
            seen.add(path)
            assert len(seen) < LIMIT
            bare = path.partition("?")[0]
            answer, content = answer_of(client, path, lines.get(bare, 0))
            assert answer.status_code < 500, (path, content)
            if answer.status_code == 200:
                answered.add(bare)
            (folder / f"{len(seen)}").write_bytes(f"{path}\n{dict(answer.headers)}\n".encode() + content)
            wanted += [] if bare.endswith(("/stream", "/events")) else links_of(path, answer)
    server.stop(10.0)
    return answered


if __name__ == "__main__":
    Path("answers").mkdir()
    print(json.dumps(sorted(crawl(Path("answers"), sqlite3.connect("journal.db")))))
