"""`wfengine notifications`: whom to tell, what waits to be told, and what was. No URL with a secret in it is printed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import click

from wfengine.cli import notification_execution as execution
from wfengine.cli.base import Command, Group, Settings, epilog, pass_settings
from wfengine.cli.exits import ExitCode
from wfengine.cli.journal import existing_path, journal_path, shown_path
from wfengine.cli.output import clean, clean_lines, instant_text, say, table_lines, write, write_json
from wfengine_journal.errors import NotFoundError, UsageError
from wfengine_journal.notifications import (
    NotificationRow,
    TargetRow,
    count_by_state,
    find_notification,
    find_target,
    list_notifications,
    list_targets,
)
from wfengine_journal.queries import reading
from wfengine_journal.quotas import rate_text

_JSON_OF_TARGET = (
    '{"name", "url", "rate", "digest_seconds", "allow_private", "held_to", "created_at", "updated_at",'
    ' "pending", "sent", "failed"}'
)
_JSON_OF_ONE = (
    '{"id", "target", "state", "level", "subject", "body", "attempts", "reason", "next_attempt_at", "message_id", "unsure",'
    ' "run_id", "idempotency_key", "created_at", "begun_at", "ended_at"}'
)
_LEVELS = ["info", "success", "warning", "failure"]


@click.group(
    cls=Group,
    name="notifications",
    no_args_is_help=True,
    table={
        "ls": ("wfengine.cli.notifications:ls", "List targets, by name."),
        "show": ("wfengine.cli.notifications:show", "Show a target, or a notification by its id."),
        "set": ("wfengine.cli.notifications:set_", "Say whom notifications to a name go to."),
        "test": ("wfengine.cli.notifications:test", "Send a target a message at once."),
        "unset": ("wfengine.cli.notifications:unset", "Delete a target."),
        "notify": ("wfengine.cli.notifications:notify", "Tell a target something."),
        "outbox": ("wfengine.cli.notifications:outbox", "What waits, was sent, or failed: the newest first."),
        "send": ("wfengine.cli.notifications:send", "Send what is due, as a daemon does."),
        "retry": ("wfengine.cli.notifications:retry", "Try what failed again."),
    },
    epilog=epilog(
        "Example:\n  wfengine secrets set ops_url\n  wfengine notifications set ops --url-secret ops_url",
        "The value is an apprise URL, or the URL of a webhook as Slack and Teams give it.",
    ),
)
def notifications() -> None:
    """Whom to tell what: in code, notify("ops", "...")."""


@click.command(
    "ls",
    cls=Command,
    epilog=epilog(f'JSON:\n  {{"schema_version", "command", "journal", "targets": [{_JSON_OF_TARGET}]}}'),
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many.")
@pass_settings
def ls(settings: Settings, limit: int) -> int:
    """List targets, by name."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = [(row, count_by_state(connection, row.name)) for row in list_targets(connection, limit=limit)]
    header = ("TARGET", "PENDING", "SENT", "FAILED", "RATE", "URL")
    rows = [_target_cells(each) for each in found]
    return _write_list(settings, path, "ls", "targets", header, rows, list(map(_target_json, found)))


def _write_list(
    settings: Settings, path: Path, verb: str, what: str, header: tuple[str, ...], rows: list[list[str]],
    objects: list[dict[str, object]],
) -> int:  # fmt: skip
    if settings.as_json:
        write_json(f"notifications {verb}", {"journal": str(path), what: objects})
    elif rows:
        for line in table_lines(header, rows):
            write(line)
    elif not settings.quiet:
        say(f"no such {what} in {shown_path(path)}" if what == "notifications" else f"no {what} in {shown_path(path)}")
    return ExitCode.OK


def _target_cells(one: tuple[TargetRow, dict[str, int]]) -> list[str]:
    row, counts = one
    numbers = [str(counts.get(state, 0)) for state in ("pending", "sent", "failed")]
    return [clean(row.name), *numbers, rate_text(row.rate_count, row.rate_seconds) or "any", clean(row.url)]


