"""What a run is given when it is taken up: the parameters as they were recorded, or, of a deployment's run that nobody began
yet, its JSON values made what the flow takes.

A deployment's run was asked for by something that does not know the flow's code. So its values are bound and coerced, its
name is rendered, and its tags and durability are completed when it is taken up first; the claim writes that along.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from wfengine.journals import default_durability
from wfengine.references import resolved
from wfengine.run_names import given_run_name
from wfengine.stored_parameters import describe_parameters, restored_arguments
from wfengine_journal.errors import ParameterError
from wfengine_journal.records import FlowRunRow
from wfengine_journal.transitions import tags_text

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine_journal.queued_runs import Opening
    from wfengine_journal.store import Journal


def opened(flow: AnyFlow, journal: Journal, row: FlowRunRow) -> tuple[FlowRunRow, dict[str, object], Opening | None]:
    """Return a run's row as it will be, its arguments, and what its claim is to write along, if anything.

    Raises ParameterError for values that do not fit the flow; nothing was written.
    """
    if row.epoch > 0 or row.deployment_id is None:
        return row, restored_arguments(flow, journal, row), None
    from wfengine_journal.queued_runs import Opening  # only a run out of a queue has one

    try:
        given = resolved(json.loads(row.parameters), journal, f"flow run {row.id} '{row.name}'")
        arguments = flow.parameters.bind((), given)
        if flow.should_validate_parameters:
            arguments = flow.parameters.coerce(arguments)
    except ParameterError as error:
        raise ParameterError(
            f"Flow run {row.id} '{row.name}' cannot begin with {row.parameters}: {error} Correct the parameters of its "
            "deployment, or the flow, and resume the run or start another one."
        ) from error
    text, stored = describe_parameters(flow.parameters.owner, arguments)
    tags = frozenset(json.loads(row.tags or "[]")) | flow.tags
    opening = Opening(
        text, stored, given_run_name(flow, journal, arguments, tags, None) or row.name, tags_text(tags),
        flow.durability or default_durability(journal),
    )  # fmt: skip
    row = row._replace(name=opening.name, tags=opening.tags, durability=opening.durability, parameters=text)
    return row, arguments, opening
