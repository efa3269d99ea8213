"""How the page is started, and that it is not where nobody asked for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_page import LIMIT, TOKEN, Page, copy_program, environment, page_over, until
from starlette.applications import Starlette
from starlette.routing import Mount

from wfengine.page import app
from wfengine_journal.errors import UsageError


@contextmanager
def started(folder: Path, *words: str, **changes: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command that goes on until it is stopped."""
    command = [sys.executable, "-m", "wfengine", *words]
    process = subprocess.Popen(
        command, cwd=folder, env={**environment(folder), **changes}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=LIMIT)


def ask(application: Any, method: str, path: str, **options: Any) -> httpx.Response:
    """Ask an application that no server serves."""

    async def asks() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    with ThreadPoolExecutor(1) as thread:  # a loop of its own, whatever runs on this thread
        return thread.submit(asyncio.run, asks()).result(LIMIT)


def run(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "wfengine", *words]
    return subprocess.run(
        command, cwd=folder, env={**environment(folder), **changes}, capture_output=True, text=True, timeout=LIMIT
    )  # fmt: skip


def test_the_command_prints_a_link_that_opens_the_page_and_ends_with_ctrl_c(filled: Path) -> None:
    with started(filled, "ui", "--port", "0", "--no-open", "--json") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["address"].startswith("http://127.0.0.1:")
        with httpx.Client(follow_redirects=True, trust_env=False, timeout=LIMIT) as client:
            assert client.get(said["address"]).status_code == 401
            assert "Overview" in client.get(said["link"]).text
            assert client.get(f"{said['address']}runs").status_code == 200, "the cookie is kept"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0


def test_each_start_has_another_token_unless_one_is_set(filled: Path) -> None:
    made = {
        json.loads(run(filled, "ui", "--port=0", "--no-open", "--json", "--timeout=0.1").stdout)["link"][-32:] for _ in range(2)
    }
    assert len(made) == 2
    done = run(filled, "ui", "--port=0", "--no-open", "--timeout=0.1", WFENGINE_UI_TOKEN=TOKEN)
    assert f"?token={TOKEN} " in done.stderr


