"""Which runs that wait may begin: the limits of queues and deployments, and whose turn it is.

A run takes a place while it is RUNNING or CANCELLING, or waits for its own next attempt. So a place is a state and not a
thing to be given back: it is free in the transaction in which the run ends, and of a process that died as soon as its runs
are marked CRASHED. A run that waits for the end of other runs (`waits`) lends its places to those, and to nobody else: they
could never begin otherwise. The same rules are asked twice: at a look, for what may begin, and in the transaction of a claim,
where they decide (`QueueAdmission`).

Queues of background tasks ('task:KEY') have workers and an order of their own, see `background`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from wfengine_journal.clock import Clock, seconds_from_text
from wfengine_journal.quotas import QUEUE_PREFIX, QuotaRow, find_quota, rate_wait_seconds, take_rate
from wfengine_journal.run_transitions import record_flow_transition
from wfengine_journal.tickets import WriteRefused
from wfengine_journal.transitions import RecordedChange
from wfengine_journal.waits import list_waits, waits_for_any

#: How often a run that belongs to no deployment is taken up by itself after its process died.
DEFAULT_RECOVERIES = 10
#: Runs of a deployment at its limit that are told so at one look.
TOLD_AT_ONCE = 100
#: Crashed, and sleeping, runs that are looked at for whether they may go on.
RESUMED_AT_ONCE = 1000
#: The state of a run that waits for a place, and was told for which.
AWAITING_SLOT = "AwaitingConcurrencySlot"


class FoundRun(NamedTuple):
    """A run that nobody executes, as far as beginning it needs."""

    id: int
    name: str
    flow_name: str
    state: str  # SCHEDULED: it waits in its queue; CRASHED: its process died; PAUSED: it slept enough
    version: int
    epoch: int
    queue: str | None
    priority: int
    partition_key: str | None
    entrypoint: str | None
    deployment_id: int | None
    deployment_name: str | None
    concurrency_limit: int | None
    collision: str | None
    isolate: int
    memory_limit_bytes: int | None
    time_limit_seconds: float | None


_COLUMNS = (
    "r.id, r.name, f.name, r.state, r.version, r.epoch, r.queue, r.priority, r.partition_key, r.entrypoint, r.deployment_id,"
    " d.name, d.concurrency_limit, d.collision, coalesce(d.isolate, 0), d.memory_limit_bytes, d.time_limit_seconds"
    " FROM flow_run r JOIN flow f ON f.id = r.flow_id LEFT JOIN deployment d ON d.id = r.deployment_id"
)
_IS_READY = (
    "r.state = 'SCHEDULED' AND r.owner_id IS NULL AND (r.due_at IS NULL OR r.due_at <= ?)"
    " AND NOT EXISTS (SELECT 1 FROM dependency n JOIN flow_run b ON b.id = n.needs_run_id"
    "                 WHERE n.flow_run_id = r.id AND b.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED'))"
)


# ------------------------------------------------------------------------------------------- limits


class Refusal(NamedTuple):
    """Why a run may not begin now."""

    what: str  # 'queue': nothing of its queue may; 'partition', 'deployment'
    reason: str
    wait_seconds: float | None = None  # null: until a place is free, or somebody lets it


class Limits:
    """The places that are taken at one moment, and by what is taken from them since."""

    def __init__(self, connection: sqlite3.Connection, at: str) -> None:
        self._connection = connection
        self._at = at
        self._quotas: dict[str, QuotaRow | None] = {}
        self.set_back: set[str] = set()  # quotas with starts in the future: the clock was set back
        self._starts: Counter[str] = Counter()  # by queue: taken since, not in the file yet
        self._holders: defaultdict[tuple[object, ...], set[int]] = defaultdict(set)  # by what has places: runs that take one
        self.waits = list_waits(connection)
        for flow_run_id, queue, partition_key, deployment_id in connection.execute(
            "SELECT id, queue, partition_key, deployment_id FROM flow_run"
            " WHERE state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND state IN ('RUNNING', 'CANCELLING')"
            " AND (queue IS NOT NULL OR deployment_id IS NOT NULL)"
            " UNION ALL SELECT id, queue, partition_key, deployment_id FROM flow_run"
            " WHERE state = 'SCHEDULED' AND owner_id IS NOT NULL"
        ):
            self._count(flow_run_id, queue, partition_key, deployment_id)

    def _count(self, flow_run_id: int, queue: str | None, partition_key: str | None, deployment_id: int | None) -> None:
        self._holders["queue", queue].add(flow_run_id)
        self._holders["partition", queue, partition_key].add(flow_run_id)
        self._holders["deployment", deployment_id].add(flow_run_id)

    def _is_full(self, slots: int, run: FoundRun, *of: object, lends: bool) -> bool:
        """Tell whether so many places are taken; whoever waits for the run, or for another holder, does not take one."""
        holders = self._holders[of]
        if len(holders) < slots or not lends or not self.waits:
            return len(holders) >= slots
        others = {run.id, *holders}
        return sum(not waits_for_any(self.waits, holder, others) for holder in holders) >= slots

    def take(self, run: FoundRun) -> None:
        """Count a run that is about to begin."""
        self._count(run.id, run.queue, run.partition_key, run.deployment_id)
        if run.queue is not None and run.epoch == 0:
            self._starts[run.queue] += 1

    def refusal(self, run: FoundRun, *, lends: bool = True) -> Refusal | None:
        """Return why a run may not begin, None if it may. `lends`: those who wait for it lend it their places."""
        return self._refused_by_queue(run, lends) or self._refused_by_deployment(run, lends)

    def _refused_by_queue(self, run: FoundRun, lends: bool) -> Refusal | None:
        queue = run.queue
        quota = None if queue is None else self._quota(queue)
        if quota is None or queue is None:
            return None
        if quota.paused:
            return Refusal("queue", f"queue '{queue}' is paused")
        if quota.slots is not None and self._is_full(quota.slots, run, "queue", queue, lends=lends):
            return Refusal("queue", f"waits for one of the {quota.slots} places of queue '{queue}'")
        if run.epoch == 0:  # a run that goes on was counted when it began
            seconds = self._rate_wait_seconds(quota, self._starts[queue])
            if seconds > 0:
                return Refusal("queue", f"waits for the rate of queue '{queue}'", seconds)
        key, slots = run.partition_key, quota.partition_slots
        if key is None or slots is None or not self._is_full(slots, run, "partition", queue, key, lends=lends):
            return None
        return Refusal("partition", f"waits for one of the {slots} places of '{key}' in queue '{queue}'")

    def _refused_by_deployment(self, run: FoundRun, lends: bool) -> Refusal | None:
        limit = run.concurrency_limit
        lends = lends and run.collision != "cancel_new"  # it is cancelled, whether the other one waits yet or not
        if limit is None or not self._is_full(limit, run, "deployment", run.deployment_id, lends=lends):
            return None
        return Refusal("deployment", limit_reason(run))

    def _rate_wait_seconds(self, quota: QuotaRow, taken: int) -> float:
        """Return how long one more start has to wait, after some that do not stand in the file yet."""
        if quota.rate_count is None or not quota.rate_seconds:
            return 0.0
        if quota.rate_at is not None and self._at < quota.rate_at:
            self.set_back.add(quota.name)
        beyond = max(0, taken + 1 - quota.rate_count)  # of these, as many as it lets in at once would not wait for each other
        return (
            rate_wait_seconds(self._connection, quota.name, self._at, taken + 1)
            + beyond * quota.rate_seconds / quota.rate_count
        )

    def _quota(self, queue: str) -> QuotaRow | None:
        if queue not in self._quotas:
            self._quotas[queue] = find_quota(self._connection, QUEUE_PREFIX + queue)
        return self._quotas[queue]


def limit_reason(run: FoundRun) -> str:
    """Return, for people, what a run of a deployment at its limit waits for."""
    return (
        f"waits for one of the {run.concurrency_limit} places of deployment '{run.flow_name}/{run.deployment_name}'"
        if run.concurrency_limit != 1
        else f"waits for the running run of deployment '{run.flow_name}/{run.deployment_name}', which may have one at a time"
    )


class QueueAdmission:
    """Lets a run begin only where its queue and its deployment have a place for it, see `run_transitions.Admission`."""

    __slots__ = ("_clock",)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def check(self, connection: sqlite3.Connection, flow_run_id: int) -> None:
        """See Admission."""
        run = _find(connection, flow_run_id)
        if run is not None and Limits(connection, self._clock.now_text()).refusal(run) is not None:
            raise WriteRefused

    def admit(self, connection: sqlite3.Connection, flow_run_id: int) -> None:
        """See Admission: a first start counts against the rate of its queue."""
        row = connection.execute("SELECT queue FROM flow_run WHERE id = ? AND epoch = 1", (flow_run_id,)).fetchone()
        if row is not None and row[0] is not None:
            take_rate(connection, QUEUE_PREFIX + row[0], self._clock.now_text())


def _find(connection: sqlite3.Connection, flow_run_id: int) -> FoundRun | None:
    row = connection.execute(f"SELECT {_COLUMNS} WHERE r.id = ?", (flow_run_id,)).fetchone()
    return None if row is None else FoundRun._make(row)


def refusal_of(connection: sqlite3.Connection, flow_run_id: int, at: str) -> str | None:
    """Return, for people, which place a run that waits in a queue does not get now; null: none is lacking."""
    run = _find(connection, flow_run_id)
    refusal = None if run is None else Limits(connection, at).refusal(run)
    return None if refusal is None else refusal.reason


# ------------------------------------------------------------------------------------------- a look


class Asked(NamedTuple):
    """What one process asks a look for."""

    now: str
    now_seconds: float
    free: int  # runs that it could begin
    begun: Sequence[FoundRun]  # what it has begun; some of it may not be claimed yet
    passed_over: Collection[int]  # runs that it leaves to others
    queues: Sequence[str] | None  # null: all but those of background tasks
    recover: str  # whose runs are taken up that crashed, or slept enough: 'own' those of deployments, 'all', 'none'
    turns: Mapping[str, int]  # by queue: when it had its last turn; the longest ago comes first
    deployment_ids: Sequence[int] | None = None  # only runs of these; null: of any, and of none


class Look(NamedTuple):
    """What a look found."""

    runs: list[FoundRun]  # which may begin, in this order
    held: list[FoundRun]  # of deployments at their limit, and not told so yet
    due_at: float | None  # of the wall clock: when something may begin though nothing changes until then
    set_back: list[str]  # quotas whose rate waits for a future that the clock was set back from, see `RestartRate`


def look(connection: sqlite3.Connection, asked: Asked) -> Look:
    """Return what may begin now: what crashed first, then by priority, and round robin over the queues within one priority."""
    limits = Limits(connection, asked.now)
    for run in _not_claimed_yet(connection, asked.begun):
        limits.take(run)
    chosen: list[FoundRun] = []
    for run in _list_resumable(connection, asked):
        if len(chosen) < asked.free and limits.refusal(run) is None:
            limits.take(run)
            chosen.append(run)
    for run in _list_waited_for(connection, asked, limits):
        if len(chosen) < asked.free and limits.refusal(run, lends=False) is not None and limits.refusal(run) is None:
            limits.take(run)
            chosen.append(run)
    lines = [_Line(connection, asked, queue, limits, chosen) for queue in _list_queues(connection, asked.queues)]
    turns = dict(asked.turns)
    while len(chosen) < asked.free:
        heads = [(line, head) for line in lines if (head := line.head()) is not None]
        if not heads:
            break
        line, run = min(heads, key=lambda pair: (-pair[1].priority, turns.get(pair[0].queue, 0), pair[1].id))
        turns[line.queue] = max(turns.values(), default=0) + 1
        line.take()
        chosen.append(run)
    full = sorted({deployment for line in lines for deployment in line.full_deployments})
    waits_until = [asked.now_seconds + line.wait_seconds for line in lines if line.wait_seconds is not None]
    due_at = min([*waits_until, *_next_due(connection, asked.now)], default=None)
    begun = [*asked.begun, *chosen]
    return Look(chosen, _list_untold(connection, full, asked.now, begun), due_at, sorted(limits.set_back))


class _Line:
    """The runs that wait in one queue, in the order in which they may begin."""

    def __init__(
        self, connection: sqlite3.Connection, asked: Asked, queue: str, limits: Limits, chosen: Sequence[FoundRun]
    ) -> None:
        self.queue = queue
        self.wait_seconds: float | None = None  # until one may begin, though nothing changes
        self.full_deployments: set[int] = set()
        self._full_partitions: set[str] = set()
        self._connection = connection
        self._asked = asked
        self._limits = limits
        self._most = asked.free + len(asked.begun)
        self._passed_over = set(asked.passed_over) | {run.id for run in (*asked.begun, *chosen)}
        self._page: deque[FoundRun] = deque()
        self._is_at_end = False

    def head(self) -> FoundRun | None:
        """Return the run whose turn it is; None: none may begin."""
        while True:
            while self._page:
                run = self._page[0]
                refusal = self._limits.refusal(run)
                if refusal is None:
                    return run
                if refusal.what == "queue":
                    self.wait_seconds = refusal.wait_seconds
                    return None
                self._page.popleft()
                self._pass_over(refusal, run)
            if self._is_at_end:
                return None
            self._read_page()

    def take(self) -> None:
        """Take the head out of the line."""
        run = self._page.popleft()
        self._passed_over.add(run.id)
        self._limits.take(run)

    def _pass_over(self, refusal: Refusal, run: FoundRun) -> None:
        """Leave out everything that the same limit holds back."""
        if refusal.what == "partition" and run.partition_key is not None:
            self._full_partitions.add(run.partition_key)
        elif run.deployment_id is not None:
            self.full_deployments.add(run.deployment_id)

    def _read_page(self) -> None:
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} WHERE r.queue = ? AND {_IS_READY}"
            " AND (r.partition_key IS NULL OR r.partition_key NOT IN (SELECT value FROM json_each(?)))"
            " AND (r.deployment_id IS NULL OR r.deployment_id NOT IN (SELECT value FROM json_each(?)))"
            " AND r.id NOT IN (SELECT value FROM json_each(?))"
            " AND (? IS NULL OR r.deployment_id IN (SELECT value FROM json_each(?)))"
            " ORDER BY r.priority DESC, r.id LIMIT ?",
            (
                self.queue,
                self._asked.now,
                json.dumps(sorted(self._full_partitions)),
                json.dumps(sorted(self.full_deployments)),
                json.dumps(sorted(self._passed_over)),
                *[None if self._asked.deployment_ids is None else json.dumps(list(self._asked.deployment_ids))] * 2,
                self._most,
            ),
        ).fetchall()
        self._page.extend(FoundRun._make(row) for row in rows)
        self._is_at_end = len(rows) < self._most


def _list_waited_for(connection: sqlite3.Connection, asked: Asked, limits: Limits) -> list[FoundRun]:
    """Return the runs that are ready and that a running one waits for, oldest first: one may lend them its places."""
    waited_for = {flow_run_id for found in limits.waits.values() for flow_run_id in found}
    if not waited_for:
        return []
    begun = [run.id for run in asked.begun]
    rows = connection.execute(
        f"SELECT {_COLUMNS} WHERE r.id IN (SELECT value FROM json_each(?)) AND {_IS_READY} AND r.queue IS NOT NULL"
        " AND (? IS NULL OR r.queue IN (SELECT value FROM json_each(?))) AND substr(r.queue, 1, 5) <> 'task:'"
        " AND (? IS NULL OR r.deployment_id IN (SELECT value FROM json_each(?))) ORDER BY r.id",
        (
            json.dumps(sorted(waited_for - {*asked.passed_over, *begun})),
            asked.now,
            *[None if asked.queues is None else json.dumps(list(asked.queues))] * 2,
            *[None if asked.deployment_ids is None else json.dumps(list(asked.deployment_ids))] * 2,
        ),
    ).fetchall()
    return [FoundRun._make(row) for row in rows]


def _not_claimed_yet(connection: sqlite3.Connection, begun: Sequence[FoundRun]) -> Iterable[FoundRun]:
    """Yield what a process has begun, of which the file does not say yet that it takes a place."""
    marks = json.dumps([run.id for run in begun])
    epochs = dict(
        connection.execute(
            "SELECT id, epoch FROM flow_run WHERE id IN (SELECT value FROM json_each(?))"
            " AND (state IN ('CRASHED', 'PAUSED') OR (state = 'SCHEDULED' AND owner_id IS NULL))",
            (marks,),
        ).fetchall()
    )
    return (run for run in begun if epochs.get(run.id) == run.epoch)


def _list_queues(connection: sqlite3.Connection, queues: Sequence[str] | None) -> list[str]:
    """Return the queues in which something waits, due or not."""
    if queues is not None:
        return list(dict.fromkeys(queues))
    rows = connection.execute(
        # From one name to the next in the index: however many runs wait, one step for each queue.
        "WITH RECURSIVE waiting (name) AS ("
        " SELECT min(queue) FROM flow_run WHERE state = 'SCHEDULED' AND queue IS NOT NULL"
        " UNION ALL SELECT (SELECT min(queue) FROM flow_run WHERE state = 'SCHEDULED' AND queue IS NOT NULL AND queue > w.name)"
        " FROM waiting w WHERE w.name IS NOT NULL)"
        " SELECT name FROM waiting WHERE name IS NOT NULL AND substr(name, 1, 5) <> 'task:'"
    )
    return [str(name) for (name,) in rows]


def _is_mine(asked: Asked) -> tuple[str, tuple[object, ...]]:
    """Return the condition on crashed and sleeping runs that are taken up by themselves."""
    condition = "r.parent_task_run_id IS NULL AND (r.queue IS NULL OR substr(r.queue, 1, 5) <> 'task:')"
    if asked.recover != "own":
        return condition, ()
    condition, values = f"{condition} AND r.deployment_id IS NOT NULL", []
    # With a + they are not searched by: SQLite would go through all runs that the deployment ever had.
    for column, wanted in (("+r.queue", asked.queues), ("+r.deployment_id", asked.deployment_ids)):
        if wanted is not None:
            condition += f" AND {column} IN (SELECT value FROM json_each(?))"
            values.append(json.dumps(list(wanted)))
    return condition, tuple(values)


def _list_resumable(connection: sqlite3.Connection, asked: Asked) -> list[FoundRun]:
    """Return the runs that crashed, and not too often, and those that were suspended until now; oldest first."""
    if asked.recover == "none":
        return []
    condition, values = _is_mine(asked)
    passed_over = json.dumps(sorted({*asked.passed_over, *(run.id for run in asked.begun)}))
    rows = connection.execute(
        f"SELECT {_COLUMNS} WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') AND r.state = 'CRASHED' AND {condition}"
        f" AND r.crashes BETWEEN 0 AND coalesce(d.max_recoveries, {DEFAULT_RECOVERIES})"
        " AND r.id NOT IN (SELECT value FROM json_each(?)) LIMIT ?",
        (*values, passed_over, RESUMED_AT_ONCE),
    ).fetchall()
    rows += connection.execute(  # a question of its own: with one index for both, every run there ever was is looked at
        f"SELECT {_COLUMNS} WHERE r.wake_at <= ? AND r.state = 'PAUSED' AND {condition}"
        " AND r.id NOT IN (SELECT value FROM json_each(?)) LIMIT ?",
        (asked.now, *values, passed_over, RESUMED_AT_ONCE),
    ).fetchall()
    return [FoundRun._make(row) for row in sorted(rows)]


def list_given_up(connection: sqlite3.Connection, asked: Asked) -> list[tuple[int, str, int]]:
    """Return id, name and crashes of runs that crashed too often to be taken up by themselves, oldest first."""
    if asked.recover == "none":
        return []
    condition, values = _is_mine(asked)
    return connection.execute(
        "SELECT r.id, r.name, r.crashes FROM flow_run r LEFT JOIN deployment d ON d.id = r.deployment_id"
        " WHERE r.state NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"
        f" AND r.state = 'CRASHED' AND r.crashes > coalesce(d.max_recoveries, {DEFAULT_RECOVERIES}) AND {condition}"
        " AND r.id NOT IN (SELECT value FROM json_each(?)) ORDER BY r.id",
        (*values, json.dumps(sorted(asked.passed_over))),
    ).fetchall()


def _list_untold(
    connection: sqlite3.Connection, deployments: Sequence[int], now: str, begun: Sequence[FoundRun]
) -> list[FoundRun]:
    """Return the runs that could begin if their deployments were not at their limit, and were not told so yet."""
    if not deployments:
        return []
    rows = connection.execute(
        f"SELECT {_COLUMNS} WHERE +r.deployment_id IN (SELECT value FROM json_each(?)) AND r.queue IS NOT NULL AND {_IS_READY}"
        f" AND r.state_name IS NOT '{AWAITING_SLOT}' AND r.id NOT IN (SELECT value FROM json_each(?)) ORDER BY +r.id LIMIT ?",
        (json.dumps(list(deployments)), now, json.dumps([run.id for run in begun]), TOLD_AT_ONCE),
    ).fetchall()
    return [FoundRun._make(row) for row in rows]


def _next_due(connection: sqlite3.Connection, now: str) -> list[float]:
    """Return when the next run is due, or has slept enough; in seconds of the wall clock."""
    found = connection.execute(
        "SELECT min(due_at) FROM flow_run WHERE state = 'SCHEDULED' AND due_at > ?"
        " UNION ALL SELECT min(wake_at) FROM flow_run WHERE wake_at > ? AND state = 'PAUSED'",
        (now, now),
    ).fetchall()
    return [seconds_from_text(str(at)) for (at,) in found if at is not None]


# ------------------------------------------------------------------------------------------- changes


class RestartRate:
    """Let what counts against a rate wear off from now on, where the clock was set back to before its last start."""

    __slots__ = ("at", "name")

    def __init__(self, name: str, *, at: str) -> None:
        self.name = name
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        """See Change: asked in a transaction, the rate notes the present instant itself."""
        rate_wait_seconds(connection, self.name, self.at)

    def landed(self, connection: sqlite3.Connection) -> bool:
        """See Change."""
        row = find_quota(connection, self.name)
        return row is None or row.rate_at is None or row.rate_at <= self.at


class HoldRun(RecordedChange):
    """Tell a run that waits for its deployment to have a place for it, once: it is SCHEDULED named AwaitingConcurrencySlot."""

    __slots__ = ("at", "message")

    def __init__(self, run: FoundRun, *, at: str) -> None:
        self.flow_run_id = run.id
        self.task_run_id = 0
        self.seq = run.version + 1
        self.message = limit_reason(run)
        self.at = at

    def apply(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(
            "UPDATE flow_run SET state_name = ?, state_message = ?, version = ?"
            " WHERE id = ? AND version = ? AND state = 'SCHEDULED' AND owner_id IS NULL",
            (AWAITING_SLOT, self.message, self.seq, self.flow_run_id, self.seq - 1),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        record_flow_transition(
            connection, self.flow_run_id, self.seq, "SCHEDULED", AWAITING_SLOT, self.message, 0, None, self.at
        )


class CancelCollided(RecordedChange):
    """Cancel a run that nobody began, since its deployment has as many as it may. Refused where there is a place after all."""

    __slots__ = ("at", "message", "run")

    def __init__(self, run: FoundRun, *, at: str) -> None:
        self.run = run
        self.flow_run_id = run.id
        self.task_run_id = 0
        self.seq = run.version + 1
        self.at = at
        self.message = (
            f"deployment '{run.flow_name}/{run.deployment_name}' has {run.concurrency_limit} running, which is its limit, and "
            "cancels what comes beyond that"
        )

    def apply(self, connection: sqlite3.Connection) -> None:
        run = _find(connection, self.flow_run_id)
        refusal = None if run is None else Limits(connection, self.at).refusal(run)
        if refusal is None or refusal.what != "deployment":
            raise WriteRefused
        cursor = connection.execute(
            "UPDATE flow_run SET state = 'CANCELLED', state_name = NULL, state_message = ?, version = ?, ended_at = ?,"
            " tasks_done = 0, tasks_total = 0"
            " WHERE id = ? AND version = ? AND state = 'SCHEDULED' AND owner_id IS NULL AND epoch = 0",
            (self.message, self.seq, self.at, self.flow_run_id, self.seq - 1),
        )
        if cursor.rowcount != 1:
            raise WriteRefused
        record_flow_transition(connection, self.flow_run_id, self.seq, "CANCELLED", None, self.message, 0, None, self.at)
