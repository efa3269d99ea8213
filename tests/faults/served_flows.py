"""What the daemon serves while the disk fails: an hourly flow, one that an automation starts, and what starts that one."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.crash import effects
from tests.crash.effects import acknowledged, append
from wfengine import flow, get_run_logger, task, use_journal
from wfengine.automations import Automation, EmitEvent, EventTrigger, RunDeployment
from wfengine.deployments import Deployment
from wfengine.events import emit_event
from wfengine.runtime import flow_run
from wfengine.schedules import Interval
from wfengine_journal import store

MANY = 1_000_000
HOUR = 3600.0
#: Runs of both flows that have to be there in the end, and firings.
RUNS, TICKS, FIRINGS = 4, 2, 2


@task(max_interruptions=MANY)
def take(call: str, number: int) -> int:
    get_run_logger().info("about to take %s", call)
    append("run", call)
    return number + 1


@task(max_interruptions=MANY, retries=1)
def flaky(call: str) -> str:
    if not effects.has_happened("fail", call):
        append("fail", call)
        raise RuntimeError("the first attempt fails")
    append("run", call)
    return "at last"


@task(max_interruptions=MANY)
def large(call: str) -> str:
    append("run", call)
    return f"{call} " * 2000  # the file has to grow for it


def _mine(name: str) -> str:
    return f"{flow_run.id}/{name}"


@flow
def etl() -> int:
    total = acknowledged(_mine("first"), take(_mine("first"), 0))
    acknowledged(_mine("flaky"), flaky(_mine("flaky")))
    acknowledged(_mine("large"), large(_mine("large")))
    return acknowledged(_mine("last"), take(_mine("last"), total))


@flow
def ship(order: int) -> int:
    return acknowledged(_mine("ship"), take(_mine("ship"), order))


def prepare(path: Path) -> None:
    """Make a journal in which two ticks of a schedule are due, and two events wait for an automation."""
    began = time.time()
    from tests.conftest import VirtualClock

    clock = VirtualClock(began - 2.5 * HOUR)
    store.open_journal(path, clock)
    use_journal(path)
    end = datetime.fromtimestamp(began, UTC)  # no third one, however long this is used
    Deployment.build_from_flow(etl, "hourly", schedules=[Interval(HOUR, end=end, catch_up="all")]).apply()
    Deployment.build_from_flow(ship, "now").apply()
    Automation(
        name="ship",
        trigger=EventTrigger(expect={"order.placed"}),
        actions=[
            RunDeployment(deployment="ship/now", parameters={"order": "{{ event.payload.id }}"}),
            EmitEvent(event="order.shipped"),
        ],
    ).create()
    for number in range(FIRINGS):
        emit_event("order.placed", f"order.{number}", payload={"id": number})
    store.close_all()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
