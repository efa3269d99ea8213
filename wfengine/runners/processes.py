"""Run the code of tasks in processes of this machine, so that tasks that keep the interpreter busy run at the same time.

Each process is a fresh interpreter that loads what it is sent. It is not forked: a process with threads, such as one that
writes a journal, cannot be forked safely, and what a forked child inherits of locks and open files has broken databases.
Nor is the user's script run again in it, as the `spawn` of `multiprocessing` does.

A process is started when there is more to do than there are processes, stays for the tasks to come, and ends with the flow
run. It has one task at a time. It leads a process group of its own; when the flow's process dies, the kernel kills it and
what it started, so that nothing works on beside a resumed run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from wfengine.runners.mailbox import Gone, Mailbox
from wfengine.runners.messages import MAIN, Ask, Done, Halted, Lost, Order, Tell, dump
from wfengine.runners.process_worker import BOOTSTRAP, SAYS_DONE, SAYS_TELL, pack, unpack
from wfengine.runners.remote import Line, RemoteTaskRunner, Workers
from wfengine_journal.errors import UsageError
from wfengine_journal.store import Journal
from wfengine_journal.threads import start_thread

#: How long the code of a task that was given up may take to unwind before its process is killed, in seconds.
GRACE_SECONDS = 5.0


#: A process keeps parcels of so many bytes for the orders to come, and in any case those of its present one.
KEPT_PARCEL_BYTES = 256 << 20


class ProcessTaskRunner(RemoteTaskRunner):
    """At most `max_workers` tasks at a time, each in a process; by default as many as there are processors.

    A task that was cancelled or ran longer than its limit is stopped: its code is unwound by an exception, and killed with
    its process if that takes longer than `GRACE_SECONDS`. The death of a process costs the task that it ran, which fails
    with WorkerDiedError, or is tried again if it has retries.
    """

    given_up = "Its process was stopped."

    def __init__(self, max_workers: int | None = None, *, max_in_flight: int | None = None) -> None:
        super().__init__(_processors() if max_workers is None else max_workers, max_in_flight=max_in_flight)

    def open_workers(self, journal: Journal) -> Workers:
        """See RemoteTaskRunner."""
        if sys.platform == "win32":
            raise UsageError("ProcessTaskRunner() does not run on Windows yet. Use threads there, or Dask.")
        return _Processes()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Processes:
    """The processes of one flow run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: deque[_Process] = deque()
        self._all: set[_Process] = set()
        self._is_closed = False

    def begin(self, line: Line, order: Order, parcels: Mapping[str, bytes], hints: Mapping[str, object]) -> None:
        """See Workers."""
        while True:
            process = self._idle_one()
            line.worker = process
            if process.give(line, order, parcels) or process.is_new:
                process.is_new = False
                return  # a new one that is dead already is waited for like one that dies later
            self._drop(process)  # it died while it had nothing to do

    def _idle_one(self) -> _Process:
        with self._lock:
            if self._is_closed:
                raise UsageError("The runner of this flow run was closed.")
            with contextlib.suppress(IndexError):
                return self._idle.pop()  # the one that was used last: its caches are warm
            process = _Process()
            self._all.add(process)
            return process

    def receive(self, line: Line, thread: int, seconds: float | None) -> object:
        """See Workers."""
        process = cast("_Process | None", line.worker)
        return Lost("it was given up") if process is None else process.receive(thread, seconds)

    def wake(self, line: Line) -> None:
        """See Workers. It is stopped at once: whoever waits sees that when it has ended, at the latest after the grace."""
        process = cast("_Process | None", line.worker)
        if process is not None:
            self._drop(process)

    def send(self, line: Line, thread: int, answer: bytes) -> None:
        """See Workers."""
        process = cast("_Process | None", line.worker)
        if process is not None:
            process.answer(thread, answer)

    def end(self, line: Line) -> None:
        """See Workers."""
        process = cast("_Process | None", line.worker)
        line.worker = None
        if process is None:
            return
        process.release()
        with self._lock:
            if process.is_alive and not self._is_closed:
                self._idle.append(process)
                return
        self._drop(process)

    def abandon(self, line: Line) -> None:
        """See Workers."""
        process = cast("_Process | None", line.worker)
        if process is not None:
            line.worker = None
            self._drop(process)

    def _drop(self, process: _Process) -> None:
        with self._lock:
            self._all.discard(process)
        process.stop()

    def close(self) -> None:
        """See Workers."""
        with self._lock:
            self._is_closed = True
            every, self._all = self._all, set()
            self._idle.clear()
        for process in every:
            process.stop()


