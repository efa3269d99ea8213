"""Deployments: a flow with settings of its own - parameters, tags, schedules - recorded in the journal under a name.

    Deployment.build_from_flow(flow=etl, name="nightly", schedule=CronSchedule(cron="0 3 * * *")).apply()

Applying is declarative: the record becomes what the code says, in one transaction, and applying the same again changes
nothing. A record starts no runs: what is due by it is for the daemon, which this version does not have yet.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from wfengine.awaiting import awaited_in_async_code
from wfengine.declarations import note_declared
from wfengine.journals import default_journal
from wfengine.loading import entrypoint_of, is_loading, note_skipped_call
from wfengine.logging import get_logger
from wfengine.plain_json import plain_json
from wfengine.schedules import Cron, Interval, RRule, Schedule
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.deployments import DeploymentColumns, PutDeployment, ScheduleColumns
from wfengine_journal.errors import ParameterError, UsageError
from wfengine_journal.transitions import tags_text

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow

__all__ = ["Deployment"]

_logger = logging.getLogger("wfengine.deployments")

#: Options of Prefect's that name a place to run or to fetch code from. There is none here: they are accepted and said to
#: mean nothing, so that a file which has them runs.
WITHOUT_MEANING = frozenset(
    {
        "output", "skip_upload", "ignore_file", "load_existing", "path", "storage", "infrastructure", "infra_overrides",
        "work_pool_name", "work_queue_name", "job_variables", "manifest_path", "timestamp", "upload", "work_queue_concurrency",
        "enforce_parameter_schema", "entrypoint_type", "version_type",
    }
)  # fmt: skip

#: Options of Prefect's that are to come, with the daemon.
NOT_YET = frozenset({"concurrency_limit", "triggers"})


@dataclass
class Deployment:
    """What is to stand in the journal of one deployment. Make it with `build_from_flow`, write it with `apply`.

    `paused` None leaves a recorded one as it is. `id` is set by `apply`.
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

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or "/" in self.name or not self.name.isprintable():
            raise UsageError(
                f"A deployment's name is text without '/', for people to type, and not {self.name!r}: it is known as "
                f"'{self.flow_name}/NAME'."
            )

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
        apply: bool = False,
        **options: object,
    ) -> Deployment:
        """Return the deployment of a flow under a name; with `apply=True` it is recorded at once.

        - `schedule`, `schedules`: when it is due, see `wfengine.schedules`. `is_schedule_active=False`, or `paused=True`,
          keeps them without their being due.
        - `parameters`: values for some of the flow's parameters, as JSON. `tags`, `description`, `version`: for people.

        Raises UsageError, before anything is written.
        """
        if not getattr(flow, "__wfengine_flow__", False):
            raise UsageError(f"A deployment is made of a flow, a function decorated with @flow, and not of {flow!r}.")
        _note_options(name, options)
        deployment = cls(
            name=name,
            flow_name=flow.name,
            entrypoint=entrypoint or entrypoint_of(flow.fn),
            version=version if version is not None else cast("str | None", flow.version),
            description=description if description is not None else flow.description,
            tags=list(tags or ()),
            parameters=_checked_parameters(flow, name, parameters or {}),
            schedules=_checked_schedules(name, schedule, schedules),
            paused=paused if is_schedule_active is None else not is_schedule_active,
            flow=flow,
        )
        if apply:
            deployment.apply()
        return deployment

    @awaited_in_async_code
    def apply(self, **options: object) -> int | None:
        """Record the deployment: a new one, or the one of that flow and name as this one says. Returns its id.

        Says in the log what became of it and what will run it. While a file is loaded to find its flows it does nothing.
        """
        if is_loading():
            note_declared(self)
            note_skipped_call()
            return None
        _note_options(self.name, options)
        journal = default_journal()
        flow_id = journal.flow_id(self.flow_name, self.description)
        columns = DeploymentColumns(
            self.name,
            self.entrypoint,
            self.version,
            self.description,
            plain_json(self.parameters, f"parameters of deployment '{self.name}'"),
            tags_text(self.tags),
        )
        rows = [_schedule_columns(self.name, schedule) for schedule in self.schedules]
        change = PutDeployment(flow_id, columns, rows, paused=self.paused, at=journal.clock.now_text())
        journal.write(change, synced=True)
        self.id = change.id
        get_logger("deployments").info("%s", self._told(change.outcome))
        return change.id

    def _told(self, outcome: str) -> str:
        what = f"deployment '{self.flow_name}/{self.name}' is {'as it was' if outcome == 'unchanged' else outcome}"
        values = [shlex.quote(f"{name}={_typed(value)}") for name, value in self.parameters.items()]
        target = shlex.quote((self.entrypoint or "").removeprefix("file:"))
        command = " -p ".join([f"wfengine run {target}", *values])
        how = f"run it with: {command}" if self.entrypoint else "only code that has the flow can run it"
        due = "its schedule starts nothing yet, as this version has no daemon; " if self.schedules else ""
        return f"{what}; {due}{how}"


