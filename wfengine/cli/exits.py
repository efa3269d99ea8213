"""Exit codes, and which error and which state of a run has which."""

from __future__ import annotations

from enum import IntEnum

from wfengine_journal.errors import (
    DriftError,
    InDoubtError,
    JournalError,
    NotFoundError,
    OwnershipLostError,
    PausedRun,
    RunOwnedError,
    UsageError,
    WfengineError,
)


class ExitCode(IntEnum):
    """What the process says when it ends. Stable: scripts rely on it."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    WAITING = 4
    JOURNAL = 5
    CANCELLED = 6
    CRASHED = 7
    INTERRUPTED = 130


EXPLANATION = """\b
Exit codes:
  0    ok
  1    the run failed
  2    wrong usage; nothing was written
  3    no such run, or the name fits several
  4    the run is paused or waiting
  5    trouble with the journal: missing, damaged, newer format, unwritable, or the run is in another process's hands
  6    the run was cancelled
  7    the run's process died; it can be resumed, and the command is printed
  130  Ctrl-C"""

_BY_STATE = {
    "COMPLETED": ExitCode.OK,
    "FAILED": ExitCode.RUN_FAILED,
    "CANCELLED": ExitCode.CANCELLED,
    "CANCELLING": ExitCode.CANCELLED,
    "CRASHED": ExitCode.CRASHED,
}


def code_of_state(state: str) -> ExitCode:
    """Return the exit code for a run in this state; one that has not ended is waiting."""
    return _BY_STATE.get(state, ExitCode.WAITING)


def code_of_error(error: WfengineError) -> ExitCode:
    """Return the exit code for an error that ended a command."""
    if isinstance(error, NotFoundError):
        return ExitCode.NOT_FOUND
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    if isinstance(error, DriftError | InDoubtError | PausedRun):
        return ExitCode.WAITING
    if isinstance(error, JournalError | RunOwnedError | OwnershipLostError):
        return ExitCode.JOURNAL
    return ExitCode.RUN_FAILED
