"""`assert_replays`: would today's code, on a resume, go the way that the recorded runs went?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from wfengine.recovery import load_flow
from wfengine.testing.rehearsal import ENDED, Rehearsed, rehearse, rehearsing
from wfengine_journal.copies import CallText, RunHead, list_run_heads
from wfengine_journal.errors import DriftError, UsageError, WfengineError
from wfengine_journal.store import Journal

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow

#: Runs that do not replay are told one by one, up to so many; and so many calls of one.
SHOWN_RUNS = 10
SHOWN_CALLS = 5
#: Characters of a call's inputs that are shown.
SHOWN_INPUTS = 200

Flows: TypeAlias = "AnyFlow | str | Iterable[AnyFlow | str]"


def assert_replays(
    journal: str | os.PathLike[str], *, flow: Flows | None = None, runs: Iterable[int | str] | None = None
) -> int:
    """Replay every recorded run against today's code; raise AssertionError that says, run by run, where the code differs.

    No task is executed, no hook called and nothing written: each run is replayed in a copy of the journal. The bodies of the
    flows do run. What counts: a call with other inputs, a call that a completed run did not make, a recorded call that is not
    made any more, another result or exception. A run that has not ended is replayed as far as it came.

    `flow`: only its runs; a flow object, or several, are used as they are, while other runs are of code that is found as a
    resume finds it. `runs`: only these, by id or name. Returns how many runs were replayed; UsageError if there are none.
    """
    given = _listed(flow)
    objects = {each.name: each for each in given if not isinstance(each, str)}
    names = {each if isinstance(each, str) else each.name for each in given}
    with rehearsing(Path(journal).absolute()) as copy:
        heads = list(_chosen(list_run_heads(copy.records), names, None if runs is None else set(runs)))
        if not heads:
            raise UsageError(
                f"There is no such run in {journal}, so nothing was replayed. See: wfengine runs ls --journal {journal}"
            )
        problems = [text for head in heads if (text := _problem(copy, head, objects)) is not None]
    if problems:
        shown = "\n".join(problems[:SHOWN_RUNS])
        more = f"\n... and {len(problems) - SHOWN_RUNS} more" if len(problems) > SHOWN_RUNS else ""
        raise AssertionError(f"{len(problems)} of {len(heads)} recorded runs do not replay with today's code:\n{shown}{more}")
    return len(heads)


def _listed(flow: Flows | None) -> list[AnyFlow | str]:
    if flow is None:
        return []
    if isinstance(flow, str) or hasattr(flow, "__wfengine_flow__"):
        return [cast("AnyFlow | str", flow)]
    return list(flow)


def _chosen(heads: list[RunHead], names: set[str], runs: set[int | str] | None) -> Iterator[RunHead]:
    for head in heads:
        if names and head.flow_name not in names:
            continue
        if runs is not None and head.id not in runs and head.name not in runs:
            continue
        if head.is_importable or head.flow_name in names:  # the others are subflows that only their parent can make again
            yield head


def _problem(copy: Journal, head: RunHead, objects: Mapping[str, AnyFlow]) -> str | None:
    try:
        flow = objects.get(head.flow_name) or load_flow(copy, copy.records.get_flow_run(head.id))
    except WfengineError as error:
        found = f"its flow cannot be found, so give it as flow=...: {error}"
    else:
        reason = judge(rehearse(copy, head.id, flow))
        if reason is None:
            return None
        found = reason
    return f"- run {head.id} '{head.name}' of flow '{head.flow_name}' ({head.state}): {found}"


def judge(rehearsed: Rehearsed) -> str | None:
    """Return the first thing in which a replay goes another way than the recorded run, None if it does not."""
    if isinstance(rehearsed.error, DriftError):
        return _drift_text(rehearsed.error)
    if rehearsed.error is not None:
        return f"{type(rehearsed.error).__name__}: {rehearsed.error}"
    stop, ended = rehearsed.stop, rehearsed.row.state in ENDED
    if stop is not None:
        call = f"{stop.task}({_shown(stop.inputs)})" if stop.inputs else f"task '{stop.task}'"
        if stop.unclaimed:
            new = ", which is not recorded," if stop.is_new else ""
            return f"it comes to {call}{new} without having called {_calls(stop.unclaimed)} as the recorded run did before."
        if ended:
            what = "which the recorded run did not call" if stop.is_new else "which would run again"
            return f"it calls {call}, {what}."
        return None
    if rehearsed.orphans:
        return f"it ends without calling {_calls(rehearsed.orphans)} as the recorded run did."
    if rehearsed.recorded is not None and rehearsed.ending is not None:
        return rehearsed.recorded.difference(rehearsed.ending, "recorded")
    return None


def _calls(calls: tuple[CallText, ...]) -> str:
    shown = ", ".join(f"{call.task}({_shown(call.inputs)})" for call in calls[:SHOWN_CALLS])
    return shown if len(calls) <= SHOWN_CALLS else f"{shown} and {len(calls) - SHOWN_CALLS} more"


def _shown(inputs: str) -> str:
    text = inputs.removeprefix("{").removesuffix("}")
    return text if len(text) <= SHOWN_INPUTS else text[:SHOWN_INPUTS] + "…"


def _drift_text(error: DriftError) -> str:
    """Return which call does not match and the differing arguments, without the commands, which are for a parked run."""
    head, *differences = str(error).partition("\nNothing was run")[0].splitlines()
    call = head.partition("is parked: ")[2].partition(", though")[0] or head
    return "\n".join([f"{call}:", *differences])
