"""Deployments as records: what `apply` writes, what applying again leaves alone, what is refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest

from tests.engine.conftest import FakeClock, Program, Rows
from wfengine import flow, task
from wfengine.deployments import Deployment
from wfengine.orion.schemas.schedules import IntervalSchedule
from wfengine.schedules import Cron, Interval, RRule
from wfengine_journal.errors import InvalidValueError, ParameterError, UsageError


@flow(name="etl", version="7")
def etl(day: str, size: int = 3) -> None:
    """Load a day."""


def test_applied_deployment_stands_in_the_journal_with_its_schedule(rows: Rows) -> None:
    deployment = Deployment.build_from_flow(
        flow=etl,
        name="nightly",
        schedule=IntervalSchedule(interval=timedelta(hours=1), anchor_date=datetime(2026, 1, 1, tzinfo=UTC)),
        tags=["prod", "eu"],
        parameters={"day": "monday"},
    )
    assert rows("SELECT * FROM deployments") == []
    assert deployment.apply() == deployment.id == 1
    assert rows("SELECT full_name, flow, name, tags, schedule, active, parameters, version, description FROM deployments") == [
        ("etl/nightly", "etl", "nightly", '["eu", "prod"]', "every 1 h", 1, '{"day":"monday"}', "7", "Load a day.")
    ]
    assert ":etl" in str(rows.value("SELECT entrypoint FROM deployments"))
    assert rows("SELECT kind, rule, anchor_at, timezone, active FROM schedule") == [
        ("interval", "3600", "2026-01-01T00:00:00.000000Z", "UTC", 1)
    ]
    assert rows.value("SELECT count(*) FROM runs") == 0


@pytest.mark.parametrize(
    ("schedules", "words", "active"),
    [
        ([], None, 0),
        ([Interval(timedelta(days=2))], "every 2 d", 1),
        ([Interval(90)], "every 90 s", 1),
        ([Interval(0.5)], "every 0.5 s", 1),
        ([Interval(300, timezone="Europe/Berlin")], "every 5 min, Europe/Berlin", 1),
        ([Cron("0 3 * * *")], "cron 0 3 * * *, UTC", 1),
        ([Cron("0 3 1 * 1", day_or=False)], "cron 0 3 1 * 1 (day and weekday), UTC", 1),
        ([RRule("FREQ=DAILY"), Cron("@daily", active=False)], "rule FREQ=DAILY, UTC; cron @daily, UTC, off", 1),
        ([Cron("@daily", active=False)], "cron @daily, UTC, off", 0),
        ([{"schedule": Cron("@daily"), "active": False}], "cron @daily, UTC, off", 0),
    ],
)
def test_view_says_in_words_when_it_is_due(rows: Rows, schedules: list[object], words: str | None, active: int) -> None:
    Deployment.build_from_flow(etl, "one", schedules=schedules, apply=True)  # type: ignore[arg-type]
    assert rows("SELECT schedule, active FROM deployments") == [(words, active)]


def test_applying_the_same_again_changes_nothing_and_anything_else_what_differs(clock: FakeClock, rows: Rows) -> None:
    def apply(**options: object) -> None:
        Deployment.build_from_flow(etl, "one", **options).apply()  # type: ignore[arg-type]
        clock.now += 10

    def record() -> list[tuple[object, ...]]:
        return rows("SELECT id, updated_at, tags, paused FROM deployment")

    hourly = Interval(3600)
    apply(schedules=[hourly, Cron("@daily")], tags=["a"])
    first, schedules = record(), rows("SELECT * FROM schedule ORDER BY id")
    apply(schedules=[hourly, Cron("@daily")], tags=["a"])
    assert record() == first
    assert rows("SELECT * FROM schedule ORDER BY id") == schedules  # what an interval is counted from as well

    apply(schedules=[hourly, Cron("@weekly")], tags=["b"], paused=True)
    ((number, updated, tags, paused),) = record()
    assert (number, tags, paused) == (first[0][0], '["b"]', 1)
    assert str(updated) > str(first[0][1])
    there = "SELECT id, rule FROM schedule WHERE removed_at IS NULL ORDER BY rule"
    assert rows(there) == [
        (schedules[0][0], "3600"),
        (3, "@weekly"),
    ]

    apply(schedules=[hourly], tags=["b"])
    assert record()[0][3] == 1  # nobody said that it is not paused any more
    apply(schedules=[hourly], tags=["b"], is_schedule_active=True)
    assert record()[0][3] == 0


def test_schedules_that_differ_in_parameters_or_name_only_are_two(rows: Rows) -> None:
    schedules = [Cron("@daily", parameters={"day": "a"}, slug="x"), Cron("@daily", parameters={"day": "b"})]
    Deployment.build_from_flow(etl, "one", schedules=schedules).apply()
    assert rows("SELECT parameters, slug FROM schedule ORDER BY id") == [('{"day":"a"}', "x"), ('{"day":"b"}', "")]


def test_one_name_may_stand_for_deployments_of_several_flows(rows: Rows) -> None:
    @flow
    def other() -> None: ...

    assert Deployment.build_from_flow(etl, "one").apply() == 1
    assert Deployment.build_from_flow(other, "one").apply() == 2
    assert rows("SELECT full_name FROM deployments ORDER BY id") == [("etl/one",), ("other/one",)]


def test_threads_that_apply_at_once_leave_one_record(rows: Rows) -> None:
    def apply() -> None:
        Deployment.build_from_flow(etl, "one", schedule=Cron("@daily")).apply()

    threads = [Thread(target=apply) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows.value("SELECT count(*) FROM deployment") == rows.value("SELECT count(*) FROM schedule") == 1


def test_apply_says_what_will_run_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wfengine"):
        Deployment.build_from_flow(etl, "one", schedule=Cron("@daily"), parameters={"day": "a b"}).apply()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("deployment 'etl/one' is created; a daemon (wfengine serve) starts it next at ")
    assert "00:00:00 (UTC); run it with:" in said
    assert "wfengine run" in said
    assert said.endswith("-p 'day=a b'")


def test_flow_makes_a_deployment_of_itself(rows: Rows) -> None:
    deployment = etl.to_deployment("eu", cron=["0 3 * * *", "0 4 * * *"], interval=60, parameters={"day": "x"}, tags=["eu"])
    assert deployment.parameters == {"day": "x"}
    deployment.apply()
    assert rows.value("SELECT schedule FROM deployments") == "every 1 min; cron 0 3 * * *, UTC; cron 0 4 * * *, UTC"


def test_apply_in_async_code_is_awaited(rows: Rows) -> None:
    async def work() -> object:
        return await Deployment.build_from_flow(etl, "one").apply()  # type: ignore[misc]

    assert asyncio.run(work()) == 1


def test_options_of_prefect_without_meaning_here_are_told_and_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    deployment = Deployment.build_from_flow(etl, "one", work_pool_name="k8s", infrastructure=object(), load_existing=None)
    assert deployment.apply(upload=True) == 1
    assert "infrastructure, work_pool_name mean nothing here" in caplog.text


def a_task_instead() -> object:
    @task
    def work() -> None: ...

    return Deployment.build_from_flow(work, "one")  # type: ignore[arg-type]


BAD: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("a task", a_task_instead, UsageError, "made of a flow"),
    ("a slash", lambda: Deployment.build_from_flow(etl, "a/b"), UsageError, "without '/'"),
    ("no name", lambda: Deployment.build_from_flow(etl, " "), UsageError, "name is text"),
    ("unknown parameter", lambda: Deployment.build_from_flow(etl, "a", parameters={"dya": 1}), ParameterError, "'dya'"),
    (
        "a value that does not fit",
        lambda: Deployment.build_from_flow(etl, "a", parameters={"day": "x", "size": "many"}),
        ParameterError,
        "size",
    ),
    (
        "a value that is not JSON",
        lambda: Deployment.build_from_flow(etl, "a", parameters={"day": object()}),
        InvalidValueError,
        "JSON does not have",
    ),
    ("no schedule", lambda: Deployment.build_from_flow(etl, "a", schedule="daily"), UsageError, "Cron"),  # type: ignore[arg-type]
    (
        "both",
        lambda: Deployment.build_from_flow(etl, "a", schedule=Cron("@daily"), schedules=[Cron("@daily")]),
        UsageError,
        "both schedule and schedules",
    ),
    ("unknown option", lambda: Deployment.build_from_flow(etl, "a", scheduel=None), UsageError, "no option scheduel"),
    ("not there yet", lambda: etl.to_deployment("a", triggers=[1]), UsageError, "not there yet"),
    ("limit", lambda: etl.to_deployment("a", concurrency_limit=0), UsageError, "concurrency_limit is a whole number from 1"),
    ("collision", lambda: etl.to_deployment("a", concurrency_limit=1, collision="drop"), UsageError, "'cancel_new'"),
    ("priority", lambda: etl.to_deployment("a", priority="high"), UsageError, "priority is a whole number"),
    ("queue", lambda: etl.to_deployment("a", queue="task:x"), UsageError, "a queue is named by"),
    ("memory", lambda: etl.to_deployment("a", isolate=True, memory_limit="much"), UsageError, "'512MB'"),
    ("limit without a process", lambda: etl.to_deployment("a", time_limit_seconds=3), UsageError, "isolate=True"),
    ("recoveries", lambda: etl.to_deployment("a", max_recoveries=-1), UsageError, "max_recoveries"),
    ("a text as tags", lambda: etl.to_deployment("a", tags="prod"), UsageError, "tags is a list"),
    ("twice", lambda: etl.to_deployment("a", cron=["@daily", "@daily"]), UsageError, "twice"),
    (
        "parameters of a schedule",
        lambda: etl.to_deployment("a", schedules=[Cron("@daily", parameters={"dya": 1})]),
        ParameterError,
        "has a parameter 'dya'",
    ),
    ("time zone of nothing", lambda: etl.to_deployment("a", timezone="UTC"), UsageError, "timezone= goes with"),
]


@pytest.mark.parametrize(("make", "kind", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_nonsense_is_refused_before_anything_is_written(
    rows: Rows, make: Callable[[], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        make()
    assert rows.value("SELECT count(*) FROM deployment") == 0


def test_loading_a_file_that_applies_a_deployment_at_module_level_writes_nothing(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine.deployments import Deployment

        @task
        def step():
            if first_time():
                kill()
            return 1

        @flow
        def main():
            return step()

        if not (HERE / "applied").exists():
            Deployment.build_from_flow(main, "hourly").apply()
        main()
        """
    )
    (program.folder / "applied").touch()
    program.run_and_be_killed()
    (program.folder / "applied").unlink()
    assert program.resume(recovery=True)["result"] == "1"
    assert rows.value("SELECT count(*) FROM deployments") == 0


def test_deployment_of_a_killed_process_is_whole_or_not_there(program: Program, rows: Rows) -> None:
    program.write(
        """
        from wfengine.deployments import Deployment
        from wfengine.schedules import Cron

        @flow
        def main(): ...

        Deployment.build_from_flow(main, "hourly", schedule=Cron("@hourly")).apply()
        kill()
        """
    )
    program.run_and_be_killed()
    program.run_and_be_killed()
    assert rows("SELECT full_name, schedule FROM deployments") == [("main/hourly", "cron @hourly, UTC")]
    assert json.loads(str(rows.value("SELECT parameters FROM deployments"))) == {}
