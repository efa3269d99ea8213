"""Calls from the command line into the engine that are about notifications. The engine is imported inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfengine.notifying.delivery import Verdict


def set_target(
    path: Path, name: str, *, url: str | None, url_secret: str | None, rate: str | None, digest_seconds: float,
    allow_private: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Say whom notifications to a name go to; `rate` null: as it is by default, 'none': any number. Raises UsageError."""
    from wfengine import journals
    from wfengine.notifying.targets import DEFAULT_RATE, put_target, target_row
    from wfengine_journal.clock import SystemClock

    row = target_row(
        name, url=url, url_secret=url_secret, rate=DEFAULT_RATE if rate is None else None if rate.lower() == "none" else rate,
        digest_seconds=digest_seconds, allow_private=allow_private, at=SystemClock().now_text(),
    )  # fmt: skip
    put_target(journals.use_journal(path), row, overwrite=overwrite, synced=True)  # no journal is made before the row is right


def unset_target(path: Path, name: str) -> bool:
    """Delete a target; tell whether there was one."""
    from wfengine import journals, notifications

    journals.use_journal(path)
    return notifications.unset_target(name)


def test_target(path: Path, name: str, text: str) -> Verdict:
    """Send a target a message at once, past its outbox, rate and digest; return what came of it. Raises UsageError."""
    import os

    from wfengine import journals, notifications
    from wfengine.notifying.delivery import check_installed, deliver
    from wfengine.notifying.targets import get_target
    from wfengine_journal.notifications import NotificationRow

    journal = journals.use_journal(path)
    target = get_target(journal, name)
    check_installed()
    at = journal.clock.now_text()
    columns = notifications.notification_columns(name, text, "A test of wfengine", level="info", key=None, at=at)
    row = NotificationRow(
        0, name, None, None, "info", columns.subject, columns.body, "pending", None, 1, 0, None, None, at, at, None
    )
    return deliver(journal, target, [row], f"test-{os.urandom(6).hex()}", may_be_repeat=False)


def tell(path: Path, target: str, text: str, *, subject: str | None, level: str, key: str | None) -> tuple[int, bool]:
    """Put a notification into the outbox; return its id, and whether it is new. It is sent before this process ends."""
    from wfengine import journals, notifications

    journals.use_journal(path)
    (found,) = notifications.notify(target, text, subject, level=level, key=key)
    return found.id, found.is_new


def send(path: Path) -> tuple[int, int] | None:
    """Send what is due in the outbox; return how many messages were sent, and given up. None: another process sends."""
    from wfengine import journals
    from wfengine.notifying.courier import Courier
    from wfengine.notifying.delivery import check_installed

    check_installed()
    journal = journals.use_journal(path)
    if not journal.lead_notifications():
        return None
    courier = Courier(journal)
    try:
        while courier.step():
            pass
    finally:
        journal.leave_notifications()
    return courier.sent, courier.failed


def retry(path: Path, notification_id: int | None, target: str | None) -> list[int]:
    """Let notifications that failed be tried again; return their ids."""
    from wfengine import journals
    from wfengine.notifying.courier import wake_courier
    from wfengine_journal.notifications import RetryNotifications

    journal = journals.use_journal(path)
    change = RetryNotifications(notification_id=notification_id, target=target)
    journal.write(change, synced=True)
    if change.retried:
        wake_courier(journal)
    return change.retried
