"""What an automation waits for: one kind of event, or its absence; several such things; a sequence of them.

These only say what is wanted, as data; `evaluation` finds whether it has come. Names are Prefect's.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TypeAlias, cast

from wfengine.automations.happenings import PAYLOAD, ours
from wfengine_journal.errors import UsageError

#: Limits of what one trigger keeps in mind: events counted, and triggers inside one another.
THRESHOLD_LIMIT = 1000
TRIGGERS_LIMIT = 20
#: Characters of one name or value to match, and how many of them one list holds.
TEXT_LIMIT = 500
NAMES_LIMIT = 100
#: An absence is not looked for more often, in seconds; and no time is longer than a hundred years.
SHORTEST_ABSENCE_SECONDS = 1.0
LONGEST_SECONDS = 3_155_760_000.0


class Posture(StrEnum):
    """Whether a trigger is met by events or by their absence."""

    Reactive = "Reactive"
    Proactive = "Proactive"


@dataclass(frozen=True, kw_only=True)
class EventTrigger:
    """Met by `threshold` events within `within` seconds (0: any time), or, Proactive, when they do not come in time.

    - `expect`: names of events, `*` for any text; none: any event. `match`: labels of the resource, or places in the payload
      ('payload.region'), and the values they have: texts with `*`, beginning with `!` for anything else, or a list of them.
    - `match_related`: the same for a related resource; of a list, each has to be there.
    - `after`: only what comes after one of these events counts, once. `for_each`: labels, or 'payload...': counted apart for
      each of their values.
    """

    expect: Iterable[str] = ()
    match: Mapping[str, object] = field(default_factory=dict)
    match_related: Mapping[str, object] | Iterable[Mapping[str, object]] = ()
    after: Iterable[str] = ()
    for_each: Iterable[str] = ()
    posture: Posture | str = Posture.Reactive
    threshold: int = 1
    within: timedelta | float = 0.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("expect", "after", "for_each"):
            put(self, name, _names(getattr(self, name), name))
        put(self, "match", _match(self.match, "match"))
        put(self, "match_related", _related(self.match_related))
        put(self, "posture", _posture(self.posture))
        put(self, "threshold", _threshold(self.threshold))
        put(self, "within", seconds_of(self.within, "within"))
        if self.posture is Posture.Proactive:
            if self.seconds < SHORTEST_ABSENCE_SECONDS:
                raise UsageError(
                    "An event trigger that is Proactive waits for an absence, so `within` has to say how long: at least "
                    f"{SHORTEST_ABSENCE_SECONDS:g} second."
                )
            if not self.expect:
                raise UsageError("An event trigger that is Proactive has to say which events it misses: `expect`.")

    @property
    def seconds(self) -> float:
        """`within`, in seconds."""
        return cast(float, self.within)

    @property
    def is_absence(self) -> bool:
        """Tell whether it is met by what does not come."""
        return self.posture is Posture.Proactive

    def as_json(self) -> dict[str, object]:
        """Return it as it is recorded."""
        return {
            "type": "event", "expect": list(self.expect), "match": dict(self.match), "after": list(self.after),
            "match_related": [dict(each) for each in cast("tuple[Mapping[str, object], ...]", self.match_related)],
            "for_each": list(self.for_each), "posture": Posture(self.posture).value, "threshold": self.threshold,
            "within": self.within,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompoundTrigger:
    """Met when any, all, or so many of its triggers were met within `within` seconds (0: however long it takes)."""

    require: int | str = "all"
    triggers: Iterable[AnyTrigger] = ()
    within: timedelta | float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "triggers", _triggers(self.triggers, "A compound trigger"))
        object.__setattr__(self, "within", seconds_of(self.within, "within"))
        most = len(self.inner)
        if self.require not in ("any", "all") and not (
            isinstance(self.require, int) and not isinstance(self.require, bool) and 1 <= self.require <= most
        ):
            raise UsageError(
                f"A compound trigger requires 'any', 'all' or a number of its {most} triggers, and not {self.require!r}."
            )

    @property
    def inner(self) -> tuple[AnyTrigger, ...]:
        """Its triggers."""
        return cast("tuple[AnyTrigger, ...]", self.triggers)

    @property
    def seconds(self) -> float:
        """`within`, in seconds."""
        return cast(float, self.within)

    @property
    def number(self) -> int:
        """How many of its triggers have to be met."""
        return {"any": 1, "all": len(self.inner)}.get(str(self.require)) or int(self.require)

    def as_json(self) -> dict[str, object]:
        """Return it as it is recorded."""
        inner = [each.as_json() for each in self.inner]
        return {"type": "compound", "require": self.require, "within": self.within, "triggers": inner}


@dataclass(frozen=True, kw_only=True)
class SequenceTrigger:
    """Met when its triggers were met one after the other, the first and the last within `within` seconds (0: any time)."""

    triggers: Iterable[AnyTrigger] = ()
    within: timedelta | float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "triggers", _triggers(self.triggers, "A sequence trigger"))
        object.__setattr__(self, "within", seconds_of(self.within, "within"))

    @property
    def inner(self) -> tuple[AnyTrigger, ...]:
        """Its triggers."""
        return cast("tuple[AnyTrigger, ...]", self.triggers)

    @property
    def seconds(self) -> float:
        """`within`, in seconds."""
        return cast(float, self.within)

    def as_json(self) -> dict[str, object]:
        """Return it as it is recorded."""
        return {"type": "sequence", "within": self.within, "triggers": [each.as_json() for each in self.inner]}


AnyTrigger: TypeAlias = "EventTrigger | CompoundTrigger | SequenceTrigger"

_FIELDS = {
    "event": (
        EventTrigger,
        ("expect", "match", "match_related", "after", "for_each", "posture", "threshold", "within"),
    ),
    "compound": (CompoundTrigger, ("require", "triggers", "within")),
    "sequence": (SequenceTrigger, ("triggers", "within")),
}


def trigger_from_json(value: object, depth: int = 0) -> AnyTrigger:
    """Return the trigger that a mapping describes. Raises UsageError, with what was meant where that can be guessed."""
    if not isinstance(value, Mapping):
        raise UsageError(f"A trigger is a table such as {{type = 'event', expect = ['order.placed']}}, and not {value!r}.")
    if depth > TRIGGERS_LIMIT:
        raise UsageError(f"A trigger stands {depth} levels deep in others; {TRIGGERS_LIMIT} are allowed.")
    kind = value.get("type", "event")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise UsageError(f"There is no trigger of type {kind!r}{did_you_mean(kind, _FIELDS)}. Types: {', '.join(_FIELDS)}.")
    made, fields = _FIELDS[kind]
    given = {str(key): each for key, each in value.items() if key != "type"}
    check_keys(given, fields, f"A trigger of type '{kind}'")
    if "triggers" in given:
        if not isinstance(given["triggers"], list | tuple):
            raise UsageError("`triggers` of a trigger is a list of triggers.")
        given["triggers"] = [trigger_from_json(each, depth + 1) for each in given["triggers"]]
    return cast("AnyTrigger", made(**given))


def event_triggers(trigger: AnyTrigger) -> list[EventTrigger]:
    """Return the event triggers that a trigger is made of."""
    if isinstance(trigger, EventTrigger):
        return [trigger]
    return [found for each in trigger.inner for found in event_triggers(each)]


# ------------------------------------------------------------------------------------------- checks


def check_keys(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise UsageError for a key that is not known."""
    known = list(known)
    for key in given:
        if key not in known:
            raise UsageError(f"{what} has no {key!r}{did_you_mean(key, known)}. It has: {', '.join(known)}.")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return the end of a sentence that names what is nearest to a word, '' for nothing."""
    near = difflib.get_close_matches(str(word)[:TEXT_LIMIT], list(known), 1)
    return f" - did you mean {near[0]!r}?" if near else ""


def seconds_of(value: object, what: str) -> float:
    """Return a time in seconds. Raises UsageError."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not math.isfinite(seconds)
        or not 0 <= seconds <= LONGEST_SECONDS
    ):
        raise UsageError(f"`{what}` is a timedelta or a number of seconds, 0 or more, and not {value!r}.")
    return float(seconds)


