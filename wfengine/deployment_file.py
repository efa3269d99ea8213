"""`wfengine.toml`: what it may declare - deployments, queues, limits, automations - read and checked as a whole.

    [[deployments]]
    name = "nightly"
    flow = "flows.py:etl"                     # beside this file, or a module: "package.module:etl"
    schedules = [{ cron = "0 3 * * *", timezone = "Europe/Berlin" }]

Reading loads the flows' code and writes nothing; what becomes of it is in `deployment_plan`. Paths are those from the file's
folder. Every error says in which table of which file it is.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wfengine.automations.definitions import Automation, automations_from
from wfengine.concurrency.limits import put_change, queue_name, quota_name
from wfengine.deployments import Deployment
from wfengine.git_sources import checked_source, fetch
from wfengine.journals import default_path
from wfengine.loading import load_target, on_path
from wfengine.schedules import Cron, Interval, Once, RRule, Schedule
from wfengine.source_tables import sources_of
from wfengine.upkeep_tables import read_tables, upkeep_of
from wfengine_journal.errors import UsageError, WfengineError

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine_journal.quotas import PutQuota
    from wfengine_journal.store import Journal

_TABLES = ("deployments", "queues", "limits", "automations", "retention", "backup", "watch", "webhooks")
_DEPLOYMENT = (
    "name", "flow", "source", "schedules", "cron", "interval", "rrule", "timezone", "parameters", "tags", "description",
    "version", "paused", "queue", "priority", "concurrency_limit", "collision", "isolate", "memory_limit", "time_limit",
    "max_recoveries",
)  # fmt: skip
_SCHEDULE = (
    "cron", "interval", "rrule", "once", "timezone", "anchor", "day_or", "active", "parameters", "slug", "jitter", "start",
    "end", "misfire_grace", "catch_up", "catch_up_limit", "overlap",
)  # fmt: skip
_QUEUE = ("slots", "per_partition", "rate", "description")
_LIMIT = ("slots", "rate", "tag", "description")

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(ms|s|m|min|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True, slots=True)
class DeclaredQuota:
    """Limits of a queue, of tasks with a tag, or by name, as a file has them; what it does not say is not limited."""

    kind: str  # 'queue', 'limit' or 'tag'
    name: str
    full_name: str
    values: Mapping[str, object]
    applied_from: str | None = None  # the file that declares it

    def change(self, journal: Journal) -> PutQuota:
        """Return the change that makes the quota so. Raises UsageError."""
        return put_change(
            journal, self.full_name, self.name, slots=self.values.get("slots"),
            partition_slots=self.values.get("per_partition"), rate=self.values.get("rate"),
            description=self.values.get("description"), applied_from=self.applied_from,
        )  # fmt: skip

    def change_without_journal(self) -> PutQuota:
        """Return the change where only its values are asked for. Raises UsageError."""
        return self.change(cast("Journal", _Clockless()))


@dataclass(frozen=True, slots=True)
class Declared:
    """What a file declares."""

    applied_from: str | None
    deployments: list[Deployment] = field(default_factory=list)
    quotas: list[DeclaredQuota] = field(default_factory=list)
    automations: list[Automation] = field(default_factory=list)
    automation_tables: object = None  # as they stand in the file, for `apply_automations`
    moved_from: str | None = None  # where the file stood when it was applied before

    @property
    def places(self) -> frozenset[str]:
        """Where the file stands, and stood."""
        return frozenset(place for place in (self.applied_from, self.moved_from) if place is not None)


def read_file(file: Path, sources: Path | None = None) -> Declared:
    """Return what a TOML file declares. Raises UsageError, which says where; nothing is written.

    `sources`: where code that stands in git is fetched to; default: beside the journal that this process uses.
    """
    file = file.absolute()
    sources = default_path().parent / "sources" if sources is None else sources
    tables = read_tables(file)
    place = str(file)
    _check_keys(tables, _TABLES, place)
    upkeep_of(tables, place)
    sources_of(tables, place)
    found = Declared(
        os.path.realpath(file),
        _deployments(tables.get("deployments", []), file, sources),
        [*_quotas(tables.get("queues", {}), "queue", place), *_quotas(tables.get("limits", {}), "limit", place)],
        _within(f"{place}: [[automations]]", lambda: automations_from(tables.get("automations", []))),
        tables.get("automations", []),
    )
    for each in found.deployments:
        each.applied_from = found.applied_from
    return found


# ------------------------------------------------------------------------------------------- deployments


def _deployments(given: object, file: Path, sources: Path) -> list[Deployment]:
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        raise UsageError(f"{file}: deployments are tables of their own: [[deployments]]")
    found: dict[tuple[str, str], Deployment] = {}
    for number, table in enumerate(given, 1):
        named = f" ({table['name']!r})" if "name" in table else ""
        where = f"{file}: deployment {number}{named}"
        deployment = _deployment(table, where, file.parent, sources)
        if (deployment.flow_name, deployment.name) in found:
            raise UsageError(f"{where}: there are two of '{deployment.full_name}'. Give one of them another name.")
        found[deployment.flow_name, deployment.name] = deployment
    return list(found.values())


def _deployment(table: Mapping[str, object], where: str, folder: Path, sources: Path) -> Deployment:
    _check_keys(table, _DEPLOYMENT, where)
    for key in ("name", "flow"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise UsageError(f"{where} needs {key}, a text. Example: {key} = {_EXAMPLES[key]}")
    schedules = _schedules(table, where)
    source = None
    if "source" in table:
        source = checked_source(where, table["source"])
        folder, commit = fetch(where, source, str(table["name"]), sources)
        source["commit"] = commit
    flow = _within(where, lambda: flow_at(str(table["flow"]), folder))
    options = {
        key: value
        for key, value in table.items()
        if key
        not in ("name", "flow", "schedules", "cron", "interval", "rrule", "timezone", "time_limit", "parameters", "source")
    }
    for key in ("description", "version"):
        if key in options and not isinstance(options[key], str):
            raise UsageError(f"{where}: {key} is a text in quotes, not {options[key]!r}.")
    if not isinstance(options.get("paused", False), bool):
        raise UsageError(f"{where}: paused is true or false, not {options['paused']!r}.")
    if "time_limit" in table:
        options["time_limit_seconds"] = _duration(table["time_limit"], f"{where}: time_limit").total_seconds()
    parameters = table.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise UsageError(f"{where}: parameters is a table, as {{ day = 'today' }}, not {parameters!r}.")
    with on_path(folder):  # where other processes find the code is looked up now
        made = _within(
            where,
            lambda: Deployment.build_from_flow(
                flow, str(table["name"]), schedules=schedules, parameters=_plain(parameters), **cast("dict[str, Any]", options)
            ),
        )
    made.source = source
    return cast(Deployment, made)


_EXAMPLES = {"name": '"nightly"', "flow": '"flows.py:etl"'}


def flow_at(target: str, folder: Path) -> AnyFlow:
    """Return the flow that 'file.py:flow' or 'package.module:flow' means, seen from a folder. Raises EntrypointError."""
    place, colon, name = target.rpartition(":")
    place = place if colon else target
    if place.endswith(".py") or "/" in place:
        target = f"{folder / place}:{name}" if colon else str(folder / place)
    with on_path(folder):
        flows = load_target(target)
    if len(flows) > 1:
        names = ", ".join(str(getattr(flow, "name", flow)) for flow in flows)
        raise UsageError(f'{place} holds {len(flows)} flows: {names}. Name one: flow = "{place}:FLOW"')
    return cast("AnyFlow", flows[0])


def _plain(value: object) -> Any:
    """Return a value of TOML as JSON has it: dates and times become ISO-8601 text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date | time) else value


