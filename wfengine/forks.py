"""Make a new flow run of what another one recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from wfengine.recovery import load_flow
from wfengine.reruns import calls_text
from wfengine.stored_parameters import describe_parameters, restore_parameters
from wfengine_journal.corrections import find_calls
from wfengine_journal.errors import ParameterError, UsageError
from wfengine_journal.forking import ForkFlowRun
from wfengine_journal.names import new_run_name
from wfengine_journal.store import Journal
from wfengine_journal.transitions import Argument

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow

#: An id that no call has yet.
_ALL = 2**62


class Fork(NamedTuple):
    """A new flow run, and how many calls it has from the original."""

    flow_run_id: int
    name: str
    copied: int


def fork_run(
    journal: Journal, run_id: int, *, before: str | None = None, parameters: Mapping[str, object] | None = None,
    flow: AnyFlow | None = None,
) -> Fork:  # fmt: skip
    """Make a new flow run with the outcomes that another one recorded; the original is left as it was. Committed at once.

    `before`: a task; its first call and all that was called after it are left out, and run in the fork. `parameters` take the
    place of the original's. The fork waits to be resumed. Raises UsageError for a subflow's run and for a task that was not
    called, ParameterError for parameters that do not fit.
    """
    row = journal.records.get_flow_run(run_id)
    if row.parent_task_run_id is not None:
        raise UsageError(
            f"Flow run {row.id} '{row.name}' is a subflow of another run. Fork that one: wfengine runs show {row.id}"
        )
    before_id = _ALL
    if before is not None:
        found = find_calls(journal.records, row.id, before, None, None)
        if not found:
            calls = calls_text(journal, row.id)
            raise UsageError(f"Flow run {row.id} '{row.name}' has no call of {before}. Its calls: {calls}.")
        before_id = found[0]
    text: str | None = None
    stored: list[Argument] = []
    if parameters:
        code = flow or load_flow(journal, row)
        unknown = sorted(set(parameters) - set(code.parameters.names))
        if unknown:
            raise ParameterError(
                f"Flow '{code.name}' has no parameter {', '.join(unknown)}. "
                f"It has: {', '.join(code.parameters.names) or 'none'}."
            )
        arguments = code.validate_parameters({**restore_parameters(journal, row), **parameters})
        text, stored = describe_parameters(code.parameters.owner, arguments)
    name = new_run_name(journal.records.is_run_name_taken)
    change = ForkFlowRun(row.id, before_id=before_id, name=name, parameters=text, arguments=stored, at=journal.clock.now_text())
    journal.write(change, synced=True)
    return Fork(change.flow_run_id, name, change.copied)
