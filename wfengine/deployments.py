"""Deployments: a flow with settings of its own - parameters, tags, schedules, limits - recorded in the journal under a name.

    etl.deploy("nightly", cron="0 3 * * *", timezone="Europe/Berlin")             # one
    deploy(etl.to_deployment("nightly", cron="0 3 * * *"), report.to_deployment("weekly"))
    Deployment.build_from_flow(flow=etl, name="nightly", schedule=CronSchedule(cron="0 3 * * *")).apply()   # the old form

Applying is declarative: the record becomes what the code says, in one transaction, and applying the same again changes
nothing. What is due by it is started by a daemon: `wfengine serve`, or `serve` from Python. A run by hand: `run_deployment`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

from wfengine.awaiting import awaited_in_async_code
from wfengine.declarations import note_declared
from wfengine.deployment_options import (
    LARGEST_COUNT,
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    checked_count,
    checked_flag,
    checked_memory,
    checked_name,
    checked_parameters,
    checked_priority,
    checked_queue,
    checked_schedules,
    checked_tags,
    checked_text,
    checked_time_limit,
    concurrency_of,
    note_options,
    schedule_columns,
    schedules_of,
    schema_text,
)
from wfengine.deployment_runs import run_deployment
from wfengine.journals import default_journal
from wfengine.loading import entrypoint_of, is_loading, note_skipped_call
from wfengine.logging import get_logger
from wfengine.plain_json import plain_json
from wfengine.schedules import Schedule
from wfengine_journal.clock import instant_from_text
from wfengine_journal.deployments import DeploymentColumns, PutDeployment
from wfengine_journal.errors import UsageError
from wfengine_journal.ticks import list_schedule_rows
from wfengine_journal.transitions import tags_text
from wfengine_scheduler.ticks import rule_of

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine_journal.store import Journal
    from wfengine_journal.ticks import ScheduleRow

__all__ = [
    "ConcurrencyLimitConfig", "ConcurrencyLimitStrategy", "Deployment", "deploy", "run_deployment", "schedules_of",
]  # fmt: skip


@dataclass
class Deployment:
    """What is to stand in the journal of one deployment. Make it with `build_from_flow`, write it with `apply`.

    `paused` None leaves a recorded one as it is. `id` is set by `apply`, and `outcome`: created, updated or unchanged.
    """

    name: str
    flow_name: str
    entrypoint: str | None = None
    version: str | None = None
    description: str | None = None
    tags: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    schedules: list[Schedule] = field(default_factory=list)
    paused: bool | None = None
    id: int | None = None
    flow: AnyFlow | None = field(default=None, repr=False, compare=False)  # at hand in this process
    queue: str = "default"
    priority: int = 0
    concurrency_limit: int | None = None
    collision: str = "enqueue"
    isolate: bool = False
    memory_limit_bytes: int | None = None
    time_limit_seconds: float | None = None
    max_recoveries: int = 10
    parameter_schema: str | None = field(default=None, repr=False)
    source: dict[str, str] | None = None
    applied_from: str | None = None  # the file that declares it
    outcome: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        checked_name(self.name, self.flow_name)

    @property
    def full_name(self) -> str:
        """The name by which a deployment is meant: 'flow/name'."""
        return f"{self.flow_name}/{self.name}"

    @property
    def schedule(self) -> Schedule | None:
        """The schedule, of a deployment that has one at the most."""
        return self.schedules[0] if self.schedules else None

    @classmethod
    def build_from_flow(
        cls,
        flow: AnyFlow,
        name: str,
        *,
        schedule: Schedule | None = None,
        schedules: Iterable[Schedule | Mapping[str, object]] | None = None,
        is_schedule_active: bool | None = None,
        paused: bool | None = None,
        tags: Iterable[str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        description: str | None = None,
        version: str | None = None,
        entrypoint: str | None = None,
        queue: str = "default",
        priority: int = 0,
        concurrency_limit: int | ConcurrencyLimitConfig | None = None,
        collision: str | ConcurrencyLimitStrategy = "enqueue",
        isolate: bool = False,
        memory_limit: int | str | None = None,
        time_limit_seconds: float | timedelta | None = None,
        max_recoveries: int = 10,
        apply: bool = False,
        **options: object,
    ) -> Deployment:
        """Return the deployment of a flow under a name; with `apply=True` it is recorded at once.

        - `schedule`, `schedules`: when it is due, see `wfengine.schedules`. `is_schedule_active=False`, or `paused=True`,
          keeps them without their being due.
        - `parameters`: values for some of the flow's parameters, as JSON. `tags`, `description`, `version`: for people.
        - `queue`: where its runs wait to be taken up, those of the highest `priority` first.
        - `concurrency_limit`: so many of its runs at a time; one beyond that waits (`collision="enqueue"`), or is cancelled
          ("cancel_new"). Prefect's `ConcurrencyLimitConfig` says both.
        - `isolate`: each run has a process of its own, with `memory_limit` (bytes, or '512MB') and `time_limit_seconds`.
        - `max_recoveries`: how often a run whose process died is taken up again by itself.

        Raises UsageError, before anything is written.
        """
        if not getattr(flow, "__wfengine_flow__", False):
            raise UsageError(f"A deployment is made of a flow, a function decorated with @flow, and not of {flow!r}.")
        note_options(name, options, _OPTIONS)
        owner = f"Deployment '{checked_name(name, flow.name)}'"
        found = checked_schedules(name, schedule, schedules)
        given = checked_parameters(flow, name, parameters or {})
        for each in found:
            if each.parameters:
                checked_parameters(flow, name, {**given, **each.parameters})
        limit, what_then = concurrency_of(owner, concurrency_limit, collision)
        memory, seconds = checked_memory(owner, memory_limit), checked_time_limit(owner, time_limit_seconds)
        if not checked_flag(owner, "isolate", isolate) and (memory is not None or seconds is not None):
            raise UsageError(
                f"{owner}: memory_limit and time_limit_seconds are those of a run's own process. Add isolate=True, or leave "
                "them out."
            )
        deployment = cls(
            name=name,
            flow_name=flow.name,
            entrypoint=checked_text(owner, "entrypoint", entrypoint) or entrypoint_of(flow.fn),
            version=checked_text(owner, "version", version) if version is not None else _text(flow.version),
            description=checked_text(owner, "description", description) if description is not None else flow.description,
            tags=checked_tags(owner, tags or ()),
            parameters=given,
            schedules=found,
            paused=paused if is_schedule_active is None else not is_schedule_active,
            flow=flow,
            queue=checked_queue(owner, queue),
            priority=checked_priority(owner, priority),
            concurrency_limit=limit,
            collision=what_then,
            isolate=isolate,
            memory_limit_bytes=memory,
            time_limit_seconds=seconds,
            max_recoveries=checked_count(owner, "max_recoveries", max_recoveries, 0, LARGEST_COUNT),
            parameter_schema=schema_text(flow),
        )
        if apply:
            deployment.apply()
        return deployment

    @awaited_in_async_code
    def apply(self, **options: object) -> int | None:
        """Record the deployment: a new one, or the one of that flow and name as this one says. Returns its id.

        Says in the log what became of it and when it is due. While a file is loaded to find its flows it does nothing.
        """
        if is_loading():
            note_declared(self)
            note_skipped_call()
            return None
        note_options(self.name, options)
        journal = default_journal()
        change = self.change(journal)
        journal.write(change, synced=True)
        self.id, self.outcome = change.id, change.outcome
        get_logger("deployments").info("%s", self._told(journal))
        return change.id

    def change(self, journal: Journal) -> PutDeployment:
        """Return the change that makes the record what this says."""
        rows = [schedule_columns(self.name, schedule) for schedule in self.schedules]
        flow_id = journal.flow_id(self.flow_name, None if self.flow is None else self.flow.description)
        return PutDeployment(flow_id, self.columns(), rows, paused=self.paused, at=journal.clock.now_text())

    def columns(self) -> DeploymentColumns:
        """Return the record, but for the schedules."""
        return DeploymentColumns(
            self.name,
            self.entrypoint,
            self.version,
            self.description,
            plain_json(self.parameters, f"parameters of deployment '{self.name}'"),
            tags_text(self.tags),
            self.queue,
            self.priority,
            self.concurrency_limit,
            self.collision,
            int(self.isolate),
            self.memory_limit_bytes,
            self.time_limit_seconds,
            self.max_recoveries,
            self.parameter_schema,
            None if self.source is None else plain_json(self.source, f"source of deployment '{self.name}'"),
            self.applied_from,
        )

    def _told(self, journal: Journal) -> str:
        what = f"deployment '{self.full_name}' is {'as it was' if self.outcome == 'unchanged' else self.outcome}"
        due = f"{due_words(journal, cast(int, self.id))}; " if self.schedules else ""
        return f"{what}; {due}run it with: {self._command()}"

    def _command(self) -> str:
        """Return what starts a run by hand, in this process where it has the code."""
        values = [shlex.quote(f"{name}={_typed(value)}") for name, value in self.parameters.items()]
        target = shlex.quote((self.entrypoint or "").removeprefix("file:"))
        if self.entrypoint:
            return " -p ".join([f"wfengine run {target}", *values])
        return f"wfengine deployments run {shlex.quote(self.full_name)}"


#: The options of a deployment, for hints.
_OPTIONS = (
    "schedule", "schedules", "is_schedule_active", "paused", "tags", "parameters", "description", "version", "entrypoint",
    "queue", "priority", "concurrency_limit", "collision", "isolate", "memory_limit", "time_limit_seconds", "max_recoveries",
    "apply", "cron", "interval", "rrule",
)  # fmt: skip


@awaited_in_async_code
def deploy(*deployments: Deployment, **options: object) -> list[int]:
    """Record deployments, in one transaction each; return their ids. All of them were checked when they were made.

    While a file is loaded to find its flows it does nothing, and returns nothing.
    """
    if not deployments:
        raise UsageError("There is nothing to deploy. Name deployments: deploy(etl.to_deployment('nightly', cron='0 3 * * *'))")
    for each in deployments:
        if not isinstance(each, Deployment):
            raise UsageError(f"deploy() takes deployments, made by my_flow.to_deployment(NAME), and not {each!r}.")
    note_options(deployments[0].name, options)
    applied = [cast("int | None", cast(Any, each).apply(_sync=True)) for each in deployments]
    return [id_ for id_ in applied if id_ is not None]


def due_words(journal: Journal, deployment_id: int) -> str:
    """Return when a deployment is due next, in words."""
    rows: list[ScheduleRow] = []
    journal.read(lambda connection: rows.extend(list_schedule_rows(connection, deployment_id=deployment_id)))
    if rows and all(row.is_paused for row in rows):
        return "it is paused, so it is not due"
    now = datetime.fromtimestamp(journal.clock.wall_seconds(), UTC)
    found = []
    for row in rows:
        instant = instant_from_text(row.next_at) if row.next_at is not None else rule_of(row).next_after(now)
        if instant is not None and not row.is_paused:
            found.append((instant, row.timezone))
    if not found:
        return "it is not due any more"
    instant, zone = min(found)
    return f"a daemon (wfengine serve) starts it next at {instant.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S} ({zone})"


def _text(version: object) -> str | None:
    return None if version is None else str(version)


def _typed(value: object) -> str:
    """Return what a person types for a parameter on the command line, where what can be read as JSON is."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)