def _target_json(one: tuple[TargetRow, dict[str, int]]) -> dict[str, object]:
    row, counts = one
    return {
        "name": row.name, "url": row.url, "rate": rate_text(row.rate_count, row.rate_seconds),
        "digest_seconds": row.digest_seconds, "allow_private": bool(row.allow_private), "held_to": row.held_to,
        "created_at": row.created_at, "updated_at": row.updated_at,
        **{state: counts.get(state, 0) for state in ("pending", "sent", "failed")},
    }  # fmt: skip


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine notifications show ops\n  wfengine notifications show 12",
        f'JSON:\n  {{"schema_version", "command", "target": {_JSON_OF_TARGET}}}\n'
        f'  {{"schema_version", "command", "notification": {_JSON_OF_ONE}}}',
    ),
)
@click.argument("name", metavar="NAME|ID")
@pass_settings
def show(settings: Settings, name: str) -> int:
    """Show the target NAME, or the notification ID."""
    with reading(journal_path(settings)) as connection:
        target = find_target(connection, name)
        if target is not None:
            shown, kind = _target_json((target, count_by_state(connection, target.name))), "target"
        else:
            shown, kind = _json(_get_notification(connection, name)), "notification"
    if settings.as_json:
        write_json("notifications show", {kind: shown})
        return ExitCode.OK
    for key, value in shown.items():
        if value is None or key == "body":
            continue
        text = instant_text(str(value)) if key.endswith(("_at", "held_to")) else clean(value)
        text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else text
        write(f"{key.removesuffix('_at').replace('_', ' '):<15} {text}")
    if "body" in shown:
        write()
        write(clean_lines(shown["body"]))
    return ExitCode.OK


def _get_notification(connection: sqlite3.Connection, name: str) -> NotificationRow:
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 19 else 0
    row = find_notification(connection, number)
    if row is None:
        raise NotFoundError(
            f"There is no notification target {name!r}, and no notification with that id. See them with: wfengine "
            "notifications ls, wfengine notifications outbox"
        )
    return row


