"""`wfengine.runtime`: attributes of the present run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, runtime, task
from wfengine.runtime import deployment, flow_run, task_run
from wfengine_journal.errors import UsageError


def test_outside_of_a_run_everything_is_empty() -> None:
    assert (flow_run.id, flow_run.name, flow_run.flow_name, flow_run.flow_version) == (None, None, None, None)
    assert (flow_run.tags, flow_run.parameters, flow_run.run_count) == ([], {}, 0)
    assert (flow_run.parent_flow_run_id, flow_run.root_flow_run_id, flow_run.parent_deployment_id) == (None, None, None)
    assert abs(flow_run.scheduled_start_time - datetime.now(UTC)) < timedelta(minutes=1)
    assert (flow_run.api_url, flow_run.ui_url, flow_run.job_variables) == (None, None, None)
    assert (task_run.id, task_run.name, task_run.task_name, task_run.tags) == (None, None, None, [])
    assert (task_run.parameters, task_run.run_count, task_run.api_url, task_run.ui_url) == ({}, 0, None, None)
    assert (deployment.id, deployment.name, deployment.version, deployment.flow_run_id) == (None, None, None, None)
    assert deployment.parameters == {}


def test_the_attributes_are_listed_and_others_are_refused() -> None:
    for module in (flow_run, task_run, deployment):
        assert dir(module) == sorted(module.__all__)
        for name in module.__all__:
            getattr(module, name)
    with pytest.raises(AttributeError, match=r"wfengine.runtime.flow_run has no attribute 'nmae'. It has: id, name"):
        flow_run.nmae  # type: ignore[attr-defined] # noqa: B018
    assert runtime.flow_run is flow_run


def test_a_flow_reads_its_run(clock: FakeClock, rows: Rows) -> None:
    @flow(name="nightly load", version="2.1", tags=["b", "a"])
    def etl(day: str, size: int = 3) -> list[object]:
        assert flow_run.scheduled_start_time == datetime.fromtimestamp(1_750_000_000, UTC)
        assert deployment.flow_run_id == 1
        assert deployment.parameters == {"day": "monday", "size": 3}
        assert task_run.id is None
        assert flow_run.root_flow_run_id == 1
        return [flow_run.id, flow_run.flow_name, flow_run.flow_version, flow_run.tags, flow_run.parameters, flow_run.name]

    found = etl("monday")
    assert found[:5] == [1, "nightly load", "2.1", ["a", "b"], {"day": "monday", "size": 3}]
    assert found[5] == rows.value("SELECT name FROM runs")


def test_a_task_reads_its_own_run_and_that_of_the_flow() -> None:
    @task(name="load it", tags=["slow"], retries=1)
    def load(path: str, limit: int = 10) -> list[object]:
        if task_run.run_count == 1:
            raise ValueError
        return [
            task_run.id,
            task_run.task_name,
            task_run.name,
            task_run.tags,
            task_run.parameters,
            flow_run.id,
            flow_run.flow_name,
        ]

    @flow
    def etl() -> list[object]:
        return load("a")

    assert etl() == [1, "load it", "load it-1", ["slow"], {"path": "a", "limit": 10}, 1, "etl"]


def test_subflows_know_their_parent_and_root() -> None:
    @flow
    def leaf() -> tuple[object, ...]:
        return flow_run.id, flow_run.parent_flow_run_id, flow_run.root_flow_run_id

    @flow
    def middle() -> tuple[object, ...]:
        return leaf()

    @flow
    async def root() -> tuple[object, ...]:
        return middle()

    assert asyncio.run(root()) == (3, 2, 1)


def test_run_count_counts_retries_and_resumes(program: Program) -> None:
    program.write("""
        from wfengine.runtime import flow_run, task_run

        @task
        def step():
            note(f"task:{task_run.run_count}")
            if first_time("task"):
                kill()

        @flow(retries=1)
        def etl():
            note(f"flow:{flow_run.run_count}")
            step()
            if first_time("flow"):
                raise ValueError

        if __name__ == "__main__":
            etl()
    """)
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert program.effects == ["flow:1", "task:1", "flow:2", "task:2", "flow:3"]


@pytest.mark.parametrize(
    ("module", "name", "text", "value"),
    [
        (flow_run, "name", "nightly", "nightly"),
        (flow_run, "id", "12", 12),
        (flow_run, "id", "00000000-text", "00000000-text"),
        (flow_run, "run_count", "3", 3),
        (flow_run, "tags", "a, b", ["a", "b"]),
        (flow_run, "tags", '["a"]', ["a"]),
        (flow_run, "parameters", '{"day": 1}', {"day": 1}),
        (flow_run, "scheduled_start_time", "2026-01-01T00:00:00", datetime(2026, 1, 1, tzinfo=UTC)),
        (flow_run, "scheduled_start_time", "2026-01-01T02:00:00+02:00", datetime(2026, 1, 1, tzinfo=UTC)),
        (flow_run, "made_up", "x", "x"),
        (task_run, "task_name", "load", "load"),
        (deployment, "version", "1", "1"),
    ],
)
def test_an_environment_variable_stands_in_for_an_attribute(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, text: str, value: object
) -> None:
    short = module.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    monkeypatch.setenv(f"WFENGINE__RUNTIME__{short.upper()}__{name.upper()}", text)
    assert getattr(module, name) == value


def test_text_that_cannot_stand_for_an_attribute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFENGINE__RUNTIME__FLOW_RUN__RUN_COUNT", "many")
    with pytest.raises(UsageError, match=r"RUN_COUNT='many' cannot stand for flow_run\.run_count"):
        flow_run.run_count  # noqa: B018
