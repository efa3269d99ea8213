"""The client of the API against a real server: what it returns, what it raises, and the streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_source import is_file, sources
from managed import manage
from serving_page import TOKEN, Page, page_over, run_program

from wfengine.api_client import ApiClient
from wfengine.page.table import OPERATIONS
from wfengine_journal import store
from wfengine_journal.errors import ApiError, NotFoundError, ParameterError, UsageError


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page over a journal with some of everything."""
    folder = tmp_path_factory.mktemp("client")
    run_program(folder, "fine", "making")
    manage(folder)
    with page_over(folder) as page:
        yield page
    store.close_all()


@pytest.fixture
def client(served: Page) -> ApiClient:
    """A client of it."""
    return ApiClient(served.base, token=TOKEN)


def test_the_client_has_the_operations_of_the_table_and_no_others() -> None:
    for path, text in sources().items():
        assert Path(path).read_text(encoding="utf-8") == text, "write it with: python -m tests.page.client_source"
    assert {*ApiClient.READS, *ApiClient.CHANGES} == {each.name for each in OPERATIONS if not is_file(each)}
    assert all(hasattr(ApiClient, each.name.replace(".", "_")) for each in OPERATIONS)


def test_what_is_asked_is_answered_by_method_and_by_name(client: ApiClient) -> None:
    assert client.runs_get(1)["run"]["flow"] == "fine"
    assert client.call("runs.list", search="flow:fine")["runs"][0]["id"] == 1
    assert [line["message"] for line in client.runs_logs(1, level=10)["logs"]] == ["loading 0", "loading 1", "loading 2"]
    assert [row["id"] for row in client.rows("runs.tasks", run_id=1, limit=1)] == [1, 2, 3]
    assert [row["full_name"] for row in client.rows("deployments.list", limit=1)] == ["choosing/nightly", "waiting/by-hand"]
    started = client.deployments_run("choosing", "nightly", parameters={"day": "5"}, idempotency_key="one")
    again = client.deployments_run("choosing", "nightly", parameters={"day": "5"}, idempotency_key="one")
    assert started["answer"]["run"]["id"] == again["answer"]["run"]["id"]
    assert client.limits_set("heavy", tag=True, slots="none")["answer"]["limit"]["slots"] is None
    client.limits_delete("heavy", tag=True)
    with pytest.raises(NotFoundError):
        client.limits_get("heavy", tag=True)


def test_files_to_take_away_are_given_open(client: ApiClient) -> None:
    with client.runs_log_file(1, format="jsonl") as lines:
        assert [json.loads(line)["message"] for line in lines] == ["loading 0", "loading 1", "loading 2"]
    with client.runs_extract(1) as journal:
        assert journal.read(15) == b"SQLite format 3"
    with pytest.raises(NotFoundError, match="99"):
        client.runs_extract(99)


def test_what_is_refused_is_raised_as_the_error_that_it_is(client: ApiClient, served: Page) -> None:
    with pytest.raises(NotFoundError, match="99"):
        client.runs_get(99)
    with pytest.raises(ParameterError, match="nothing"):
        client.deployments_run("choosing", "nightly", parameters={"nothing": 1})
    with pytest.raises(UsageError, match="no operation"):
        client.call("runs.nothing")
    with pytest.raises(UsageError, match="not asked like that"):
        client.call("runs.get", nothing=1)
    with pytest.raises(ApiError) as wrong:
        ApiClient(served.base, token="wrong").runs_list()
    assert wrong.value.status == 401
    with pytest.raises(UsageError, match="address"):
        ApiClient("file:///etc/passwd")
    with pytest.raises(ApiError, match="cannot be reached") as away:
        ApiClient("http://127.0.0.1:9", token=TOKEN).runs_list()
    assert away.value.status == 0


def test_the_streams_give_lines_events_and_changes(client: ApiClient, served: Page) -> None:
    lines = client.log_lines(1)
    assert [next(lines)["message"] for _ in range(3)] == ["loading 0", "loading 1", "loading 2"]
    lines.close()  # type: ignore[attr-defined]  # it is a generator
    first = client.events_emit(name="order.placed", resource="order.1", payload={"total": 80})["answer"]["event"]["id"]
    client.events_emit(name="other", resource="order.1")
    client.events_emit(name="order.placed", resource="order.2")
    events = client.events(after=first - 1, name="order.*")
    assert [next(events)["resource"] for _ in range(2)] == ["order.1", "order.2"]
    events.close()  # type: ignore[attr-defined]
    assert served.client.head("/events/stream").headers["content-type"].startswith("text/event-stream")