@click.command(
    "set",
    cls=Command,
    epilog=epilog(
        "Examples:\n"
        "  wfengine notifications set ops --url-secret ops_url\n"
        "  wfengine notifications set ops --url-secret ops_url --rate 5/min --digest 60 --overwrite\n"
        "  wfengine notifications set me --url 'mailtos://me:{{ secrets.mail }}@mail.example.com?to=me@example.com'",
        'JSON:\n  {"schema_version", "command", "name"}',
    ),
)
@click.argument("name")
@click.option("--url-secret", metavar="SECRET", help="The secret that holds its URL.")
@click.option("--url", metavar="URL", help="Its URL, with {{ secrets.NAME }} in place of what is secret in it.")
@click.option("--rate", metavar="N/TIME", help="So many messages in a time, default 20/min; 'none': any number.")
@click.option(
    "--digest", "digest_seconds", type=click.FloatRange(0, 604_800), default=0.0, metavar="SECONDS",
    help="What comes so long after the first goes out with it, as one message.",
)  # fmt: skip
@click.option("--allow-private", is_flag=True, help="It may be on this machine or in a private network.")
@click.option("--overwrite", is_flag=True, help="Change a target that exists.")
@pass_settings
def set_(
    settings: Settings, name: str, url_secret: str | None, url: str | None, rate: str | None, digest_seconds: float,
    allow_private: bool, overwrite: bool,
) -> int:  # fmt: skip
    """Say whom notifications to NAME go to."""
    execution.set_target(
        journal_path(settings), name, url=url, url_secret=url_secret, rate=rate, digest_seconds=digest_seconds,
        allow_private=allow_private, overwrite=overwrite,
    )  # fmt: skip
    if settings.as_json:
        write_json("notifications set", {"name": name})
    elif not settings.quiet:
        say(f"Notification target '{name}' is set. Try it: wfengine notifications test {name}")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine notifications test ops",
        'JSON:\n  {"schema_version", "command", "name", "sent": true, "reason"}',
    ),
)
@click.argument("name")
@click.option("--text", default="It works.", show_default=True, help="What it is told.")
@pass_settings
def test(settings: Settings, name: str, text: str) -> int:
    """Send the target NAME a message at once. The exit code is 1 where that fails."""
    path = existing_path(settings)
    verdict = execution.test_target(path, name, text)
    if settings.as_json:
        write_json("notifications test", {"name": name, "sent": verdict.sent, "reason": verdict.reason})
    elif verdict.sent:
        say(f"Notification target '{clean(name)}' took it.")
    else:
        say(f"Notification target '{clean(name)}' was not told: {clean(verdict.reason)}")
    return ExitCode.OK if verdict.sent else ExitCode.RUN_FAILED


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine notifications unset ops", 'JSON:\n  {"schema_version", "command", "name", "existed": true}'
    ),
)
@click.argument("name")
@pass_settings
def unset(settings: Settings, name: str) -> int:
    """Delete the target NAME. What waits for it fails."""
    path = existing_path(settings)
    if not execution.unset_target(path, name):
        raise NotFoundError(f"There is no notification target {name!r}. See them with: wfengine notifications ls")
    if settings.as_json:
        write_json("notifications unset", {"name": name, "existed": True})
    elif not settings.quiet:
        say(f"Notification target '{clean(name)}' is deleted.")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine notifications notify ops 'The backup is done' --level success",
        'JSON:\n  {"schema_version", "command", "id", "is_new"}',
    ),
)
@click.argument("target")
@click.argument("text")
@click.option("--subject", help="One line above it.")
@click.option("--level", type=click.Choice(_LEVELS), default="info", show_default=True)
@click.option("--key", help="A second notification of the target with this key is not recorded.")
@pass_settings
def notify(settings: Settings, target: str, text: str, subject: str | None, level: str, key: str | None) -> int:
    """Tell TARGET something: TEXT is put into the outbox, and sent."""
    path = existing_path(settings)
    number, is_new = execution.tell(path, target, text, subject=subject, level=level, key=key)
    if settings.as_json:
        write_json("notifications notify", {"id": number, "is_new": is_new})
    elif not settings.quiet:
        say(f"Notification {number} to {clean(target)} is recorded{'' if is_new else ' already'}.")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine notifications outbox\n  wfengine notifications outbox --state failed",
        f'JSON:\n  {{"schema_version", "command", "journal", "notifications": [{_JSON_OF_ONE}]}}',
    ),
)
@click.option("--target", metavar="NAME", help="Only those to this target.")
@click.option("--state", type=click.Choice(["pending", "sent", "failed"]), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@pass_settings
def outbox(settings: Settings, target: str | None, state: str | None, limit: int) -> int:
    """List what waits to be sent, was sent, or failed, the newest first."""
    path = journal_path(settings)
    with reading(path) as connection:
        found = list_notifications(connection, target=target, state=state, limit=limit)
    header = ("ID", "CREATED", "STATE", "TARGET", "LEVEL", "TRIES", "WHAT")
    rows = [_cells(each) for each in found]
    return _write_list(settings, path, "outbox", "notifications", header, rows, list(map(_json, found)))


def _cells(row: NotificationRow) -> list[str]:
    what = row.subject or row.body
    why = f" ({row.reason})" if row.reason else ""
    return [
        str(row.id), instant_text(row.created_at), clean(row.state), clean(row.target), clean(row.level), str(row.attempts),
        clean(f"{what}{why}"),
    ]  # fmt: skip


def _json(row: NotificationRow) -> dict[str, object]:
    return {
        "id": row.id, "target": row.target, "state": row.state, "level": row.level, "subject": row.subject, "body": row.body,
        "attempts": row.attempts, "reason": row.reason, "next_attempt_at": row.next_attempt_at, "message_id": row.message_id,
        "unsure": bool(row.unsure), "run_id": row.flow_run_id, "idempotency_key": row.idempotency_key,
        "created_at": row.created_at, "begun_at": row.begun_at, "ended_at": row.ended_at,
    }  # fmt: skip


@click.command(
    cls=Command,
    epilog=epilog(
        "Example:\n  wfengine notifications send", 'JSON:\n  {"schema_version", "command", "sent", "failed", "left"}'
    ),
)
@pass_settings
def send(settings: Settings) -> int:
    """Send what is due in the outbox, for where no daemon does."""
    path = existing_path(settings)
    done = execution.send(path)
    with reading(path) as connection:
        left = len(list_notifications(connection, state="pending", limit=100_000))
    if settings.as_json:
        sent, failed = (0, 0) if done is None else done
        write_json("notifications send", {"sent": sent, "failed": failed, "left": left})
    elif not settings.quiet:
        if done is None:
            say(f"Another process sends what is in the outbox; {left} wait.")
        else:
            say(f"{done[0]} messages are sent, {done[1]} are given up, {left} notifications wait.")
    return ExitCode.OK


@click.command(
    cls=Command,
    epilog=epilog(
        "Examples:\n  wfengine notifications retry 12\n  wfengine notifications retry --target ops\n"
        "  wfengine notifications retry --all",
        'JSON:\n  {"schema_version", "command", "retried": [ID]}',
    ),
)
@click.argument("notification_id", metavar="[ID]", type=click.IntRange(1, 2**62), required=False)
@click.option("--target", metavar="NAME", help="All that failed of this target.")
@click.option("--all", "is_all", is_flag=True, help="All that failed.")
@pass_settings
def retry(settings: Settings, notification_id: int | None, target: str | None, is_all: bool) -> int:
    """Try the failed notification ID again, with those that its message carries; it keeps its id."""
    if (notification_id is not None) + (target is not None) + is_all != 1:
        raise UsageError(
            "Say what to try again: an id, --target NAME, or --all. See: wfengine notifications outbox --state failed"
        )
    path = existing_path(settings)
    retried = execution.retry(path, notification_id, target)
    if notification_id is not None and not retried:
        raise NotFoundError(
            f"There is no failed notification {notification_id}. See them with: wfengine notifications outbox --state failed"
        )
    if settings.as_json:
        write_json("notifications retry", {"retried": retried})
    elif not settings.quiet:
        say(f"{len(retried)} notifications are tried again.")
    return ExitCode.OK
