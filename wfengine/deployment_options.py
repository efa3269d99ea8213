"""What may be said of a deployment beside its flow and name: each option is checked before anything is written."""

from __future__ import annotations

import difflib
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, cast

from wfengine.plain_json import plain_json
from wfengine.references import unjudged, written
from wfengine.schedules import Cron, Interval, RRule, Schedule
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.deployments import ScheduleColumns
from wfengine_journal.errors import ParameterError, ScheduleError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from wfengine.flows import AnyFlow

_logger = logging.getLogger("wfengine.deployments")

#: Options of Prefect's that name a place to run or to fetch code from. There is none here: they are accepted and said to
#: mean nothing, so that a file which has them runs.
WITHOUT_MEANING = frozenset(
    {
        "output", "skip_upload", "ignore_file", "load_existing", "path", "storage", "infrastructure", "infra_overrides",
        "work_pool_name", "work_queue_name", "job_variables", "manifest_path", "timestamp", "upload", "work_queue_concurrency",
        "enforce_parameter_schema", "entrypoint_type", "version_type", "image", "build", "push", "print_next_steps",
        "ignore_warnings", "print_next_steps_message",
    }
)  # fmt: skip

#: Options of Prefect's that are not there.
NOT_YET = frozenset({"triggers"})

#: What a deployment's priority may be, and how often its runs may be taken up.
LARGEST_PRIORITY = 1_000_000
LARGEST_COUNT = 1_000_000
#: Characters of the name of a queue at the most.
NAME_LIMIT = 200
#: The smallest memory limit in bytes: with less no process of Python begins.
SMALLEST_MEMORY = 16_000_000

_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


class ConcurrencyLimitStrategy(StrEnum):
    """What becomes of a run of a deployment that has as many under way as it may."""

    ENQUEUE = "ENQUEUE"
    CANCEL_NEW = "CANCEL_NEW"


@dataclass
class ConcurrencyLimitConfig:
    """So many runs of a deployment at a time, and what becomes of one beyond that."""

    limit: int
    collision_strategy: ConcurrencyLimitStrategy = ConcurrencyLimitStrategy.ENQUEUE


# ------------------------------------------------------------------------------------------- which options there are


def note_options(name: str, options: Mapping[str, object], known: Iterable[str] = ()) -> None:
    """Say which options mean nothing here; raise UsageError for those that are not known, or not there yet."""
    given = {option for option, value in options.items() if value is not None or option not in NOT_YET}
    if given & NOT_YET:
        raise UsageError(f"Deployment '{name}': {', '.join(sorted(given & NOT_YET))} is not there yet, so leave it out.")
    unknown = sorted(given - WITHOUT_MEANING)
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*known, *WITHOUT_MEANING], 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(
            f"Deployment '{name}' has no option {', '.join(unknown)}.{hint} See: help(wfengine.deployments.Deployment)"
        )
    meant = sorted(option for option in given if options[option] is not None)
    if meant:
        _logger.warning(
            "Deployment '%s': %s mean%s nothing here: there are no work pools and no storage of code; a run is executed where "
            "the flow's file is.",
            name, ", ".join(meant), "s" if len(meant) == 1 else "",
        )  # fmt: skip


# ------------------------------------------------------------------------------------------- values of options


def checked_name(name: object, flow_name: str) -> str:
    """Return the name of a deployment. Raises UsageError."""
    if not isinstance(name, str) or not name.strip() or "/" in name or not name.isprintable():
        raise UsageError(
            f"A deployment's name is text without '/', for people to type, and not {name!r}: it is known as '{flow_name}/NAME'."
        )
    return name


def checked_tags(owner: str, tags: object) -> list[str]:
    """Return tags. Raises UsageError."""
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise UsageError(f"{owner}: tags is a list of texts, not {tags!r}.")
    found = list(tags)
    if not all(isinstance(tag, str) for tag in found):
        raise UsageError(f"{owner}: tags is a list of texts, not {found!r}.")
    return found