class _Process:
    """One worker process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        lifeline, held = os.pipe()
        self._held = held  # closed when this process ends, however it does: then the kernel kills the worker
        self._connection = Connection(ours.detach())
        self._send_lock = threading.Lock()
        self._line: Line | None = None
        self._orders = 0  # so many it was given
        self._threads: set[int] = set()  # of its that are being answered, besides the main one
        self.is_new = True
        self._has: OrderedDict[str, int] = OrderedDict()  # sizes of the parcels it was sent, those used last at the end
        self.is_alive = True
        self._is_stopped = False
        with theirs:
            self._popen = subprocess.Popen(
                # -P: a module beside the caller's working directory must not come before Python's own.
                [sys.executable, "-P", "-c", BOOTSTRAP, str(theirs.fileno()), str(lifeline)],
                stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), lifeline), start_new_session=True,
            )  # fmt: skip
        os.close(lifeline)
        settings = {"sys_path": [str(Path(entry).absolute()) for entry in sys.path]}
        with contextlib.suppress(OSError):
            self._connection.send_bytes(json.dumps(settings).encode())
        self._mailbox: Mailbox[object] = Mailbox(self._connection, self._read)
        self._is_drained = False

    def give(self, line: Line, order: Order, parcels: Mapping[str, bytes]) -> bool:
        """Give it an order; False if it is dead already, which only trying shows."""
        new = {name: data for name, data in parcels.items() if name not in self._has}
        self._line = line
        self._orders += 1
        line.forget = self._forget
        return self.is_alive and self._send(pack("order", order, new, self._let_go(parcels)))

    def _let_go(self, used: Mapping[str, bytes]) -> list[str]:
        """Note which parcels it has from now on; return the names of those that it is not to keep any longer."""
        for name, data in used.items():
            self._has[name] = len(data)
            self._has.move_to_end(name)
        gone: list[str] = []
        while sum(self._has.values()) > KEPT_PARCEL_BYTES and len(self._has) > len(used):
            gone.append(self._has.popitem(last=False)[0])
        return gone

    def release(self) -> None:
        """Its order is carried out."""
        self._line = None

    def _forget(self, thread: int) -> None:
        self._threads.discard(thread)
        self._mailbox.forget(thread)

    def answer(self, thread: int, data: bytes) -> None:
        """Answer what one of its threads asked."""
        self._send(pack("answer", thread, data))

    def _send(self, data: bytes) -> bool:
        try:
            with self._send_lock:
                self._connection.send_bytes(data)
        except (OSError, ValueError):
            return False
        return True

    def receive(self, thread: int, seconds: float | None) -> object:
        """Wait for what a thread of it says; Lost when it has ended."""
        try:
            return self._mailbox.get(thread, seconds)
        except Gone:
            self.is_alive = False
            return Lost(f"its process {self._popen.pid} {_how_it_ended(self._end())}")

    def _read(self, data: bytes) -> tuple[int, object] | None:
        kind, *what = unpack(data)
        if kind == SAYS_DONE:
            return MAIN, Done(what[0])
        if kind == SAYS_TELL:
            return MAIN, Tell(what[0])
        orders, thread, asked, has_others = what
        ask = Ask(thread, asked)
        if has_others and not self._is_drained:  # who waits for it may be busy with a question while another one asks
            self._is_drained = True
            start_thread("wfengine-worker-mail", self._mailbox.drain)
        if thread == MAIN or thread in self._threads:
            return thread, ask
        line = self._line
        if line is None or orders != self._orders:  # the task that started the thread is over
            self.answer(thread, dump(Halted("The task that started this thread is over, so nothing was done.")))
        else:
            self._threads.add(thread)
            line.attend(ask)
        return None

    def _end(self) -> int:
        """Wait for its end, killing it if it does not come by itself; return the exit code."""
        try:
            return self._popen.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGKILL)
            return self._popen.wait()

    def stop(self) -> None:
        """Let it end: at once if it has nothing to do; else its code is unwound, and after a while killed. Does not wait."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._line is None:
            self._send(pack("bye"))
        else:
            with contextlib.suppress(ProcessLookupError):
                self._popen.send_signal(signal.SIGTERM)
        start_thread("wfengine-worker-end", self._see_it_end)

    def _see_it_end(self) -> None:
        self._end()
        self._connection.close()
        os.close(self._held)

    def _signal_group(self, number: int) -> None:
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    more = ", as the system does when memory runs out" if code == -9 else ""
    return f"was ended by {name}{more}"
