"""Deployments and runs of them, written straight into the journal: what applying and scheduling does has tests of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wfengine.loading import entrypoint_of
from wfengine_journal.codec import json_text
from wfengine_journal.deployments import DeploymentColumns, PutDeployment
from wfengine_journal.names import new_run_name
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.quotas import PauseQuota, PutQuota
from wfengine_journal.store import Journal

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow


def deploy(journal: Journal, flow: AnyFlow | str, name: str = "main", *, entrypoint: str | None = None, **columns: Any) -> int:
    """Record a deployment of a flow, or of a flow's name and entrypoint, and return its id."""
    if isinstance(flow, str):
        flow_name = flow
    else:
        flow_name, entrypoint = flow.name, entrypoint or entrypoint_of(flow.fn)
    parameters = json_text(columns.pop("parameters", {}))
    record = DeploymentColumns(name, entrypoint, None, None, parameters, None, **columns)
    change = PutDeployment(journal.flow_id(flow_name, None), record, [], paused=None, at=journal.clock.now_text())
    journal.write(change, synced=False)
    return change.id


def put(journal: Journal, deployment_id: int, after_runs: Sequence[int] = (), **request: Any) -> int:
    """Put a run of a deployment into its queue; return its id. Other keyword arguments than those of a request: parameters."""
    known = {name: request.pop(name) for name in RunRequest.__slots__ if name in request}
    change = QueueRun(
        RunRequest(
            deployment_id,
            new_run_name(journal.records.is_run_name_taken),
            journal.clock.now_text(),
            {**request, **known.pop("parameters", {})},
            after_runs=after_runs,
            **known,
        )
    )
    journal.write(change, synced=False)
    return change.flow_run_id


def set_queue(journal: Journal, name: str, *, paused: bool | None = None, **limits: Any) -> None:
    """Set limits of a queue, as `quotas.PutQuota` takes them, or pause it, or let it go on."""
    at = journal.clock.now_text()
    if limits:
        journal.write(PutQuota(f"queue:{name}", at=at, **limits), synced=False)
    if paused is not None:
        journal.write(PauseQuota(f"queue:{name}", paused=paused, at=at), synced=False)