def checked_text(owner: str, option: str, value: object) -> str | None:
    """Return an optional text. Raises UsageError."""
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{owner}: {option} is a text, not {value!r}.")
    return value


def checked_flag(owner: str, option: str, value: object) -> bool:
    """Return true or false. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(f"{owner}: {option} is true or false, not {value!r}.")
    return value


def checked_queue(owner: str, queue: object) -> str:
    """Return the name of a queue of deployments. Raises UsageError."""
    if (
        not isinstance(queue, str) or not queue.strip() or not queue.isprintable() or len(queue) > NAME_LIMIT
        or queue.startswith("task:")
    ):  # fmt: skip
        raise UsageError(
            f"{owner}: a queue is named by 1 to {NAME_LIMIT} printable characters that do not begin with 'task:', and not by "
            f"{queue!r}."
        )
    return queue


def checked_count(owner: str, option: str, value: object, smallest: int, largest: int) -> int:
    """Return a whole number. Raises UsageError."""
    if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
        raise UsageError(f"{owner}: {option} is a whole number from {smallest} to {largest}, not {value!r}.")
    return value


def checked_priority(owner: str, priority: object) -> int:
    """Return the priority of runs in their queue. Raises UsageError."""
    return checked_count(owner, "priority", priority, -LARGEST_PRIORITY, LARGEST_PRIORITY)


def concurrency_of(owner: str, limit: object, collision: object) -> tuple[int | None, str]:
    """Return how many runs of a deployment may be under way, and what becomes of one more. Raises UsageError."""
    if isinstance(limit, ConcurrencyLimitConfig):
        collision, limit = limit.collision_strategy, limit.limit
    word = collision.value if isinstance(collision, Enum) else collision
    known = ("enqueue", "cancel_new")
    if not isinstance(word, str) or word.lower() not in known:
        raise UsageError(f"{owner}: collision is 'enqueue' or 'cancel_new', not {word!r}.")
    number = None if limit is None else checked_count(owner, "concurrency_limit", limit, 1, LARGEST_COUNT)
    return number, word.lower()


def checked_memory(owner: str, limit: object) -> int | None:
    """Return a memory limit in bytes, of a number or a text such as '512MB' or '2GiB'. Raises UsageError."""
    if limit is None:
        return None
    size: float | None = None
    if isinstance(limit, int) and not isinstance(limit, bool):
        size = limit
    elif isinstance(limit, str) and (read := _SIZE.fullmatch(limit)):
        base = 1024 if read[2] and read[3] else 1000
        size = float(read[1]) * base ** " kmgt".index(read[2].lower() or " ")
    if size is None or not SMALLEST_MEMORY <= size < 2**60:
        raise UsageError(
            f"{owner}: memory_limit is a number of bytes or a text such as '512MB' or '2GiB', of 16 MB at least, and not "
            f"{limit!r}."
        )
    return int(size)


def checked_time_limit(owner: str, limit: object) -> float | None:
    """Return the time limit of a run's process in seconds. Raises UsageError."""
    if limit is None:
        return None
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
        raise UsageError(f"{owner}: time_limit_seconds is a number of seconds above 0, not {limit!r}.")
    return float(seconds)


# ------------------------------------------------------------------------------------------- parameters


def checked_parameters(flow: AnyFlow, name: str, parameters: object) -> dict[str, Any]:
    """Return the parameters. Raises ParameterError for a name or value that does not fit the flow."""
    owner = f"Deployment '{name}' of {flow.parameters.owner}"
    if not isinstance(parameters, Mapping):
        raise UsageError(f"{owner}: parameters are a dict by name, not {parameters!r}.")
    known = flow.parameters.signature.parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for given in parameters:
        if given not in known and not takes_any:
            raise ParameterError(f"{owner} has a parameter '{given}', and the flow has {', '.join(known) or 'none'}.")
    parameters = cast("dict[str, Any]", written(dict(parameters)))
    plain_json(parameters, f"parameters of deployment '{name}'")
    needed = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if needed <= set(parameters) and flow.should_validate_parameters:
        flow.parameters.coerce(flow.parameters.bind((), unjudged(parameters)))
    return dict(parameters)


