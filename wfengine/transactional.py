"""`@task(transaction=True)`: a task whose rows in the user's own tables are committed together with its result.

The user's code runs inside one transaction of the journal file, on the writer's connection; its outcome is recorded in the
same transaction. So after a kill at any moment both are there, or neither; and a call that is recorded never runs again.
What the code writes through wfengine meanwhile - runs put into a queue, variables, artifacts - is a part of it too.

Everybody else who writes waits as long as it is held, so it has a limit, and nothing may be waited for in it.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from wfengine.journals import default_durability
from wfengine.outcomes import outcome_change
from wfengine.returned import is_telling
from wfengine.steps import Invoke, Outcome, Steps, Transact
from wfengine_journal.errors import UsageError, ValueNotStorableError
from wfengine_journal.user_tables import Connection, Guard, TaskOfTransaction

if TYPE_CHECKING:
    from wfengine.scopes import Scope
    from wfengine.task_engine import Call
    from wfengine_journal.tickets import Change

#: How long a transaction may be held unless the task has a timeout_seconds, in seconds: long for a few thousand rows, and short
#: enough for those who wait.
LIMIT_SECONDS = 30.0
#: The longest limit, in seconds: half of what other processes wait for the write lock before they give up.
LONGEST_SECONDS = 300.0
#: The parameter that is given the connection; callers do not pass it.
PARAMETER = "connection"

_CONNECTION: contextvars.ContextVar[Connection | None] = contextvars.ContextVar("wfengine_connection", default=None)
current = _CONNECTION.get


@dataclass(frozen=True, slots=True)
class TransactionOptions:
    """How a transactional task is executed."""

    limit_seconds: float
    place: int | None  # of the connection among the positional arguments; None: by keyword, or not at all
    takes_connection: bool

    def run(self, call: Call, scope: Scope, args: tuple[object, ...], kwargs: dict[str, object]) -> Steps[Outcome]:
        """Run the task's code, and record its result with what it wrote; `call.is_recorded` says whether.

        A failure was rolled back and is not recorded yet.
        """
        step = Invoke(scope, call.callee.fn, args, kwargs, False, None)
        outcome = yield Transact(step, functools.partial(_within, call, self))
        assert isinstance(outcome, Outcome)
        return outcome

    def refused_inside(self, what: str, scope: Scope) -> UsageError:
        """Return the error for a call that is made inside the transaction."""
        return UsageError(
            f"{what} was called inside {scope.call}, which holds a transaction: its steps could not be recorded before that "
            "is committed, and everybody else would wait for it. Nothing was done. Call it in the flow, before or after, or "
            "put it into the queue with .delay(...), which is committed together with the transaction."
        )


def transaction_options(
    owner: str, fn: Callable[..., object], chosen: Mapping[str, object], result_options: Iterable[str]
) -> TransactionOptions:
    """Return what a task's options say. Raises UsageError for those that do not fit a transaction."""
    plain = inspect.unwrap(fn)
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain) or inspect.isgeneratorfunction(plain):
        raise UsageError(
            f"{owner}: transaction=True is for plain functions, not for async ones and generators: others would have to wait "
            "for as long as it is suspended. Write a plain function; async flows can call it too."
        )
    given = [name for name in result_options if chosen[name] is not None]
    if given:
        raise UsageError(
            f"{owner}: transaction=True cannot be combined with {given[0]}: a call that is answered from elsewhere would not "
            "write its rows. Put what is to be cached into a task of its own."
        )
    limit = chosen["timeout_seconds"]
    if limit is not None and not cast(float, limit) <= LONGEST_SECONDS:
        raise UsageError(
            f"{owner}: a transaction may be held {LONGEST_SECONDS:g} s at the most, not {limit} s: everybody else who writes "
            "waits for it. Do slow work in a task before it."
        )
    place, takes = _place(fn)
    return TransactionOptions(LIMIT_SECONDS if limit is None else float(cast(float, limit)), place, takes)


def _place(fn: Callable[..., object]) -> tuple[int | None, bool]:
    parameters = list(inspect.signature(fn).parameters.values())
    names = [parameter.name for parameter in parameters]
    if PARAMETER not in names:
        return None, False
    place = names.index(PARAMETER)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return (place if parameters[place].kind in kinds else None), True


class _RolledBack(Exception):
    """The user's code raised, or what it did cannot be committed: the reason."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _within(call: Call, options: TransactionOptions, step: Invoke, invoke: Callable[[Invoke], Outcome]) -> Outcome:
    """Run user code and record its result in one transaction, on the calling thread."""
    run, seq = call.run, call.seq
    told: list[Outcome] = []

    def work(connection: sqlite3.Connection) -> Change:
        task = TaskOfTransaction(str(call), run.id, call.task_run_id)
        guard = Guard(connection, task, run.journal.clock, options.limit_seconds)
        with guard as own:
            token = _CONNECTION.set(own)
            try:
                outcome = invoke(_with_connection(step, options, own))
            finally:
                _CONNECTION.reset(token)
        if guard.fault is not None:
            raise guard.fault
        problem = outcome.error or _unfit(call, outcome.value) or _lost(guard)
        if problem is not None:
            raise _RolledBack(problem)
        change, recorded, _ = outcome_change(call, outcome)
        told.append(recorded)
        return change

    try:
        # What is written inside may ask for the disk where the run itself does not, and sync cannot be changed in the middle.
        run.journal.exclusive(work, synced=run.synced or default_durability(run.journal) == "power")
    except _RolledBack as undone:
        return Outcome(None, undone.error)
    except (ValueNotStorableError, sqlite3.IntegrityError) as error:  # the latter: of a constraint that is checked at COMMIT
        call.seq = seq
        return Outcome(None, error)
    call.is_recorded = True
    return told[0]


def _with_connection(step: Invoke, options: TransactionOptions, connection: Connection) -> Invoke:
    if not options.takes_connection:
        return step
    if options.place is None:
        return step._replace(kwargs={**step.kwargs, PARAMETER: connection})
    return step._replace(args=(*step.args[: options.place], connection, *step.args[options.place :]))


def _unfit(call: Call, value: object) -> Exception | None:
    if not is_telling(value):
        return None
    return UsageError(
        f"{call} returned a {type(value).__name__} from a transaction, which was rolled back: whether that means success would "
        "be known only after it. Return plain data, or raise an exception."
    )


def _lost(guard: Guard) -> Exception | None:
    """Return why what was written cannot be committed, if so."""
    if not guard.connection.in_transaction:
        return guard.rolled_back()
    try:
        guard.check_time()
    except Exception as error:
        return error
    return None
