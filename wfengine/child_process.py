"""A process that is made for one run, as its supervisor sees it: started, told what to do, waited for, killed.

It is started afresh and not forked: a process with threads, such as a daemon, cannot be forked safely. It leads a session and
process group of its own, so that it is killed together with what it started.

Its standard input is a pipe that carries the orders, and shows it by its end that the supervisor is gone: it kills itself and
its group then. Its standard output and standard error are one other pipe (`transcripts`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wfengine_journal.threads import start_thread

#: What a process that is to serve one run executes. The path of its imports comes first, since it finds wfengine by that.
BOOTSTRAP = """
import json, os, sys
def read(size):
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data
settings = json.loads(read(int(read(8))))
sys.path[:] = settings["sys_path"]
from wfengine.isolated_child import main
main(settings)
"""

#: The exit code of a process that left its run alone: another process has it, or its queue does not let it begin yet.
EXIT_NOT_BEGUN = 75
#: What a process may have beyond its memory limit once its run is over, in bytes.
RESERVE_BYTES = 32 << 20
#: What a process says of its run in notes: it waits for another background run, and it does not wait any more.
WAITS = "waits"
GOES_ON = "goes-on"
#: The exit code of a process that could not go on for want of memory.
EXIT_NO_MEMORY = 71


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process is told before it is given a run."""

    sys_path: Sequence[str]
    journal: str
    durability: str
    preload: Sequence[str]
    token: str
    parent: int


@dataclass(frozen=True, slots=True)
class Order:
    """What a process is to do: one run."""

    run_id: int
    memory_limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: `exit_code` negative for a signal, null where another took it; peak memory null: not known."""

    exit_code: int | None
    peak_memory_bytes: int | None


class ChildProcess:
    """One started process. All methods may be called from any thread."""

    def __init__(self, journal: str, durability: str, preload: Sequence[str]) -> None:
        """Start it. Raises OSError where the system has no more processes or descriptors."""
        self.token = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._is_over = False
        self._popen = subprocess.Popen(
            # -P: a module beside the caller's working directory must not come before Python's own.
            [sys.executable, "-P", "-c", BOOTSTRAP],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            start_new_session=True,
        )  # fmt: skip
        self.pid = self._popen.pid
        assert self._popen.stdout is not None
        self.output = self._popen.stdout.fileno()
        settings = Settings(
            [str(Path(entry).absolute()) for entry in sys.path], journal, durability, tuple(preload), self.token, os.getpid()
        )
        text = json.dumps(asdict(settings)).encode()
        self._say(b"%08d" % len(text) + text)

    def order(self, order: Order) -> None:
        """Tell it its run. One that is dead by now does not hear it, and is found to have ended."""
        self._say(json.dumps(asdict(order)).encode() + b"\n")

    def _say(self, what: bytes) -> None:
        assert self._popen.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            while what:
                what = what[self._popen.stdin.write(what) or 0 :]

    def dismiss(self) -> None:
        """Let go of it: it ends as soon as it has no run; with one, at once, as it does when the supervisor dies."""
        assert self._popen.stdin is not None
        with self._lock:
            self._popen.stdin.close()

    def terminate(self) -> None:
        """Ask it to stop: its run unwinds, and can be resumed."""
        self._signal(signal.SIGTERM, group=False)

    def kill(self) -> None:
        """End it, and what it started."""
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM), group=True)

    def _signal(self, number: int, *, group: bool) -> None:
        with self._lock:  # never after it was waited for: its number may be another process's by then
            if self._is_over:
                return
            if sys.platform == "win32":
                self._popen.terminate()
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses a signal to a dead group
                (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> Death:
        """Wait for its end, end what it left behind in its group, and return how it ended."""
        if sys.platform == "win32":
            code: int | None = self._popen.wait()
            peak = None
        else:
            if hasattr(os, "waitid"):  # leaves it a zombie, so that its group cannot be another one yet
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                self.kill()
            code, peak = self._reap()
        with self._lock:
            self._is_over = True
        return Death(code, peak)

    def _reap(self) -> tuple[int | None, int | None]:
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:  # somebody in this process waits for every child
            self._popen.returncode = 0
            return None, None
        code = os.waitstatus_to_exitcode(status)
        self._popen.returncode = code
        unit = 1 if sys.platform == "darwin" else 1024
        return code, usage.ru_maxrss * unit

    def close_output(self) -> None:
        """Give back the pipe of its output, which nobody reads any more."""
        assert self._popen.stdout is not None
        self._popen.stdout.close()

    def forget(self) -> None:
        """In a forked child of the supervisor's process: drop the pipes, whose ends mean something to the process."""
        for pipe in (self._popen.stdin, self._popen.stdout):  # without the lock: a thread that had it is not here
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._popen.returncode = 0  # it is not this process's child


def peak_memory_bytes(pid: int | None = None) -> int | None:
    """Return the most memory that a process, or this one, has had; None where the system does not tell.

    Not what `getrusage` says: Linux counts in what the parent had when it started the process.
    """
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    except OSError:
        return counted_memory_bytes() if pid is None else None


def counted_memory_bytes() -> int | None:
    """Return what the system will tell this process's parent about its memory, if it ended now."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit_memory(limit_bytes: int) -> bool:
    """Let allocations of this process fail beyond a limit; False where the system cannot do that.

    RLIMIT_DATA counts what the process can write to and shares with nobody, on Linux. The address space (RLIMIT_AS) would
    also count every library and mapped file, which is many times more.
    """
    if sys.platform != "linux":
        return False  # macOS accepts the limit, and lets everything pass
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_DATA, (min(limit_bytes, most), min(limit_bytes + RESERVE_BYTES, most)))
    return True


def use_memory_reserve() -> None:
    """Let this process have a little more than its limit, to end as it should."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def die_with_the_supervisor(descriptor: int) -> None:
    """Have this process group killed as soon as the other end of a pipe is closed, whatever this process does then.

    On Linux the kernel does it, even while code outside of Python holds the interpreter's lock. Elsewhere a thread does.
    """
    if not _kernel_watches(descriptor):
        start_thread("wfengine-lifeline", lambda: _watch(descriptor))


def _kernel_watches(descriptor: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl
    import select

    try:
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:  # something that is not quite Linux
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if any(event & select.POLLHUP for _, event in poll.poll(0)):  # it was closed before the kernel was asked
        _end_the_group()
    return True


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    _end_the_group()


def _end_the_group() -> None:
    if sys.platform == "win32":
        os._exit(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)
