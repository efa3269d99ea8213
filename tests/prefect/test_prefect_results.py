"""Results, their serializers and storage; background tasks; deployments and schedules as Prefect writes them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.serializers import CompressedPickleSerializer, JSONSerializer, PickleSerializer


@pytest.mark.parametrize(
    "serializer",
    [
        "pickle",
        "json",
        "compressed/pickle",
        "compressed/json",
        PickleSerializer(),
        JSONSerializer(),
        CompressedPickleSerializer(),
    ],
)
def test_a_result_is_serialized_as_its_task_asks(serializer: object) -> None:
    calls: list[int] = []

    @task(result_serializer=serializer, persist_result=True)
    def load() -> dict[str, object]:
        calls.append(1)
        return {"rows": [1, 2.5, None, "text"]}

    @flow(retries=1)
    def program() -> dict[str, object]:
        found = load()
        if len(calls) == 1:
            calls.append(2)
            raise RuntimeError("after the load")
        return found

    assert program() == {"rows": [1, 2.5, None, "text"]}
    assert calls == [1, 2]


def test_a_serializer_gives_back_what_it_was_given() -> None:
    value = {"day": dt.date(2025, 4, 7), "amount": Decimal("1.10"), "path": Path("a")}

    for serializer in (PickleSerializer(), CompressedPickleSerializer()):
        assert serializer.loads(serializer.dumps(value)) == value
    assert JSONSerializer().loads(JSONSerializer().dumps({"a": [1, None]})) == {"a": [1, None]}


def test_results_are_kept_without_asking(rows: Rows) -> None:
    """In Prefect persist_result is off by default, and a result that was not persisted is lost with its process."""

    @task
    def load() -> list[int]:
        return [1, 2]

    @flow
    def program() -> list[int]:
        return load()

    program()
    assert rows("SELECT result FROM tasks") == [("[1,2]",)]


def test_a_large_result_goes_to_a_storage_of_its_own(tmp_path: Path, rows: Rows) -> None:
    storage = tmp_path / "results"

    @task(result_storage=storage, persist_result=True)
    def load() -> str:
        return "x" * 100_000

    @flow
    def program() -> int:
        return len(load())

    assert program() == 100_000
    assert [path for path in storage.rglob("*") if path.is_file()]


def test_a_background_task_waits_in_the_journal_for_a_worker(rows: Rows) -> None:
    done: list[tuple[int, str]] = []

    @task
    def send(number: int, to: str = "all") -> int:
        done.append((number, to))
        return number

    first = send.delay(1)
    second = send.apply_async((2,), {"to": "ada"})

    assert done == []
    assert first.state.type.value in ("SCHEDULED", "PENDING")
    _work(send)
    assert sorted(done) == [(1, "all"), (2, "ada")]
    assert (first.result(), second.result()) == (1, 2)


def _work(*tasks: object) -> None:
    """Let a worker do what waits, and stop."""
    from wfengine.task_worker import TaskWorker

    TaskWorker(*tasks).run_once()  # type: ignore[arg-type]


def test_a_deployment_is_made_of_a_flow_with_a_schedule(rows: Rows) -> None:
    from wfengine.schedules import Cron, Interval

    @flow(name="nightly")
    def program(day: str = "today") -> None: ...

    deployment = program.to_deployment(name="eu", cron="0 3 * * *", parameters={"day": "monday"}, tags=["eu"])
    assert deployment.name == "eu"
    assert deployment.parameters == {"day": "monday"}
    assert Cron("0 3 * * *", timezone="Europe/Berlin").timezone == "Europe/Berlin"
    assert Interval(dt.timedelta(hours=1)).interval == dt.timedelta(hours=1)
