"""A page over a journal, on a port of its own, as a browser or a program meets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path

import httpx

from wfengine.page import PageServer, app

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-for-tests-only"
#: Seconds in which something has to come true on a machine that is busy with other things.
LIMIT = 120.0
KEY_FILE = "WFENGINE_SECRETS_KEY_FILE"


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a program whose journal is in the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WFENGINE_")}
    sources = os.pathsep.join(str(ROOT / part) for part in (".", "journal", "scheduler"))
    return {
        **kept,
        "PYTHONPATH": sources,
        "WFENGINE_JOURNAL": str(folder / "journal.db"),
        KEY_FILE: str(folder / "secrets.key"),
    }


def copy_program(folder: Path) -> Path:
    """Put the flows into the folder."""
    return Path(shutil.copy(Path(__file__).with_name("program.py"), folder / "program.py"))


def run_program(folder: Path, *words: str) -> None:
    """Run flows to their end, in one process."""
    copy_program(folder)
    command = [sys.executable, "program.py", *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr


def start_flow(folder: Path, flow: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a flow as a user would, in a process that can be killed."""
    copy_program(folder)
    command = [sys.executable, "-m", "wfengine", "run", f"program.py:{flow}", "-q", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def until(condition: Callable[[], object], what: str) -> object:
    """Return what a condition gives once it is true."""
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, f"it never came true that {what}"
        time.sleep(0.02)
    return found


class Page:
    """A page that listens. Its commands run in `folder`."""

    def __init__(self, server: PageServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.base = server.address.rstrip("/")
        self.client = httpx.Client(
            base_url=self.base, headers={"authorization": f"Bearer {TOKEN}"}, timeout=LIMIT, trust_env=False
        )  # fmt: skip
        # Keeps no cookie: each request of it is the first one.
        nothing_kept = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.stranger = httpx.Client(base_url=self.base, timeout=LIMIT, trust_env=False, cookies=nothing_kept)

    def json(self, path: str, **query: object) -> dict[str, object]:
        """Return what a GET answers."""
        answer = self.client.get(path, params={name: str(value) for name, value in query.items()})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert isinstance(found, dict)
        return found

    def do(self, path: str, **fields: object) -> httpx.Response:
        """Ask for a change."""
        return self.client.post(f"/api/v1{path}", content=json.dumps(fields), headers={"content-type": "application/json"})

    def state(self, run_id: int) -> str:
        """Return the state of a run."""
        return str(self.json(f"/api/v1/runs/{run_id}")["run"]["state"])  # type: ignore[index]


@contextmanager
def page_over(folder: Path, **options: object) -> Iterator[Page]:
    """Serve the page of the journal in a folder."""
    before, key = Path.cwd(), os.environ.get(KEY_FILE)
    os.chdir(folder)
    os.environ[KEY_FILE] = str(folder / "secrets.key")  # of the commands that the page runs: never that of who tests
    try:
        application = app(folder / "journal.db", token=TOKEN, **options)  # type: ignore[arg-type]
    finally:
        os.chdir(before)
    server = PageServer(application, port=0)
    server.start()
    page = Page(server, folder)
    try:
        yield page
    finally:
        page.client.close()
        page.stranger.close()
        server.stop(10.0)
        os.environ.pop(KEY_FILE)
        if key is not None:
            os.environ[KEY_FILE] = key