def test_at_an_address_that_others_reach_a_token_has_to_be_set(filled: Path) -> None:
    done = run(filled, "ui", "--host", "0.0.0.0", "--port", "0", "--no-open")
    assert done.returncode == 2
    assert "WFENGINE_UI_TOKEN=..." in done.stderr
    done = run(filled, "ui", "--host=0.0.0.0", "--port=0", "--no-open", "--timeout=0.1", WFENGINE_UI_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("token", ["short", "a token with blanks in it", "token;with=signs,,,,,", "x" * 300])
def test_a_token_that_is_short_or_steers_is_refused(filled: Path, token: str) -> None:
    done = run(filled, "ui", "--port=0", "--no-open", "--timeout=0.1", WFENGINE_UI_TOKEN=token)
    assert done.returncode == 2
    assert token not in done.stderr


def test_a_port_that_is_taken_is_said_in_words(page: Page) -> None:
    done = run(page.folder, "ui", "--port", str(page.server.port), "--no-open")
    assert done.returncode == 2
    assert "Take another port" in done.stderr


def test_the_daemon_serves_the_page_and_starts_what_is_asked_for_there(tmp_path: Path) -> None:
    copy_program(tmp_path)
    (tmp_path / "served.py").write_text("from program import fine\n\ndeployment = fine.to_deployment('nightly')\n")
    with started(
        tmp_path, "serve", "served.py", "--ui", "--ui-port", "0", "--log-format", "json", WFENGINE_UI_TOKEN=TOKEN
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if "the page is at" in line:
                break
        link = next(word for word in lines[-1].replace('"', " ").split() if word.startswith("http://"))
        base = link.partition("/?")[0]
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=base, headers=headers, trust_env=False, timeout=LIMIT) as client:
            started_run = client.post("/api/v1/deployments/fine/nightly/runs", json={"parameters": {"count": 2}})
            assert started_run.status_code == 201, started_run.text
            run_id = started_run.json()["answer"]["run"]["id"]

            def result() -> object:
                return client.get(f"/api/v1/runs/{run_id}").json()["run"]["result"]

            assert until(result, "the daemon executes it") == [0, 1]
            assert client.get("/api/v1/overview").json()["daemons"][0]["state"] == "running"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0


def test_without_being_asked_for_the_daemon_does_not_listen_and_loads_none_of_it(tmp_path: Path) -> None:
    copy_program(tmp_path)
    code = (
        "import sys; from wfengine.cli import main\n"
        "try: main(['serve', 'program.py', '--timeout', '0.2', '-q'])\n"
        "finally:\n"
        "    ours = ('wfengine.page', 'starlette', 'uvicorn', 'jinja2')\n"
        "    print(sorted(name for name in sys.modules if name.startswith(ours)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr


def test_mounted_in_another_application_every_link_stays_below_it_and_the_guard_holds(filled: Path) -> None:
    mounted = Starlette(routes=[Mount("/inside", app(filled / "journal.db", token=TOKEN, read_only=True))])
    assert ask(mounted, "GET", "/inside/").status_code == 401
    answer = ask(mounted, "GET", "/inside/runs", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert 'href="/inside/runs/1"' in answer.text
    assert 'href="/runs' not in answer.text
    link = ask(mounted, "GET", "/inside/runs", params={"token": TOKEN})
    assert link.headers["location"] == "/inside/runs"
    assert "Path=/inside;" in link.headers["set-cookie"]


def test_an_application_that_looks_itself_who_asks_can_say_so_and_cannot_by_mistake(filled: Path) -> None:
    open_page = app(filled / "journal.db", open_to_all=True)
    assert ask(open_page, "GET", "/runs").status_code == 200
    assert ask(open_page, "POST", "/do/runs.pause").status_code == 403, "it has to come from the page even so"
    with pytest.raises(UsageError):
        app(filled / "journal.db", open_to_all=True, token=TOKEN)
    with pytest.raises(UsageError):
        app(filled / "journal.db", base_path="flows/")
    assert app(filled / "journal.db").token


def test_a_missing_package_is_answered_with_its_pip_line(filled: Path) -> None:
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'jinja2' else find(name, *rest)\n"
        "from wfengine.cli import main; main(['ui', '--port', '0'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=filled, env=environment(filled), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 2
    assert "pip install 'wfengine[ui]'" in done.stderr


def test_the_page_holds_no_file_open_that_a_run_of_the_same_process_has_locked(tmp_path: Path) -> None:
    """Closing a file drops every lock of the process on it, also that with which a daemon shows that it lives."""
    code = (
        "import fcntl, os, sys\n"
        "from program import fine\n"
        "import wfengine, serving_page\n"
        "from pathlib import Path\n"
        "fine()\n"
        "with serving_page.page_over(Path('.')) as page:\n"
        "    for path in ('/', '/runs', '/runs/1', '/sql', '/api/v1/overview'):\n"
        "        assert page.client.get(path).status_code == 200, path\n"
        "    held = Path('/proc/locks').read_text()\n"
        "    number = os.stat('journal.db-lock').st_ino\n"
        "    assert any(f':{number} ' in line and f' {os.getpid()} ' in line for line in held.splitlines()), held\n"
    )
    if not Path("/proc/locks").exists():
        pytest.skip("this system does not tell which locks are held")
    copy_program(tmp_path)
    here = {**environment(tmp_path)}
    here["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=here, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr


def test_no_part_of_an_answer_waits_until_the_client_has_received_the_part_before(own_page: Page) -> None:
    """A socket that waits to fill a packet holds each answer back for the 40 ms after which a client owns up to what it has."""
    assert own_page.client.get("/keys").status_code == 200  # its connection is kept
    assert own_page.server._server is not None
    connections = [each.transport.get_extra_info("socket") for each in set(own_page.server._server.server_state.connections)]
    assert connections
    assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in connections)


def test_the_files_that_are_handed_out_are_those_that_were_taken_from_their_makers() -> None:
    import hashlib

    static = Path(app.__code__.co_filename).parent / "static"
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in static.iterdir()}
    # htmx.org 2.0.11, from its package in the npm registry.
    assert found["htmx.min.js"] == "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
    assert "htmx.LICENSE" in found
    with page_over(static) as served:
        assert served.client.get("/static/htmx.LICENSE").status_code == 404
