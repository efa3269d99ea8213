"""`wfengine tasks`: about single task runs."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass

import click

from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import open_swept
from wfengine.cli.output import clean, instant_text, json_value, write, write_json
from wfengine.identity import differing_arguments
from wfengine_journal.cache_queries import (
    AskedRun,
    EntryNow,
    find_entry_now,
    get_asked_run,
    get_asked_run_by_id,
    list_earlier,
)
from wfengine_journal.queries import get_run

#: Characters of a key or part that are shown; a hash is told apart by fewer.
SHOWN = 60

_HOW = (
    "To have it cached, say so on the task: @task(cache_policy=INPUTS) for the same arguments in any run, INPUTS + TASK_SOURCE "
    "to run it again when its code changed, persist_result=True to reuse within one run."
)


@click.group(
    cls=Group,
    name="tasks",
    no_args_is_help=True,
    table={"explain-cache": ("wfengine.cli.tasks:explain_cache", "Say why a call was, or was not, answered from the cache.")},
    epilog=epilog("Example:\n  wfengine tasks explain-cache @last 12"),
)
def tasks() -> None:
    """About single task runs."""


@click.command(
    "explain-cache",
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine tasks explain-cache @last 12\n  wfengine tasks explain-cache quiet-heron load",
        'JSON:\n  {"schema_version", "command", "run_id", "task_run_id", "task", "inputs", "outcome", "key", "parts",'
        ' "message", "source", "entry", "nearest": {"run_id", "task_run_id", "differs": [{"part", "then", "now"}]},'
        ' "explanation": [text]}\n'
        "  outcome: hit, miss, expired, refreshed, damaged, no key; null: no caching was asked for",
    ),
)
@click.argument("run", metavar="RUN")
@click.argument("task_run", metavar="TASK_RUN")
@pass_settings
def explain_cache(settings: Settings, run: str, task_run: str) -> int:
    """Say in plain words why TASK_RUN of RUN was answered from the cache, or why it ran.

    TASK_RUN is its id, its name, or the name of a task that the run called once.
    """
    with open_swept(settings) as (connection, _):
        asked = get_asked_run(connection, get_run(connection, run).id, task_run)
        found = _find(connection, asked)
    lines = explanation(found)
    if settings.as_json:
        write_json("tasks explain-cache", _as_json(found, lines))
        return ExitCode.OK
    for line in lines:
        write(line)
    if asked.parts:
        write("The key is made of: " + "; ".join(f"{clean(name)} {clean(part)[:SHOWN]}" for name, part in asked.parts.items()))
    return ExitCode.OK


@dataclass(frozen=True, slots=True)
class Difference:
    """A part of the key that differs between two calls."""

    part: str
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Found:
    """All that an explanation needs."""

    asked: AskedRun
    source: AskedRun | None  # of a hit
    entry: EntryNow | None  # under its key now
    nearest: AskedRun | None  # the earlier call whose key is most like this one's
    differs: list[Difference]


def _find(connection: sqlite3.Connection, asked: AskedRun) -> Found:
    source = None if asked.source_run is None else get_asked_run_by_id(connection, asked.source_run)
    entry = None if asked.key is None else find_entry_now(connection, asked.key)
    nearest = None
    if asked.outcome == "miss":
        earlier = [other for other in list_earlier(connection, asked) if other.parts]
        nearest = max(earlier, key=lambda other: (other.key == asked.key, _equal_parts(other, asked)), default=None)
    return Found(asked, source, entry, nearest, [] if nearest is None else _differences(nearest, asked))


def _equal_parts(one: AskedRun, other: AskedRun) -> int:
    return sum(one.parts.get(name) == part for name, part in other.parts.items())


def _differences(then: AskedRun, now: AskedRun) -> list[Difference]:
    """Return the parts that differ: arguments and flow parameters as what they were, anything else by its hash or text."""
    shown = {f"argument {name}": (before, after) for name, before, after in differing_arguments(then.inputs, now.inputs)}
    for name, before, after in differing_arguments(then.flow_parameters, now.flow_parameters):
        shown[f"flow parameter {name}"] = (before, after)
    found = []
    for part in {**then.parts, **now.parts}:
        was, now_is = then.parts.get(part), now.parts.get(part)
        if was != now_is:
            found.append(Difference(part, *shown.get(part, (was or "(absent)", now_is or "(absent)"))))
    return found


# ---------------------------------------------------------------------------------------------------- in plain words


def explanation(found: Found) -> list[str]:
    """Return the lines that say what was asked of the cache, and why the answer was what it was."""
    asked = found.asked
    head = f"task run {asked.id} '{clean(asked.name)}' of run {asked.run_id} '{clean(asked.run_name)}': "
    if asked.kind == "flow":
        return [head + "the call of a subflow; only tasks are cached."]
    if asked.outcome is None:
        return [head + f"no caching was asked for, so it {_ran(asked)}.", _HOW]
    say_why = {"hit": _hit, "miss": _miss, "expired": _expired, "refreshed": _refreshed}.get(asked.outcome, _unused)
    return [head + clean(asked.outcome), *say_why(found)]


def _ran(asked: AskedRun) -> str:
    return "has not run yet" if asked.state == "PENDING" else "ran"


def _key(asked: AskedRun) -> str:
    key = clean(asked.key or "")
    return key if len(key) <= SHOWN else f"{key[:SHOWN]}..."


def _hit(found: Found) -> list[str]:
    source, until = found.source, ""
    if found.entry is not None:
        expires = found.entry.expires_at
        until = f" The entry is used until {instant_text(expires)}." if expires else " The entry has no expiration."
    who = "a task run that is not in the journal any more"
    if found.asked.source_run is None:
        who = "no task run: the value was kept under that key by hand (ResultStore, transaction)"
    if source is not None:
        who = f"task run {source.id} of run {source.run_id} '{clean(source.run_name)}'"
    return [f"It did not run: its key {_key(found.asked)} had the result of {who}.{until}"]


def _miss(found: Found) -> list[str]:
    asked, nearest = found.asked, found.nearest
    lines = [f"It {_ran(asked)}: there was no entry under its key {_key(asked)}. {_left(found)}"]
    if nearest is None:
        return [*lines, f"No call of task '{clean(asked.task)}' had asked the cache before."]
    who = f"task run {nearest.id} of run {nearest.run_id} '{clean(nearest.run_name)}'"
    if nearest.key == asked.key:
        return [*lines, f"The earlier {who} had the very same key, and left no entry: {_no_entry(nearest)}."]
    lines.append(f"The nearest earlier call is {who}. What differs:")
    return [*lines, *(f"  {_difference(difference)}" for difference in found.differs)]


def _left(found: Found) -> str:
    if found.entry is not None and found.entry.task_run_id == found.asked.id:
        expires = found.entry.expires_at
        return "Its result is the entry now" + (f", until {instant_text(expires)}." if expires else ".")
    if found.asked.state == "COMPLETED":
        return "Its result was the entry; another has taken its place, or it was removed."
    return "It left no entry, as it has not completed."


def _no_entry(nearest: AskedRun) -> str:
    if nearest.state == "COMPLETED":
        return "it completed later, or its entry was removed or undone meanwhile"
    return f"it is {clean(nearest.state)}, and only results are kept"


def _difference(difference: Difference) -> str:
    then, now = clean(difference.then), clean(difference.now)
    if difference.part == "source":
        return "source: the code of the task, or of a function that it uses, was edited"
    if difference.part == "flow run":
        return f"flow run: then {then}, now {now} (RUN_ID is part of the policy; without it runs share results)"
    return f"{clean(difference.part)}: then {then}, now {now}"


def _expired(found: Found) -> list[str]:
    asked = found.asked
    return [
        f"It {_ran(asked)}: {clean(asked.message or 'the entry had expired')}, and it was asked for at "
        f"{instant_text(asked.at)}. {_left(found)}"
    ]


def _refreshed(found: Found) -> list[str]:
    return [f"It {_ran(found.asked)}: refresh_cache=True asks the cache for nothing and replaces the entry. {_left(found)}"]


def _unused(found: Found) -> list[str]:
    """Explain the answers 'no key' and 'damaged'."""
    asked = found.asked
    reason = clean(asked.message or "nothing is known about why")
    if asked.outcome == "damaged":
        return [f"It {_ran(asked)}, though there was an entry under its key {_key(asked)}: {reason} {_left(found)}"]
    return [f"It {_ran(asked)}, and its result was not kept for others: {reason}"]


# ---------------------------------------------------------------------------------------------------- as JSON


def _as_json(found: Found, lines: list[str]) -> dict[str, object]:
    asked, source, nearest = found.asked, found.source, found.nearest
    return {
        "run_id": asked.run_id,
        "task_run_id": asked.id,
        "task": asked.task,
        "inputs": json_value(asked.inputs),
        "outcome": asked.outcome,
        "key": asked.key,
        "parts": asked.parts,
        "message": asked.message,
        "source": None if source is None else {"run_id": source.run_id, "task_run_id": source.id},
        "entry": None if found.entry is None else asdict(found.entry),
        "nearest": None
        if nearest is None
        else {"run_id": nearest.run_id, "task_run_id": nearest.id, "differs": [asdict(each) for each in found.differs]},
        "explanation": lines,
    }
