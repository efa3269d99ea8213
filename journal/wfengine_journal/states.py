"""State types, their names, and the one table of legal transitions.

The types and names are Prefect's. A state of a run is (type, name, message, timestamp); the type decides what the
engine does, the name tells a reader more. SQL that performs a transition repeats its from-states in the WHERE clause.
"""

from __future__ import annotations

from enum import StrEnum


class StateType(StrEnum):
    """What a run is doing. The text is what stands in the journal."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"


#: A run in one of these has ended. CRASHED has ended too, but can be resumed.
TERMINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})

#: Every name that wfengine itself gives, by type; the first is the default name of the type.
NAMES: dict[StateType, tuple[str, ...]] = {
    StateType.SCHEDULED: ("Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot"),
    StateType.PENDING: ("Pending", "NotReady", "Rerun", "Forked", "Imported"),
    StateType.RUNNING: ("Running", "Retrying", "Resuming", "Pausing"),
    StateType.PAUSED: ("Paused", "Suspended", "Drifted", "InDoubt"),
    StateType.CANCELLING: ("Cancelling",),
    StateType.COMPLETED: ("Completed", "Cached", "RolledBack", "Closed", "Set", "ContinuedAsNew"),
    StateType.FAILED: ("Failed", "TimedOut"),
    StateType.CANCELLED: ("Cancelled",),
    StateType.CRASHED: ("Crashed", "Interrupted"),
}

_S = StateType

#: to-type -> from-types. None stands for "no row yet". Both flow runs and task runs obey it.
TRANSITIONS: dict[StateType, frozenset[StateType | None]] = {
    # A run that was paused while it waited in a queue, or after its process died, waits again when it is unpaused.
    _S.SCHEDULED: frozenset({None, _S.RUNNING, _S.PENDING, _S.PAUSED}),
    # From an end: a person took the outcome back (name Rerun).
    _S.PENDING: frozenset({None, _S.SCHEDULED, _S.PAUSED, _S.CRASHED, _S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.PENDING}),
    # Of the completed, only these may run again: a stream that its consumer closed (name Closed), when it is asked for more;
    # and what the rollback of a transaction undid (name RolledBack).
    _S.RUNNING: frozenset({None, _S.COMPLETED, _S.PENDING, _S.SCHEDULED, _S.PAUSED, _S.CRASHED, _S.FAILED, _S.CANCELLED}),
    # A call parked as in doubt is parked again, or given up, by a resume that nobody resolved it for.
    # So is one that was cut off when its run was cancelled, and that a later resume comes to.
    _S.PAUSED: frozenset({_S.RUNNING, _S.PENDING, _S.SCHEDULED, _S.CRASHED, _S.PAUSED, _S.CANCELLED}),
    _S.CANCELLING: frozenset({_S.RUNNING, _S.PENDING, _S.SCHEDULED, _S.PAUSED}),
    # A call that is about to run, again or for the first time, may be answered from the cache instead.
    _S.COMPLETED: frozenset(
        {_S.COMPLETED, _S.RUNNING, _S.PENDING, _S.PAUSED, _S.CRASHED, _S.SCHEDULED, _S.FAILED, _S.CANCELLED}
    ),
    _S.FAILED: frozenset({_S.RUNNING, _S.PENDING, _S.SCHEDULED, _S.CRASHED, _S.PAUSED, _S.CANCELLED}),
    _S.CANCELLED: frozenset({_S.RUNNING, _S.PENDING, _S.SCHEDULED, _S.PAUSED, _S.CANCELLING, _S.CRASHED}),
    _S.CRASHED: frozenset({_S.RUNNING, _S.PENDING, _S.SCHEDULED, _S.PAUSED, _S.CANCELLING}),
}


def default_name(state: StateType) -> str:
    """Return the name a state of this type has unless it was given another."""
    return NAMES[state][0]
