"""A running flow asks for a run of a deployment: the call and the run it asked for, in one transaction."""

from __future__ import annotations

import sqlite3

from wfengine_journal.codec import encode
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, CompleteCall, RecordedChange, StartAttempt


class QueueFromCall(RecordedChange):
    """Write a run of a deployment together with the completed call, in a running flow, that asked for it. Sets `run_id`.

    Both or neither are in the file, so that a resumed flow is given the run that it already asked for. Where the deployment's
    flow has a run with the idempotency key, the call is answered with that one. Refused, with `was_checked` False, where the
    deployment was removed.
    """

    __slots__ = ("_attempt", "_begin", "request", "run_id", "was_checked")

    def __init__(self, begin: BeginCall | StartAttempt, request: RunRequest, *, attempt: int) -> None:
        self._begin = begin
        self._attempt = attempt
        self.request = request
        self.flow_run_id = begin.flow_run_id
        self.task_run_id = begin.task_run_id
        self.seq = begin.seq + 1
        self.run_id = 0
        self.was_checked = False

    def apply(self, connection: sqlite3.Connection) -> None:
        self.was_checked = False
        found = connection.execute(
            "SELECT (SELECT r.id FROM flow_run r WHERE r.flow_id = d.flow_id AND r.idempotency_key = ?)"
            " FROM deployment d WHERE d.id = ? AND d.removed_at IS NULL",
            (self.request.idempotency_key, self.request.deployment_id),
        ).fetchone()
        if found is None:
            raise WriteRefused
        self.was_checked = True
        begin = self._begin
        begin.apply(connection)  # refuses, before anything is written, where this process lost the run
        self.task_run_id = begin.task_run_id
        if found[0] is not None:
            self.run_id = int(found[0])
        else:
            queued = QueueRun(self.request)
            queued.apply(connection)
            self.run_id = queued.flow_run_id
        CompleteCall(
            begin.flow_run_id, begin.task_run_id, seq=self.seq, epoch=begin.epoch, attempt=self._attempt, at=begin.at,
            result=encode(self.run_id, "the id of a deployment's run"),
        ).apply(connection)  # fmt: skip
