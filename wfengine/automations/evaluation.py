"""Whether a trigger is met: functions of an event or an instant, and of what the trigger kept in mind before.

Nothing here asks for the time or reads a journal. What is kept in mind is JSON: it is committed with what came of it, so the
same events give the same firings whoever looks, and however often that was cut off.

An instant is in seconds since 1970. A deadline that an event meets exactly is met. An event which says that it occurred later
than now counts as of now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, cast

from wfengine.automations.happenings import Happening
from wfengine.automations.triggers import AnyTrigger, CompoundTrigger, EventTrigger, SequenceTrigger, value_text
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import UsageError

#: Values of `for_each` that one trigger keeps in mind; beyond that the one that waits longest is forgotten, and counted.
KEYS_LIMIT = 10_000
#: An event that armed a trigger is kept in mind with its payload up to so many characters of JSON.
PAYLOAD_CHARACTERS = 2000

#: What a trigger keeps in mind: JSON. See the functions of each kind.
Mind: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True, slots=True)
class Met:
    """A trigger was met: when, by which event (None: by an absence), and what else there is to tell."""

    at: float
    event: Happening | None
    more: dict[str, object] = field(default_factory=dict)


def new_mind(trigger: AnyTrigger, now: float) -> Mind:
    """Return what a trigger keeps in mind at first."""
    if isinstance(trigger, EventTrigger):
        if trigger.is_absence and not trigger.after and not trigger.for_each:
            return {"keys": {"[]": {"armed": now}}}
        return {}
    return {"inner": [new_mind(each, now) for each in trigger.inner]}


def feed(trigger: AnyTrigger, mind: Mind, event: Happening, now: float) -> list[Met]:
    """Take in an event; return how often the trigger was met by it, or by what was due before it."""
    if not is_concerned(trigger, event):
        return []
    return _feed(trigger, mind, event, min(event.seconds, now))


def is_concerned(trigger: AnyTrigger, event: Happening) -> bool:
    """Tell whether an event is of any consequence to a trigger."""
    if not isinstance(trigger, EventTrigger):
        return any(is_concerned(each, event) for each in trigger.inner)
    return (_is_expected(trigger, event) or _is_after(trigger, event)) and matches(trigger, event)


def look(trigger: AnyTrigger, mind: Mind, now: float) -> list[Met]:
    """Look without an event: return what is met because its time has come."""
    return _overdue(trigger, mind, now, included=True)


def next_look(trigger: AnyTrigger, mind: Mind) -> float | None:
    """Return when to look although nothing happened; None: never."""
    if isinstance(trigger, EventTrigger):
        if not trigger.is_absence:
            return None
        return min((key["armed"] + trigger.seconds for key in mind.get("keys", {}).values()), default=None)
    looks = [next_look(each, inner) for each, inner in zip(trigger.inner, mind["inner"], strict=True)]
    return min((each for each in looks if each is not None), default=None)


# ------------------------------------------------------------------------------------------- several triggers


def _feed(trigger: AnyTrigger, mind: Mind, event: Happening, at: float) -> list[Met]:
    if isinstance(trigger, EventTrigger):
        met = _overdue_event(trigger, mind, at, included=False)
        return [*met, *(_feed_event(trigger, mind, event, at) if is_concerned(trigger, event) else ())]
    met = _overdue(trigger, mind, at, included=False)
    inner = [_feed(each, kept, event, at) for each, kept in zip(trigger.inner, mind["inner"], strict=True)]
    return [*met, *_joined(trigger, mind, inner)]


def _overdue(trigger: AnyTrigger, mind: Mind, now: float, *, included: bool) -> list[Met]:
    """Return what is met because its time has come before an instant, or at it."""
    if isinstance(trigger, EventTrigger):
        return _overdue_event(trigger, mind, now, included=included)
    inner = [_overdue(each, kept, now, included=included) for each, kept in zip(trigger.inner, mind["inner"], strict=True)]
    return _joined(trigger, mind, inner)


def _joined(trigger: CompoundTrigger | SequenceTrigger, mind: Mind, inner: list[list[Met]]) -> list[Met]:
    """Take in what the inner triggers met, in the order of time; of equal times, the later trigger first.

    So one event is one step of a sequence, though it meets two of its triggers. One that met the whole counts no further.
    """
    order = sorted(
        ((met.at, -place, number) for place, mets in enumerate(inner) for number, met in enumerate(mets)),
    )
    take = _take_compound if isinstance(trigger, CompoundTrigger) else _take_sequence
    found: list[Met] = []
    for _, place, number in order:
        met = inner[-place][number]
        if found and met.event is not None and met.event is found[-1].event:
            continue
        if take(trigger, mind, -place, met):  # type: ignore[arg-type]  # the function for its kind
            found.append(met)
    return found


def _take_compound(trigger: CompoundTrigger, mind: Mind, place: int, met: Met) -> bool:
    """`last`: when each inner trigger was met last."""
    last: dict[str, float] = mind.setdefault("last", {})
    last[str(place)] = met.at
    recent = [at for at in last.values() if not trigger.seconds or met.at - at <= trigger.seconds]
    if len(recent) < trigger.number:
        return False
    mind.pop("last")
    return True


def _take_sequence(trigger: SequenceTrigger, mind: Mind, place: int, met: Met) -> bool:
    """`begun`: for each number of triggers met in order, when the latest such beginning was."""
    begun: dict[str, float] = mind.setdefault("begun", {})
    start = met.at if place == 0 else begun.get(str(place))
    if start is None or (trigger.seconds and met.at - start > trigger.seconds):
        return False
    if place + 1 < len(trigger.inner):
        begun[str(place + 1)] = max(start, begun.get(str(place + 1), start))
        return False
    mind.pop("begun")
    return True


# ------------------------------------------------------------------------------------------- one event trigger
#
# `keys`: for each value of `for_each`, as JSON: `armed`, since when it waits (with `after`, or for an absence); `times`, of the
# events that count; `by`, the event that armed it. `forgotten`: how many keys there was no room for.


def _feed_event(trigger: EventTrigger, mind: Mind, event: Happening, at: float) -> list[Met]:
    values = {name: _plain(event.value(name)) for name in trigger.for_each}
    if None in values.values():
        return []  # it has no such label, so it is of no such thing
    keys: dict[str, Mind] = mind.setdefault("keys", {})
    name = json.dumps(list(values.values()), ensure_ascii=False)
    kept = keys.get(name)
    if (
        kept is not None
        and not trigger.is_absence
        and trigger.after
        and trigger.seconds
        and at - kept["armed"] > trigger.seconds
    ):
        keys.pop(name)  # what it was armed for did not come in time
        kept = None
    met: list[Met] = []
    if _is_expected(trigger, event):
        if trigger.after:
            if kept is not None and _counts(trigger, kept, at):
                keys.pop(name)
                kept = None
                met = [] if trigger.is_absence else [Met(at, event, _told(values))]
        elif trigger.is_absence:
            if kept is None or _counts(trigger, kept, at):
                keys.pop(name, None)
                _arm(mind, keys, name, {"armed": at, "by": _brief(event)} if trigger.for_each else {"armed": at})
        elif trigger.threshold == 1:
            met = [Met(at, event, _told(values))]
        else:
            kept = keys.pop(name, {})
            if _counts(trigger, kept, at):
                met = [Met(at, event, _told(values))]
            else:
                _arm(mind, keys, name, kept)
    if trigger.after and _is_after(trigger, event) and name not in keys:
        _arm(mind, keys, name, {"armed": at, "by": _brief(event)})
    if not keys:
        mind.pop("keys")
    return met


def _counts(trigger: EventTrigger, kept: Mind, at: float) -> bool:
    """Count an event; tell whether it was the last one that is needed."""
    times = [*kept.get("times", ()), at]
    if trigger.seconds and not trigger.is_absence:
        times = [each for each in times if at - each <= trigger.seconds]
    kept["times"] = times
    return len(times) >= trigger.threshold


def _arm(mind: Mind, keys: dict[str, Mind], name: str, kept: Mind) -> None:
    """Keep a key in mind, as the one that came last."""
    keys[name] = kept
    if len(keys) > KEYS_LIMIT:
        keys.pop(next(iter(keys)))
        mind["forgotten"] = mind.get("forgotten", 0) + 1


def _overdue_event(trigger: EventTrigger, mind: Mind, now: float, *, included: bool) -> list[Met]:
    """Return the absences that are certain. One that goes on is told once for all its turns that have passed."""
    if not trigger.is_absence:
        return []
    keys: dict[str, Mind] = mind.get("keys", {})
    found: list[Met] = []
    for name, kept in list(keys.items()):
        deadline = kept["armed"] + trigger.seconds
        if deadline > now or (deadline == now and not included):
            continue
        told = _told(dict(zip(trigger.for_each, json.loads(name), strict=True)))
        more = {**told, "absent": True, "deadline": text_from_seconds(deadline), "since": kept.get("by")}
        keys.pop(name)
        if not trigger.after:
            turns = max(int((now - deadline) // trigger.seconds), 0)
            more["missed"] = turns + 1
            ended = deadline + turns * trigger.seconds
            if ended == now and not included and turns:
                ended -= trigger.seconds
                more["missed"] = turns
            keys[name] = {**kept, "armed": ended, "times": []}
        found.append(Met(deadline, None, more))
    if not keys and "keys" in mind:
        mind.pop("keys")
    return sorted(found, key=lambda met: met.at)


def _told(values: Mapping[str, object]) -> dict[str, object]:
    return {"key": dict(values)} if values else {}


def _brief(event: Happening) -> dict[str, object]:
    shown = event.as_json()
    if len(json.dumps(shown, ensure_ascii=False)) > PAYLOAD_CHARACTERS:
        shown = {**shown, "payload": None, "labels": {}, "related": []}
    return shown


# ------------------------------------------------------------------------------------------- matching


def _is_expected(trigger: EventTrigger, event: Happening) -> bool:
    return not trigger.expect or any(_fits(event.name, pattern) for pattern in trigger.expect)


def _is_after(trigger: EventTrigger, event: Happening) -> bool:
    return any(_fits(event.name, pattern) for pattern in trigger.after)


def matches(trigger: EventTrigger, event: Happening) -> bool:
    """Tell whether an event has the labels, payload and related resources that a trigger wants."""
    match = cast("Mapping[str, list[str]]", trigger.match)
    if not all(_has(event.value(name), wanted) for name, wanted in match.items()):
        return False
    related = cast("tuple[Mapping[str, list[str]], ...]", trigger.match_related)
    return all(
        any(all(_has(resource.get(name), wanted) for name, wanted in each.items()) for resource in event.related)
        for each in related
    )


def _has(value: object, wanted: list[str]) -> bool:
    """Tell whether a value is one of those wanted, and none of those that are not (`!`)."""
    text = _plain(value)
    if value is not None and text is None:
        return False  # a list or dict
    shown = "" if text is None else value_text(text)
    unwanted = [each[1:] for each in wanted if each.startswith("!")]
    if any(text is not None and _fits(shown, each) for each in unwanted):
        return False
    positive = [each for each in wanted if not each.startswith("!")]
    return not positive or (text is not None and any(_fits(shown, each) for each in positive))


def _plain(value: object) -> object:
    """Return a value that can be compared; None for any other."""
    try:
        return None if value is None else value_text(value)
    except UsageError:
        return None


def _fits(text: str, pattern: str) -> bool:
    return text == pattern if "*" not in pattern else _compiled(pattern)(text) is not None


@lru_cache(maxsize=1000)
def _compiled(pattern: str) -> Any:
    """Return what matches a text with `*` in it. Parts are looked for from the left, so no pattern takes long."""
    parts = [re.escape(part) for part in re.split(r"\*+", pattern)]
    head, *middle = parts
    if not middle:
        return re.compile(head, re.DOTALL).fullmatch
    *between, tail = middle
    # Atomic groups: once a part is found it stays found, which is right for '*' and keeps the time linear.
    body = "".join(f"(?>.*?{part})" for part in between if part)
    return re.compile(f"{head}{body}.*{tail}", re.DOTALL).fullmatch
