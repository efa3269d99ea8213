"""What a flow asks of a person: the request as it is recorded, the check of an answer, and its delivery.

The request and the JSON schema of the answer are items of the call that waits, so that anybody can show them, and check an
answer, without the user's code. The answer is a message on a topic of the request; a second one is not sent. Its full check,
by the model itself, is made by the flow when it takes the answer: one that does not fit is refused there, and asked for again.

pydantic is imported when an input is described, and not before.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from wfengine.ids import typed
from wfengine.recovery import find_run_id
from wfengine_journal.codec import encode, is_json_exact
from wfengine_journal.errors import InvalidInputError, NotPausedError, UsageError
from wfengine_journal.messages import OpenRequest, PutMessage, list_open_requests
from wfengine_journal.tickets import WriteRefused

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: Open requests that are looked at for one run.
REQUESTS_LIMIT = 1000
#: The idempotency key of every answer: a request has one.
ANSWER = "answer"
#: Levels of a schema that a check goes into; deeper parts are left to the model.
SCHEMA_DEPTH = 20
_TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a call asks for, as it is recorded: JSON text of these fields."""

    kind: Literal["pause", "suspend"]
    number: int  # of the request among those of its call: after an answer that did not fit, another one is made
    asked_at: str
    until: str | None  # null: there is no limit
    key: str | None = None  # the `key` that the flow gave
    model: str | None = None
    description: str | None = None
    refused: str | None = None  # why the last answer was not taken

    def topic(self, task_run_id: int) -> str:
        """Return the topic of its answer."""
        return f"wfengine.input:{task_run_id}:{self.number}"

    def again(self, refused: str) -> Request:
        """Return the request that follows an answer which did not fit."""
        return replace(self, number=self.number + 1, refused=refused)

    def as_json(self) -> dict[str, object]:
        """Return it as it is recorded."""
        return asdict(self)


def request_of(recorded: object) -> Request | None:
    """Return a recorded request; None for what is none."""
    if not isinstance(recorded, dict) or not {"kind", "number", "asked_at", "until"} <= recorded.keys():
        return None
    known = {field.name for field in fields(Request)}
    return Request(**{name: value for name, value in recorded.items() if name in known})


# ------------------------------------------------------------------------------------------- what is wanted


class Wanted:
    """What a flow wants as input: an instance of a pydantic model, or a value of any type that pydantic can check."""

    def __init__(self, wanted: Any) -> None:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUserError

        self.name = str(getattr(wanted, "__name__", wanted))
        self.description = getattr(wanted, "_description", None)
        try:
            self._adapter = TypeAdapter[Any](wanted)
            self.schema: dict[str, object] = self._adapter.json_schema(by_alias=True)
        except PydanticUserError as error:
            raise UsageError(
                f"wait_for_input takes a pydantic model or another type that pydantic can describe, not {wanted!r}: {error}"
            ) from error

    def load(self, data: object) -> object:
        """Return the input that plain data stands for. Raises InvalidInputError, which names the fields."""
        from pydantic import ValidationError

        try:
            return self._adapter.validate_json(json.dumps(data))
        except ValidationError as error:
            problems = "; ".join(f"{_place(each['loc'])}{each['msg']}" for each in error.errors(include_url=False))
            raise InvalidInputError(problems) from error

    def plain(self, value: object) -> object:
        """Return an input as plain data."""
        return self._adapter.dump_python(value, mode="json", by_alias=True)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) + ": " if location else ""


# ------------------------------------------------------------------------------------------- fields, for people


