"""How a flow ended, in a form in which two runs of it can be compared, also when they were of two processes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wfengine.identity import describe_inputs
from wfengine_journal.codec import preview

if TYPE_CHECKING:
    from wfengine.states import State

#: Characters of a result that are shown to a person.
SHOWN_CHARACTERS = 300

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class Ending:
    """How the flow ended; `key` is equal for equal results."""

    state: str
    key: str
    shown: str
    is_final: bool = True  # False: the run is parked, or the engine refused

    def difference(self, other: Ending, known: str) -> str | None:
        """Return how `other` ended otherwise than this one, which is called `known`; None: it did not."""
        if self.state != other.state:
            return f"the run ended as {other.state} ({other.shown}), {known} as {self.state} ({self.shown})."
        if self.key != other.key:
            return f"the result is {other.shown}, {known} {self.shown}."
        return None


def describe_state(state: State[object]) -> Ending:
    """Return how a flow ended: by the canonical form of its result, else by what is shown of it."""
    name, is_final = state.name or state.type.value, state.is_final()
    if not is_final:
        return Ending(name, "", state.message or "", is_final=False)
    value = state.data if state.error is None else state.error  # not its result(), which is awaited in an event loop
    if isinstance(value, BaseException):
        text = f"{type(value).__qualname__}: {value}"
        return Ending(name, text, text)
    inputs = describe_inputs({"result": value})
    shown = _ADDRESS.sub("", preview(value, SHOWN_CHARACTERS))
    return Ending(name, shown if inputs.opaque else inputs.key.hex(), shown)
