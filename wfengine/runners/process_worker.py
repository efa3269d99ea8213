"""What a process of `processes` does: run one order after the other, until its flow's process is gone or says so."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, NoReturn

from wfengine.child_process import die_with_the_supervisor
from wfengine.runners.away import become_worker_process
from wfengine.runners.mailbox import Gone, Mailbox
from wfengine.runners.messages import MAIN, Order
from wfengine_journal.errors import RunHalted, UsageError

#: What a worker process executes; its arguments are the descriptors of its connection and of its lifeline.
BOOTSTRAP = """
import sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
import json
sys.path[:] = json.loads(connection.recv_bytes())["sys_path"]
from wfengine.runners.process_worker import main
main(connection, int(sys.argv[2]))
"""

#: For whom an order is, in the mailbox of a worker.
ORDERS = -1
SAYS_ASK, SAYS_TELL, SAYS_DONE = "ask", "tell", "done"


def pack(*message: object) -> bytes:
    """Return a message as it travels: its parts are plain, or bytes."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def unpack(data: bytes) -> tuple[Any, ...]:
    """Return a message that travelled between the two processes, which trust each other."""
    message: tuple[Any, ...] = pickle.loads(data)
    return message


def main(connection: Connection, lifeline: int) -> NoReturn:
    """Serve the other end of the connection. The process ends with this."""
    die_with_the_supervisor(lifeline)
    faulthandler.enable(all_threads=False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, _unwind)
    sys.argv = ["wfengine-worker"]
    become_worker_process()
    from wfengine.runners.worker import perform

    wire = _Wire(connection)
    while (order := wire.next_order()) is not None:
        try:
            data = perform(order, _OneOrder(wire), wire.parcels.__getitem__)
            wire.say(SAYS_DONE, data)
        except _Stopped:
            break
    _end()


class _Stopped(RunHalted):
    """The code that runs is to unwind, because nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__(UsageError("This task was cancelled, or ran longer than its limit; its process is stopped."))


def _unwind(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stopped


def _end() -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(0)


class _Wire:
    """The connection to the flow's process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._mailbox: Mailbox[Any] = Mailbox(connection, self._read)
        self.orders = 0  # so many it was given
        self.parcels: dict[str, bytes] = {}

    def _read(self, data: bytes) -> tuple[int, Any]:
        kind, *what = unpack(data)
        if kind == "answer":
            return what[0], what[1]
        if kind == "order":
            self.parcels.update(what[1])
            for name in what[2]:
                self.parcels.pop(name, None)
            return ORDERS, what[0]
        return ORDERS, None

    def next_order(self) -> Order | None:
        """Wait for the next order; None: it is over."""
        order: Order | None = self._get(ORDERS)
        self.orders += 1
        return order

    def _get(self, thread: int) -> Any:
        try:
            return self._mailbox.get(thread)
        except Gone:
            os._exit(1)  # the flow's process is gone, or waits no more

    def say(self, kind: str, *what: object) -> None:
        """Send a message."""
        data = pack(kind, *what)
        try:
            with self._lock:
                self._connection.send_bytes(data)
        except OSError:
            os._exit(1)

    def answer(self, thread: int) -> bytes:
        """Wait for the answer to what a thread asked."""
        answer: bytes = self._get(thread)
        if thread != MAIN:
            self._mailbox.forget(thread)
        return answer


class _OneOrder:
    """See `worker.Wire`."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._number = wire.orders

    def ask(self, thread: int, what: bytes) -> bytes:
        """See Wire."""
        # The flow's process reads for itself where only one thread asks.
        self._wire.say(SAYS_ASK, self._number, thread, what, threading.active_count() > 1)
        return self._wire.answer(thread)

    def tell(self, what: bytes) -> None:
        """See Wire."""
        self._wire.say(SAYS_TELL, what)
