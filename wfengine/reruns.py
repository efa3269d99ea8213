"""What a person asks to run again, or sets by hand, before a run is resumed: `--rerun` and `--set`.

    failed | fatal | changed     a rule
    TASK | from:TASK             every call of a task; its first call and all that the flow called after it
    TASK[KEY] | 17               calls by their call_key, by an argument's value, by NAME=VALUE; one by its id

What a rule means is decided when the call is issued (`replay`); what is chosen by name is taken back in the journal, in one
transaction, so that a resume which is cut off goes on with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from wfengine.identity import explicit_key
from wfengine_journal.codec import Encoded, encode
from wfengine_journal.corrections import TakeBackCalls, count_calls, find_calls, find_calls_from
from wfengine_journal.errors import UsageError
from wfengine_journal.records import FlowRunRow
from wfengine_journal.store import Journal
from wfengine_journal.tickets import WriteRefused

RULES = ("failed", "fatal", "changed")
_CALL = re.compile(r"(?P<task>[^\[\]]+)(?:\[(?P<key>.*)\])?", re.DOTALL)


class Asked(NamedTuple):
    """What a person asked for beside the usual."""

    words: str | None = None  # as in `execution.rerun`

    @property
    def every_failure(self) -> bool:
        """Tell whether failures that the flow had handled run again too."""
        return self.words is not None and "failed" in self.words.split()


def correct(journal: Journal, row: FlowRunRow, rerun: Sequence[str], values: Mapping[str, object]) -> Asked:
    """Take back what a person chose and set what a person set, committed at once; return what is left to the replay.

    Raises UsageError for what means no call, or while somebody executes the run; nothing is changed then.
    """
    words = {each for each in rerun if each in RULES}
    chosen = [each for each in rerun if each not in RULES]
    calls = sorted({call for each in chosen for call in _calls_of(journal, row, each)})
    settings: list[tuple[str, list[int], Encoded | None]] = [
        (target, _calls_of(journal, row, target), encode(value, f"the value set for {target}"))
        for target, value in values.items()
    ]
    corrections = [(ids, f"set by a person: {target}", encoded) for target, ids, encoded in settings]
    if calls or (row.state == "COMPLETED" and words - {"fatal"}):
        corrections.insert(0, (calls, f"to run again: {', '.join(rerun)}", None))
    for ids, message, result in corrections:
        version = journal.records.get_flow_run(row.id).version
        at = journal.clock.now_text()
        _write(journal, row, TakeBackCalls(row.id, ids, version=version, at=at, message=message, result=result))
    if calls or settings:
        words.add("chosen")
    words.discard("fatal")  # that is the rule of a resume anyway
    return Asked(" ".join(sorted(words)) or None)


def _write(journal: Journal, row: FlowRunRow, change: TakeBackCalls) -> None:
    try:
        journal.write(change, synced=True)
    except WriteRefused as refusal:
        raise UsageError(
            f"Flow run {row.id} '{row.name}' is {row.state}, or was taken up just now, so nothing of it can be taken back. "
            f"Wait for it, or stop it first: wfengine cancel {row.id}"
        ) from refusal


def calls_text(journal: Journal, flow_run_id: int) -> str:
    """Return the calls of a run and its subflows for people: each task, and how often it was called."""
    return ", ".join(f"{name} ({number})" for name, number in count_calls(journal.records, flow_run_id)) or "none"


def _calls_of(journal: Journal, row: FlowRunRow, target: str) -> list[int]:
    plain = target.removeprefix("from:")
    match = _CALL.fullmatch(plain.strip())
    if match is None:
        raise UsageError(f"{target!r} names no call. Write TASK, TASK[KEY], from:TASK, or the id of a task run.")
    task, key = match["task"].strip(), match["key"]
    found = find_calls(journal.records, row.id, task, key, None if key is None else explicit_key(key))
    if not found:
        raise UsageError(
            f"Flow run {row.id} '{row.name}' has no call {plain}. Its calls: {calls_text(journal, row.id)}. "
            f"See them with their inputs: wfengine runs show {row.id} --tasks"
        )
    return find_calls_from(journal.records, row.id, found[0]) if plain != target else found
