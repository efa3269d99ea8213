"""Results, their serializers and storage."""

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