# ------------------------------------------------------------------------------------------- schedules


def _schedules(table: Mapping[str, object], where: str) -> list[Schedule]:
    given = table.get("schedules", [])
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        raise UsageError(f"{where}: schedules is a list of tables, as [{{ cron = '0 3 * * *' }}], not {given!r}.")
    short = {key: table[key] for key in ("cron", "interval", "rrule", "timezone") if key in table}
    tables: list[tuple[str, Mapping[str, object]]] = [(where, short)] if short else []
    tables += [(f"{where}, schedule {number}", each) for number, each in enumerate(given, 1)]
    return [_schedule(each, place) for place, each in tables]


_MAKERS: dict[str, Callable[..., Schedule]] = {"cron": Cron, "interval": Interval, "rrule": RRule, "once": Once}
_TEXTS = ("cron", "rrule", "timezone", "slug", "catch_up", "overlap")
_DURATIONS = ("interval", "jitter", "misfire_grace")
_INSTANTS = ("once", "anchor", "start", "end")


def _schedule(table: Mapping[str, object], where: str) -> Schedule:
    _check_keys(table, _SCHEDULE, where)
    kinds = [kind for kind in _MAKERS if kind in table]
    if len(kinds) != 1:
        raise UsageError(f"{where} has exactly one of {', '.join(_MAKERS)}; {' and '.join(kinds) or 'none of them'} is given.")
    options: dict[str, object] = {}
    for key, value in table.items():
        if key in _TEXTS and not isinstance(value, str):
            raise UsageError(f"{where}: {key} is a text in quotes, not {value!r}.")
        if key in ("active", "day_or") and not isinstance(value, bool):
            raise UsageError(f"{where}: {key} is true or false, not {value!r}.")
        if key == "parameters" and not isinstance(value, Mapping):
            raise UsageError(f"{where}: parameters is a table, not {value!r}.")
        if key in _DURATIONS:
            value = _duration(value, f"{where}: {key}")
        elif key in _INSTANTS:
            value = _instant(value, f"{where}: {key}")
        options["anchor_date" if key == "anchor" else key] = _plain(value) if key == "parameters" else value
    rule = options.pop(kinds[0])
    known = {"cron": ("day_or",), "interval": ("anchor_date",)}
    for kind, names in known.items():
        if kind != kinds[0] and (wrong := [name for name in names if name in options]):
            raise UsageError(f"{where}: {wrong[0].removesuffix('_date')} goes with {kind}, and this is {kinds[0]}.")
    return cast(Schedule, _within(where, lambda: _MAKERS[kinds[0]](rule, **options)))


