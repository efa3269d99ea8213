"""Try an automation on made-up events: whether its trigger is met, and what its actions would be. Nothing is done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from wfengine.automations import templates
from wfengine.automations.actions import Action
from wfengine.automations.evaluation import Met, feed, look, new_mind
from wfengine.automations.happenings import Happening, happening, ours
from wfengine.automations.performing import in_context
from wfengine.automations.triggers import check_keys
from wfengine.event_values import event_columns
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import InvalidValueError, UsageError
from wfengine_journal.events import EventRow

if TYPE_CHECKING:
    from wfengine.automations.definitions import Automation

_KEYS = ("name", "resource", "labels", "related", "payload", "flow_run", "flow", "deployment", "seconds")


def rehearse(
    automation: Automation, events: Iterable[Mapping[str, object]], *, now: float, then_seconds: float = 0.0
) -> list[dict[str, object]]:
    """Return each firing that these events would make of an automation that has seen nothing yet.

    Events are a second apart unless they say their `seconds`; `then_seconds` after the last one it is looked at again, for
    what does not come. Raises UsageError for what is no event.
    """
    mind = new_mind(automation.trigger, now)
    found: list[dict[str, object]] = []
    at = now
    for number, each in enumerate(events):
        if not isinstance(each, Mapping):
            raise UsageError(f'An event is an object such as {{"name": "order.placed", "payload": {{}}}}, and not {each!r}.')
        seconds = each.get("seconds", number)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
            raise UsageError(f"`seconds` of an event is a number of seconds after the first one, and not {seconds!r}.")
        at = max(at, now + seconds)
        event = _event(each, number + 1, at)
        found += [_firing(automation, met, number + 1) for met in feed(automation.trigger, mind, event, at)]
    found += [_firing(automation, met, None) for met in look(automation.trigger, mind, at + then_seconds)]
    return found


def _event(given: Mapping[str, object], number: int, at: float) -> Happening:
    check_keys(map(str, given), _KEYS, "An event")
    name, resource = given.get("name"), given.get("resource", "nothing")
    labels = given.get("labels", {})
    if not isinstance(name, str) or not isinstance(labels, Mapping) or not isinstance(resource, str):
        raise UsageError("An event has a `name` and a `resource`, which are texts, and `labels`, an object.")
    try:  # names of our own events are what a trigger may wait for, too
        columns = event_columns(
            name.replace("wfengine.", "", 1) if ours(name).startswith("wfengine.") else name,
            {**labels, "wfengine.resource.id": ours(resource)}, related=given.get("related"), payload=given.get("payload"),
            at=text_from_seconds(at),
        )  # fmt: skip
    except InvalidValueError as error:
        raise UsageError(str(error)) from error
    run = given.get("flow_run")
    return happening(
        EventRow(
            number, ours(name), columns.resource, run if isinstance(run, int) else None, None, columns.labels, columns.related,
            columns.payload, None, columns.occurred_at, None if run is None else "made-up", _text(given.get("flow")),
            _text(given.get("deployment")), None, None, None,
        )
    )  # fmt: skip


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _firing(automation: Automation, met: Met, by: int | None) -> dict[str, object]:
    context = in_context({**met.more, "event": None if met.event is None else met.event.as_json()}, automation.name, 0, "")
    return {"event": by, "actions": [_filled(action, context) for action in automation.actions]}


def _filled(action: Action, context: Mapping[str, object]) -> dict[str, object]:
    given = action.as_json()
    try:
        filled = templates.fill({key: value for key, value in given.items() if key != "type"}, context, action.type)
    except UsageError as error:
        return {"type": action.type, "problem": str(error)}
    return {"type": action.type, **(filled if isinstance(filled, dict) else {})}


def events_from_text(texts: Iterable[str]) -> list[Mapping[str, object]]:
    """Return the events that texts are as JSON: objects, or lists of them. Raises UsageError."""
    found: list[Mapping[str, object]] = []
    for text in texts:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f'--event is JSON, such as \'{{"name": "order.placed"}}\'; {text[:100]!r} is none: {error}'
            ) from error
        found += value if isinstance(value, list) else [value]
    return found
