"""Setting limits, and reading them: rows of table quota, committed at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, cast

from wfengine.concurrency.acquiring import NAME_LIMIT, OCCUPY_LIMIT, checked_name
from wfengine.journals import default_journal, waits_for_disk
from wfengine.scopes import current_scope
from wfengine.tag_limits import forget_limited_tags
from wfengine_journal.errors import UsageError
from wfengine_journal.quotas import (
    KEEP,
    QUEUE_PREFIX,
    TAG_PREFIX,
    Keep,
    PauseQuota,
    PutQuota,
    QuotaRow,
    RemoveQuota,
    find_quota,
    list_quotas,
)

if TYPE_CHECKING:
    from wfengine_journal.store import Journal
    from wfengine_journal.tickets import Change

#: The longest time that a rate may count in, in seconds: a year.
LONGEST_RATE_SECONDS = 366 * 86400.0
_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "m": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_UNITS |= {"d": 86400.0, "day": 86400.0}
_RATE = re.compile(r"\s*([0-9]{1,7})\s*/\s*([0-9]{0,6}(?:\.[0-9]{1,6})?)\s*([a-z]+)\s*")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit. `slots`: so many at a time; `rate`: so many starts in so much time. None: any number."""

    name: str
    slots: int | None
    rate: tuple[int, timedelta] | None
    is_tag: bool
    is_paused: bool
    description: str | None


def set_limit(
    name: str,
    *,
    slots: int | Literal[Keep.KEEP] | None = KEEP,
    rate: str | tuple[int, timedelta] | Literal[Keep.KEEP] | None = KEEP,
    tag: bool = False,
    description: str | Literal[Keep.KEEP] | None = KEEP,
) -> Limit:
    """Set a limit, or change what is said here of one that exists, and return it. None takes a part of it away.

    `rate` is a text as '10/s', '100/min' or '5/30s', or a number and a timedelta. `tag`: for task runs with the tag `name`,
    which takes `slots` only. Raises UsageError.
    """
    change = put_change(_journal(), quota_name(name, tag=tag), name, slots=slots, rate=rate, description=description)
    return cast(Limit, _written(change, change.name))


def find_limit(name: str, *, tag: bool = False) -> Limit | None:
    """Return the limit of that name, or None."""
    full = quota_name(name, tag=tag)
    row = _journal().read(lambda connection: find_quota(connection, full))
    return None if row is None else limit_of(row)


def list_limits() -> list[Limit]:
    """Return the limits by name, those of tags too."""
    rows = _journal().read(list_quotas)
    return [limit_of(row) for row in rows if not row.name.startswith(QUEUE_PREFIX)]


def remove_limit(name: str, *, tag: bool = False) -> bool:
    """Remove a limit: nothing is limited by that name any more. Tell whether there was one."""
    change = RemoveQuota(quota_name(name, tag=tag))
    _written(change, change.name)
    return change.existed


# ------------------------------------------------------------------------------------------- queues


def set_queue(
    name: str,
    *,
    slots: int | Literal[Keep.KEEP] | None = KEEP,
    per_partition: int | Literal[Keep.KEEP] | None = KEEP,
    rate: str | tuple[int, timedelta] | Literal[Keep.KEEP] | None = KEEP,
    description: str | Literal[Keep.KEEP] | None = KEEP,
) -> None:
    """Set how many runs of a queue may be going on, of one partition key, and how many may start in a time.

    What is not said stays as it is; None takes a part away. Raises UsageError.
    """
    full = queue_name(name)
    change = put_change(_journal(), full, name, slots=slots, partition_slots=per_partition, rate=rate, description=description)
    _written(change, full)


def pause_queue(name: str) -> None:
    """Let no run out of a queue any more; those that are going on go on."""
    _set_paused(name, paused=True)


def resume_queue(name: str) -> None:
    """Let runs out of a queue again."""
    _set_paused(name, paused=False)


def remove_queue(name: str) -> bool:
    """Take all limits of a queue away; its runs stay. Tell whether there were any."""
    change = RemoveQuota(queue_name(name))
    _written(change, change.name)
    return change.existed


