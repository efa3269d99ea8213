"""A flow run's parameters, as they stand in the journal and as a resume gets them back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from wfengine_journal.codec import encode, is_json_exact, json_text, preview
from wfengine_journal.errors import ParameterError, ValueNotStorableError
from wfengine_journal.guarding import holds
from wfengine_journal.records import FlowRunRow
from wfengine_journal.transitions import Argument

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine_journal.store import Journal

#: A flow parameter of at most so many characters of JSON stands in the run's row.
INLINE_PARAMETER = 4096


def describe_parameters(owner: str, arguments: dict[str, object], *, needed_by: str = "a resume") -> tuple[str, list[Argument]]:
    """Return the parameters as the row's JSON text, and those that do not stand in it in full.

    A parameter that cannot be stored is refused: a resume could not start without it. `owner`: "flow 'etl'".
    """
    shown: dict[str, object] = {}
    stored: list[Argument] = []
    for name, value in arguments.items():
        text = json_text(value) if is_json_exact(value) else None
        if text is not None and len(text) <= INLINE_PARAMETER and not holds(text.encode()):
            shown[name] = value
            continue
        try:
            encoded = encode(value, f"parameter '{name}' of {owner}")
        except ValueNotStorableError as error:
            raise ParameterError(
                f"{owner[0].upper()}{owner[1:]} was not started: parameter '{name}' ({type(value).__qualname__}) cannot be "
                f"stored, and {needed_by} would need it. Pass plain data, a path or a name instead. ({error})"
            ) from error
        stored.append(Argument(name, encoded.python_type, encoded))
        shown[name] = preview(value)
    return json_text(shown), stored


def restored_arguments(flow: AnyFlow, journal: Journal, row: FlowRunRow) -> dict[str, object]:
    """Return a recorded run's parameters, bound to the flow as it is now. Raises ParameterError that says how to go on."""
    try:
        return flow.parameters.bind(*flow.parameters.unbind(restore_parameters(journal, row)))
    except ParameterError as error:
        raise ParameterError(
            f"Flow run {row.id} '{row.name}' was started with {row.parameters}, which does not fit the flow any more: {error} "
            "Nothing was changed. Give a new parameter a default, or restore the old one, and resume again."
        ) from error


def restore_parameters(journal: Journal, row: FlowRunRow) -> dict[str, object]:
    """Return a recorded run's parameters as they were given."""
    arguments: dict[str, object] = json.loads(row.parameters)
    for name, value_hash in journal.records.list_arguments(row.id).items():
        arguments[name] = journal.records.load_value(value_hash, f"parameter '{name}' of flow run {row.id} '{row.name}'")
    return arguments
