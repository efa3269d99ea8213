"""A program in a process group of its own, which never outlives whoever started it, and its output as it comes.

The program begins only once the kernel was told to kill its group when this process is gone (Linux): until then it waits at a
gate, which is a shell that reads one line from its standard input. The other end of the lifeline is a pipe that only this
process has. On other systems a group whose starter was killed lives on.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from wfengine_journal.clock import SystemClock
from wfengine_journal.threads import start_thread

#: How often it is looked whether somebody asked to stop, in seconds.
LOOK_SECONDS = 0.2
#: How long a program has between being asked to end and being killed, in seconds.
END_SECONDS = 2.0
#: Bytes that are read at a time, and of a line without an end that is passed on.
READ_BYTES = 65_536
#: Bytes that are kept beyond what was asked for, so that a secret which is cut in two is never what is shown first.
SPARE_BYTES = 8192

_GATE = 'read -r _ && exec "$@"'


class Output:
    """What a program writes into one of its pipes: line by line to `tell`, and the last of it to keep."""

    def __init__(self, keep_bytes: int, tell: Callable[[str], object]) -> None:
        self._keep = keep_bytes + SPARE_BYTES
        self._tell = tell
        self._kept = bytearray()
        self._line = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        self.total += len(data)
        self._kept += data
        if len(self._kept) > 2 * self._keep:
            del self._kept[: -self._keep]
        self._line += data
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            self._tell(_text(line.removesuffix(b"\r")))
        if len(self._line) > READ_BYTES:
            self.end()

    def end(self) -> None:
        """Pass on a last line that has no end."""
        if self._line:
            self._tell(_text(bytes(self._line)))
            self._line.clear()

    @property
    def text(self) -> str:
        """The last of what was written, and a little more than was to be kept."""
        return _text(bytes(self._kept))


class Command:
    """One started program. All of it belongs to the thread that started it."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], cwd: str | None, given: bytes) -> None:
        """Start it. Raises OSError."""
        read_end, self._lifeline = os.pipe()
        try:
            self._popen = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "sh", *words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                cwd=cwd, env=dict(environment), start_new_session=True, pass_fds=(read_end,),
            )  # fmt: skip
        except BaseException:
            os.close(self._lifeline)
            raise
        else:
            _kill_when_closed(read_end, self._popen.pid)
        finally:
            os.close(read_end)
        self._reaped = False
        self._pidfd = _pidfd(self._popen.pid)
        start_thread("wfengine-command-input", lambda: self._give(given))

    def _give(self, given: bytes) -> None:
        """Open the gate, and write what the program reads; it may end before it has read all of it."""
        pipe = self._popen.stdin
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError), pipe:
            rest = memoryview(b"\n" + given)
            while rest:
                rest = rest[pipe.write(rest) :]

    def wait(self, output: Output, errors: Output, *, limit_seconds: float | None, look: Callable[[], object]) -> int | None:
        """Wait for the end of the program, and end what it left behind; return its exit code, None where the limit came first.

        `look` is called now and then, and may raise; the caller calls `close` in any case.
        """
        clock = SystemClock()
        began = clock.monotonic_seconds()
        with selectors.DefaultSelector() as selector:
            self._watch(selector, output, errors)
            while not self._has_ended():
                _pump(selector, LOOK_SECONDS)
                if limit_seconds is not None and clock.monotonic_seconds() - began >= limit_seconds:
                    self._end(selector)
                    return None
                look()
            self._signal_group(signal.SIGKILL)
            while _pump(selector, 0.0):  # what is still in the pipes; a process that left the group is not waited for
                pass
        output.end()
        errors.end()
        return self._reap()

    def _watch(self, selector: selectors.BaseSelector, output: Output, errors: Output) -> None:
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        selector.register(self._popen.stdout, selectors.EVENT_READ, output)
        selector.register(self._popen.stderr, selectors.EVENT_READ, errors)
        if self._pidfd is not None:
            selector.register(self._pidfd, selectors.EVENT_READ, None)

    def _has_ended(self) -> bool:
        # It is left a zombie, so that its number, which is its group's, cannot be another one's yet.
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _end(self, selector: selectors.BaseSelector) -> None:
        """Ask the group to end, and kill it."""
        self._signal_group(signal.SIGTERM)
        clock = SystemClock()
        asked = clock.monotonic_seconds()
        while not self._has_ended() and clock.monotonic_seconds() - asked < END_SECONDS:
            _pump(selector, LOOK_SECONDS)
        self._signal_group(signal.SIGKILL)
        while _pump(selector, 0.0):
            pass

    def _signal_group(self, number: int) -> None:
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def _reap(self) -> int:
        code = self._popen.wait()
        self._reaped = True
        return code

    def close(self) -> None:
        """Kill what is left, and give everything back."""
        self._signal_group(signal.SIGKILL)
        self._reap()
        os.close(self._lifeline)
        if self._pidfd is not None:
            os.close(self._pidfd)
        for pipe in (self._popen.stdout, self._popen.stderr):
            assert pipe is not None
            pipe.close()


def _kill_when_closed(read_end: int, group: int) -> None:
    """Have the kernel kill a group when the other end of the pipe is closed; the program holds this end."""
    if sys.platform != "linux":
        return
    import fcntl

    with contextlib.suppress(OSError):  # something that is not quite Linux
        fcntl.fcntl(read_end, fcntl.F_SETOWN, -group)
        fcntl.fcntl(read_end, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(read_end, fcntl.F_SETFL, fcntl.fcntl(read_end, fcntl.F_GETFL) | os.O_ASYNC)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _pump(selector: selectors.BaseSelector, seconds: float) -> bool:
    """Read what is there, waiting so long for it; tell whether something was read."""
    has_read = False
    for key, _ in selector.select(seconds):
        if key.data is None:
            selector.unregister(key.fileobj)  # it has ended; that is seen by who called
            continue
        data = os.read(key.fd, READ_BYTES)
        if data:
            key.data.feed(data)
            has_read = True
        else:
            selector.unregister(key.fileobj)
    return has_read


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
