"""`wfengine status`: which daemons serve the journal, and how things are."""

from __future__ import annotations

from pathlib import Path

import click

from wfengine.cli.base import Command, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import journal_path, shown_path, sweep_if_needed
from wfengine.cli.output import ago_text, clean, instant_text, json_value, say, size_text, write, write_json
from wfengine_journal.clock import SystemClock, seconds_from_text
from wfengine_journal.daemons import DaemonRow, Situation, Upkeep, get_situation, list_daemons
from wfengine_journal.notifications import count_open
from wfengine_journal.queries import reading

#: A daemon that says how it is every 10 s, and has not for so long, is shown as silent.
SILENT_SECONDS = 60.0
#: Dead daemons that are shown at the most: those that said something last.
DEAD_SHOWN = 3


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine status\n  wfengine status --json | jq '.daemons[].pid'\n"
        "  wfengine status -q || systemctl restart etl",
        'JSON:\n  {"schema_version", "command", "journal", "daemons": [{"name", "pid", "host", "state", "lives", "silent",\n'
        '   "started_at", "beat_at", "report"}], "next_due": [{"at", "deployment", "schedule"}],\n'
        '   "queues": [{"name", "waiting", "running", "paused", "slots"}], "runs": {STATE: number}, "bytes", "wal_bytes",\n'
        '   "last_backup", "last_prune", "notifications": {"pending", "failed"}}',
        "Exit codes:\n  0    a daemon lives\n  3    none does\n  5    trouble with the journal",
    ),
)
@pass_settings
def status(settings: Settings) -> int:
    """Say which daemons serve the journal, what they run, and what is due next. Exit code 0 if one lives, else 3.

    Whether a daemon lives is asked of the operating system: one that was killed is dead at once.
    """
    path = journal_path(settings)
    with reading(path) as connection:
        sweep_if_needed(connection, path)
        daemons = list_daemons(connection, path)
        situation = get_situation(connection, path)
        pending, failed = count_open(connection)
    lives = any(daemon.lives for daemon in daemons)
    if settings.as_json:
        told = {"notifications": {"pending": pending, "failed": failed}}
        write_json("status", {"journal": str(path), **_fields(daemons, situation), **told})
    elif not settings.quiet:
        _show(path, daemons, situation)
        if failed:
            write(f"{'told':<10}  {failed} notifications failed: wfengine notifications outbox --state failed")
    return ExitCode.OK if lives else ExitCode.NOT_FOUND


def _fields(daemons: list[DaemonRow], situation: Situation) -> dict[str, object]:
    shown = ("name", "pid", "host", "state", "lives", "started_at", "beat_at")
    return {
        "daemons": [
            {
                **{name: getattr(daemon, name) for name in shown},
                "silent": _is_silent(daemon),
                "report": json_value(daemon.report),
            }
            for daemon in daemons
        ],
        "next_due": [due._asdict() for due in situation.upcoming],
        "queues": [{**queue._asdict(), "paused": bool(queue.paused)} for queue in situation.queues],
        "runs": dict(situation.runs),
        "bytes": situation.file_bytes,
        "wal_bytes": situation.wal_bytes,
        "last_backup": _upkeep_fields(situation.upkeep.get("backup")),
        "last_prune": _upkeep_fields(situation.upkeep.get("prune")),
    }


def _upkeep_fields(upkeep: Upkeep | None) -> dict[str, object] | None:
    return None if upkeep is None else {"at": upkeep.done_at, "result": upkeep.result, "failed": upkeep.failed or None}


def _is_silent(daemon: DaemonRow) -> bool:
    try:
        return daemon.lives and SystemClock().wall_seconds() - seconds_from_text(daemon.beat_at) > SILENT_SECONDS
    except ValueError:
        return daemon.lives


def _show(path: Path, daemons: list[DaemonRow], situation: Situation) -> None:
    living = [daemon for daemon in daemons if daemon.lives]
    dead = [daemon for daemon in daemons if not daemon.lives]
    for daemon in [*living, *dead[:DEAD_SHOWN]]:
        write(_daemon_text(daemon))
    if not living:
        say("no daemon serves this journal; start one with: wfengine serve")
    lines = [("journal", f"{shown_path(path)}, {size_text(situation.file_bytes)}, log {size_text(situation.wal_bytes)}")]
    lines += [("next due", f"{instant_text(due.at)}  {clean(due.deployment)}") for due in situation.upcoming[:3]]
    lines += [
        (
            "queue",
            f"{clean(queue.name)}: {queue.waiting} waiting, {queue.running} running"
            + (f", at most {queue.slots}" if queue.slots is not None else "")
            + (", paused" if queue.paused else ""),
        )
        for queue in situation.queues
    ]
    lines += [("runs", f"{number} {clean(state)}") for state, number in sorted(situation.runs.items()) if state != "SCHEDULED"]
    if situation.runs.get("CRASHED"):
        lines.append(("next", "a daemon takes the CRASHED ones up; by hand: wfengine resume --all"))
    lines += [(_UPKEEP.get(kind, clean(kind)), _upkeep_text(upkeep)) for kind, upkeep in sorted(situation.upkeep.items())]
    for title, text in lines:
        write(f"{title:<10}  {text}")


_UPKEEP = {"backup": "backup", "prune": "pruning"}


def _daemon_text(daemon: DaemonRow) -> str:
    named = f"{clean(daemon.name)} · pid {daemon.pid} on {clean(daemon.host)}"
    if not daemon.lives:
        return click.style(f"dead: {named} · it last said so {ago_text(daemon.beat_at)}", fg="red")
    report = json_value(daemon.report)
    services = report.get("services") if isinstance(report, dict) else None
    parts = [named, f"since {instant_text(daemon.started_at)}", _running_text(services if isinstance(services, dict) else {})]
    text = " · ".join(part for part in parts if part)
    if _is_silent(daemon):
        return click.style(f"silent: {text} · it last said so {ago_text(daemon.beat_at)}: it hangs, or is stopped", fg="yellow")
    return click.style(f"{clean(daemon.state)}: {text}", fg="green" if daemon.state == "running" else "yellow")


def _running_text(services: dict[str, object]) -> str:
    executor = services.get("executor")
    running = executor.get("running") if isinstance(executor, dict) else None
    number = len(running) if isinstance(running, list) else running
    return f"{number} runs now" if isinstance(number, int) else ""


def _upkeep_text(upkeep: Upkeep) -> str:
    last = f"{ago_text(upkeep.done_at)}: {clean(upkeep.result)}" if upkeep.done_at else "never done"
    return last + (f"; failed {ago_text(upkeep.tried_at)}: {clean(upkeep.failed)}" if upkeep.failed else "")
