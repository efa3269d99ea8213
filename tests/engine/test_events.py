"""Events that a flow sets, and conditions that it waits for."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tests.engine.conftest import Rows
from wfengine import current_flow_run, flow, get_event, set_event, wait_until
from wfengine_journal.errors import MissingContextError, ReceiveTimeoutError, RunEndedError, UsageError


def test_an_event_is_seen_from_outside_and_the_last_value_counts() -> None:
    @flow
    def progress() -> None:
        set_event("percent", 10)
        set_event("percent", 100)
        set_event("big", "x" * 3000)

    progress()
    assert get_event("@last", "percent") == 100
    assert get_event(1, "big") == "x" * 3000
    assert asyncio.run(outside()) == 100


async def outside() -> object:
    return await get_event(1, "percent")


def test_who_asks_before_it_is_set_waits_for_it() -> None:
    may_set = threading.Event()

    @flow
    def late() -> None:
        may_set.wait(60)
        set_event("ready", True)

    @flow
    def starts() -> None:
        set_event("started", True)
        thread = threading.Thread(target=late)
        thread.start()
        thread.join()

    thread = threading.Thread(target=starts)
    thread.start()
    found: list[object] = []
    while not found:
        try:
            get_event(2, "ready", timeout_seconds=0)
        except ReceiveTimeoutError:
            asker = threading.Thread(target=lambda: found.append(get_event(2, "ready")))
            asker.start()
            may_set.set()
            asker.join()
        except UsageError:
            threading.Event().wait(0.005)  # the run is not there yet
    thread.join()
    assert found == [True]


def test_an_event_that_never_comes_is_a_time_limit_a_default_or_the_end_of_the_run() -> None:
    @flow
    def silent() -> list[object]:
        run = current_flow_run().id
        with pytest.raises(ReceiveTimeoutError):
            get_event(run, "never", timeout_seconds=0)
        return [get_event(run, "never", timeout_seconds=0, default="none")]

    assert silent() == ["none"]
    with pytest.raises(RunEndedError, match="without setting the event 'never'"):
        get_event(1, "never")
    assert get_event(1, "never", default=5) == 5


def test_set_event_outside_of_a_flow_is_refused() -> None:
    with pytest.raises(MissingContextError):
        set_event("a", 1)


def test_a_condition_is_waited_for_and_its_answer_recorded(tmp_path: Path, rows: Rows) -> None:
    file = tmp_path / "arrived.txt"

    def arrived() -> str | None:
        return file.read_text() if file.exists() else None

    @flow
    def waits() -> object:
        threading.Timer(0.05, file.write_text, ("data",)).start()
        return wait_until(arrived, every_seconds=0.01, name="the file arrived")

    @flow
    async def waits_async() -> object:
        return await wait_until(arrived)

    assert waits() == "data"
    assert asyncio.run(waits_async()) == "data"
    assert rows("SELECT json_extract(inputs, '$.condition') FROM tasks WHERE id = 1") == [("the file arrived",)]


def test_a_condition_that_raises_or_is_too_late_fails_the_call() -> None:
    @flow
    def fails() -> list[str]:
        said = []
        for condition in (lambda: 1 / 0, lambda: False):
            try:
                wait_until(condition, timeout_seconds=0)
            except (ZeroDivisionError, ReceiveTimeoutError) as error:
                said.append(type(error).__name__)
        return [*said, wait_until(lambda: 0, timeout_seconds=0, default="no")]

    assert fails() == ["ZeroDivisionError", "ReceiveTimeoutError", "no"]


def test_a_condition_may_ask_for_events_which_is_no_call_of_the_run(rows: Rows) -> None:
    @flow
    def waits() -> object:
        run = current_flow_run().id
        set_event("x", 3)
        return wait_until(lambda: get_event(run, "x", timeout_seconds=0, default=None))

    assert waits() == 3
    assert rows("SELECT task FROM tasks ORDER BY id") == [("wfengine.set_event",), ("wfengine.wait_until",)]
