"""What becomes of the due instants of one schedule, by its options: a decision, which reads no clock and writes nothing.

    1 which instants are due       from the last decided one to now, each with its jitter        `due_instants`
    2 which of them are late       first seen more than the misfire grace after they were due
    3 which of the late ones run   catch-up: none, the last, all                                 `_caught_up`
    4 what a running one means     overlap: skip, queue, cancel, allow                           `_overlapped`

The outcome of an instant is decided once. A schedule whose instants lie in the future, because the clock was set back, has
nothing due; one for which the clock was set forward, or the machine slept, has late ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from wfengine_journal.clock import instant_from_text, text_from_seconds
from wfengine_journal.deployments import ShownSchedule
from wfengine_journal.errors import ScheduleError
from wfengine_journal.queued_runs import RunRequest
from wfengine_journal.ticks import Decision, OpenRun, ScheduleRow, Tick
from wfengine_scheduler.rules import BoundedRule, Rule, describe, make_rule

#: Due instants of one schedule that get a row of their own after an absence. Of older ones the first has a row for all of
#: them: a schedule of every minute makes half a million of them in a year.
INSTANTS_AT_ONCE = 10_000
#: Runs of one schedule that wait for each other, at the most; a further tick is skipped.
WAITING_RUNS = 100
#: Rules kept ready; making one costs some tenths of a millisecond.
KEPT_RULES = 20_000

_STEP = timedelta(hours=1)


class Due(NamedTuple):
    """The instants of a schedule that are due, oldest first, and the one after them."""

    instants: list[datetime]
    unlisted: tuple[datetime, datetime] | None  # the first and last of older ones that are not listed one by one
    following: datetime | None


@lru_cache(maxsize=KEPT_RULES)
def _rule(
    kind: str, rule: str, timezone: str, anchor_at: str | None, day_or: int, starts_at: str | None, ends_at: str | None,
    hash_id: str,
) -> BoundedRule:  # fmt: skip
    return make_rule(
        kind, rule, timezone=timezone, day_or=bool(day_or), hash_id=hash_id,
        anchor_at=recorded_instant(anchor_at), starts_at=recorded_instant(starts_at), ends_at=recorded_instant(ends_at),
    )  # fmt: skip


def recorded_instant(text: str | None) -> datetime | None:
    """Return an instant that a schedule's row holds. Raises ScheduleError where it is none, as in a damaged file."""
    if text is None:
        return None
    try:
        return instant_from_text(text)
    except ValueError as error:
        raise ScheduleError(
            f"{text[:40]!r} is recorded for it, and is no instant. Check the file with: wfengine doctor"
        ) from error


