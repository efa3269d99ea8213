"""Limits of tags: of the task runs with a tag, only so many are RUNNING at a time, over all processes.

A task run takes a place of each of its limited tags in the transaction that begins an attempt; it is free with the outcome,
in that very transaction, since a place is void when its task run is not RUNNING. So it is between two attempts as well.
While it waits, the task run is SCHEDULED and named AwaitingConcurrencySlot.

A task that a task calls does not wait for the places of those that wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from wfengine.doubt import cut_off
from wfengine.lines import Turn, await_room, line_up, stand
from wfengine.scopes import current_tags
from wfengine.steps import Create, Steps, Write
from wfengine_journal.errors import ForkedProcessError, JournalError, RunHalted
from wfengine_journal.places import Claimer, LeaveLine, LineUp, TakePlaces, find_dead_owners, list_lacking
from wfengine_journal.quotas import TAG_PREFIX, list_quotas
from wfengine_journal.riders import Rider, WithRiders
from wfengine_journal.states import StateType
from wfengine_journal.transitions import BeginCall, SettleCall, StartAttempt

if TYPE_CHECKING:
    from wfengine.task_engine import Call
    from wfengine_journal.store import Journal

#: How long what is known of the limits of tags is believed, in seconds: a limit set by another process counts from then on.
BELIEVED_SECONDS = 0.25

#: By journal: until when it is believed (monotonic), and which tags have a limit.
_LIMITED: WeakKeyDictionary[Journal, tuple[float, frozenset[str]]] = WeakKeyDictionary()


def forget_limited_tags(journal: Journal) -> None:
    """Look again which tags have a limit: this process has changed one."""
    _LIMITED.pop(journal, None)


def limited_tags(journal: Journal) -> frozenset[str]:
    """Return the tags that have a limit."""
    now = journal.clock.monotonic_seconds()
    known = _LIMITED.get(journal)
    if known is None or now >= known[0]:
        rows = journal.read(lambda connection: list_quotas(connection, TAG_PREFIX))
        tags = frozenset(row.name.removeprefix(TAG_PREFIX) for row in rows)
        known = _LIMITED[journal] = (now + BELIEVED_SECONDS, tags)
    return known[1]


def tag_turn(call: Call) -> TagTurn | None:
    """Return what a task run has to pass before it begins; None: none of its tags is limited."""
    if call.callee.kind != "task":
        return None
    tags = call.tags | current_tags() | call.run.outer_tags
    limited = limited_tags(call.run.journal)
    return TagTurn(call, limited & tags) if limited and limited & tags else None


class TagTurn:
    """One task run on its way to the places of its tags. It has to leave, whatever happens."""

    __slots__ = ("_call", "_claimer", "_dead", "_journal", "_line", "_stands", "_turn", "_wanted")

    def __init__(self, call: Call, tags: frozenset[str]) -> None:
        self._call = call
        self._journal = call.run.journal
        self._wanted = {TAG_PREFIX + tag: 1 for tag in sorted(tags)}
        self._claimer = Claimer(self._journal.owner_id, call.run.id, 0, _enclosing(call, tags))
        self._line: list[int] = []
        self._dead: frozenset[int] = frozenset()
        self._turn = self._stand()
        self._stands = True

    def _stand(self) -> Turn:
        return line_up(self._call.run, object() if self._claimer.beside else frozenset(self._wanted))

    def step_aside(self) -> None:
        """Let others pass: the call waits for something else now. `wait` stands in line again, behind them."""
        self.leave()
        self._stands = False

    def has_room(self) -> bool:
        """Tell whether it may try at once."""
        if not self._turn.is_first():
            return False
        self._dead = find_dead_owners(self._journal, self._wanted)
        return not self._journal.read(
            lambda connection: list_lacking(connection, self._wanted, self._claimer, line=self._line, dead_owners=self._dead)
        )

    def wait(self) -> Steps[None]:
        """Wait until nobody stands before it, and there is room. Another may still be quicker."""
        if not self._stands:
            self._turn, self._stands = self._stand(), True
        if not self._turn.is_first():
            yield stand(self._turn)
        if self.has_room():
            return
        claimer, journal = self._claimer, self._journal
        lining = LineUp(self._wanted, claimer, at=journal.clock.now_text(), line=self._line, dead_owners=self._dead)
        yield Create(journal, lining, False)
        self._line = lining.slot_ids
        yield await_room(self._call.run, self._turn, self._wanted, claimer, self._line, self._call.scope)
        self._dead = find_dead_owners(journal, self._wanted)

    def wait_to_begin(self) -> Steps[None]:
        """Wait for places that are taken, and be seen to wait. Cancelled meanwhile, the call is recorded so."""
        call = self._call
        if call.seq >= 1 and call.live_state == StateType.PENDING and call.row is None:
            call.seq += 1
            call.run.journal.post(_awaiting(call, self.text()))
        try:
            yield from self.wait()
        except GeneratorExit:
            raise
        except BaseException as signal:
            if call.row is None and call.begin is not None and not isinstance(signal, RunHalted):
                yield from cut_off(call, signal)
            raise

    def claim(self, at: str) -> Rider:
        """Return what takes the places with the beginning of the attempt, and refuses it where there is no room."""
        return TakePlaces(self._wanted, self._claimer, at=at, line=self._line, dead_owners=self._dead)

    def begin(self, begin: BeginCall | StartAttempt) -> Steps[None]:
        """Begin the attempt, with the places."""
        run = self._call.run
        while True:
            begin.at = self._journal.clock.now_text()
            attempt = WithRiders(begin, [self.claim(begin.at)])
            if (yield Create(self._journal, attempt, self._call.callee.is_guarded and run.synced)):
                self._line = []
                return
            if attempt.was_checked:  # the run itself was lost to another process: meet that refusal as any write does
                yield Write(run, begin, False)
            yield from self.wait()

    def leave(self) -> None:
        """Let the next one look."""
        self._turn.leave()
        if self._line:
            line, self._line = self._line, []
            try:
                self._journal.post(LeaveLine(line, self._journal.owner_id))
            except (JournalError, ForkedProcessError):
                return  # void with the run

    def text(self) -> str:
        """Say what it waits for."""
        return f"waits for a place of tag {', '.join(name.removeprefix(TAG_PREFIX) for name in self._wanted)}"


def _awaiting(call: Call, message: str) -> SettleCall:
    return SettleCall(
        call.run.id, call.task_run_id, seq=call.seq, epoch=call.run.epoch, attempt=call.attempt,
        at=call.run.journal.clock.now_text(), state="SCHEDULED", state_name="AwaitingConcurrencySlot", message=message,
        call=call.begin,
    )  # fmt: skip


def _enclosing(call: Call, tags: frozenset[str]) -> frozenset[int]:
    """Return the task runs that wait for this call and hold places of the same tags."""
    found: set[int] = set()
    around = call.scope.call if call.scope.call is not None else call.run.parent_call
    while around is not None:
        if around.callee.kind == "task" and tags & around.tags:
            found.add(around.task_run_id)
        around = around.scope.call if around.scope.call is not None else around.run.parent_call
    return frozenset(found)
