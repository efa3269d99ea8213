"""What a run knows of itself and leaves behind: names, tags, runtime, context, logs, variables, artifacts."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest

from tests.prefect.conftest import Rows
from wfengine import flow, get_run_logger, runtime, tags, task
from wfengine.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from wfengine.context import FlowRunContext, TaskRunContext, get_run_context
from wfengine.exceptions import MissingContextError
from wfengine.runtime import flow_run, task_run
from wfengine.variables import Variable

# ------------------------------------------------------------------------------------------- names


def test_run_names_are_templates_over_the_parameters(rows: Rows) -> None:
    @task(task_run_name="{name} on {date:%A}")
    def greet(name: str, date: dt.date) -> None: ...

    @flow(flow_run_name="greetings-{count:03}")
    def program(count: int) -> None:
        greet("ada", dt.date(2025, 4, 7))

    program(7)
    assert rows("SELECT name FROM runs") == [("greetings-007",)]
    assert rows("SELECT name FROM tasks") == [("ada on Monday",)]


def test_run_names_are_functions_that_may_ask_the_runtime(rows: Rows) -> None:
    def run_name() -> str:
        return f"{flow_run.flow_name}-with-{flow_run.parameters['count']}"

    def task_name() -> str:
        return f"{task_run.task_name}-of-{task_run.parameters['number']}"

    names: list[str] = []

    @task(task_run_name=task_name)
    def load(number: int) -> None:
        names.append(task_run.name)

    @flow(name="etl", flow_run_name=run_name)
    def program(count: int) -> None:
        names.append(flow_run.name)
        load(4)

    program(3)
    assert names == ["etl-with-3", "load-of-4"]
    assert rows("SELECT name FROM runs") == [("etl-with-3",)]


def test_a_run_without_a_name_gets_one(rows: Rows) -> None:
    @flow
    def program() -> str:
        return flow_run.name

    first, second = program(), program()
    assert first != second
    assert [name for (name,) in rows("SELECT name FROM runs ORDER BY id")] == [first, second]


# ------------------------------------------------------------------------------------------- tags


def test_tags_of_the_block_and_of_the_decorator_come_together() -> None:
    seen: list[tuple[set[str], set[str]]] = []

    @task(tags=["slow"])
    def load() -> None:
        seen.append((set(task_run.tags), set(flow_run.tags)))

    @flow
    def program() -> None:
        load()
        with tags("inner"):
            load()

    with tags("nightly", "eu"):
        program()
    assert seen == [
        ({"slow", "nightly", "eu"}, {"nightly", "eu"}),
        ({"slow", "inner", "nightly", "eu"}, {"nightly", "eu"}),
    ]


# ------------------------------------------------------------------------------------------- runtime and context


def test_the_runtime_tells_about_the_run_in_flows_tasks_and_subflows() -> None:
    @task
    def load(number: int) -> tuple[object, ...]:
        return task_run.task_name, task_run.parameters, task_run.run_count, flow_run.flow_name

    @flow(name="child")
    def child() -> tuple[object, ...]:
        return flow_run.flow_name, str(flow_run.parent_flow_run_id), str(flow_run.root_flow_run_id)

    @flow(name="parent", version="1.5")
    def program(day: str) -> None:
        assert (flow_run.flow_name, flow_run.parameters, flow_run.run_count) == ("parent", {"day": day}, 1)
        assert flow_run.flow_version == "1.5"
        assert flow_run.scheduled_start_time is not None
        assert flow_run.parent_flow_run_id is None
        assert load(3) == ("load", {"number": 3}, 1, "parent")
        assert child() == ("child", str(flow_run.id), str(flow_run.id))
        assert runtime.flow_run.name == flow_run.name

    program("monday")


def test_outside_of_a_run_the_runtime_is_empty() -> None:
    assert (flow_run.id, flow_run.name, flow_run.parameters) == (None, None, {})
    assert (task_run.id, task_run.name) == (None, None)
    assert runtime.deployment.id is None
    with pytest.raises(AttributeError):
        runtime.flow_run.nonsense  # noqa: B018 - the question is the test


def test_the_context_is_that_of_the_task_inside_a_task_and_of_the_flow_outside() -> None:
    @task
    def load(number: int) -> None:
        context = get_run_context()
        assert isinstance(context, TaskRunContext)
        assert (context.task.name, context.parameters) == ("load", {"number": 1})
        assert context.task_run.name
        assert TaskRunContext.get() is not None

    @flow(name="etl")
    def program() -> None:
        context = get_run_context()
        assert isinstance(context, FlowRunContext)
        assert (context.flow.name, context.parameters) == ("etl", {})
        assert context.flow_run.name == flow_run.name
        assert TaskRunContext.get() is None
        load(1)

    program()
    assert FlowRunContext.get() is None
    with pytest.raises(MissingContextError):
        get_run_context()


# ------------------------------------------------------------------------------------------- logs


def test_what_a_run_logs_and_prints_is_kept_with_it(rows: Rows) -> None:
    @task
    def load() -> None:
        get_run_logger().warning("%d rows are missing", 3)
        print("from the task")

    @task(log_prints=False)
    def quiet() -> None:
        print("to nobody")

    @flow(log_prints=True)
    def program() -> None:
        get_run_logger().info("begun")
        print("from", "the flow")
        load()
        quiet()

    program()
    assert rows("SELECT task, level, message FROM logs ORDER BY id") == [
        (None, "INFO", "begun"), (None, "INFO", "from the flow"), ("load", "WARNING", "3 rows are missing"),
        ("load", "INFO", "from the task"),
    ]  # fmt: skip


def test_a_run_s_logger_is_refused_outside_of_a_run() -> None:
    with pytest.raises(MissingContextError):
        get_run_logger()


# ------------------------------------------------------------------------------------------- variables


def test_variables_are_set_read_and_removed() -> None:
    assert Variable.get("limit") is None
    assert Variable.get("limit", default=5) == 5
    Variable.set("limit", 10)
    Variable.set("regions", {"eu": ["de", "fr"], "us": []}, tags=["nightly"])

    @task
    def read() -> object:
        return Variable.get("regions")

    @flow
    def program() -> tuple[object, object]:
        return Variable.get("limit"), read()

    assert program() == (10, {"eu": ["de", "fr"], "us": []})
    with pytest.raises(ValueError, match="limit"):
        Variable.set("limit", 11)
    Variable.set("limit", 11, overwrite=True)
    assert Variable.get("limit") == 11
    assert Variable.unset("limit")
    assert not Variable.unset("limit")
    assert Variable.get("limit") is None


def test_variables_are_used_in_async_code() -> None:
    async def program() -> object:
        await Variable.aset("limit", 1)
        found = await Variable.aget("limit")
        await Variable.aunset("limit")
        return found, await Variable.aget("limit", default="none")

    assert asyncio.run(program()) == (1, "none")


# ------------------------------------------------------------------------------------------- artifacts


def test_artifacts_of_every_kind_are_kept_with_the_run_that_made_them(rows: Rows) -> None:
    @task
    def report() -> None:
        create_markdown_artifact("# Done", key="report", description="of the day")
        create_link_artifact("https://example.org/report", link_text="the report", key="link")

    @flow
    def program() -> None:
        report()
        create_table_artifact([{"day": "monday", "rows": 3}, {"day": "tuesday", "rows": 4}], key="counts")
        create_image_artifact("https://example.org/plot.png", key="plot")
        progress = create_progress_artifact(0.0, key="progress")
        update_progress_artifact(progress, 60.0)

    program()
    # Prefect keeps a link as a piece of markdown.
    found = {key: (kind, data) for key, kind, data in rows("SELECT key, type, data FROM artifact")}
    assert {str(key): kind for key, (kind, _) in found.items()} == {
        "report": "markdown", "link": "link", "counts": "table", "plot": "image", "progress": "progress",
    }  # fmt: skip
    assert "# Done" in str(found["report"][1])
    assert "https://example.org/report" in str(found["link"][1])
    assert json.loads(str(found["counts"][1]))[1] == {"day": "tuesday", "rows": 4}
    assert float(json.loads(str(found["progress"][1]))) == 60.0


def test_an_artifact_s_key_has_a_form() -> None:
    @flow
    def program() -> None:
        create_markdown_artifact("text", key="Not A Key")

    with pytest.raises(ValueError, match="key"):
        program()