def _duration(value: object, where: str) -> timedelta:
    """Return a time of a number of seconds, or of a text such as '15m'. Raises UsageError."""
    seconds: object = value
    if isinstance(value, str) and (read := _DURATION.fullmatch(value.strip())):
        seconds = float(read[1]) * _SECONDS[read[2]]
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds) and abs(seconds) < 1e11:
        return timedelta(seconds=seconds)
    raise UsageError(f"{where} is a number of seconds or a text such as '90s', '15m', '2h' or '1d', not {value!r}.")


def _instant(value: object, where: str) -> datetime:
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    if isinstance(value, datetime):
        return value
    raise UsageError(f"{where} is a date and time, such as 2026-11-29T07:00:00+01:00, not {_plain(value)!r}.")


# ------------------------------------------------------------------------------------------- queues and limits


def _quotas(given: object, kind: str, place: str) -> list[DeclaredQuota]:
    if not isinstance(given, Mapping):
        raise UsageError(f"{place}: {kind}s are tables of their own: [{kind}s.NAME]")
    found = []
    for name, table in given.items():
        where = f"{place}: [{kind}s.{name}]"
        if not isinstance(table, Mapping):
            raise UsageError(f"{where} is a table with keys of its own, not {table!r}.")
        _check_keys(table, _QUEUE if kind == "queue" else _LIMIT, where)
        tag = table.get("tag", False)
        if not isinstance(tag, bool):
            raise UsageError(f"{where}: tag is true or false, not {tag!r}.")
        full_name = _within(
            where, lambda name=name, tag=tag: queue_name(name) if kind == "queue" else quota_name(name, tag=tag)  # type: ignore[misc]  # bound per turn
        )  # fmt: skip
        quota = DeclaredQuota(
            "tag" if tag else kind, name, full_name, {key: _plain(table[key]) for key in table if key != "tag"},
            os.path.realpath(place),
        )  # fmt: skip
        _within(where, lambda quota=quota: quota.change_without_journal())  # type: ignore[misc]  # bound per turn
        found.append(quota)
    return found


class _Clockless:
    """Stands for a journal where values are only checked."""

    class clock:
        """Of nobody."""

        @staticmethod
        def now_text() -> str:
            """Return no time."""
            return ""


# ------------------------------------------------------------------------------------------- what all tables share


def _check_keys(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key[:40], known, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"{where} has no key '{key}'.{hint} It has: {', '.join(known)}.")


def _within(where: str, make: Callable[[], Any]) -> Any:
    """Return what `make` makes; its refusals say where they are."""
    try:
        return make()
    except WfengineError as error:
        raise UsageError(f"{where}: {error}") from error
