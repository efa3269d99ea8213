"""Events: what emit_event writes, what it refuses, and that a body which is executed again emits nothing twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, task
from wfengine.events import emit_event
from wfengine_journal.errors import InvalidValueError


def test_an_event_is_in_the_journal_when_the_call_returns(rows: Rows, clock: FakeClock) -> None:
    found = emit_event(
        "order.placed",
        {"prefect.resource.id": "order.12", "region": "eu"},
        related=[{"wfengine.resource.id": "customer.3", "wfengine.resource.role": "customer"}],
        payload={"total": 80},
    )
    assert (found.id, found.event, found.resource, found.is_new) == (1, "order.placed", "order.12", True)
    assert found.occurred.timestamp() == clock.now
    assert rows("SELECT name, resource, labels, related, payload, run_id FROM events") == [
        (
            "order.placed", "order.12", '{"region":"eu"}',
            '[{"wfengine.resource.id":"customer.3","wfengine.resource.role":"customer"}]', '{"total":80}', None,
        )
    ]  # fmt: skip


def test_a_second_event_with_the_name_and_key_of_another_is_not_recorded(rows: Rows) -> None:
    first = emit_event("order.placed", "order.1", id="k1")
    again = emit_event("order.placed", "order.1", id="k1", payload=2)
    assert (again.id, again.is_new) == (first.id, False)
    assert emit_event("order.paid", "order.1", id="k1").is_new
    assert rows.value("SELECT count(*) FROM events") == 2


def test_an_event_says_when_it_occurred(rows: Rows) -> None:
    emit_event("e", "r", occurred=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert rows.value("SELECT occurred_at FROM events") == "2026-01-02T03:04:05.000000Z"


def test_each_state_change_of_a_flow_run_is_an_event(rows: Rows) -> None:
    @flow
    def small() -> None:
        emit_event("inside", "r")

    small()
    assert rows("SELECT name, run_id FROM events") == [
        ("wfengine.flow-run.Running", 1),
        ("inside", 1),
        ("wfengine.flow-run.Completed", 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", "r"), "The name of an event"),
        (("a\nb", "r"), "printable"),
        (("x" * 501, "r"), "1 to 500"),
        ((7, "r"), "The name of an event"),
        (("wfengine.flow-run.Completed", "r"), "wfengine's own events"),
        (("e", ""), "resource of event"),
        (("e", {"region": "eu"}), "has no 'wfengine.resource.id': it has region"),
        (("e", None), "The resource of an event"),
        (("e", "r", datetime(2026, 1, 1)), "with a time zone"),  # noqa: DTZ001
        (("e", "r", datetime(1, 1, 1, tzinfo=UTC)), "an instant after 1970"),
        (("e", "r", None, None, {1, 2}), "which JSON does not have"),
        (("e", "r", None, None, float("nan")), "which JSON does not have"),
        (("e", "r", None, None, "x" * 1_000_001), "1000000 are allowed"),
        (("e", "r", None, [{"a": "b"}]), "has no 'wfengine.resource.id'"),
        (("e", "r", None, None, None, "firing:1:0"), "as those of automations do"),
    ],
)
def test_what_cannot_be_an_event_is_refused_and_nothing_written(rows: Rows, arguments: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        emit_event(*arguments)
    assert rows("SELECT * FROM events") == []


def test_async_code_emits_without_awaiting(rows: Rows) -> None:
    @task
    async def inner() -> int:
        return emit_event("inner", "r").id

    @flow
    async def outer() -> str:
        await inner()
        return emit_event("outer", "r").event

    assert asyncio.run(outer()) == "outer"
    assert rows("SELECT name FROM events WHERE name NOT LIKE 'wfengine.%'") == [("inner",), ("outer",)]


def test_a_resumed_body_emits_nothing_twice_and_is_given_the_same_event(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine.events import emit_event

        @task
        def work():
            note(emit_event("from.task", "r", payload=1).id)
            if first_time("one"): kill()

        @flow
        def main():
            note(emit_event("from.flow", "r").id)
            note(emit_event("from.flow", "r").id)
            if first_time("two"): kill()
            work()

        if __name__ == "__main__":
            main()
        """
    )
    program.run_and_be_killed()
    assert rows("SELECT id FROM events WHERE name = 'from.flow'") == [(2,), (3,)]
    resume = "from wfengine import use_journal; from wfengine.recovery import resume_run; resume_run(use_journal(None), 1)"
    assert program.python("-c", resume).was_killed
    program.resume()
    assert rows("SELECT count(*) FROM events WHERE name = 'from.flow'") == [(2,)]
    # The task's first attempt was cut off; its second one is made from the top, and finds its own call recorded.
    assert rows("SELECT count(*) FROM events WHERE name = 'from.task'") == [(1,)]
    assert program.effects[:2] == program.effects[2:4] == ["2", "3"]


def test_follows_is_taken_as_prefect_has_it() -> None:
    first = emit_event("a", "r")
    assert emit_event("b", "r", follows=first).id == first.id + 1
