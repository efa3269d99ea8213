"""Transactions: tasks that are undone together when one of them fails.

    with transaction():
        write_file(contents)    # has an on_rollback hook
        check_file()            # fails: the hook of write_file is called when the block ends

A task that completes inside the block is staged in it. When the block ends well, the `on_commit` hooks of what it staged are
called, in order; when it ends with an exception, or a task in it failed for good, the `on_rollback` hooks, last one first.
A task that was undone is COMPLETED with the name RolledBack: if what made it undone runs again on resume, it does too. A
task without an `on_rollback` hook is not undone, so it stays as it is and is never run again.

Each hook call is recorded as other hooks are (`hooks`): a commit or rollback that was cut off by a crash goes on where it
stopped. A block that is left because the run stops (Ctrl-C, a parked run) is neither committed nor rolled back: the run
comes back to it.
"""

from __future__ import annotations

import contextvars
import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING

from wfengine.hooks import Hook, named_hooks
from wfengine.runners.away import refuse_on_worker
from wfengine.scopes import ACTIVE_TRANSACTION, Scope, current_scope, current_tracer
from wfengine.steps import drive, drive_async
from wfengine.transaction_keys import begin_steps
from wfengine.transaction_steps import commit_steps, end_steps, roll_back_steps
from wfengine_journal.codec import encode
from wfengine_journal.errors import UsageError
from wfengine_journal.items import RecordItem

if TYPE_CHECKING:
    from wfengine.results import ResultRecord
    from wfengine.scopes import LiveRun
    from wfengine.task_engine import Call

__all__ = [
    "AsyncTransaction",
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]

TransactionHook = Callable[["Transaction"], object]
_MISSING = object()


class IsolationLevel(StrEnum):
    """Whether two calls with one cache key, or two transactions with one key, may be under way at the same time."""

    READ_COMMITTED = "READ_COMMITTED"  # yes: both compute, the later result stays
    SERIALIZABLE = "SERIALIZABLE"  # no: one at a time, over all threads and processes; the others wait for its result


class CommitMode(StrEnum):
    """When a transaction commits."""

    EAGER = "EAGER"  # at its own end
    LAZY = "LAZY"  # with the transaction around it
    OFF = "OFF"  # only when asked to; else it is rolled back at its end