def fields_of(schema: object) -> list[tuple[str, str, bool]]:
    """Return name, type and whether it has to be given, of each field of an input; nothing for one that has no fields."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return []
    required = schema.get("required")
    wanted = set(required) if isinstance(required, list) else set()
    return [(str(name), type_text(part, schema), name in wanted) for name, part in schema["properties"].items()]


def fields_text(schema: object) -> str:
    """Return the fields of an input in one line."""
    if schema is None:
        return ""
    found = fields_of(schema)
    if not found:
        return type_text(schema, schema)
    return ", ".join(f"{name} ({kind}{'' if needed else ', optional'})" for name, kind, needed in found)


def type_text(part: object, root: object) -> str:
    """Return the type that a part of a schema describes, in a word or two."""
    part = _resolved(part, root)
    if "enum" in part and isinstance(part["enum"], list):
        return " or ".join(json.dumps(each) for each in part["enum"])
    if "const" in part:
        return json.dumps(part["const"])
    if isinstance(part.get("anyOf"), list):
        return " or ".join(dict.fromkeys(type_text(each, root) for each in part["anyOf"]))
    kind = part.get("format") or part.get("type")
    return str(kind) if kind else "any"


def example_text(schema: object) -> str:
    """Return an input that somebody may fill in, as JSON text."""
    found = fields_of(schema)
    if not found:
        return "VALUE"
    needed = [each for each in found if each[2]] or found[:1]
    samples = {"boolean": True, "integer": 1, "number": 1.5, "string": "..."}
    return json.dumps({name: samples.get(kind, "...") for name, kind, _ in needed})


# ------------------------------------------------------------------------------------------- the check without the model


def problems_of(value: object, schema: object) -> list[str]:
    """Return what of a value does not fit a JSON schema, by field. What is not understood of the schema is let pass."""
    return list(_problems(value, schema, schema, "", 0))


def _problems(value: object, part: object, root: object, place: str, depth: int) -> Iterator[str]:
    part, at = _resolved(part, root), f"{place}: " if place else ""
    if depth > SCHEMA_DEPTH:
        return
    if isinstance(part.get("anyOf"), list):
        if all(any(_problems(value, each, root, place, depth + 1)) for each in part["anyOf"]):
            yield f"{at}{_shown(value)} is not {type_text(part, root)}"
        return
    if isinstance(part.get("enum"), list) and value not in part["enum"]:
        yield f"{at}{_shown(value)} is not {type_text(part, root)}"
        return
    kind = part.get("type")
    check = _TYPES.get(kind) if isinstance(kind, str) else None
    if check is not None and not _fits(check, value):
        yield f"{at}{_shown(value)} is not of type {kind}"
        return
    if isinstance(value, dict) and isinstance(part.get("properties"), dict):
        yield from _problems_of_fields(value, part, root, place, depth)
    if isinstance(value, list) and isinstance(part.get("items"), dict):
        for number, item in enumerate(value):
            yield from _problems(item, part["items"], root, f"{place}[{number}]", depth + 1)


def _problems_of_fields(value: dict[str, object], part: dict[str, Any], root: object, place: str, depth: int) -> Iterator[str]:
    known: dict[str, object] = part["properties"]
    inside = f"{place}." if place else ""
    for name in part.get("required") or ():
        if name not in value:
            yield f"{inside}{name}: is missing"
    for name, item in value.items():
        if name in known:
            yield from _problems(item, known[name], root, f"{inside}{name}", depth + 1)
        elif part.get("additionalProperties", True) is False or not place:
            # At the top a name that is not known is most likely a slip, whatever the model does with it.
            yield f"{inside}{name}: there is no such field; there are: {', '.join(known)}"


def _fits(check: Callable[[object], bool], value: object) -> bool:
    try:
        return check(value)
    except (OverflowError, ValueError):
        return False  # infinity is no integer


def _resolved(part: object, root: object) -> dict[str, Any]:
    """Return a part of a schema; where it refers to a definition, that one."""
    for _ in range(SCHEMA_DEPTH):
        if not isinstance(part, dict):
            return {}
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return part
        definitions = root.get("$defs") if isinstance(root, dict) else None
        part = definitions.get(reference.rpartition("/")[2]) if isinstance(definitions, dict) else None
    return {}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:60]}..."


# ------------------------------------------------------------------------------------------- the answer


@dataclass(frozen=True, slots=True)
class InputGiven:
    """An input that was given to a waiting flow run.

    `is_new` is False when the request had an answer already: nothing was done. `goes_on` says that a process is waiting for
    it; else the run is suspended, and `wfengine resume RUN` goes on with it.
    """

    flow_run_id: int
    task_run_id: int
    is_new: bool
    goes_on: bool


def open_requests(connection: sqlite3.Connection, run_id: int | None) -> list[tuple[OpenRequest, Request]]:
    """Return what a run, and the subflows in it, wait for; None: all runs."""
    found = list_open_requests(connection, run_id, REQUESTS_LIMIT)
    return [(row, request) for row in found if (request := parsed_request(row)) is not None]


def parsed_request(row: OpenRequest) -> Request | None:
    """Return the request of a row; None where the file holds something else in its place."""
    try:
        return request_of(json.loads(row.request))
    except (ValueError, TypeError, RecursionError):
        return None


def parsed_schema(row: OpenRequest) -> object:
    """Return the schema of the input that is to be given; None when none is."""
    try:
        return None if row.schema is None else json.loads(row.schema)
    except (ValueError, RecursionError):
        return {}


def give_input(journal: Journal, reference: int | str, value: object, key: str | int | None = None) -> InputGiven:
    """Check an input, and send it to the call that waits for it; committed when this returns.

    `key` tells which request is meant where a run has several: its key, or the id of the task run that asks. Raises
    NotPausedError, InvalidInputError.
    """
    journal.flush()
    run_id = find_run_id(journal, reference)
    name = journal.records.get_flow_run(run_id).name
    row, request = journal.records.read(lambda connection: chosen_request(connection, run_id, name, key))
    return deliver(journal, row, request, value)


def deliver(journal: Journal, row: OpenRequest, request: Request, value: object) -> InputGiven:
    """Check an input against the recorded schema, and send it as the answer to this request."""
    run_id, name = row.flow_run_id, row.run_name
    if request.until is not None and journal.clock.now_text() > request.until:
        raise NotPausedError(
            f"Flow run {run_id} '{name}' was to get its input by {request.until}, and its time is over. It says so when it "
            f"goes on: wfengine resume {typed(run_id, name)}",
            flow_run_id=run_id,
            task_run_id=row.task_run_id,
        )
    value = bare_value(value, parsed_schema(row))
    check_input(value, row)
    put = PutMessage(
        run_id, request.topic(row.task_run_id), encode(value, "the input"), at=journal.clock.now_text(), idempotency_key=ANSWER
    )
    try:
        journal.write(put, synced=True)
    except WriteRefused:
        raise _waits_for_nothing(run_id, name) from None  # it ended between our look and the write
    lives = row.owner_id is not None and row.run_state == "RUNNING" and journal.is_owner_alive(row.owner_id)
    return InputGiven(run_id, row.task_run_id, put.is_new, request.kind == "pause" and lives)


def chosen_request(
    connection: sqlite3.Connection, run_id: int, name: str, key: str | int | None
) -> tuple[OpenRequest, Request]:
    """Return the request of a run that is meant. Raises NotPausedError, and UsageError where there are several."""
    found = open_requests(connection, run_id)
    if key is not None:
        found = [each for each in found if str(key) in (each[1].key, str(each[0].task_run_id))]
    if not found:
        raise _waits_for_nothing(run_id, name)
    if len(found) > 1:
        lines = "".join(
            f"\n    {request.key or row.task_run_id}: {fields_text(parsed_schema(row)) or 'to go on'}" for row, request in found
        )
        raise UsageError(
            f"Flow run {run_id} '{name}' waits for {len(found)} inputs, so say for which this is: --input-key KEY on the "
            f"command line, key=... in Python. They are, by key:{lines}"
        )
    return found[0]


def _waits_for_nothing(run_id: int, name: str) -> NotPausedError:
    return NotPausedError(
        f"Flow run {run_id} '{name}' waits for no input now: it has been given already, or the run has not come so far, or it "
        "has ended. See what waits: wfengine inputs ls",
        flow_run_id=run_id,
    )


def bare_value(value: object, schema: object) -> object:
    """Return what stands in {"value": ...}, as Prefect has it given for an input that has no fields."""
    if schema is not None and isinstance(value, dict) and value.keys() == {"value"} and problems_of(value, schema):
        return value["value"]
    return value


def check_input(value: object, row: OpenRequest) -> None:
    """Raise InvalidInputError, which names the fields, for an input that does not fit the recorded schema."""
    schema = parsed_schema(row)
    if row.schema is None:
        if value not in (None, {}):
            raise InvalidInputError(
                f"Flow run {row.flow_run_id} '{row.run_name}' waits for somebody to say that it goes on, and takes no input. "
                f"Type: wfengine resume {typed(row.flow_run_id, row.run_name)}"
            )
        return
    if not is_json_exact(value):
        raise InvalidInputError(f"An input must be plain data, as JSON has it, or the model's instance; not {value!r}.")
    problems = problems_of(value, schema)
    if problems:
        raise InvalidInputError(
            f"The input does not fit what flow run {row.flow_run_id} '{row.run_name}' asks for, and was not given:"
            + "".join(f"\n    {problem}" for problem in problems)
            + f"\nIt asks for: {fields_text(schema)}\n{how_to_answer(row.flow_run_id, row.run_name, schema)}"
        )


def how_to_answer(run_id: int, name: str, schema: object) -> str:
    """Return the command that answers a request."""
    command = f"wfengine resume {typed(run_id, name)}"
    return command if schema is None else f"{command} --input '{example_text(schema)}'"


def plain_input(value: object) -> object:
    """Return what somebody gave in Python as plain data: a model's instance by its fields."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        return value
    plain: object = dump(mode="json", by_alias=True)
    return plain


def input_of_texts(texts: Sequence[str], schema: object) -> object:
    """Return the input that somebody typed: one JSON text, or NAME=VALUE for each field. Raises InvalidInputError.

    A field that is to be text is taken as it stands; others are JSON where they can be.
    """
    if len(texts) == 1:
        whole = _json_or(texts[0], _NOTHING)
        if whole is not _NOTHING and not (type_text(schema, schema) == "string" and not isinstance(whole, str)):
            return whole
        if not fields_of(schema):
            return texts[0]
    kinds = {name: kind for name, kind, _ in fields_of(schema)}
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidInputError(
                f"An input is JSON, or NAME=VALUE for each field, and not {text!r}. Fields: {fields_text(schema)}"
            )
        found[name.strip()] = value if kinds.get(name.strip()) == "string" else _json_or(value, value)
    return found


_NOTHING = object()


def _json_or(text: str, otherwise: object) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return otherwise
    return found
