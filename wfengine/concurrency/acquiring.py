"""Taking places of limits, and starts of rates: the steps of which `concurrency` and `rate_limit` are made.

A place is held in the journal, by the task run or the flow's body that asked, and outside of any run by the process. It is
given back where the block ends, and free without that as soon as its holder is dead, or over. On resume the body of a flow
runs again from its top, and takes the places of its blocks again; a start that it had counted is not counted again.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, cast

from wfengine.journals import default_journal
from wfengine.lines import LATE, Bystander, Rest, Waiter, await_room, line_up, stand
from wfengine.loading import leaves_no_trace
from wfengine.scopes import Scope, current_scope, find_scope, running_asyncio_task
from wfengine.steps import Create, Steps, Write, drive
from wfengine.task_future import refuse_waiting
from wfengine_journal.codec import encode
from wfengine_journal.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    ForkedProcessError,
    JournalError,
    MissingContextError,
    RunHalted,
    UsageError,
)
from wfengine_journal.items import RecordItem
from wfengine_journal.places import (
    Claimer,
    LeaveLine,
    LeavePlaces,
    LineUp,
    TakePlaces,
    find_dead_owners,
)
from wfengine_journal.quotas import QUEUE_PREFIX, TAG_PREFIX, QuotaRow, TakeRate, find_quota
from wfengine_journal.waits import WAIT_PREFIX

if TYPE_CHECKING:
    from wfengine.scopes import LiveRun
    from wfengine_journal.store import Journal

_logger = logging.getLogger("wfengine.concurrency")

#: Characters of the name of a limit.
NAME_LIMIT = 255
#: What the names of other quotas and locks begin with.
RESERVED = (QUEUE_PREFIX, TAG_PREFIX, "cache:", "transaction:", WAIT_PREFIX)
#: Places or starts that may be asked for at once.
OCCUPY_LIMIT = 1_000_000
#: A rate is asked again so often at the least, in seconds, since it may have been changed.
_ASK_AGAIN_SECONDS = 1.0


class Ask(NamedTuple):
    """What a call of `concurrency` or `rate_limit` asks for."""

    function: str
    names: tuple[str, ...]
    occupy: int
    timeout_seconds: float | None
    strict: bool


class Around(NamedTuple):
    """A block that the calling code is inside of: which names it holds, and in which thread and asyncio task."""

    names: frozenset[str]
    thread: int
    task: object
    journal: Journal
    slot_ids: tuple[int, ...]
    taken_at: str
    scope: Scope | None


#: The blocks around the calling code, outermost first.
_AROUND: contextvars.ContextVar[tuple[Around, ...]] = contextvars.ContextVar("wfengine_places", default=())
_warned: set[str] = set()


def checked_ask(
    function: str, names: str | Iterable[str], occupy: int, timeout_seconds: float | None, strict: bool
) -> Ask:  # fmt: skip
    """Return what is asked for. Raises UsageError."""
    listed = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Iterable) else (names,)
    for name in listed:
        checked_name(name)
    if isinstance(occupy, bool) or not isinstance(occupy, int) or not 1 <= occupy <= OCCUPY_LIMIT:
        raise UsageError(f"{function}(): occupy must be a whole number from 1 to {OCCUPY_LIMIT}, not {occupy!r}.")
    if timeout_seconds is not None and (
        isinstance(timeout_seconds, bool) or not isinstance(timeout_seconds, int | float) or not timeout_seconds >= 0
    ):
        raise UsageError(
            f"{function}(): timeout_seconds must be a number of seconds, 0 or more, or None; not {timeout_seconds!r}."
        )
    return Ask(function, tuple(dict.fromkeys(listed)), occupy, timeout_seconds, bool(strict))


def checked_name(name: object) -> str:
    """Return the name of a limit. Raises UsageError."""
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
        raise UsageError(f"{name!r} cannot name a limit: a name is a text of 1 to {NAME_LIMIT} printable characters.")
    if name.startswith(RESERVED):
        raise UsageError(
            f"{name!r} cannot name a limit: names that begin with {', '.join(RESERVED)} are wfengine's own. "
            "For tasks with a tag: wfengine limits set NAME --tag --slots 3; for a queue: wfengine queues set NAME --slots 3"
        )
    return name


# ------------------------------------------------------------------------------------------- places


def enter_steps(ask: Ask) -> Steps[Around | None]:
    """Take the places that a block asks for, and note that the calling code is inside of it. None: nothing is limited."""
    scope, waiter = _asking(ask)
    if waiter is None:
        return None
    journal, control = waiter.journal, (threading.get_ident(), running_asyncio_task())
    held = {name for one in _AROUND.get() if (one.thread, one.task) == control for name in one.names}
    quotas = _quotas(journal, ask, lambda quota: quota.slots is None and quota.rate_count is not None, "places", "--slots 3")
    wanted = {quota.name: ask.occupy for quota in quotas if quota.name not in held}
    if not wanted:
        return None
    claimer = Claimer(journal.owner_id)
    if scope is not None:
        claimer = Claimer(journal.owner_id, scope.run.id, scope.task_run_id)
    until = None if ask.timeout_seconds is None else journal.clock.monotonic_seconds() + ask.timeout_seconds
    take = yield from take_steps(
        waiter, wanted, claimer, until=until, keep=None if scope is None else scope.places,
        check=lambda: _check_possible(journal, ask, wanted, scope), scope=scope,
    )  # fmt: skip
    if take is None:
        raise _late(ask, scope)
    around = Around(frozenset(wanted), *control, journal, tuple(take.slot_ids), take.at, scope)
    _AROUND.set((*_AROUND.get(), around))
    return around


#: The blocks that code on workers is inside of.
_blocks_there: dict[int, Around | None] = {}
_numbers = itertools.count(1)


def enter_there(ask: Ask) -> int:
    """Take the places that a block on a worker asks for: called in the flow's process. Returns the number of the block."""
    number = next(_numbers)
    _blocks_there[number] = drive(enter_steps(ask))
    return number


