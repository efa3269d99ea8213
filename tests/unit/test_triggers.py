"""Whether a trigger is met: each kind against a model that looks at the whole past, whatever cuts the looking into pieces."""

from __future__ import annotations

import itertools
import json
import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfengine.automations.evaluation import feed, look, matches, new_mind, next_look
from wfengine.automations.happenings import Happening
from wfengine.automations.triggers import (
    AnyTrigger,
    CompoundTrigger,
    EventTrigger,
    Posture,
    SequenceTrigger,
    trigger_from_json,
)
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import UsageError

START = 1_000_000.0


def event(name: str, at: float, resource: str = "r", number: int = 0, **more: Any) -> Happening:
    labels = {"wfengine.resource.id": resource, **more.pop("labels", {})}
    return Happening(
        number, name, resource, labels, more.pop("related", ()), more.pop("payload", None), text_from_seconds(START + at),
        START + at, **more,
    )  # fmt: skip


def firings(
    trigger: AnyTrigger, events: list[Happening], end: float, chance: random.Random | None = None
) -> list[tuple[float, int]]:
    """Feed events, looking and going through JSON in between at random; return when and by which event it is met."""
    mind = new_mind(trigger, START)
    found = []
    for one in events:
        if chance is not None and chance.random() < 0.4:
            mind = json.loads(json.dumps(mind))
        if chance is not None and chance.random() < 0.4:
            due = next_look(trigger, mind)
            assert due is None or due >= 0
            if due is None or due <= one.seconds:
                found += look(trigger, mind, chance.uniform(due, one.seconds) if due is not None else one.seconds - 0.5)
        found += feed(trigger, mind, one, START + end)
    found += look(trigger, mind, START + end)
    return [(met.at - START, met.event.id if met.event else -1) for met in found]


def story(chance: random.Random, names: str | list[str], resources: str, length: int) -> list[Happening]:
    times = sorted(chance.choice((chance.uniform(0, 100), float(chance.randrange(100)))) for _ in range(length))
    return [event(chance.choice(names), at, chance.choice(resources), number) for number, at in enumerate(times, 1)]


