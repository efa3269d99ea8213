"""Caching: a call may have the result that an earlier call with the same key left, of whatever run.

Never confused with replay: a replayed call is answered by its own recorded outcome before the cache is asked, and a task is
cached only when its options ask for it. Asking stands between the replay lookup and the beginning of an attempt:

    key        from the task's cache policy, once per call                              `_ask`
    lookup     an entry that has not expired and can be loaded is the result             `_look`
    hit        the call is COMPLETED/Cached in one transaction, without an attempt       `_serve`
    miss       the attempt begins, and its result becomes the entry, in one transaction  `completed`

With isolation SERIALIZABLE a miss also takes the slot of the key, in the transaction that begins the attempt, and gives it
back in that of the outcome; others wait for it. It is void as soon as the process that holds it is dead (`slots`).
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from wfengine import runtime
from wfengine.cache_policies import DEFAULT, NO_CACHE, Asked, CacheKey, CachePolicy, cache_key
from wfengine.context import TaskRunContext
from wfengine.doubt import cut_off
from wfengine.keeping import Keeping, keeping_of
from wfengine.result_hashes import remember_result_hash
from wfengine.result_memory import note_recorded
from wfengine.scopes import naming
from wfengine.states import State
from wfengine.steps import Await, Create, Outcome, Steps, Write
from wfengine.transactions import IsolationLevel
from wfengine_journal.cache import Answer, Entry, NoteUse, PutEntry, ServeCached, StillAsSeen, Use, find_entry
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.codec import Encoded
from wfengine_journal.errors import (
    JournalCorruptError,
    JournalError,
    NoCacheKeyError,
    RunHalted,
    StoredResultError,
    UsageError,
    ValueNotStorableError,
)
from wfengine_journal.riders import Rider, WithRiders
from wfengine_journal.slots import ClaimSlot, ReleaseSlot, look
from wfengine_journal.states import StateType
from wfengine_journal.transitions import BeginCall, CompleteCall, FailAttempt, StartAttempt, key_text

if TYPE_CHECKING:
    from wfengine.task_engine import Call, Callee

_logger = logging.getLogger("wfengine.caching")

#: A longer key is cut, and a hash of it all put behind, in characters.
KEY_LIMIT = 1000


@dataclass(slots=True)
class Asking:
    """One call, as far as the cache is concerned."""

    key: str | None
    parts: dict[str, str]
    message: str | None = None  # why there is no key
    file: str | None = None  # the rendered result_storage_key
    expiration: timedelta | None = None
    holds_slot: bool = False

    def completed(self, call: Call, change: CompleteCall | FailAttempt) -> CompleteCall | FailAttempt | WithRiders:
        """Return the change that records an attempt, with what it leaves in the cache: only a result becomes an entry."""
        if self.key is None:
            return change
        run, riders = call.run, list[Rider]()
        if isinstance(change, CompleteCall):
            expires_at = None
            if self.expiration is not None:
                expires_at = text_from_seconds(run.journal.clock.wall_seconds() + self.expiration.total_seconds())
            riders.append(PutEntry(self.key, change.result, flow_run_id=run.id, at=change.at, expires_at=expires_at))
        if self.holds_slot:
            self.holds_slot = False
            name = slot_name(self.key)
            riders.append(ReleaseSlot(name, owner_id=run.journal.owner_id, flow_run_id=run.id, task_run_id=call.task_run_id))
        return WithRiders(change, riders) if riders else change


class Found(NamedTuple):
    """What a look into the cache gave."""

    answer: Answer
    message: str | None
    entry: Entry | None
    value: object


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """What a task asks for its results, beyond being journaled. Made at decoration."""

    policy: CachePolicy | None = None
    expiration: timedelta | None = None
    refresh: bool = False
    storage_key: str | None = None
    keeping: Keeping = field(default_factory=Keeping)

    @property
    def is_cached(self) -> bool:
        """Tell whether the cache is asked at all."""
        return self.policy is not None or self.storage_key is not None

    @property
    def is_serializable(self) -> bool:
        """Tell whether calls with one key run one at a time."""
        return self.policy is not None and self.policy.isolation_level == IsolationLevel.SERIALIZABLE

    def begin(self, call: Call, begin: BeginCall | StartAttempt) -> Steps[Outcome | None]:
        """Begin an attempt, or complete the call with a cached result and return it. None: the attempt has begun."""
        run = call.run
        if not self.is_cached:
            if call.turn is None:
                yield Write(run, begin, call.callee.is_guarded and run.synced)
            else:
                yield from call.turn.begin(begin)
            return None
        try:
            return (yield from self._begin_or_serve(call, begin))
        except JournalError as error:
            raise run.halt(RunHalted(error)) from None  # not for the flow to catch

    def _begin_or_serve(self, call: Call, begin: BeginCall | StartAttempt) -> Steps[Outcome | None]:
        run = call.run
        asking = call.asking = call.asking or self._ask(call)
        while True:
            found = self._look(call, asking)
            if found.entry is not None and found.answer == "hit":
                return (yield from _serve(call, begin, asking, found.entry, found.value))
            synced = call.callee.is_guarded and run.synced
            begin.at = run.journal.clock.now_text()  # the lookup, or a wait, took its time
            riders: list[Rider] = [NoteUse(run.id, Use(asking.key, found.answer, asking.parts, found.message), begin.at)]
            is_alone = asking.key is not None and self.is_serializable
            if not is_alone and call.turn is None:
                yield Write(run, WithRiders(begin, riders), synced)
                return None
            if is_alone and asking.key is not None:
                claim = _claim(call, asking.key, begin.at)
                if claim is None:
                    if call.turn is not None:
                        call.turn.step_aside()
                    yield from _wait_until_free(call, begin, asking.key)
                    if call.turn is not None:
                        yield from call.turn.wait()
                    continue
                riders.append(claim)
                if not self.refresh:
                    riders.append(StillAsSeen(asking.key, found.entry))
            if call.turn is not None:
                riders.append(call.turn.claim(begin.at))
            attempt = WithRiders(begin, riders)
            if (yield Create(run.journal, attempt, synced)):
                asking.holds_slot = is_alone
                return None
            if attempt.was_checked:  # the run itself was lost to another process: meet that refusal as any write does
                yield Write(run, begin, False)
            if call.turn is not None:
                yield from call.turn.wait()

    def encode_call(self, call: Call, value: object) -> tuple[Encoded, object]:
        """Return a result as it is written, and as the flow is given it. Raises ValueNotStorableError."""
        key = call.asking.file if call.asking is not None else None
        return self.keeping.under(call.run.results).encode(value, f"the result of {call}", key)

    # ---- the key

    def _ask(self, call: Call) -> Asking:
        """Compute the key. Whatever goes wrong with it, the call is only not cached."""
        try:
            if self.storage_key is not None:
                name = _rendered(self.storage_key, call, self.keeping.under(call.run.results))
                return Asking(_bounded(name), {"result_storage_key": name}, file=name, expiration=self.expiration)
            assert self.policy is not None
            made = _key_of(self.policy, call)
        except NoCacheKeyError as error:
            _warn(call.callee, str(error), None)
            return Asking(None, {}, str(error))
        except Exception as error:
            message = f"the cache policy raised {type(error).__name__}: {error}"
            _warn(call.callee, message, error)
            return Asking(None, {}, message)
        if made.key is None:
            return Asking(None, made.parts, "the cache policy gave no key for this call")
        return Asking(_bounded(made.key), made.parts, expiration=self.expiration)

    # ---- the lookup

    def _look(self, call: Call, asking: Asking) -> Found:
        journal = call.run.journal
        if asking.key is None:
            return Found("no key", asking.message, None, None)
        if self.refresh:
            return Found("refreshed", None, None, None)
        entry = find_entry(journal.records, asking.key)
        if entry is None:
            return Found("miss", None, None, None)
        if entry.is_expired(journal.clock.now_text()):
            return Found("expired", f"the entry was to be used until {entry.expires_at}", entry, None)
        what = f"the cached {entry}"
        try:
            return Found("hit", None, entry, _loaded(call, entry, what))
        except (JournalCorruptError, StoredResultError, ValueNotStorableError) as error:
            _logger.warning("%s runs, though its result is cached: %s", call, error)
            return Found("damaged", str(error), entry, None)


def _loaded(call: Call, entry: Entry, what: str) -> object:
    records = call.run.journal.records
    data = records.get_raw_value(entry.result_hash, what)[1] if entry.result is None else entry.result
    if entry.result_codec == "stored":
        from wfengine.result_storage import check_in_place

        check_in_place(data, what)
    value = records.load_result(data, entry.result_codec, entry.result_hash, what)
    if entry.result_codec != "json":
        remember_result_hash(value, entry.result_hash)
    note_recorded(call, entry.result_codec, data, entry.result_hash)
    return value


def _serve(call: Call, begin: BeginCall | StartAttempt, asking: Asking, entry: Entry, value: object) -> Steps[Outcome]:
    """Complete the call with a cached result: its row, the state and the note in one transaction."""
    run, at = call.run, call.run.journal.clock.now_text()
    call.attempt -= 1  # the one that was about to begin is not to be
    serve = ServeCached(begin, attempt=call.attempt, at=at, entry=entry)
    note = NoteUse(run.id, Use(asking.key, "hit", asking.parts, None, entry.task_run_id or None), at)
    call.seq = serve.seq
    call.ended_at = at
    call.verdict = State(StateType.COMPLETED, "Cached")
    yield Write(run, WithRiders(serve, [note]), run.synced, final=call.callee.hooks is None)
    call.task_run_id = serve.task_run_id
    return Outcome(value, None)


# ------------------------------------------------------------------------------------------- the options of @task


def result_options(owner: str, fn: Callable[..., object], options: Mapping[str, object]) -> ResultOptions | None:
    """Return what the options of `@task` say about results; None where that is nothing. Raises UsageError.

    What cannot go together is warned of; the task then runs, as it would with Prefect.
    """
    keeping = keeping_of(owner, options)
    expiration, storage_key = options["cache_expiration"], options["result_storage_key"]
    if expiration is not None and not (isinstance(expiration, timedelta) and expiration >= timedelta(0)):
        raise UsageError(f"{owner}: cache_expiration must be a timedelta, such as timedelta(hours=1), not {expiration!r}.")
    if storage_key is not None and not isinstance(storage_key, str):
        raise UsageError(f"{owner}: result_storage_key must be a text, such as 'day-{{parameters[day]}}', not {storage_key!r}.")
    policy = _chosen_policy(owner, options)
    is_asked_for = policy is not None or storage_key is not None
    if type(policy) is type(NO_CACHE):
        policy = storage_key = None
    elif is_asked_for and options["persist_result"] is False:
        _logger.warning("%s: persist_result=False turns off the caching that its other options ask for.", owner)
        policy = storage_key = None
    elif is_asked_for and (inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)):
        _logger.warning("%s is a generator, whose items cannot be cached: each call runs. Return a list to cache it.", owner)
        policy = storage_key = None
    elif not is_asked_for and options["persist_result"] is True:
        policy = DEFAULT
    elif not is_asked_for and (expiration is not None or options["refresh_cache"]):
        _logger.warning(
            "%s: cache_expiration and refresh_cache do nothing without a cache_policy (such as INPUTS) or a cache_key_fn.",
            owner,
        )
    if policy is None and storage_key is None and keeping is None:
        return None
    return ResultOptions(policy, expiration, bool(options["refresh_cache"]), storage_key, keeping or Keeping())


def _chosen_policy(owner: str, options: Mapping[str, object]) -> CachePolicy | None:
    policy, key_fn = options["cache_policy"], options["cache_key_fn"]
    if policy is not None and not isinstance(policy, CachePolicy):
        raise UsageError(f"{owner}: cache_policy must be a cache policy, such as INPUTS + TASK_SOURCE, not {policy!r}.")
    if key_fn is not None and not callable(key_fn):
        raise UsageError(f"{owner}: cache_key_fn must be a function of the context and the arguments, not {key_fn!r}.")
    if key_fn is None:
        if policy is not None and type(policy) is not type(NO_CACHE) and options["result_storage_key"] is not None:
            _logger.warning("%s has a cache_policy and a result_storage_key. The result_storage_key is the key.", owner)
            return None
        return policy
    if policy is not None:
        _logger.warning("%s has a cache_policy and a cache_key_fn. The cache_key_fn gives the key.", owner)
    return CachePolicy.from_cache_key_fn(key_fn)


# ------------------------------------------------------------------------------------------- one at a time


def slot_name(key: str) -> str:
    """Return the name of the slot that whoever computes a key holds."""
    return f"cache:{key}"


def _wait_until_free(call: Call, begin: BeginCall | StartAttempt, key: str) -> Steps[None]:
    """Wait until nobody computes the key. A call that is cancelled meanwhile has not begun, and is recorded as cut off."""
    try:
        yield Await(call.run, functools.partial(_is_free, call, key))
    except GeneratorExit:
        raise
    except BaseException as signal:
        if call.row is None and isinstance(begin, StartAttempt) and not isinstance(signal, RunHalted):
            call.begin = begin.call  # its row may still be on its way
            call.seq -= 1
            call.attempt -= 1
            yield from cut_off(call, signal)
        raise


def _is_free(call: Call, key: str) -> bool | None:
    """Return True when nobody computes the key, else None."""
    return True if _claim(call, key, "") is not None else None


def _claim(call: Call, key: str, at: str) -> ClaimSlot | None:
    """Return the claim to compute a key, which another may still be quicker to make; None while somebody computes it."""
    run, name = call.run, slot_name(key)
    found = look(run.journal, name)
    enclosing = _enclosing(call) if found.holders else frozenset()
    if any(holder.task_run_id not in enclosing for holder in found.holders):
        return None
    return ClaimSlot(
        name, 1, owner_id=run.journal.owner_id, flow_run_id=run.id, task_run_id=call.task_run_id, at=at,
        dead_owners=found.dead_owners, enclosing=enclosing,
    )  # fmt: skip


def _enclosing(call: Call) -> frozenset[int]:
    """Return the task runs that wait for this call: those that made it, directly or not. They do not block it."""
    found: set[int] = set()
    around = call.scope.call if call.scope.call is not None else call.run.parent_call
    while around is not None:
        found.add(around.task_run_id)
        around = around.scope.call if around.scope.call is not None else around.run.parent_call
    return frozenset(found)


# ------------------------------------------------------------------------------------------- computing a key


def _key_of(policy: CachePolicy, call: Call) -> CacheKey:
    """Ask the policy, whose code is the user's: a task that it calls is no part of the run."""
    with naming(call.run, call):
        return cache_key(policy, Asked(TaskRunContext(call), call.arguments, call.run.parameters))


