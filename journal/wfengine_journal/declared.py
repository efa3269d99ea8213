"""What a file declares, written in one transaction: quotas, deployments, and deployments that it declares no more."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from wfengine_journal.deployments import PutDeployment, RemoveDeployment
from wfengine_journal.quotas import PutQuota
from wfengine_journal.tickets import Change


class ApplyDeclared:
    """Make the records what a file says: all of it is committed, or nothing. Removes those of `gone` that are there still."""

    __slots__ = ("deployments", "gone", "quotas")

    def __init__(
        self, deployments: Sequence[PutDeployment], quotas: Sequence[PutQuota], gone: Sequence[RemoveDeployment]
    ) -> None:
        self.deployments = deployments
        self.quotas = quotas
        self.gone = gone

    def apply(self, connection: sqlite3.Connection) -> None:
        for removal in self.gone:
            found = connection.execute(
                "SELECT 1 FROM deployment WHERE id = ? AND removed_at IS NULL", (removal.deployment_id,)
            ).fetchone()
            if found is not None:
                removal.apply(connection)
        for quota in self.quotas:
            quota.apply(connection)
        for deployment in self.deployments:
            deployment.apply(connection)

    def landed(self, connection: sqlite3.Connection) -> bool:
        changes: list[Change] = [*self.gone, *self.quotas, *self.deployments]
        return all(change.landed(connection) for change in changes)


def list_applied_from(connection: sqlite3.Connection, applied_from: str) -> list[tuple[int, str]]:
    """Return (id, 'flow/name') of the deployments that a file declared when it was last applied."""
    rows = connection.execute(
        "SELECT id, full_name FROM deployments WHERE applied_from = ? ORDER BY flow, name", (applied_from,)
    )
    return [(int(row[0]), str(row[1])) for row in rows.fetchall()]
