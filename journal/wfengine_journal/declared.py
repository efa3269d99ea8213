"""What a file declares, written in one transaction: quotas, deployments, and deployments that it declares no more."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence

from wfengine_journal.deployments import PutDeployment, RemoveDeployment
from wfengine_journal.quotas import PutQuota, RemoveQuota
from wfengine_journal.tickets import Change


class ApplyDeclared:
    """Make the records what a file says: all of it is committed, or nothing. Removes those of `gone` that are there still."""

    __slots__ = ("deployments", "gone", "gone_quotas", "quotas")

    def __init__(
        self,
        deployments: Sequence[PutDeployment],
        quotas: Sequence[PutQuota],
        gone: Sequence[RemoveDeployment],
        gone_quotas: Sequence[RemoveQuota],
    ) -> None:
        self.deployments = deployments
        self.quotas = quotas
        self.gone = gone
        self.gone_quotas = gone_quotas

    def apply(self, connection: sqlite3.Connection) -> None:
        for removal in self.gone:
            found = connection.execute(
                "SELECT 1 FROM deployment WHERE id = ? AND removed_at IS NULL", (removal.deployment_id,)
            ).fetchone()
            if found is not None:
                removal.apply(connection)
        for gone in self.gone_quotas:
            gone.apply(connection)
        for quota in self.quotas:
            quota.apply(connection)
        for deployment in self.deployments:
            deployment.apply(connection)

    def landed(self, connection: sqlite3.Connection) -> bool:
        changes: list[Change] = [*self.gone, *self.gone_quotas, *self.quotas, *self.deployments]
        return all(change.landed(connection) for change in changes)


def list_applied_from(connection: sqlite3.Connection, files: Collection[str]) -> list[tuple[int, str]]:
    """Return (id, 'flow/name') of the deployments that one of these files declared when it was last applied."""
    rows = connection.execute(
        "SELECT id, full_name FROM deployments WHERE applied_from IN (SELECT value FROM json_each(?)) ORDER BY flow, name",
        (json.dumps(sorted(files)),),
    )
    return [(int(row[0]), str(row[1])) for row in rows]


def list_quotas_applied_from(connection: sqlite3.Connection, files: Collection[str]) -> list[str]:
    """Return the names of the quotas that one of these files declared, and that nobody has set since."""
    rows = connection.execute(
        "SELECT name FROM quota WHERE applied_from IN (SELECT value FROM json_each(?)) ORDER BY name",
        (json.dumps(sorted(files)),),
    )
    return [str(row[0]) for row in rows]


def list_files(connection: sqlite3.Connection) -> list[str]:
    """Return the files that declare something which is there."""
    rows = connection.execute(
        "SELECT applied_from FROM deployments WHERE applied_from IS NOT NULL"
        " UNION SELECT applied_from FROM quota WHERE applied_from IS NOT NULL"
        " UNION SELECT applied_from FROM automations WHERE applied_from IS NOT NULL ORDER BY 1"
    )
    return [str(row[0]) for row in rows]
