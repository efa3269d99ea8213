"""What an event may hold, checked before anything is written: its name, the resource it is of, labels, payload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from wfengine.automations.happenings import RESOURCE_ID, ours
from wfengine.plain_json import plain_json
from wfengine_journal import guarding
from wfengine_journal.errors import InvalidValueError
from wfengine_journal.events import FIRING_KEY, EventColumns

#: Characters of a name, of a resource's id and of an idempotency key; and of an event's JSON.
NAME_LIMIT = 500
JSON_LIMIT = 1_000_000
#: Related resources of one event.
RELATED_LIMIT = 100
#: Names that begin so are those of wfengine's own events.
OWN_NAMES = "wfengine."


def event_columns(
    name: object, resource: object, *, at: str, related: object = None, payload: object = None, key: object = None,
    flow_run_id: int | None = None, is_ours: bool = False,
) -> EventColumns:  # fmt: skip
    """Return an event as it is written. Raises InvalidValueError. `is_ours`: its idempotency key is one of our own."""
    checked = _checked_text(name, "The name of an event")
    if checked.startswith(OWN_NAMES):
        raise InvalidValueError(
            f"The name {checked!r} begins with '{OWN_NAMES}', as those of wfengine's own events do. Take another."
        )
    labels = _resource(resource)
    resource_id = _checked_text(labels.pop(RESOURCE_ID), f"The id of the resource of event {checked!r}")
    if key is not None and not is_ours:
        key = _checked_text(key, "The idempotency key (id) of an event")
        if key.startswith(FIRING_KEY):
            raise InvalidValueError(f"The idempotency key {key!r} begins with '{FIRING_KEY}', as those of automations do.")
    what = f"event {checked!r}"
    return EventColumns(
        checked,
        resource_id,
        at,
        _json(labels, f"labels of {what}") if labels else None,
        _related(related, what),
        None if payload is None else _json(payload, f"payload of {what}"),
        cast("str | None", key),
        flow_run_id,
    )


def _resource(resource: object) -> dict[str, object]:
    """Return the labels of a resource; a text is its id."""
    if isinstance(resource, str):
        return {RESOURCE_ID: resource}
    if not isinstance(resource, Mapping):
        raise InvalidValueError(
            f"The resource of an event is an id, or labels such as {{'{RESOURCE_ID}': 'order.12', ...}}, not {resource!r}."
        )
    labels = {ours(key) if isinstance(key, str) else key: value for key, value in resource.items()}
    if RESOURCE_ID not in labels:
        raise InvalidValueError(
            f"The resource of an event has no '{RESOURCE_ID}': it has {', '.join(map(str, labels)) or 'nothing'}."
        )
    return cast("dict[str, object]", labels)


def _related(related: object, what: str) -> str | None:
    if related is None:
        return None
    given = list(related) if isinstance(related, Iterable) and not isinstance(related, str | Mapping) else [related]
    if len(given) > RELATED_LIMIT:
        raise InvalidValueError(f"The {what} has {len(given)} related resources; {RELATED_LIMIT} are allowed.")
    return _json([_resource(each) for each in given], f"related resources of {what}") if given else None


def _json(value: object, what: str) -> str:
    text = plain_json(value, what, secrets="hide")
    if len(text) > JSON_LIMIT:
        raise InvalidValueError(
            f"{what[:1].upper()}{what[1:]}: {len(text)} characters of JSON; {JSON_LIMIT} are allowed. Put the data into a "
            "table or file, and its name into the event."
        )
    return text


def _checked_text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > NAME_LIMIT or not value.isprintable():
        raise InvalidValueError(f"{what} is a text of 1 to {NAME_LIMIT} printable characters, and not {ascii(value)[:60]}.")
    return guarding.hide(value)
