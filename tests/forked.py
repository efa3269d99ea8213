"""Programs of tests by the thousand: `run` and `Popen` are those of `subprocess`, with processes that are forked where that is
as good as a start.

Starting Python and importing wfengine is most of the life of a short program, 0.15 s of a processor. So a process that has
imported both and done nothing else - one thread, no journal, no handler - forks one for each start: with its own command line,
directory, environment, session and streams, a `__main__` of its own, and an end by Python's rules. Two of them take turns, so
that a run and its resume have different hash seeds, as two processes have. What is set before Python begins (options but -W and
-B, variables such as PYTHONHASHSEED, a program on standard input) gets a process that is really started; so does a start with
`is_fresh`, and everything with WFENGINE_TEST_FORKED=0 and where the system has no pidfd.

A forked program ends when its threads have ended and what is registered for the end was done: its objects are not destroyed one
by one. What is about that, or about what is imported when, has to start a process.
"""

from __future__ import annotations

import array
import atexit
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

#: What is not set in a process that runs already; a program whose environment differs here is started.
_BEFORE_THE_START = ("LANG", "LC_", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "PYTHON", "COVERAGE_")
_SET_AFTERWARDS = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONWARNINGS"}
_MAY_FORK = hasattr(os, "pidfd_open") and os.environ.get("WFENGINE_TEST_FORKED") != "0"
#: Imported before the first fork, beside wfengine: what most programs import sooner or later.
_IMPORTED = """
    argparse asyncio bz2 cloudpickle concurrent.futures.thread difflib gettext locale lzma platform queue random shlex
    shutil signal ssl subprocess tempfile textwrap traceback unicodedata uuid zipfile zoneinfo
    wfengine.bucket_storage wfengine.cli.base wfengine.cli.ending wfengine.cli.execution wfengine.cli.inputs
    wfengine.cli.journal wfengine.cli.live wfengine.cli.output wfengine.cli.plan wfengine.cli.run wfengine.daemon
    wfengine.deployment_file wfengine.deployments wfengine.executor wfengine.isolation wfengine.logging wfengine.recovery
    wfengine.runners.threads wfengine.serving wfengine.sql wfengine.timers wfengine_journal.messages
    wfengine_journal.queries
"""


# ------------------------------------------------------------------------------------------- the side of the tests