def _names(value: object, what: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise UsageError(f"`{what}` of an event trigger is a set of texts, and not {value!r}.")
    return tuple(sorted({ours(_checked_text(each, what)) for each in _limited(value, what)}))


def _limited(values: Iterable[object], what: str) -> list[object]:
    found = list(values)
    if len(found) > NAMES_LIMIT:
        raise UsageError(f"`{what}` of an event trigger holds {len(found)} things; {NAMES_LIMIT} are allowed.")
    return found


def _checked_text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > TEXT_LIMIT or not value.isprintable():
        raise UsageError(f"`{what}` of an event trigger holds texts of 1 to {TEXT_LIMIT} printable characters, not {value!r}.")
    return value


def _match(value: object, what: str) -> dict[str, list[str]]:
    if not isinstance(value, Mapping):
        raise UsageError(f"`{what}` of an event trigger says which labels have which values, and is not {value!r}.")
    found = {}
    for key, wanted in value.items():
        name = _checked_text(key, what)
        values = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
        texts = [value_text(each) if not isinstance(each, str) else each for each in _limited(values, what)]
        is_payload = name.startswith(PAYLOAD)
        found[ours(name)] = sorted(text if is_payload else ours(_checked_text(text, what)) for text in texts)
    return found


def value_text(value: object) -> str:
    """Return a value of a label or payload as it is compared: text as it is, the rest as JSON shows it."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else repr(value)
    raise UsageError(f"A value to match is a text, a number, true, false or null, and not {value!r}.")


def _related(value: object) -> tuple[dict[str, list[str]], ...]:
    if isinstance(value, Mapping):
        value = [value] if value else []
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise UsageError(f"`match_related` of an event trigger is like `match`, or a list of such, and not {value!r}.")
    return tuple(_match(each, "match_related") for each in _limited(value, "match_related"))


def _posture(value: object) -> Posture:
    if isinstance(value, str):
        for posture in Posture:
            if value.lower() == posture.value.lower():
                return posture
    raise UsageError(f"`posture` of an event trigger is 'Reactive' or 'Proactive', and not {value!r}.")


def _threshold(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= THRESHOLD_LIMIT:
        raise UsageError(f"`threshold` of an event trigger is a whole number from 1 to {THRESHOLD_LIMIT}, and not {value!r}.")
    return value


def _triggers(value: object, what: str) -> tuple[AnyTrigger, ...]:
    found = list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else []
    if not 1 <= len(found) <= TRIGGERS_LIMIT or not all(
        isinstance(each, EventTrigger | CompoundTrigger | SequenceTrigger) for each in found
    ):
        raise UsageError(f"{what} is made of 1 to {TRIGGERS_LIMIT} triggers, and not of {value!r}.")
    return tuple(found)
