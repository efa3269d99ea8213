"""Notifications: tell people, over Slack, Teams, mail or whatever else apprise knows.

    from wfengine.notifications import notify, notify_hook

    @flow(on_failure=[notify_hook("ops")])
    def etl():
        notify("ops", "3 rows were left out", level="warning")

"ops" is a target, set once: `wfengine notifications set ops --url-secret ops_url`. What is to be told is in the
outbox of the journal, committed, when the call returns; then it is sent, by this process or by one that serves the journal. In
a flow or task the call is one as that of a task: recorded, so a body that is executed again tells nothing twice. How it is sent
is in `notifying`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from wfengine.awaiting import awaited_in_async_code
from wfengine.journals import default_durability, journal_of, waits_for_disk
from wfengine.loading import leaves_no_trace
from wfengine.notifying.composing import BODY_CHARACTERS, LEVELS, SUBJECT_CHARACTERS, kept, plain, plain_line
from wfengine.notifying.courier import wake_courier
from wfengine.notifying.targets import DEFAULT_RATE, checked_name, delete_target, put_target, target_row
from wfengine.own_calls import answered, begin_change, complete_with, own_call, own_callee, scope_or_none
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope
from wfengine.steps import Outcome, Steps
from wfengine.task_engine import Call, issue
from wfengine_journal.errors import NotificationError
from wfengine_journal.notifications import NotificationColumns, NotifyFromCall, PutNotification, find_target
from wfengine_journal.states import StateType
from wfengine_journal.tickets import Change, WriteRefused
from wfengine_journal.transitions import shown_text

if TYPE_CHECKING:
    import sqlite3

    from wfengine.run_objects import FlowRun, TaskRun
    from wfengine.states import State
    from wfengine_journal.store import Journal

__all__ = ["Notification", "notify", "notify_hook", "set_target", "unset_target"]

#: Characters of an idempotency key, and targets of one call.
KEY_LIMIT = 500
TARGETS_LIMIT = 50

_LEVEL_OF_STATE = {
    StateType.FAILED: "failure", StateType.CRASHED: "failure", StateType.CANCELLED: "warning", StateType.COMPLETED: "success",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Notification:
    """What is to be told, as it stands in the outbox. `is_new` is False where one of its target and key was there already."""

    id: int
    target: str
    is_new: bool


@asks_the_flow
def notify(
    target: str | Iterable[str],
    body: str,
    subject: str | None = None,
    *,
    level: str = "info",
    key: str | None = None,
) -> list[Notification]:
    """Tell a target, or several; return what was put into the outbox, committed. Not awaited, in async code either.

    - `body` is plain text: no markup in it counts as such. It is cut after 8000 characters, the subject after 200.
    - `level`: 'info', 'success', 'warning' or 'failure'.
    - `key`: an idempotency key: a second notification of a target with this key is not recorded.

    Raises NotificationError before anything is written, also where a target does not exist. Whether it was sent is no matter of
    the call: see `wfengine notifications outbox`. While a file is loaded to find its flows it does nothing.
    """
    names = _names(target)
    scope = scope_or_none()
    if scope is None and leaves_no_trace():
        return []
    if scope is None:
        return _notify_outside(names, body, subject, level=level, key=key, run_id=None)
    puts = _puts(scope.run.journal, names, body, subject, level=level, key=key, run_id=scope.run.id)
    shown: dict[str, object] = {
        "target": names,
        "body": puts[0].columns.body,
        "subject": puts[0].columns.subject,
        "level": level,
        "key": key,
    }
    call = own_call(_NOTIFY, scope, shown)
    recorded = issue(call)
    if recorded is None:
        check_targets(scope.run.journal, names)
    found = answered(
        call, recorded, lambda: _notify(call, puts), awaits=False, convert=lambda done: _notifications(names, done)
    )
    wake_courier(scope.run.journal)  # of a recorded one too: it may not have been sent
    return cast("list[Notification]", found)


def _notify_outside(
    names: list[str], body: str, subject: str | None, *, level: str, key: str | None, run_id: int | None
) -> list[Notification]:
    """Commit notifications that no call in a running flow asks for: outside of any, and in hooks."""
    journal = journal_of(current_scope())
    puts = _puts(journal, names, body, subject, level=level, key=key, run_id=run_id)
    check_targets(journal, names)
    for put in puts:
        _put(journal, put)
    wake_courier(journal)
    return _notifications(names, [[put.notification_id, put.is_new] for put in puts])


def _names(target: object) -> list[str]:
    names = [target] if isinstance(target, str) else list(cast("Iterable[str]", target))
    if not 1 <= len(names) <= TARGETS_LIMIT:
        raise NotificationError(f"A notification goes to a target, or to 1 to {TARGETS_LIMIT} of them, not {len(names)}.")
    return list(dict.fromkeys(map(checked_name, names)))


def _puts(
    journal: Journal, names: list[str], body: object, subject: object, *, level: object, key: object, run_id: int | None
) -> list[PutNotification]:
    at = journal.clock.now_text()
    return [
        PutNotification(notification_columns(name, body, subject, level=level, key=key, at=at, run_id=run_id)) for name in names
    ]


_NOTIFY = own_callee("notify", ("target", "body", "subject", "level", "key"))


def _notify(call: Call, puts: list[PutNotification]) -> Steps[Outcome]:
    """Commit the notifications and the call that asks for them, in one transaction."""
    start = begin_change(call)
    return (yield from complete_with(call, start, NotifyFromCall(start, puts, attempt=call.attempt)))


def _put(journal: Journal, put: PutNotification) -> None:
    try:
        journal.write(put, synced=default_durability(journal) == "power")
    except WriteRefused:
        raise _no_target(put.columns.target) from None


def _notifications(names: list[str], done: object) -> list[Notification]:
    pairs = cast("list[list[Any]]", done)
    return [Notification(int(number), name, bool(is_new)) for name, (number, is_new) in zip(names, pairs, strict=True)]


def check_targets(journal: Journal, names: Iterable[str]) -> None:
    """Raise NotificationError where one of the targets does not exist."""
    for name in names:

        def is_there(connection: sqlite3.Connection, name: str = name) -> bool:
            return find_target(connection, name) is not None

        if not journal.records.read(is_there):
            raise _no_target(name)


def _no_target(name: str) -> NotificationError:
    return NotificationError(
        f"There is no notification target '{name}', and nothing was recorded. Set it: wfengine notifications set {name} "
        "--url-secret SECRET"
    )


def notification_columns(
    target: str, body: object, subject: object, *, level: object, key: object, at: str, run_id: int | None = None
) -> NotificationColumns:
    """Return what is recorded of a notification. Raises NotificationError."""
    if not isinstance(body, str) or (subject is not None and not isinstance(subject, str)):
        raise NotificationError(f"Body and subject of a notification are texts, and not {body!r:.60} and {subject!r:.60}.")
    if level not in LEVELS:
        raise NotificationError(f"The level of a notification is one of {', '.join(LEVELS)}, and not {level!r:.60}.")
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= KEY_LIMIT):
        raise NotificationError(f"The key of a notification is a text of at most {KEY_LIMIT} characters, not {key!r:.60}.")
    text = kept(plain(shown_text(body)), BODY_CHARACTERS).strip()
    if not text:
        raise NotificationError("A notification needs a body: what is to be told.")
    line = None if subject is None else kept(plain_line(shown_text(subject)), SUBJECT_CHARACTERS) or None
    return NotificationColumns(target, str(level), line, text, at, None if key is None else shown_text(key), run_id)


# ------------------------------------------------------------------------------------------- hooks


def notify_hook(target: str | Iterable[str], *, level: str | None = None) -> Callable[..., None]:
    """Return a hook for flows and tasks that tells a target what state the run came to: `on_failure=[notify_hook("ops")]`.

    Each state of a run is told once, also where the hook itself is called again after a kill. `level`: default by the state.
    """
    names = _names(target)
    if level is not None and level not in LEVELS:
        raise NotificationError(f"The level of a notification is one of {', '.join(LEVELS)}, and not {level!r:.60}.")

    def hook(subject: object, run: FlowRun | TaskRun, state: State[object]) -> None:
        title, body, key, run_id = _told(run, state)
        chosen = level or _LEVEL_OF_STATE.get(state.type, "info")
        _notify_outside(names, body, title, level=chosen, key=key, run_id=run_id)

    hook.__qualname__ = f"notify_hook({', '.join(names)})"
    return hook


def _told(run: FlowRun | TaskRun, state: State[object]) -> tuple[str, str, str, int]:
    """Return subject, body and key of what a hook tells, and the flow run."""
    flow_name = getattr(run, "flow_name", None)
    if flow_name is not None:
        what, run_id, kind = f"Flow run {run.id} '{run.name}' of {flow_name}", run.id, "flow-run"
    else:
        what, run_id, kind = f"Task run {run.id} '{run.name}'", cast("TaskRun", run).flow_run_id, "task-run"
    lines = [f"{what} is {state.name}."]
    if state.message:
        kind_of_error = "" if state.error is None else f"{type(state.error).__name__}: "
        lines.append(state.message if state.message.startswith(kind_of_error) else f"{kind_of_error}{state.message}")
    lines.append(f"Look: wfengine runs show {run_id}")
    key = f"{kind}:{run.id}:{run.run_count}:{state.type.value}:{state.name}"
    return f"{what} is {state.name}", "\n".join(lines), key, run_id


# ------------------------------------------------------------------------------------------- targets


@awaited_in_async_code
def set_target(
    name: str,
    *,
    url: str | None = None,
    url_secret: str | None = None,
    rate: str | tuple[int, timedelta] | None = DEFAULT_RATE,
    digest_seconds: float = 0.0,
    allow_private: bool = False,
    overwrite: bool = False,
) -> None:
    """Say whom notifications to `name` go to. One that exists is changed only with `overwrite=True`.

    - `url_secret`: the name of the secret that holds its apprise URL. Or `url`: that URL, with a reference, {{ secrets.NAME }},
      in place of whatever is secret in it.
    - `rate`: so many messages in a time ('20/min'); what is more goes out together, as one message. None: any number.
    - `digest_seconds`: what is asked for so long after the first one goes out with it, as one message.
    - `allow_private`: it may be on this machine or in a private network.

    Raises NotificationError or SecretError, with nothing written.
    """
    scope = current_scope()
    if scope is None and leaves_no_trace():
        target_row(
            name, url=url, url_secret=url_secret, rate=rate, digest_seconds=digest_seconds, allow_private=allow_private, at=""
        )
        return
    journal = journal_of(scope)
    row = target_row(
        name, url=url, url_secret=url_secret, rate=rate, digest_seconds=digest_seconds, allow_private=allow_private,
        at=journal.clock.now_text(),
    )  # fmt: skip
    put_target(journal, row, overwrite=overwrite, synced=waits_for_disk(journal, scope))


@awaited_in_async_code
def unset_target(name: str) -> bool:
    """Delete a target; tell whether there was one. What waits for it fails, and says so."""
    scope = current_scope()
    if scope is None and leaves_no_trace():
        return False
    journal = journal_of(scope)
    return delete_target(journal, name, synced=waits_for_disk(journal, scope))


# ------------------------------------------------------------------------------------------- automations


def put_of_action(
    journal: Journal, target: object, body: object, subject: object, *, level: object, key: str, run_id: int | None
) -> Change:
    """Return the change by which a firing of an automation tells a target. Raises NotificationError."""
    name = checked_name(target)
    check_targets(journal, [name])
    return PutNotification(
        notification_columns(name, body, subject, level=level, key=key, at=journal.clock.now_text(), run_id=run_id)
    )