def recorded_parameters(text: str) -> dict[str, object]:
    """Return the parameters that a schedule's row holds. Raises ScheduleError where they are none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ScheduleError(
            f"{text[:40]!r} is recorded for it, and is no object of parameters. Check the file with: wfengine doctor"
        )
    return found


def rule_of(schedule: ScheduleRow | ShownSchedule) -> BoundedRule:
    """Return the rule of a schedule. Raises ScheduleError for one that another version wrote and this one refuses."""
    return _rule(
        schedule.kind, schedule.rule, schedule.timezone, schedule.anchor_at, schedule.day_or, schedule.starts_at,
        schedule.ends_at, schedule.deployment,
    )  # fmt: skip


def words_of(schedule: ScheduleRow | ShownSchedule) -> str:
    """Return the rule of a schedule in words; where it is refused, as it is written, and why."""
    try:
        return describe(
            schedule.kind, schedule.rule, schedule.timezone, anchor_at=recorded_instant(schedule.anchor_at),
            day_or=bool(schedule.day_or), starts_at=recorded_instant(schedule.starts_at),
            ends_at=recorded_instant(schedule.ends_at), hash_id=schedule.deployment,
        )  # fmt: skip
    except ScheduleError as error:
        return f"{schedule.kind} {schedule.rule}: {error}"


def jitter_of(schedule: ScheduleRow, nominal: datetime) -> timedelta:
    """Return by how much a tick is delayed: fixed by schedule and instant, so that every daemon finds the same."""
    if schedule.jitter_seconds <= 0:
        return timedelta(0)
    drawn = xxh3_64_intdigest(f"{schedule.id} {text_of(nominal)}".encode()) / 2**64
    return timedelta(seconds=drawn * schedule.jitter_seconds)


def text_of(instant: datetime) -> str:
    """Return an instant as the journal writes it."""
    return text_from_seconds(instant.timestamp()) if instant.microsecond == 0 else _exact_text(instant)


def _exact_text(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def due_instants(schedule: ScheduleRow, rule: Rule, now: datetime) -> Due:
    """Return what is due after the last decided instant and by now, jitter included."""
    after = recorded_instant(schedule.decided_to) or now
    found = _walk(schedule, rule, after, now)
    if len(found.instants) <= INSTANTS_AT_ONCE:
        return found
    first, window = found.instants[0], _STEP
    newest = _walk(schedule, rule, now - window, now)
    while True:  # a window that holds many of the newest ones, but not too many
        window *= 2
        wider = _walk(schedule, rule, max(after, now - window), now)
        if len(wider.instants) > INSTANTS_AT_ONCE:
            break
        newest = wider
    last_unlisted = _last_before(rule, first, newest.instants[0] if newest.instants else now)
    return Due(newest.instants, (first, last_unlisted), newest.following)


def _walk(schedule: ScheduleRow, rule: Rule, after: datetime, now: datetime) -> Due:
    """Return the due instants after one, at most one more than get a row of their own."""
    found: list[datetime] = []
    following = rule.next_after(after)
    while following is not None and following + jitter_of(schedule, following) <= now:
        found.append(following)
        if len(found) > INSTANTS_AT_ONCE:
            break
        following = rule.next_after(following)
    return Due(found, None, following)


def _last_before(rule: Rule, first: datetime, end: datetime) -> datetime:
    """Return the last instant of a rule before another, from `first` on."""
    window = timedelta(minutes=1)
    while end - window > first:
        found = rule.next_after(end - window)
        if found is not None and found < end:
            last = found
            while (found := rule.next_after(last)) is not None and found < end:
                last = found
            return last
        window *= 2
    return first


def decide(
    schedule: ScheduleRow, now: datetime, open_runs: Callable[[], Sequence[OpenRun]], new_name: Callable[[], str]
) -> Decision:
    """Return what becomes of all that is due of a schedule by now. `open_runs` is asked where that matters.

    Raises ScheduleError where the rule cannot be read.
    """
    rule = rule_of(schedule)
    due = due_instants(schedule, rule, now)
    at = text_of(now)
    ticks = [] if due.unlisted is None else [_unlisted(schedule, *due.unlisted)]
    cancels: list[int] = []
    if schedule.is_paused:
        whose = "the deployment" if schedule.deployment_paused else "the schedule"
        ticks += [Tick(text_of(instant), "skipped", f"{whose} was paused") for instant in due.instants]
    elif due.instants:
        running = [run for run in open_runs() if not run.is_given_up] if schedule.overlap != "allow" else []
        caught_up = _caught_up(schedule, due.instants, now)
        made, cancels = _overlapped(schedule, caught_up, running, lambda nominal: _request(schedule, nominal, new_name(), at))
        ticks += made
    last = due.instants[-1] if due.instants else None
    following = due.following
    return Decision(
        schedule,
        ticks,
        schedule.decided_to or at if last is None else text_of(last),
        None if following is None else text_of(following),
        None if following is None else text_of(following + jitter_of(schedule, following)),
        cancels,
    )


def _unlisted(schedule: ScheduleRow, first: datetime, last: datetime) -> Tick:
    outcome = "skipped" if schedule.is_paused else "coalesced" if schedule.catch_up == "last" else "missed"
    absent = "it was paused" if schedule.is_paused else "no daemon was there"
    reason = f"{absent}; so too all instants up to {text_of(last)}, which have no rows of their own"
    return Tick(text_of(first), outcome, reason)


def _request(schedule: ScheduleRow, nominal: datetime, name: str, at: str) -> RunRequest:
    return RunRequest(
        schedule.deployment_id, name, at, parameters=recorded_parameters(schedule.parameters), nominal_at=text_of(nominal)
    )


# ------------------------------------------------------------------------------------------- catch-up


class _Wanted(NamedTuple):
    """An instant that is to run, or the tick that says why it is not."""

    nominal: datetime
    reason: str | None  # why it runs so late; null: it does not
    tick: Tick | None  # it does not run


def _caught_up(schedule: ScheduleRow, instants: Sequence[datetime], now: datetime) -> list[_Wanted]:
    """Return which of the due instants are to run."""
    grace = timedelta(seconds=schedule.misfire_grace_seconds)
    late = {instant for instant in instants if now - instant - jitter_of(schedule, instant) > grace}
    wanted, place = [], 0
    for instant in instants:
        if instant in late:
            wanted.append(_late(schedule, instant, place, len(late), len(late) < len(instants), now))
            place += 1
        else:
            wanted.append(_Wanted(instant, None, None))
    return wanted


def _late(schedule: ScheduleRow, instant: datetime, place: int, count: int, newer_in_time: bool, now: datetime) -> _Wanted:
    """Return what becomes of the late instant number `place` of `count`."""
    behind = f"{_words(now - instant)} late"
    nominal_at = text_of(instant)
    if schedule.catch_up == "none":
        return _Wanted(instant, None, Tick(nominal_at, "missed", f"{behind}, and not caught up (catch_up='none')"))
    if schedule.catch_up == "last":
        if place < count - 1 or newer_in_time:
            return _Wanted(instant, None, Tick(nominal_at, "coalesced", f"{behind}; a newer one runs for it (catch_up='last')"))
    elif count - place > schedule.catch_up_limit:
        limit = schedule.catch_up_limit
        return _Wanted(instant, None, Tick(nominal_at, "missed", f"{behind}; only the newest {limit} are caught up"))
    return _Wanted(instant, f"{behind}, caught up", None)


def _words(delay: timedelta) -> str:
    seconds = int(delay.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


# ------------------------------------------------------------------------------------------- overlap


def _overlapped(
    schedule: ScheduleRow, wanted: Sequence[_Wanted], running: Sequence[OpenRun], request: Callable[[datetime], RunRequest]
) -> tuple[list[Tick], list[int]]:
    """Return the ticks, by what is to happen while a former run has not ended, and which runs are to be cancelled."""
    to_run = [each for each in wanted if each.tick is None]
    ticks: list[Tick] = []
    cancels: list[int] = []
    started = 0
    for each in wanted:
        if each.tick is not None:
            ticks.append(each.tick)
            continue
        refusal = _refusal(schedule, each, to_run, running, started)
        if refusal is not None:
            ticks.append(Tick(text_of(each.nominal), "skipped", refusal))
            continue
        asked = request(each.nominal)
        if schedule.overlap in ("queue", "cancel"):
            # All of them: each waits for the one before it, but a person may cancel one in the middle.
            asked = replace(asked, after_runs=[run.id for run in running])
        if schedule.overlap == "cancel":
            cancels = [run.id for run in running]
        ticks.append(Tick(text_of(each.nominal), "started", each.reason, asked, after_previous=schedule.overlap == "queue"))
        started += 1
    return ticks, cancels


def _refusal(
    schedule: ScheduleRow, each: _Wanted, to_run: Sequence[_Wanted], running: Sequence[OpenRun], started: int
) -> str | None:
    """Return why an instant that was to run does not, if it does not."""
    if schedule.overlap == "skip" and (running or started):
        return f"{_named(running[0])} (overlap='skip')" if running else "the one before it has just started (overlap='skip')"
    if schedule.overlap == "queue" and len(running) + started >= WAITING_RUNS:
        first = f"; the first is {_named(running[0])}" if running else ""
        return f"{WAITING_RUNS} runs of this schedule wait for each other already{first}"
    if schedule.overlap == "cancel" and each is not to_run[-1]:
        return "a newer one of the same moment took its place (overlap='cancel')"
    return None


def _named(run: OpenRun) -> str:
    return f"flow run {run.id} '{run.name}' is {run.state_name or run.state.capitalize()}"