@pytest.mark.parametrize("seed", range(40))
def test_counting_within_a_window_is_what_a_look_at_the_whole_past_finds(seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    threshold, within = chance.randrange(1, 5), chance.choice((0, 5, 20))
    events = story(chance, "abc", "xyz", 60)
    expected = []
    counted: dict[str, list[float]] = {}
    for one in events:
        if one.name not in "ab":
            continue
        mine = counted.setdefault(one.resource, [])
        mine.append(one.seconds)
        recent = [at for at in mine if not within or one.seconds - at <= within]
        if len(recent) >= threshold:
            expected.append((one.seconds - START, one.id))
            mine.clear()
    trigger = EventTrigger(expect={"a", "b"}, threshold=threshold, within=within, for_each={"wfengine.resource.id"})
    assert firings(trigger, events, 200, chance) == expected


@pytest.mark.parametrize("seed", range(40))
def test_absence_after_an_event_is_what_a_look_at_the_whole_past_finds(seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    threshold, within, end = chance.randrange(1, 3), chance.choice((2, 5, 20)), chance.choice((80, 200))
    events = story(chance, ["begun", "ended", "other"], "xyz", 60)
    events = [one for one in events if one.seconds <= START + end]
    expected = []
    for resource in "xyz":
        mine = [one for one in events if one.resource == resource]
        place = 0
        while place < len(mine):
            if mine[place].name != "begun":
                place += 1
                continue
            deadline = mine[place].seconds + within
            ends = [n for n in range(place + 1, len(mine)) if mine[n].name == "ended" and mine[n].seconds <= deadline]
            if len(ends) >= threshold:
                place = ends[threshold - 1] + 1
                continue
            if deadline <= START + end:
                expected.append((deadline - START, -1))
            place = next((n for n in range(place + 1, len(mine)) if mine[n].seconds > deadline), len(mine))
    trigger = EventTrigger(
        expect={"ended"}, after={"begun"}, for_each={"wfengine.resource.id"}, posture="Proactive", within=within,
        threshold=threshold,
    )  # fmt: skip
    # Who looks at the exact instant of a deadline, before an event of that instant is written, is right too: not here.
    assert sorted(at for at, _ in firings(trigger, events, end)) == pytest.approx(sorted(at for at, _ in expected))


@pytest.mark.parametrize("seed", range(40))
def test_a_sequence_is_what_a_look_at_the_whole_past_finds(seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    kinds, within = chance.choice(("ab", "abc", "aab", "aba")), chance.choice((0, 5, 20))
    events = story(chance, "abcd", "x", 40)
    expected, begin = [], 0
    for end in range(len(events)):
        past = events[begin : end + 1]
        for chosen in itertools.combinations(past[:-1], len(kinds) - 1):
            whole = [*chosen, past[-1]]
            if "".join(one.name for one in whole) == kinds and (not within or whole[-1].seconds - whole[0].seconds <= within):
                expected.append((past[-1].seconds - START, past[-1].id))
                begin = end + 1
                break
    trigger = SequenceTrigger(triggers=[EventTrigger(expect={kind}) for kind in kinds], within=within)
    assert firings(trigger, events, 200, chance) == expected


@pytest.mark.parametrize("seed", range(40))
def test_a_compound_is_what_a_look_at_the_whole_past_finds(seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    require, within = chance.choice(("any", "all", 1, 2)), chance.choice((0, 5, 20))
    needed = {"any": 1, "all": 3}.get(str(require)) or int(require)
    events = story(chance, "abcd", "x", 40)
    expected, begin = [], 0
    for end, last in enumerate(events):
        recent = [one for one in events[begin : end + 1] if not within or last.seconds - one.seconds <= within]
        if last.name != "d" and len({one.name for one in recent} & set("abc")) >= needed:
            expected.append((last.seconds - START, last.id))
            begin = end + 1
    trigger = CompoundTrigger(require=require, triggers=[EventTrigger(expect={kind}) for kind in "abc"], within=within)
    assert firings(trigger, events, 200, chance) == expected


def test_an_absence_without_an_event_before_goes_on_and_is_told_once_for_what_passed_meanwhile() -> None:
    trigger = EventTrigger(expect={"beat"}, posture=Posture.Proactive, within=10)
    mind = new_mind(trigger, START)
    assert next_look(trigger, mind) == START + 10
    assert feed(trigger, mind, event("beat", 9), START + 9) == []
    assert next_look(trigger, mind) == START + 19
    (met,) = look(trigger, mind, START + 19)
    assert (met.at, met.more["missed"], met.more["absent"]) == (START + 19, 1, True)
    (met,) = look(trigger, mind, START + 65)  # nobody looked for a while: 29, 39, 49, 59
    assert (met.at, met.more["missed"]) == (START + 29, 4)
    assert next_look(trigger, mind) == START + 69
    assert feed(trigger, mind, event("beat", 69), START + 69) == []  # at the very deadline is in time
    assert next_look(trigger, mind) == START + 79


def test_an_absence_for_each_resource_begins_with_its_first_event() -> None:
    trigger = EventTrigger(expect={"beat"}, posture="proactive", within=10, for_each={"wfengine.resource.id"})
    mind = new_mind(trigger, START)
    assert (mind, next_look(trigger, mind)) == ({}, None)
    feed(trigger, mind, event("beat", 1, "x"), START + 1)
    feed(trigger, mind, event("beat", 5, "y"), START + 5)
    (met,) = look(trigger, mind, START + 12)
    assert met.more["key"] == {"wfengine.resource.id": "x"}
    assert isinstance(met.more["since"], dict)


def test_a_heartbeat_that_is_both_awaited_and_what_begins_the_wait_is_missed_once() -> None:
    trigger = EventTrigger(expect={"beat"}, after={"beat"}, posture="Proactive", within=10)
    mind = new_mind(trigger, START)
    for at in (0, 10, 15):
        assert feed(trigger, mind, event("beat", at), START + at) == []
    assert [met.at for met in look(trigger, mind, START + 100)] == [START + 25]
    assert look(trigger, mind, START + 1000) == []


def test_what_is_expected_counts_only_after_what_it_has_to_follow_and_in_time() -> None:
    trigger = EventTrigger(expect={"failed"}, after={"deployed"}, within=10)
    events = [event(name, at, number=at) for at, name in ((1, "failed"), (2, "deployed"), (5, "failed"), (6, "failed"))]
    events += [event("deployed", 20, number=20), event("failed", 31, number=31)]
    assert firings(trigger, events, 100) == [(5, 5)]


def test_an_event_from_the_future_counts_as_of_now() -> None:
    trigger = EventTrigger(expect={"ended"}, after={"begun"}, posture="Proactive", within=10)
    mind = new_mind(trigger, START)
    assert feed(trigger, mind, event("begun", 0), START) == []
    assert feed(trigger, mind, event("begun", 1_000_000), START + 1) == []
    assert next_look(trigger, mind) == START + 10


def test_matching_looks_at_labels_payload_and_related_resources() -> None:
    placed = event(
        "order.placed", 0, "order.7", labels={"region": "eu-west", "wfengine.resource.name": "seven"},
        payload={"total": 80, "customer": {"vip": True, "names": ["Ada", "Bob"]}},
        related=({"wfengine.resource.id": "wfengine.flow.etl", "wfengine.resource.role": "flow"}, {"a": "b"}),
    )  # fmt: skip

    def fits(**wanted: Any) -> bool:
        return matches(EventTrigger(**wanted), placed)

    assert fits(match={"region": "eu-*"})
    assert fits(match={"prefect.resource.id": "order.*", "prefect.resource.name": "seven"})
    assert fits(match={"region": ["us-*", "eu-*"], "payload.total": 80, "payload.customer.vip": True})
    assert fits(match={"payload.customer.names.1": "Bob"})
    assert fits(match={"region": "!us-*", "gone": "!x"})
    assert not fits(match={"region": "!eu-*"})
    assert not fits(match={"region": "eu"})
    assert not fits(match={"gone": "*"})
    assert not fits(match={"payload.customer": "*"})
    assert fits(match_related={"prefect.resource.role": "flow", "prefect.resource.id": "prefect.flow.*"})
    assert fits(match_related=[{"wfengine.resource.role": "flow"}, {"a": "b"}])
    assert not fits(match_related=[{"wfengine.resource.role": "flow", "a": "b"}])


def test_a_pattern_takes_no_long_time_whatever_the_text() -> None:
    trigger = EventTrigger(match={"x": "*a" * 100 + "*b"})
    assert not matches(trigger, event("e", 0, labels={"x": "a" * 100_000}))


@settings(max_examples=200, deadline=None)
@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_a_star_stands_for_any_text(pattern: str, text: str) -> None:
    def fits(parts: str, rest: str) -> bool:
        if not parts:
            return not rest
        if parts[0] == "*":
            return any(fits(parts[1:], rest[n:]) for n in range(len(rest) + 1))
        return rest[:1] == parts[0] and fits(parts[1:], rest[1:])

    if pattern:
        trigger = EventTrigger(match={"x": pattern})
        assert matches(trigger, event("e", 0, labels={"x": text})) == fits(pattern, text)


KEYS = ("expect", "match", "match_related", "after", "for_each", "posture", "threshold", "within", "require", "triggers", "of")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    JSON
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["event", "compound", "sequence", "evnt"])},
        optional=dict.fromkeys(KEYS, JSON),
    )
)
def test_nonsense_for_a_trigger_is_refused_in_our_words(value: object) -> None:
    try:
        trigger = trigger_from_json(value)
    except UsageError:
        return
    assert trigger_from_json(json.loads(json.dumps(trigger.as_json()))).as_json() == trigger.as_json()
    feed(trigger, new_mind(trigger, START), event("e", 0, payload={"a": [1]}), START)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"type": "evnt"}, "did you mean 'event'?"),
        ({"type": "event", "treshold": 1}, "did you mean 'threshold'?"),
        ({"type": "event", "posture": "Proactive", "expect": ["x"]}, "`within` has to say how long"),
        ({"type": "event", "threshold": 0}, "whole number from 1 to 1000"),
        ({"type": "compound", "triggers": [{"type": "event"}], "require": 2}, "requires 'any', 'all' or a number of its 1"),
        ({"type": "sequence", "triggers": []}, "made of 1 to 20 triggers"),
        ("x", "A trigger is a table"),
    ],
)
def test_a_trigger_that_makes_no_sense_says_why(value: object, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        trigger_from_json(value)


def test_times_are_timedeltas_too() -> None:
    assert EventTrigger(expect="x", within=timedelta(minutes=2)).seconds == 120
