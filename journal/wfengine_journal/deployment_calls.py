"""A running flow asks for a run of a deployment: the call and the run it asked for, in one transaction."""

from __future__ import annotations

import sqlite3

from wfengine_journal.codec import encode
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import BeginCall, ChangeFromCall, StartAttempt


class QueueFromCall(ChangeFromCall):
    """Write a run of a deployment together with the completed call, in a running flow, that asked for it. Sets `run_id`.

    Both or neither are in the file, so that a resumed flow is given the run that it already asked for. Where the deployment's
    flow has a run with the idempotency key, or one that holds the deduplication key, the call is answered with that one.
    Refused, with `was_checked` False, where the deployment was removed, and where a run holds the deduplication key and that
    is not to be the answer: `duplicate_id` is then its id.
    """

    __slots__ = ("duplicate_id", "request", "run_id", "was_checked")

    def __init__(self, begin: BeginCall | StartAttempt, request: RunRequest, *, attempt: int) -> None:
        super().__init__(begin, attempt=attempt)
        self.request = request
        self.run_id = 0
        self.was_checked = False
        self.duplicate_id: int | None = None

    def apply(self, connection: sqlite3.Connection) -> None:
        self.was_checked, self.duplicate_id = False, None
        queued = QueueRun(self.request)
        if not queued.look(connection):
            raise WriteRefused
        if queued.is_duplicate and self.request.refuses_duplicate:
            self.duplicate_id = queued.existing_id
            raise WriteRefused
        self.was_checked = True
        self._begin_call(connection)
        if queued.existing_id is None:
            queued.apply(connection)
        self.run_id = queued.flow_run_id if queued.existing_id is None else queued.existing_id
        self._complete_call(connection, encode(self.run_id, "the id of a deployment's run"))
