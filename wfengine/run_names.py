"""The name that a new run gets: from its template or function, which may ask `wfengine.runtime` about the run, else made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wfengine.ids import render_run_name
from wfengine.scopes import LiveRun, naming
from wfengine_journal.names import new_run_name

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.task_engine import Call
    from wfengine_journal.store import Journal


def flow_run_name(
    flow: AnyFlow, journal: Journal, arguments: Mapping[str, object], tags: frozenset[str], parent: Call | None
) -> str:
    """Return the name of a flow run that is about to be created."""
    return given_run_name(flow, journal, arguments, tags, parent) or new_run_name(journal.records.is_run_name_taken)


def given_run_name(
    flow: AnyFlow, journal: Journal, arguments: Mapping[str, object], tags: frozenset[str], parent: Call | None
) -> str | None:
    """Return the name that the flow's author gives to a run; None or nothing where one has to be made up."""
    made = None
    if callable(flow.flow_run_name):
        run = LiveRun(journal, flow, 0, "", epoch=1, version=0)
        run.parameters, run.tags, run.parent = dict(arguments), tags, None if parent is None else parent.run
        with naming(run, None):
            made = render_run_name(flow.flow_run_name, arguments, f"flow '{flow.name}'")
    elif flow.flow_run_name is not None:
        made = render_run_name(flow.flow_run_name, arguments, f"flow '{flow.name}'")
    return made


def task_run_name(call: Call) -> str | None:
    """Return the name of a task run that is about to be written; None where only its id tells it apart."""
    name, owner = call.callee.run_name, f"task '{call.callee.name}'"
    if name is None:
        return None
    if not callable(name):
        return render_run_name(name, call.arguments, owner)
    with naming(call.run, call):
        return render_run_name(name, call.arguments, owner)