def queue_name(name: object) -> str:
    """Return the name of the quota of a queue. Raises UsageError."""
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
        raise UsageError(f"{name!r} cannot name a queue: a name is a text of 1 to {NAME_LIMIT} printable characters.")
    return QUEUE_PREFIX + name


def _set_paused(name: str, *, paused: bool) -> None:
    full = queue_name(name)
    _written(PauseQuota(full, paused=paused, at=_journal().clock.now_text()), full)


# ------------------------------------------------------------------------------------------- what the commands use too


def quota_name(name: object, *, tag: bool = False) -> str:
    """Return the name of the quota of a limit. Raises UsageError."""
    if not tag:
        return checked_name(name)
    if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
        raise UsageError(f"{name!r} is no tag: a tag is a text of 1 to {NAME_LIMIT} printable characters.")
    return TAG_PREFIX + name


def put_change(
    journal: Journal,
    full_name: str,
    shown: str,
    *,
    slots: object = KEEP,
    partition_slots: object = KEEP,
    rate: object = KEEP,
    description: object = KEEP,
    applied_from: str | None = None,
) -> PutQuota:
    """Return the change that sets a quota. Raises UsageError for what cannot be one. `applied_from`: the file that says so."""
    if full_name.startswith(TAG_PREFIX) and rate is not KEEP and rate is not None:
        raise UsageError(
            f"The limit of tag '{shown}' was given a rate, which tags do not have. Give it slots, and call "
            "rate_limit(...) in the tasks."
        )
    if description is not KEEP and description is not None and not isinstance(description, str):
        raise UsageError(f"The description of '{shown}' must be a text, not {description!r}.")
    return PutQuota(
        full_name,
        at=journal.clock.now_text(),
        slots=_checked_slots(slots, shown),
        partition_slots=_checked_slots(partition_slots, shown),
        rate=checked_rate(rate, shown),
        description=description,
        applied_from=applied_from,
    )


def limit_of(row: QuotaRow) -> Limit:
    """Return what a row says, to people."""
    is_tag = row.name.startswith(TAG_PREFIX)
    rate = None if row.rate_count is None else (row.rate_count, timedelta(seconds=row.rate_seconds or 0.0))
    name = row.name.removeprefix(TAG_PREFIX) if is_tag else row.name
    return Limit(name, row.slots, rate, is_tag, bool(row.paused), row.description)


def _checked_slots(slots: object, shown: str) -> int | Literal[Keep.KEEP] | None:
    if slots is None or slots is KEEP:
        return slots
    if isinstance(slots, bool) or not isinstance(slots, int) or not 0 <= slots <= OCCUPY_LIMIT:
        raise UsageError(f"The slots of '{shown}' must be a whole number from 0 to {OCCUPY_LIMIT}, or None; not {slots!r}.")
    return slots


def checked_rate(rate: object, shown: str) -> tuple[int, float] | Literal[Keep.KEEP] | None:
    """Return a rate as (count, seconds). Raises UsageError."""
    if rate is None or rate is KEEP:
        return rate
    count: object = None
    seconds = 0.0
    if isinstance(rate, str) and (found := _RATE.fullmatch(rate.lower())) is not None:
        unit = _UNITS.get(found[3]) or _UNITS.get(found[3].removesuffix("s")) or 0.0
        count, seconds = int(found[1]), float(found[2] or 1) * unit
    elif isinstance(rate, tuple) and len(rate) == 2 and isinstance(rate[1], timedelta):
        count, seconds = rate[0], rate[1].total_seconds()
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= OCCUPY_LIMIT:
        count = None
    if count is None or not 0.001 <= seconds <= LONGEST_RATE_SECONDS:
        raise UsageError(
            f"{rate!r} is no rate for '{shown}'. Write a number and a time of at most a year: '10/s', '100/min', '5/30s'."
        )
    return count, seconds


def _journal() -> Journal:
    scope = current_scope()
    return default_journal() if scope is None else scope.run.journal


def _written(change: Change, full_name: str) -> Limit | None:
    journal = _journal()
    journal.write(change, synced=waits_for_disk(journal, current_scope()))
    forget_limited_tags(journal)
    row = journal.read(lambda connection: find_quota(connection, full_name))
    return None if row is None else limit_of(row)
