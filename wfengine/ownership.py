"""Who executes a recorded run: a living process, which keeps it, or a dead one, whose runs are marked CRASHED."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wfengine.ids import typed
from wfengine.scopes import ABANDONED, ACTIVE
from wfengine_journal.errors import RunOwnedError
from wfengine_journal.records import FlowRunRow, OpenRunRow

if TYPE_CHECKING:
    from wfengine_journal.store import Journal


def sweep(journal: Journal, among: Sequence[OpenRunRow] | None = None) -> list[int]:
    """Mark every run whose process is dead, or which this process had to abandon, as CRASHED; return their ids.

    `among`: the runs to look at, default all.
    """

    def is_abandoned(run_id: int) -> bool:
        key = (str(journal.path), run_id)
        return key in ABANDONED and key not in ACTIVE

    return journal.sweep(is_abandoned, among)


def refuse_living(journal: Journal, row: FlowRunRow) -> None:
    """Raise RunOwnedError where a living process, this one or another, executes a run."""
    here = (str(journal.path), row.id) in ACTIVE
    elsewhere = row.owner_id is not None and row.owner_id != journal.owner_id and journal.is_owner_alive(row.owner_id)
    if here or elsewhere:
        raise owned_error(journal, row)


def owned_error(journal: Journal, row: FlowRunRow) -> RunOwnedError:
    """Return the error that names who executes a run."""
    owner = journal.find_owner(row.owner_id) if row.owner_id is not None else None
    who = f"process {owner.pid} on {owner.host} ({owner.role}, since {owner.started_at})" if owner else "another process"
    return RunOwnedError(
        f"Flow run {row.id} '{row.name}' is being executed by {who}. Wait for it (wfengine watch "
        f"{typed(row.id, row.name)}), or, if that process hangs, take the run from it: "
        f"wfengine resume {typed(row.id, row.name)} --takeover",
        flow_run_id=row.id,
    )
