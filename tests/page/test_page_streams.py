"""What comes by itself: that something changed, and lines of a log."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from serving_page import Page, page_over, run_program, start_flow, until


def listen(page: Page, path: str, wanted: int, found: list[str]) -> threading.Thread:
    """Collect so many lines of a stream that begin with 'data:' on a thread."""

    def listens() -> None:
        with page.client.stream("GET", path) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            found.append("open")
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    found.append(line.removeprefix("data:").strip())
                if len(found) > wanted:
                    return

    thread = threading.Thread(target=listens, daemon=True)
    thread.start()
    until(lambda: found, "the stream is open")
    return thread


def test_a_commit_of_another_process_is_told_of(own_page: Page) -> None:
    found: list[str] = []
    thread = listen(own_page, "/events", 1, found)
    run_program(own_page.folder, "fine")
    thread.join(120)
    assert found[:2] == ["open", "{}"]


def test_what_was_committed_after_a_page_was_read_and_before_its_stream_is_there_is_told_of(own_page: Page) -> None:
    matched = re.search('data-seen="([0-9-]+)"', own_page.client.get("/runs/1").text)
    assert matched is not None
    run_program(own_page.folder, "fine")
    found: list[str] = []
    listen(own_page, f"/events?seen={matched[1]}", 1, found).join(120)
    assert found == ["open", "{}"]  # although nothing is committed any more


def test_the_lines_of_a_run_come_as_it_logs_them(own_page: Page) -> None:
    process = start_flow(own_page.folder, "waiting")
    until(lambda: own_page.json("/api/v1/runs", search="flow:waiting")["runs"], "it began")
    found: list[str] = []
    thread = listen(own_page, "/runs/2/logs/stream", 3, found)
    until(lambda: len(found) >= 3, "what it logged is told")
    (own_page.folder / "go").touch()
    thread.join(120)
    process.wait(120)
    assert [json.loads(line)["message"] for line in found[1:4]] == ["loading 1", "waiting for go", "loading 2"]


def test_the_head_of_a_stream_ends(page: Page) -> None:
    for path in ("/events", "/runs/1/logs/stream"):
        answer = page.client.head(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_a_stream_goes_on_after_the_line_that_was_seen_last(page: Page) -> None:
    lines = page.json("/api/v1/runs/1/logs")["logs"]
    assert len(lines) == 3  # type: ignore[arg-type]
    found: list[str] = []
    thread = listen(page, f"/runs/1/logs/stream?after={lines[1]['id']}", 1, found)  # type: ignore[index]
    thread.join(120)
    assert json.loads(found[1])["message"] == "loading 2"


def test_a_server_that_stops_lets_go_of_its_streams(filled: Path) -> None:
    found: list[str] = []
    with page_over(filled) as served:
        thread = listen(served, "/events", 1000, found)
        until(lambda: served.server.application.serving.streams == 1, "it is counted")
        served.server.stop(60.0)
        assert served.server._thread is not None
        assert not served.server._thread.is_alive()
    thread.join(120)
    assert not thread.is_alive()