class TransactionState(StrEnum):
    """What a transaction is doing."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


class Transaction:
    """One block; get it with `transaction(...)`. Each task run has one of its own, see `get_transaction`."""

    def __init__(
        self,
        key: str | None = None,
        *,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel | None = None,
        overwrite: bool = False,
        write_on_commit: bool = True,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None,
    ) -> None:
        refuse_on_worker("A transaction", "Open it in the flow, around the call of the task, or run the task on threads.")
        self.key = key if current_tracer() is None else None  # a flow that is drawn must not commit a key
        self.commit_mode = commit_mode
        self.isolation_level = isolation_level
        self.overwrite = overwrite
        self.write_on_commit = write_on_commit
        self.logger = logger if logger is not None else logging.getLogger("wfengine.transactions")
        self.state = TransactionState.PENDING
        self.parent: Transaction | None = None
        self.scope: Scope | None = None  # where the block stands; None: outside of any run
        self.call: Call | None = None  # of the transaction that a task run has of its own
        self.entries: list[Transaction] = []  # of the tasks and blocks that completed inside, in order
        self.is_new = False  # something in it ran in this execution of the run, and was not replayed
        self.doomed: Exception | None = None  # a task inside failed for good
        self.on_commit_hooks: list[TransactionHook] = []
        self.on_rollback_hooks: list[TransactionHook] = []
        self.seq = 0  # under which hook calls are recorded: of the task's outcome, or the negative number of the block
        self.staged_value: object = None
        self.committed_value: object = None  # found under the key when the block began
        self.item = ""  # the name under which it is recorded what was found
        self._values: dict[str, object] = {}
        self._token: contextvars.Token[Transaction | None] | None = None

    @property
    def run(self) -> LiveRun | None:
        """Return the flow run that the block belongs to; None outside of any."""
        return None if self.scope is None else self.scope.run

    # ---- the block

    def __enter__(self) -> Transaction:
        self._enter()
        with self._left_on_failure():
            drive(begin_steps(self))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None and not isinstance(error, Exception):
            error = self._cancelled()
            if error is None:
                self._leave()  # the run stops in the block, and comes back to it
                return
        try:
            drive(end_steps(self, error))
        finally:
            self._leave()

    async def __aenter__(self) -> Transaction:
        self._enter()
        with self._left_on_failure():
            await drive_async(begin_steps(self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            error = self._cancelled()
            if error is None:
                self._leave()  # the run stops in the block, and comes back to it
                return
        try:
            await drive_async(end_steps(self, error))
        finally:
            self._leave()

    def _enter(self) -> None:
        if self._token is not None:
            raise UsageError("A transaction was entered twice. Make a new one for each block: with transaction():")
        self.scope = current_scope()
        self.parent = enclosing_transaction(self.scope)
        if self.commit_mode is None:
            self.commit_mode = self.parent.commit_mode if self.parent is not None else CommitMode.LAZY
        if self.isolation_level is None:
            inherited = self.parent.isolation_level if self.parent is not None else None
            self.isolation_level = inherited or IsolationLevel.READ_COMMITTED
        if self.scope is not None:
            self.scope.run.uses_transactions = True
            self.scope.transactions += 1
            self.seq = -self.scope.transactions
        self._token = ACTIVE_TRANSACTION.set(self)
        self.state = TransactionState.ACTIVE

    @contextmanager
    def _left_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._leave()
            raise

    def _cancelled(self) -> Exception | None:
        """Return why the run does not come back to the block, so that what was done in it is undone: it was cancelled."""
        return None if self.run is None else self.run.cancelled

    def _leave(self) -> None:
        if self._token is not None:
            ACTIVE_TRANSACTION.reset(self._token)
            self._token = None

    # ---- what the engine asks of it

    def take(self, call: Call, error: BaseException | None) -> None:
        """Stage a task run that completed inside, now or in an earlier execution; one that failed dooms the transaction."""
        if call.row is None or call.row.version != call.seq:
            self.is_new = True
        if isinstance(error, Exception):
            self.doomed = error
        elif error is None and call.callee.kind == "task":
            own = own_transaction(call)
            own.seq = call.seq
            self.entries.append(own)

    def hooks(self, option: str) -> tuple[tuple[str, Hook], ...]:
        """Return (name, hook) of the hooks of a task, or of the block itself."""
        if self.call is not None:
            return self.call.callee.hooks.named(option) if self.call.callee.hooks is not None else ()
        return named_hooks(self.on_commit_hooks if option == "on_commit" else self.on_rollback_hooks)

    def surrounds(self, call: Call) -> bool:
        """Tell whether a call was made inside, directly or through others."""
        around = call.transaction
        while around is not None and around is not self:
            around = around.parent
        return around is self

    def was_undone(self) -> bool:
        """Tell whether an earlier execution of the run rolled back a part of it."""
        row = self.call.row if self.call is not None else None
        undone = row is not None and self.call is not None and row.state_name == "RolledBack" and row.version == self.call.seq
        return undone or any(entry.was_undone() for entry in self.entries)

    def top_run(self) -> LiveRun | None:
        """Return the flow run in which the outermost block stands."""
        top = self
        while top.parent is not None:
            top = top.parent
        return top.run

    def hook_run(self) -> LiveRun | None:
        """Return the flow run whose record the hook calls go to."""
        if self.run is not None:
            return self.run
        return next((entry.hook_run() for entry in self.entries), None)

    def mark_committed(self) -> None:
        """Take it, and all that was staged inside, for committed."""
        self.state = TransactionState.COMMITTED
        for entry in self.entries:
            entry.mark_committed()

    def mark_rolled_back(self) -> None:
        """Take it for rolled back."""
        self.state = TransactionState.ROLLED_BACK

    # ---- what users ask of it

    def set(self, name: str, value: object) -> None:
        """Keep a value for the rest of the transaction and its hooks. In a task it is recorded with the task run."""
        self._values[name] = value
        if self.call is not None and self.call.task_run_id:
            run = self.call.run
            encoded = encode(value, f"the value '{name}' set in the transaction of {self.call}")
            at = run.journal.clock.now_text()
            run.journal.post(RecordItem(run.id, self.call.task_run_id, name, encoded, epoch=run.epoch, at=at, replaces=True))

    def get(self, name: str, default: object = _MISSING) -> object:
        """Return a copy of a value that was set here or in a transaction around; ValueError if there is none."""
        if name not in self._values and self.call is not None and self.call.task_run_id:
            found = self.call.run.journal.records.find_item(self.call.run.id, self.call.task_run_id, name)
            if found is not None:
                self._values[name] = found[0]
        if name in self._values:
            return copy.deepcopy(self._values[name])
        if self.parent is not None:
            return self.parent.get(name, default)
        if default is not _MISSING:
            return default
        raise ValueError(f"No value was set in this transaction under the name {name!r}.")

    def stage(
        self,
        value: object,
        on_rollback_hooks: list[TransactionHook] | None = None,
        on_commit_hooks: list[TransactionHook] | None = None,
    ) -> None:
        """Give the value that is written under the key when the transaction commits, and hooks of the block itself."""
        if self.state is TransactionState.COMMITTED:
            return
        self.staged_value = value
        self.on_rollback_hooks += on_rollback_hooks or []
        self.on_commit_hooks += on_commit_hooks or []
        self.state = TransactionState.STAGED

    def read(self) -> ResultRecord | None:
        """Return what was committed under the key before the block began, its value as `.result`; None if there was nothing."""
        from wfengine.results import ResultRecord, ResultRecordMetadata  # only who reads needs it

        if self.key is None or not self.is_committed():
            return None
        return ResultRecord(self.committed_value, ResultRecordMetadata(self.key))

    def commit(self) -> bool:
        """Commit now; tell whether it did. A block commits by itself at its end unless commit_mode is OFF."""
        return drive(commit_steps(self))

    def rollback(self) -> bool:
        """Roll back now; tell whether it did."""
        return drive(roll_back_steps(self, None))

    def get_parent(self) -> Transaction | None:
        """Return the transaction around this one."""
        return self.parent

    def is_pending(self) -> bool:
        """Tell whether the block was not entered yet."""
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        """Tell whether the block is being executed."""
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        """Tell whether a value was staged."""
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Tell whether it was committed: in this block, or under its key before the block began."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        """Tell whether it was rolled back."""
        return self.state is TransactionState.ROLLED_BACK


class AsyncTransaction(Transaction):
    """The transaction of an `async with atransaction():` block; commit and rollback are awaited."""

    async def commit(self) -> bool:  # type: ignore[override]  # as in Prefect
        """Commit now; tell whether it did."""
        return await drive_async(commit_steps(self))

    async def rollback(self) -> bool:  # type: ignore[override]  # as in Prefect
        """Roll back now; tell whether it did."""
        return await drive_async(roll_back_steps(self, None))


def get_transaction() -> Transaction | None:
    """Return the transaction of the calling code: the innermost block, or a task run's own; None in neither."""
    refuse_on_worker("get_transaction()", "Ask for it in the flow, or run the task on threads.")
    scope = current_scope()
    active = ACTIVE_TRANSACTION.get()
    if active is not None and active.scope is scope:
        return active
    return own_transaction(scope.call) if scope is not None and scope.call is not None else enclosing_transaction(scope)


