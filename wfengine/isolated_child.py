"""What the process does that is made for one run: it gets ready, waits to be told the run, claims it, and lives it.

It is a process like any other that executes runs, with an owner row of its own. Its supervisor (`isolation`) starts it, and
journals how it ended. Nothing of the user's is loaded before it is told its run, so the run uses the code as it is then.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import IO, NoReturn, cast

from wfengine.child_process import (
    EXIT_NO_MEMORY,
    EXIT_NOT_BEGUN,
    GOES_ON,
    WAITS,
    Order,
    counted_memory_bytes,
    die_with_the_supervisor,
    limit_memory,
    peak_memory_bytes,
    use_memory_reserve,
)
from wfengine.distributed_futures import current_place
from wfengine.flow_engine import How, take_up
from wfengine.journals import Durability, use_journal
from wfengine.listeners import close_listeners
from wfengine.logging.handlers import install
from wfengine.recovery import load_flow, perform
from wfengine.transcripts import note
from wfengine_journal.block_transitions import list_woken
from wfengine_journal.codec import encode_error
from wfengine_journal.errors import OwnershipLostError, RunHalted, RunOwnedError, UsageError, WfengineError
from wfengine_journal.guarding import POST
from wfengine_journal.queued_runs import RefuseRun
from wfengine_journal.queues import QueueAdmission
from wfengine_journal.records import FlowRunRow
from wfengine_journal.run_transitions import Admission
from wfengine_journal.store import Journal, close_all
from wfengine_journal.tickets import WriteRefused

_logger = logging.getLogger("wfengine.isolation")

#: What executing a run imports when it first needs it; here it is there already.
_NEEDED_SOON = ("cloudpickle", "ctypes", "importlib.resources", "json", "wfengine.runners.threads", "wfengine.logging.loggers")


class Sigterm(KeyboardInterrupt):
    """The process was asked to stop: user code unwinds as for Ctrl-C, and the run can be resumed."""


def main(settings: dict[str, object]) -> NoReturn:
    """Do what the supervisor says on standard input. The process ends with this."""
    lifeline, orders = _take_standard_input()
    stdout, token = _prepare_streams(), str(settings["token"])
    sys.argv = ["wfengine-run", f"(child of process {settings['parent']})"]  # what its owner row says it is
    journal = use_journal(str(settings["journal"]), durability=cast(Durability, settings["durability"]))
    owner_id = journal.owner_id
    install()
    for name in (*_NEEDED_SOON, *cast("list[str]", settings["preload"])):
        _preload(name)
    _write(stdout, note(token, "ready", owner_id, counted_memory_bytes() or 0))
    line = orders.readline()
    if not line:
        close_all()
        os._exit(0)
    order = Order(**json.loads(line))
    die_with_the_supervisor(lifeline)
    if order.memory_limit_bytes is not None and not limit_memory(order.memory_limit_bytes):
        _logger.warning("flow run %d: this system cannot limit the memory of a process, so it has no limit.", order.run_id)
    current_place.set(_Place(stdout, token))
    _end(_serve(journal, order.run_id), stdout, token)


class _Place:
    """The place that the run takes among those of the supervisor; see `distributed_futures.Place`."""

    runner: object = None

    def __init__(self, stdout: int, token: str) -> None:
        self._stdout = stdout
        self._token = token

    def leave(self) -> None:
        _write(self._stdout, note(self._token, WAITS))

    def come_back(self) -> None:
        _write(self._stdout, note(self._token, GOES_ON))


def _preload(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # what a module does that is not ours; a run that needs it will say so
        _logger.warning("module %s could not be loaded beforehand: %s: %s", name, type(error).__name__, error)


def _take_standard_input() -> tuple[int, IO[bytes]]:
    """Return the pipe that orders come from, moved out of the way of user code, which finds an empty standard input."""
    lifeline = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return lifeline, os.fdopen(lifeline, "rb", buffering=0, closefd=False)


def _prepare_streams() -> int:
    """Print line by line, show where a fault of the machine code came from, and stop for SIGTERM; return a descriptor."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]  # they are files here
    POST.hides_output = True  # it is journaled
    faulthandler.enable(all_threads=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _on_sigterm)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the thread that started this process may have blocked some
    return os.dup(1)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler) and handler is not signal.default_int_handler:
        handler(number, frame)  # an event loop's own, which cancels the flow
        return
    raise Sigterm


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # user code may have closed every descriptor there is
        while data:
            data = data[os.write(descriptor, data) :]


# ------------------------------------------------------------------------------------------- the run


def admission(journal: Journal) -> Admission:
    """Return what decides in the run's claim whether it may begin now."""
    return QueueAdmission(journal.clock)


def _serve(journal: Journal, run_id: int) -> int | None:
    """Live the run; return the exit code, None where SIGTERM ended it."""
    row = journal.records.get_flow_run(run_id)
    try:
        return _live(journal, row)
    except (RunOwnedError, OwnershipLostError) as error:
        _logger.info("flow run %d is left to its owner: %s", run_id, error)
        return EXIT_NOT_BEGUN
    except KeyboardInterrupt:
        return None
    except WfengineError as error:
        _say(f"{type(error).__name__}: {error}")
        return 0 if _refuse(journal, row, error) else 1
    except BaseException as error:
        use_memory_reserve()
        traceback.print_exc()
        return EXIT_NO_MEMORY if _came_of_no_memory(error) else 1


def _live(journal: Journal, row: FlowRunRow) -> int:
    if row.state in ("COMPLETED", "FAILED", "CANCELLED"):
        return EXIT_NOT_BEGUN  # it ended after somebody saw that it waits
    flow = load_flow(journal, row)
    has_slept = row.state == "PAUSED" and row.id in list_woken(journal.records, journal.clock.now_text())
    how = How("recovery", "none", by_person=False, is_found=not has_slept, admission=admission(journal))
    try:
        perform(flow, take_up(flow, journal, row.id, how))
    except RunHalted as signal_:
        if _came_of_no_memory(signal_.error):
            return EXIT_NO_MEMORY
        _say(str(signal_.error))  # it is parked, or lost; else the journal cannot be written, and its row says RUNNING still
    return 0


def _came_of_no_memory(error: BaseException | None) -> bool:
    """Tell whether the engine met an error because memory was refused: what the user's code met is recorded as its failure."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _refuse(journal: Journal, row: FlowRunRow, error: WfengineError) -> bool:
    """End a run that cannot begin, as FAILED with the reason; False if it was begun earlier, and stays as it is."""
    if row.epoch > 0 or row.state != "SCHEDULED" or not isinstance(error, UsageError):
        return False
    change = RefuseRun(row.id, version=row.version, error=encode_error(error), at=journal.clock.now_text())
    try:
        journal.write(change, synced=True)
    except WriteRefused:
        return False
    return True


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _end(code: int | None, stdout: int, token: str) -> NoReturn:
    """End the process without waiting for threads that user code still runs on. What is queued is committed before."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it does end
    use_memory_reserve()
    try:
        close_listeners()
        close_all()
    except WfengineError as error:
        _say(f"{type(error).__name__}: {error}")
        code = code or 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # whatever user code put there
            stream.flush()
    _write(stdout, note(token, "peak", peak_memory_bytes() or 0))
    if code is None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(code or 0)