class _Forker:
    """The process that forks, from outside. One order at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        self._socket = ours
        self._lock = threading.Lock()

    def ask(self, order: dict[str, object], descriptors: Sequence[int] = ()) -> int:
        """Have an order done; return what it answers."""
        text = json.dumps(order).encode()
        with self._lock:
            socket.send_fds(self._socket, [len(text).to_bytes(4, "big")], descriptors)
            self._socket.sendall(text)
            answer = self._socket.recv(8, socket.MSG_WAITALL)
        assert len(answer) == 8, "the process that forks programs died"
        return int.from_bytes(answer, "big", signed=True)

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.wait(60)


_forkers: list[_Forker] = []
_turn = 0
_starting = threading.Lock()


def _next_forker() -> _Forker:
    global _turn
    with _starting:
        if not _forkers:
            _forkers.extend((_Forker(), _Forker()))
            atexit.register(_close, os.getpid())
        _turn += 1
        return _forkers[_turn % 2]


def _close(pid: int) -> None:
    if pid == os.getpid():
        for forker in _forkers:
            forker.close()


class Popen(subprocess.Popen[Any]):
    """A program that runs: forked where that is as good as a start."""

    def __init__(self, command: Sequence[str], *, is_fresh: bool = False, **options: Any) -> None:
        self._forker: _Forker | None = None
        self._pidfd = -1
        self._is_fresh = is_fresh
        super().__init__(command, **options)

    def _execute_child(self, *given: Any) -> None:
        start = super()._execute_child  # type: ignore[misc]
        asked = inspect.signature(start).bind(*given).arguments
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        if self._is_fresh or not _MAY_FORK or not _is_as_good(asked, environment):
            start(*given)
            return
        streams = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
        descriptors = [number if stream == -1 else stream for number, stream in enumerate(streams)]
        order = {
            "command": list(map(os.fspath, asked["args"])),
            "folder": os.path.abspath(asked["cwd"] or "."),  # noqa: PTH100 - no link is followed
            "environment": environment,
            "own_session": bool(asked["start_new_session"]),
        }
        self._forker = _next_forker()
        self.pid = self._forker.ask(order, descriptors)
        self._child_created = True
        self._pidfd = os.pidfd_open(self.pid)  # it is there, dead or not, until it is asked how it ended
        self._close_pipe_fds(*(asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")))

    def _internal_poll(self, *given: Any, **named: Any) -> int | None:
        if self._forker is None:
            return super()._internal_poll(*given, **named)  # type: ignore[misc, no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                self._look(0)
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._forker is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        return self._look(0 if wait_flags else None)

    def _look(self, milliseconds: int | None) -> tuple[int, int]:
        """Return pid and status as `waitpid` does, after a wait."""
        assert self._forker is not None
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(milliseconds):
            return 0, 0
        status = self._forker.ask({"reap": self.pid})
        os.close(self._pidfd)
        self._handle_exitstatus(status)  # type: ignore[attr-defined]
        return self.pid, status


def run(
    command: Sequence[str], *, input: str | None = None, timeout: float, is_fresh: bool = False, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with `subprocess.run`'s options, its output as text."""
    options.setdefault("stdin", None if input is None else subprocess.PIPE)
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with Popen(command, is_fresh=is_fresh, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _is_as_good(asked: dict[str, Any], environment: dict[str, str]) -> bool:
    program, *arguments = asked["args"]
    unusual = ("preexec_fn", "executable", "startupinfo", "shell", "gid", "gids", "uid", "pass_fds")
    if program != sys.executable or any(asked[name] not in (None, False, ()) for name in unusual):
        return False
    if asked["umask"] != -1 or asked["process_group"] != -1 or not asked["close_fds"] or not asked["restore_signals"]:
        return False
    rest = _without_options(arguments)
    if not rest or rest[0] == "-" or (rest[0].startswith("-") and rest[0] not in ("-c", "-m")):
        return False
    return all(
        environment.get(name) == os.environ.get(name)
        for name in environment.keys() | os.environ.keys()
        if name.startswith(_BEFORE_THE_START) and name not in _SET_AFTERWARDS and not _says_what_is(name, environment)
    )


def _says_what_is(name: str, environment: dict[str, str]) -> bool:
    return name == "PYTHONIOENCODING" and environment.get(name) == "utf-8" and sys.getdefaultencoding() == "utf-8"


def _without_options(arguments: Sequence[str]) -> list[str]:
    """Return arguments of Python from the program on, which is a file, -c or -m; the options before it may be -B and -W."""
    rest = list(arguments)
    while rest and rest[0] in ("-B", "-W"):
        del rest[: 1 + (rest[0] == "-W")]
    return rest


# ------------------------------------------------------------------------------------------- the process that forks


def _serve(orders: socket.socket) -> None:
    import gc
    import importlib

    filters = list(warnings.filters)
    for name in _IMPORTED.split():
        importlib.import_module(name)
    warnings.filters[:] = filters  # type: ignore[index]
    gc.collect()
    gc.freeze()  # else a child's collector looks at all that was imported, and each page of it has to be copied for that
    while True:
        head, ancillary, _, _ = orders.recvmsg(4, socket.CMSG_SPACE(3 * array.array("i").itemsize))
        if not head:
            return
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        order = json.loads(orders.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        answer = os.waitpid(order["reap"], 0)[1] if "reap" in order else _fork(orders, order, list(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        orders.sendall(answer.to_bytes(8, "big", signed=True))


def _fork(orders: socket.socket, order: dict[str, Any], descriptors: list[int]) -> int:
    pid = os.fork()
    if pid == 0:
        orders.close()
        _become(order, descriptors)
    return pid


def _become(order: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the process that was ordered, to its end."""
    import signal

    if order["own_session"]:
        os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    code = 0
    try:
        os.chdir(order["folder"])
        program = _set_up(order["command"], order["environment"])
        _execute(program)
    except SystemExit as end:
        if isinstance(end.code, int):
            code = end.code
        elif end.code is not None:
            print(end.code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error.with_traceback(_of_program(error)), error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    _end(code)


def _end(code: int) -> NoReturn:
    """End as Python does, but for its objects."""
    import signal

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def _of_program(error: BaseException) -> Any:
    """Return the traceback without the lines of this file."""
    found = error.__traceback__
    while found is not None and found.tb_frame.f_code.co_filename == __file__:
        found = found.tb_next
    return found


def _set_up(command: list[str], environment: dict[str, str]) -> list[str]:
    """Set what Python sets when it starts; return the program: a file, -c or -m, and what follows."""
    import time
    import types

    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.orig_argv = list(command)
    rest = _without_options(command[1:])
    options = command[1 : len(command) - len(rest)]
    sys.dont_write_bytecode = "-B" in options or bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.warnoptions[:] = [text for text in environment.get("PYTHONWARNINGS", "").split(",") if text]
    sys.warnoptions += [text for option, text in pairwise(options) if option == "-W"]
    warnings._processoptions(sys.warnoptions)  # type: ignore[attr-defined]
    first = {"-c": "", "-m": os.getcwd()}.get(rest[0])  # noqa: PTH109
    first = os.path.dirname(os.path.realpath(rest[0])) if first is None else first  # noqa: PTH120
    path = [os.path.abspath(entry) for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]  # noqa: PTH100
    sys.path[:] = list(dict.fromkeys([first, *path, *sys.path]))
    sys.path_importer_cache.clear()
    _set_up_streams(environment)
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    main.__dict__.pop("__file__", None)
    sys.modules["__main__"] = main
    return rest


def _set_up_streams(environment: dict[str, str]) -> None:
    import io

    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    if "PYTHONIOENCODING" in environment:
        errors = "strict"
    buffering = 0 if environment.get("PYTHONUNBUFFERED") else -1
    files = [open(number, "wb" if number else "rb", buffering if number else -1, closefd=False) for number in range(3)]  # noqa: SIM115
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(files[0], encoding, errors)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(  # type: ignore[misc]
        files[1], encoding, errors, "\n", write_through=buffering == 0
    )
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(  # type: ignore[misc]
        files[2], encoding, "backslashreplace", "\n", line_buffering=buffering != 0, write_through=buffering == 0
    )


def _execute(program: list[str]) -> None:
    import io
    import linecache
    import runpy
    from importlib.machinery import SourceFileLoader

    names = sys.modules["__main__"].__dict__
    what, *arguments = program
    if what == "-m":
        sys.argv[:] = ["-m", *arguments[1:]]
        runpy._run_module_as_main(arguments[0])  # type: ignore[attr-defined]
        return
    if what == "-c":
        sys.argv[:] = ["-c", *arguments[1:]]
        code = compile(arguments[0], "<string>", "exec")
        if sys.version_info >= (3, 13):  # a traceback shows the lines of such a program too
            linecache.cache["<string>"] = (len(arguments[0]), None, arguments[0].splitlines(keepends=True), "<string>")
        exec(code, names)
        return
    sys.argv[:] = program
    place = os.path.abspath(what)  # noqa: PTH100
    try:
        with io.open_code(place) as file:
            text = file.read()
    except OSError as error:
        problem = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.executable}: can't open file {place!r}: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
    names.update(__file__=place, __cached__=None, __loader__=SourceFileLoader("__main__", place))
    exec(compile(text, place, "exec"), names)


if __name__ == "__main__":
    _ours = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120
    _paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [entry for entry in sys.path if entry != _ours and entry not in _paths]
    with socket.socket(fileno=int(sys.argv[1])) as _orders:
        _serve(_orders)