def _rendered(template: str, call: Call, keeping: Keeping) -> str:
    """Return a result_storage_key for this call. Raises NoCacheKeyError where it does not fit."""
    try:
        with naming(call.run, call):
            name = template.format(
                parameters=call.arguments, flow_run=runtime.flow_run, task_run=runtime.task_run, deployment=runtime.deployment
            )
        from wfengine.result_storage import check_key

        check_key(keeping.storage, name)
    except Exception as error:
        raise NoCacheKeyError(
            f"the result_storage_key {template!r} does not fit this call ({type(error).__name__}: {error}). It may use "
            "{parameters[NAME]} and what wfengine.runtime has: {flow_run.name}, {flow_run.flow_name}, {task_run.task_name} ..."
        ) from error
    return name


def _bounded(key: str) -> str:
    text = key_text(key)
    if len(text) <= KEY_LIMIT:
        return text
    from xxhash import xxh3_128_hexdigest

    return f"{text[:KEY_LIMIT]}... {xxh3_128_hexdigest(text.encode())}"


_warned: set[tuple[str, str]] = set()


def _warn(callee: Callee, message: str, error: Exception | None) -> None:
    """Say once per task and kind of trouble that its calls are not cached."""
    kind = (callee.key, "" if error is None else type(error).__name__)
    if kind not in _warned:
        _warned.add(kind)
        _logger.warning("Task '%s' runs uncached: %s", callee.name, message, exc_info=error)