def leave_there(number: int) -> None:
    """Give the places of a block on a worker back."""
    leave(_blocks_there.pop(number))


def rate_there(ask: Ask) -> None:
    """Count a start that code on a worker makes."""
    drive(rate_steps(ask))


def leave(around: Around | None) -> None:
    """Give the places of a block back. Where that cannot be written, they are free when the holder ends."""
    if around is None:
        return
    _AROUND.set(tuple(one for one in _AROUND.get() if one is not around))
    if around.scope is not None:
        around.scope.places.difference_update(around.slot_ids)
    if around.slot_ids:
        owner_id = around.journal.owner_id
        try:
            around.journal.write(LeavePlaces(around.slot_ids, owner_id=owner_id, at=around.taken_at), synced=False)
        except (JournalError, ForkedProcessError) as error:
            _logger.warning("Places of %s could not be given back (%s); they are free when their holder ends.",
                            ", ".join(sorted(around.names)), error)  # fmt: skip


def take_steps(
    waiter: Waiter, wanted: dict[str, int], claimer: Claimer, *, until: float | None = None, keep: set[int] | None = None,
    check: Callable[[], None] | None = None, scope: Scope | None = None,
) -> Steps[TakePlaces | None]:  # fmt: skip
    """Take places, after all who came before; None when the time is over.

    `check` is called once, where there is no room: it raises where there never will be.
    """
    journal = waiter.journal
    turn = line_up(waiter, _line_key(wanted, claimer), until)
    line: list[int] = []
    dead: frozenset[int] = frozenset()
    try:
        if not turn.is_first():
            yield stand(turn)
        while turn.is_first():
            take = TakePlaces(wanted, claimer, at=journal.clock.now_text(), line=line, dead_owners=dead, keep=keep)
            if (yield Create(journal, take, False)):
                line = []
                return take
            if not take.lacking:
                yield Write(cast("LiveRun", waiter), take, False)  # the run is lost: meet that refusal as any write does
            if check is not None:
                check()
                check = None
            if turn.is_late():
                break
            dead = find_dead_owners(journal, wanted)
            lining = LineUp(wanted, claimer, at=journal.clock.now_text(), line=line, dead_owners=dead)
            yield Create(journal, lining, False)
            line = lining.slot_ids
            found = yield await_room(waiter, turn, wanted, claimer, line, scope)
            if found is LATE:
                break
            dead = find_dead_owners(journal, wanted)
        return None
    finally:
        turn.leave()
        if line:
            with contextlib.suppress(JournalError, ForkedProcessError):
                journal.post(LeaveLine(line, journal.owner_id))


def _line_key(wanted: dict[str, int], claimer: Claimer) -> object:
    """Return which line in this process is meant; who holds up one that waits for it stands in one of its own."""
    return object() if claimer.beside else frozenset(wanted)


def _check_possible(journal: Journal, ask: Ask, wanted: dict[str, int], scope: Scope | None) -> None:
    for name, count in wanted.items():
        quota = journal.read(lambda connection, name=name: find_quota(connection, name))  # type: ignore[misc]  # bound per turn
        if quota is not None and quota.slots and count > quota.slots:
            raise ConcurrencySlotAcquisitionError(
                f"concurrency() asked for {count} places of '{name}', which has {quota.slots}, so it would wait for ever"
                f"{_in(scope)}. Ask for fewer, or: wfengine limits set {name} --slots {count}"
            )
    if scope is not None:
        text = f"waits for {ask.occupy} {'place' if ask.occupy == 1 else 'places'} of {', '.join(wanted)}"
        journal.put_log(scope.run.id, scope.task_run_id or None, logging.INFO, _logger.name, text)