def _typed(value: object) -> str:
    """Return what a person types for a parameter on the command line, where what can be read as JSON is."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except ValueError:
        return value
    return json.dumps(value)


# ------------------------------------------------------------------------------------------- checks


def _note_options(name: str, options: Mapping[str, object]) -> None:
    """Say which options mean nothing here; raise UsageError for those that are not known, or not there yet."""
    given = {option for option, value in options.items() if value is not None or option not in NOT_YET}
    if given & NOT_YET:
        raise UsageError(f"Deployment '{name}': {', '.join(sorted(given & NOT_YET))} is not there yet, so leave it out.")
    if given - WITHOUT_MEANING:
        unknown = ", ".join(sorted(given - WITHOUT_MEANING))
        raise UsageError(f"Deployment '{name}' has no option {unknown}. See: help(wfengine.deployments.Deployment)")
    meant = sorted(option for option in given if options[option] is not None)
    if meant:
        _logger.warning(
            "Deployment '%s': %s mean%s nothing here: there are no work pools and no storage of code; a run is executed where "
            "the flow's file is.",
            name, ", ".join(meant), "s" if len(meant) == 1 else "",
        )  # fmt: skip


def _checked_parameters(flow: AnyFlow, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters. Raises ParameterError for a name or value that does not fit the flow."""
    owner = f"Deployment '{name}' of {flow.parameters.owner}"
    known = flow.parameters.signature.parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for given in parameters:
        if given not in known and not takes_any:
            raise ParameterError(f"{owner} has a parameter '{given}', and the flow has {', '.join(known) or 'none'}.")
    plain_json(dict(parameters), f"parameters of deployment '{name}'")
    needed = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if needed <= set(parameters) and flow.should_validate_parameters:
        flow.parameters.coerce(flow.parameters.bind((), dict(parameters)))
    return dict(parameters)


def _checked_schedules(
    name: str, schedule: Schedule | None, schedules: Iterable[Schedule | Mapping[str, object]] | None
) -> list[Schedule]:
    given: list[object] = [] if schedule is None else [schedule]
    if schedules is not None and given:
        raise UsageError(f"Deployment '{name}' was given both schedule and schedules. Put all of them into schedules.")
    return [_checked_schedule(name, one) for one in (*given, *(schedules or ()))]


def _checked_schedule(name: str, given: object) -> Schedule:
    """Return a schedule; {"schedule": ..., "active": ...} is the form in which Prefect's own files have them."""
    active = isinstance(given, Mapping) and bool(given.get("active", True))
    if isinstance(given, Mapping) and isinstance(given.get("schedule"), Schedule):
        schedule = given["schedule"]
        return Schedule(**{**{each.name: getattr(schedule, each.name) for each in fields(Schedule)}, "active": active})
    if not isinstance(given, Schedule):
        raise UsageError(
            f"Deployment '{name}': a schedule is made with Interval(...), Cron(...) or RRule(...) of wfengine.schedules, and "
            f"this is {given!r}."
        )
    return given


def _schedule_columns(name: str, schedule: Schedule) -> ScheduleColumns:
    anchor = schedule.anchor_at
    return ScheduleColumns(
        schedule.kind,
        schedule.rule,
        None if anchor is None else text_from_seconds(anchor.timestamp()),
        schedule.timezone or "UTC",
        schedule.day_or,
        plain_json(dict(schedule.parameters), f"parameters of a schedule of deployment '{name}'"),
        schedule.slug or "",
        schedule.active,
    )


def schedules_of(
    interval: object = None, cron: object = None, rrule: object = None, schedule: Schedule | None = None,
    schedules: Iterable[Schedule | Mapping[str, object]] | None = None,
) -> list[Schedule | Mapping[str, object]]:  # fmt: skip
    """Return the schedules that the options of `Flow.to_deployment` make; each of the first three may be several."""
    made: list[Schedule | Mapping[str, object]] = [Interval(cast("timedelta", each)) for each in _several(interval)]
    made += [Cron(cast("str", each)) for each in _several(cron)]
    made += [RRule(cast("str", each)) for each in _several(rrule)]
    return [*made, *([] if schedule is None else [schedule]), *(schedules or ())]


def _several(given: object) -> list[object]:
    if given is None:
        return []
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
