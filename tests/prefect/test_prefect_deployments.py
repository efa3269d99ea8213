"""Deployments and schedules, as Prefect 3 writes them and as Prefect 2 wrote them."""

from __future__ import annotations

import datetime as dt
import json

from tests.prefect.conftest import Rows
from wfengine import flow
from wfengine.deployments import Deployment
from wfengine.orion.schemas.schedules import CronSchedule, IntervalSchedule
from wfengine.schedules import Cron, Interval, RRule


@flow(name="nightly")
def nightly(day: str = "today") -> str:
    return day


def test_a_deployment_is_made_of_a_flow_with_a_schedule() -> None:
    deployment = nightly.to_deployment(name="eu", cron="0 3 * * *", parameters={"day": "monday"}, tags=["eu"])

    assert (deployment.name, deployment.parameters, deployment.tags) == ("eu", {"day": "monday"}, ["eu"])
    assert len(deployment.schedules) == 1


def test_schedules_say_when() -> None:
    cron, interval = Cron("0 3 * * *", timezone="Europe/Berlin"), Interval(dt.timedelta(hours=1))

    assert (cron.cron, cron.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert interval.interval == dt.timedelta(hours=1)
    assert RRule("FREQ=DAILY").rrule == "FREQ=DAILY"


def test_the_old_form_builds_and_applies(rows: Rows) -> None:
    for hours in (1, 1, 2):
        Deployment.build_from_flow(
            flow=nightly, name="hourly", schedule=IntervalSchedule(interval=dt.timedelta(hours=hours)), tags=["demo"]
        ).apply()
    Deployment.build_from_flow(nightly, "daily", schedule=CronSchedule(cron="0 3 * * *", timezone="UTC")).apply()

    assert [(name, json.loads(str(tags or "[]"))) for name, tags in rows("SELECT name, tags FROM deployment ORDER BY id")] == [
        ("hourly", ["demo"]), ("daily", []),
    ]  # fmt: skip
    assert [(kind, str(rule)) for kind, rule in rows("SELECT kind, rule FROM schedules WHERE active ORDER BY id")] == [
        ("interval", "7200"), ("cron", "0 3 * * *"),
    ]  # fmt: skip
    assert rows("SELECT count(*) FROM flow_run") == [(0,)]