# ------------------------------------------------------------------------------------------- rates


def rate_steps(ask: Ask) -> Steps[None]:
    """Wait until starts may be made, and count them."""
    scope, waiter = _asking(ask)
    if waiter is None:
        return
    journal = waiter.journal
    quotas = _quotas(journal, ask, lambda quota: quota.rate_count is None and quota.slots is not None, "rate", "--rate 10/s")
    wanted = {quota.name: ask.occupy for quota in quotas}
    note = None
    if scope is not None and scope.call is None:  # the body of a flow runs again on resume
        number = scope.next_occurrence(0, f"rate {ask.names}".encode("utf-8", "surrogatepass"))
        item = f"rate {number} {', '.join(ask.names)}"
        if journal.records.find_item(scope.run.id, 0, item) is not None:
            return
        run = scope.run
        note = RecordItem(run.id, 0, item, encode(True, item), epoch=run.epoch, at=journal.clock.now_text())
    if not wanted:
        return
    until = None if ask.timeout_seconds is None else journal.clock.monotonic_seconds() + ask.timeout_seconds
    turn = line_up(waiter, ("rate", frozenset(wanted)), until)
    try:
        if not turn.is_first():
            yield stand(turn)
        while turn.is_first():
            take = TakeRate(wanted, at=journal.clock.now_text(), note=note)
            if not (yield Create(journal, take, False)):
                yield Write(cast("LiveRun", waiter), take, False)
            if not take.wait_seconds:
                return
            if turn.is_late():
                break
            yield stand(Rest(waiter, turn.at_most(min(take.wait_seconds, _ASK_AGAIN_SECONDS))))
            if scope is not None and scope.is_given_up():
                raise RunHalted(MissingContextError("The attempt that waited for a rate is over. Nothing to do."))
    finally:
        turn.leave()
    raise _late(ask, scope)


# ------------------------------------------------------------------------------------------- who asks


def _asking(ask: Ask) -> tuple[Scope | None, Waiter | None]:
    """Return the scope that asks, None outside of a run, and who waits for it; no waiter where nothing is to be done."""
    scope = current_scope()
    if scope is None:
        return None, None if leaves_no_trace() else Bystander(default_journal())
    if scope.closed:  # a hook: it runs because the run ends, so the process holds what it asks for
        return None, Bystander(scope.run.journal)
    scope = find_scope()
    assert scope is not None
    if scope.run.dry is not None:
        return None, None
    refuse_waiting()
    return scope, scope.run


def _quotas(journal: Journal, ask: Ask, is_other: Callable[[QuotaRow], bool], what: str, option: str) -> list[QuotaRow]:
    """Return the quotas that are named. Raises ConcurrencySlotAcquisitionError for one that cannot be meant."""
    found: list[QuotaRow] = []
    for name in ask.names:
        quota = journal.read(lambda connection, name=name: find_quota(connection, name))  # type: ignore[misc]  # bound per turn
        if quota is None and ask.strict:
            raise ConcurrencySlotAcquisitionError(
                f"{ask.function}({name!r}, strict=True): there is no limit of that name in {journal.path}. "
                f"Set it: wfengine limits set {name} {option}"
            )
        if quota is None:
            if name not in _warned:
                _warned.add(name)
                _logger.warning(
                    "There is no limit '%s', so %s() limits nothing. Set it: wfengine limits set %s %s",
                    name, ask.function, name, option,
                )  # fmt: skip
        elif is_other(quota):
            raise ConcurrencySlotAcquisitionError(
                f"{ask.function}({name!r}): this limit has no {what}. Set it: wfengine limits set {name} {option}"
            )
        else:
            found.append(quota)
    return found


def _late(ask: Ask, scope: Scope | None) -> AcquireConcurrencySlotTimeoutError:
    names = ", ".join(f"'{name}'" for name in ask.names)
    return AcquireConcurrencySlotTimeoutError(
        f"{ask.function}() got nothing of {names} within {ask.timeout_seconds} s{_in(scope)}. "
        f"See who holds it: wfengine limits show {ask.names[0]}",
        flow_run_id=None if scope is None else scope.run.id,
        task_run_id=None if scope is None else scope.task_run_id or None,
    )


def _in(scope: Scope | None) -> str:
    return "" if scope is None else f" in {scope.call if scope.call is not None else scope.run}"