def own_transaction(call: Call) -> Transaction:
    """Return the transaction that a task run has of its own."""
    if call.own_transaction is None:
        own = Transaction()
        own.scope, own.call, own.parent = call.scope, call, call.transaction
        own.state = TransactionState.ACTIVE
        call.own_transaction = own
    if call.verdict is not None and call.verdict.name == "Cached":
        call.own_transaction.mark_committed()  # by the task run that computed it: there is nothing to commit or undo here
    return call.own_transaction


def enclosing_transaction(scope: Scope | None) -> Transaction | None:
    """Return the transaction that a call made in this scope would be staged in."""
    active = ACTIVE_TRANSACTION.get()
    if active is not None and (active.scope is scope or active.scope is None):
        return active
    if scope is None:
        return None
    if scope.call is not None:
        return own_transaction(scope.call) if scope.call.transaction is not None else None
    return scope.run.parent_call.transaction if scope.run.parent_call is not None else None


def transaction(
    key: str | None = None,
    store: object = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None,
) -> Transaction:
    """Return a transaction for a `with` block (`async with` works too).

    - `key`: the value given to `txn.stage(...)` is kept under it when the transaction commits; a later block with the same
      key finds it (`txn.is_committed()`, `txn.read()`), unless `overwrite`. Kept in the journal; `store` is accepted and
      not used.
    - `commit_mode`: LAZY (default: nested ones commit with the outermost), EAGER, OFF.
    - `isolation_level`: SERIALIZABLE lets one block with the key at a time run, over all processes.
    """
    return Transaction(
        key, commit_mode=commit_mode, isolation_level=isolation_level, overwrite=overwrite, write_on_commit=write_on_commit,
        logger=logger,
    )  # fmt: skip


def atransaction(
    key: str | None = None,
    store: object = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None,
) -> AsyncTransaction:
    """Return a transaction for an `async with` block; see `transaction`."""
    return AsyncTransaction(
        key, commit_mode=commit_mode, isolation_level=isolation_level, overwrite=overwrite, write_on_commit=write_on_commit,
        logger=logger,
    )  # fmt: skip