def schema_text(flow: AnyFlow) -> str:
    """Return the JSON schema of a flow's parameters, as a deployment keeps it; values other than its own are told apart.

    `additionalProperties`: whether the flow takes parameters of any name. `x-validated`: whether it fits values to its hints.
    """
    kinds = flow.parameters.signature.parameters.values()
    schema: dict[str, object] = {
        **flow.parameter_schema().model_dump(),
        "additionalProperties": any(each.kind is each.VAR_KEYWORD for each in kinds),
        "x-validated": flow.should_validate_parameters,
    }
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------- schedules


def schedules_of(
    interval: object = None, cron: object = None, rrule: object = None, schedule: Schedule | None = None,
    schedules: Iterable[Schedule | Mapping[str, object]] | None = None, *, timezone: str | None = None,
) -> list[Schedule | Mapping[str, object]]:  # fmt: skip
    """Return the schedules that the options of `Flow.to_deployment` make; each of the first three may be several."""
    made: list[Schedule | Mapping[str, object]] = [
        Interval(cast("timedelta", each), timezone=timezone) for each in _several(interval)
    ]
    made += [Cron(cast("str", each), timezone=timezone) for each in _several(cron)]
    made += [RRule(cast("str", each), timezone=timezone) for each in _several(rrule)]
    if timezone is not None and not made:
        raise UsageError("timezone= goes with cron=, interval= or rrule=; a schedule made by Cron(...) has its own.")
    return [*made, *([] if schedule is None else [schedule]), *(schedules or ())]


def _several(given: object) -> list[object]:
    if given is None:
        return []
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def checked_schedules(
    name: str, schedule: Schedule | None, schedules: Iterable[Schedule | Mapping[str, object]] | None
) -> list[Schedule]:
    """Return the schedules of a deployment. Raises UsageError."""
    given: list[object] = [] if schedule is None else [schedule]
    if schedules is not None and given:
        raise UsageError(f"Deployment '{name}' was given both schedule and schedules. Put all of them into schedules.")
    found = [_checked_schedule(name, one) for one in (*given, *(schedules or ()))]
    seen = set()
    for one in found:
        columns = schedule_columns(name, one)
        identity = (one.kind, one.rule, columns.timezone, one.day_or, columns.parameters, columns.slug)
        if identity in seen:
            raise ScheduleError(
                f"Deployment '{name}' has the schedule {one.kind} {one.rule!r} twice. Leave one out, or tell them apart by "
                "their `slug` or `parameters`."
            )
        seen.add(identity)
    return found


def _checked_schedule(name: str, given: object) -> Schedule:
    """Return a schedule; {"schedule": ..., "active": ...} is the form in which Prefect's own files have them."""
    active = isinstance(given, Mapping) and bool(given.get("active", True))
    if isinstance(given, Mapping) and isinstance(given.get("schedule"), Schedule):
        schedule = given["schedule"]
        return Schedule(**{**{each.name: getattr(schedule, each.name) for each in fields(Schedule)}, "active": active})
    if not isinstance(given, Schedule):
        raise UsageError(
            f"Deployment '{name}': a schedule is made with Interval(...), Cron(...), RRule(...) or Once(...) of "
            f"wfengine.schedules, and this is {given!r}."
        )
    return given


def schedule_columns(name: str, schedule: Schedule) -> ScheduleColumns:
    """Return a schedule as it is kept."""
    return ScheduleColumns(
        schedule.kind,
        schedule.rule,
        _text(schedule.anchor_at),
        schedule.timezone or "UTC",
        schedule.day_or,
        plain_json(dict(schedule.parameters), f"parameters of a schedule of deployment '{name}'"),
        schedule.slug or "",
        schedule.active,
        schedule.jitter_seconds,
        _text(schedule.starts_at),
        _text(schedule.ends_at),
        schedule.misfire_grace_seconds,
        schedule.catch_up,
        schedule.catch_up_limit,
        schedule.overlap,
    )


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else text_from_seconds(instant.timestamp())
