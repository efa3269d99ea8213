"""Templates in actions: a place in what the action is told, no code, and nothing filled in twice."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfengine.automations import EmitEvent, templates
from wfengine.automations.happenings import Happening
from wfengine.automations.performing import in_context
from wfengine_journal.errors import UsageError

CONTEXT: dict[str, Any] = {
    "event": {
        "name": "order.placed",
        "payload": {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}], "evil": "{{ event.name }}", "nothing": None},
        "labels": {"wfengine.resource.id": "order.7"},
    }
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ event.payload.id }}", 7),
        ("{{event.payload.lines}}", [{"sku": "a"}, {"sku": "b"}]),
        ("{{ event.payload.lines[1].sku }}", "b"),
        ("{{ event.labels['wfengine.resource.id'] }}", "order.7"),
        ("no {{ event.payload.id }} of {{ event.name }}", "no 7 of order.placed"),
        ("{{ event.payload.nothing }}", None),
        ("is {{ event.payload.nothing }}", "is null"),
        ("{{ event.payload.evil }}", "{{ event.name }}"),
        ("a { b } {c}", "a { b } {c}"),
    ],
)
def test_a_template_becomes_what_stands_at_its_place(text: str, value: object) -> None:
    templates.check(text, "x")
    assert templates.fill({"x": [text]}, CONTEXT, "it") == {"x": [value]}


@pytest.mark.parametrize(
    "text",
    [
        "{{ }}",
        "{{ event.name() }}",
        "{{ event | upper }}",
        "{{ 1 + 1 }}",
        "{{ os.environ }}",
        "{{ event.__class__() }}",
        "{{ a.b }}",
    ],
)
def test_what_is_no_place_is_refused_when_the_action_is_defined(text: str) -> None:
    with pytest.raises(UsageError, match="is no place"):
        templates.check(text, "x")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("flow_run.nmae", "names 'nmae', and flow_run has only: id, name"),
        ("event.order", "names 'order', and event has only: id, name, resource, labels, related, payload, occurred, flow_run"),
        ("event.flow_run.state", "names 'state', and event.flow_run has only: id, name"),
        ("since.task_run.name", "names 'name', and since.task_run has only: id"),
        ("event[0]", "names '0', and event has only"),
        ("deadline.year", "names 'year', and deadline has nothing below it"),
        ("automation['id']", "names 'id', and automation has only: name"),
    ],
)
def test_a_place_that_no_event_has_is_refused_when_the_action_is_defined(place: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        EmitEvent(event="told", payload={"text": "of {{ " + place + " }}"})


def test_whatever_an_action_may_be_told_is_a_known_place() -> None:
    happening = Happening(
        1, "a.b", "r.1", {"l": 1}, [], {"x": [1]}, "2026-01-01T00:00:00.000000Z", 0.0, 1, 2, "run", "flow", "dep", ("k", "k")
    )
    context = in_context({"event": happening.as_json(), "since": happening.as_json()}, "automation", 1, "2026-01-01")
    for root, below in context.items():
        assert isinstance(below, dict)
        for name in below:
            templates.check("{{ " + f"{root}.{name}" + " }}", "x")


def test_a_place_where_there_is_nothing_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"names 'order'.*has: id, lines, evil, nothing"):
        templates.fill("{{ event.payload.order }}", CONTEXT, "parameters.order")
    with pytest.raises(UsageError, match="__class__"):
        templates.fill("{{ event.__class__ }}", CONTEXT, "x")


def test_what_is_filled_in_is_limited() -> None:
    huge = {"event": {"payload": "x" * 100_000}}
    with pytest.raises(UsageError, match="longer than"):
        templates.fill(["{{ event.payload }}"] * 11, huge, "x")


@settings(max_examples=500, deadline=None)
@given(st.text("{}evntpayload.[]'\"0 x_|()", max_size=40), st.text(max_size=20))
def test_any_text_is_refused_in_our_words_or_filled_in(text: str, payload: str) -> None:
    context: dict[str, object] = {"event": {"payload": payload}}
    try:
        templates.check(text, "x")
        found = templates.fill(text, context, "x")
    except UsageError:
        return
    json.dumps(found)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=50))
def test_a_hostile_payload_stays_what_it_is(payload: str) -> None:
    context = {"event": {"payload": payload}}
    assert templates.fill("{{ event.payload }}", context, "x") == payload
    assert templates.fill("<{{ event.payload }}>", context, "x") == f"<{payload}>"
