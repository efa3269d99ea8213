"""Notification targets, under the names of the blocks by which Prefect's users know them.

    SlackWebhook.load("ops").notify("3 rows were left out", subject="ETL")

"ops" is a target, `wfengine notifications set ops --url-secret ops_url`. Which service it is says its URL: the classes are one.
"""

from __future__ import annotations

from wfengine.awaiting import awaited_in_async_code
from wfengine.journals import journal_of
from wfengine.notifications import check_targets, notify
from wfengine.notifying.targets import checked_name
from wfengine.runners.away import asks_the_flow
from wfengine.scopes import current_scope

__all__ = ["AppriseNotificationBlock", "MicrosoftTeamsWebhook", "NotificationBlock", "SlackWebhook"]


class NotificationBlock:
    """A notification target, by its name. In async code `load` and `notify` are awaited, as in Prefect."""

    def __init__(self, name: str) -> None:
        """Raises NotificationError for what cannot name a target."""
        self.name = checked_name(name)

    @classmethod
    @awaited_in_async_code
    def load(cls, name: str) -> NotificationBlock:
        """Return the target of that name. Raises NotificationError where there is none."""
        found = cls(name)
        _check(found.name)
        return found

    @awaited_in_async_code
    def notify(self, body: str, subject: str | None = None) -> None:
        """Tell the target something, as `wfengine.notifications.notify` does."""
        notify(self.name, body, subject)


@asks_the_flow
def _check(name: str) -> None:
    check_targets(journal_of(current_scope()), [name])


SlackWebhook = MicrosoftTeamsWebhook = AppriseNotificationBlock = NotificationBlock
