"""The connection of this process to Ray, of which Ray allows one. Runs of flows that want the same one share it.

Ray that somebody else initialised in this process is used as it is, and left alone. Otherwise it is initialised for the
first run that needs it, and shut down after the last one.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import Any

from wfengine_journal.errors import UsageError
from wfengine_journal.threads import start_thread

#: How long a run waits at its end for the processes of its own Ray to be gone, in seconds; that takes one or two.
SHUTDOWN_SECONDS = 30.0
#: How long the machine of a Ray may take to answer, in seconds.
CONNECT_SECONDS = 10.0
#: How long Ray may take to show what a worker printed, in seconds: twice what it waits until it looks for new files.
PRINT_SECONDS = 1.0
#: More than the structure that describes how a signal is handled has on any system, in bytes.
_SIGACTION_BYTES = 1024

#: Where Ray keeps whether its nodes are to reach each other, for which they listen to everybody.
_CLUSTERS = "ENABLE_RAY_CLUSTER"
#: What Ray is told while it is started here, unless the user's environment says otherwise.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen to this machine only; the name is older than its use on Linux
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as Ray will do by itself, and warns of until then
    "RAY_DEDUP_LOGS": "0",  # what two tasks print is shown twice
}


def connect(address: str | None, init_kwargs: Mapping[str, object]) -> Connection:
    """Return a connection to Ray, to be closed. Raises UsageError where there can be none."""
    is_local = address in (None, "local") and "RAY_ADDRESS" not in os.environ
    # Ray reads this when it shows a worker's print for the first time. It would put a print of its own over that of this
    # process, which records what flows with log_prints print.
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
    with _lock:
        wanted = (address, dict(init_kwargs))
        present = _Kept.present
        with _environment(is_local):
            ray = _imported()
            if not ray.is_initialized():
                _check_heard(address)
            if present is None or not ray.is_initialized():
                if ray.is_initialized():
                    return Connection(None)
                present = _Kept.present = _Kept(wanted, _arguments(address, init_kwargs, is_local))
        if present.wanted != wanted:
            raise UsageError(
                f"This process is connected to Ray by RayTaskRunner{present.wanted!r} for a flow run that is under way, and "
                f"cannot connect to another one for RayTaskRunner{wanted!r} meanwhile. Use one Ray for both, or run the flows "
                "one after the other."
            )
        present.users += 1
        return Connection(present)


class Connection:
    """One run's use of Ray."""

    def __init__(self, kept: _Kept | None) -> None:
        self._kept = kept

    @property
    def stays(self) -> bool:
        """Tell whether this process is connected when the run is over: somebody else initialised Ray here."""
        return self._kept is None

    def expect_prints(self) -> None:
        """Remember that a task has printed something just now, which Ray shows after a while."""
        if self._kept is not None:
            self._kept.shows_until = monotonic() + PRINT_SECONDS

    def close(self) -> None:
        """Shut Ray down if nobody here uses it any more, and it was initialised for those that did."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        with _lock:
            kept.users -= 1
            if not kept.users:
                _Kept.present = None
                kept.shut_down()


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "Running tasks on Ray needs the package ray: pip install 'wfengine[ray]'   (Ray has none for Python 3.14 yet)"
        ) from error
    return ray


def _check_heard(address: str | None) -> None:
    """Raise UsageError if nothing listens at an address, which Ray itself says after minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"RayTaskRunner: nothing answers at {address!r}: {error}. Look whether Ray runs there: ray status --address "
            f"{address}"
        ) from error


def _arguments(address: str | None, init_kwargs: Mapping[str, object], is_local: bool) -> dict[str, object]:
    """Return what Ray is initialised with."""
    arguments: dict[str, object] = {"logging_level": logging.ERROR}
    if is_local:
        address = "local"  # and not whatever else runs on this machine
        arguments |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    return arguments | {"address": address} | dict(init_kwargs)


_lock = threading.Lock()


class _Kept:
    """A Ray that was initialised here, in the hands of a thread that stays for as long.

    The system ends the processes of a local Ray with the thread that started them, so that none is left of a flow's process
    that was killed.
    """

    present: _Kept | None = None

    def __init__(self, wanted: tuple[str | None, dict[str, object]], arguments: Mapping[str, object]) -> None:
        self.wanted = wanted
        self.users = 0
        self.shows_until = 0.0  # by the monotonic clock
        self._arguments = arguments
        self._error: BaseException | None = None
        self._is_there, self._let_go, self._is_gone = threading.Event(), threading.Event(), threading.Event()
        start_thread("wfengine-ray", self._keep)
        try:
            self._is_there.wait()
        except BaseException:
            self._let_go.set()
            raise
        if self._error is not None:
            is_local = arguments["address"] == "local"
            what = "A local Ray could not be started" if is_local else f"Ray at {wanted[0]!r} was not reached"
            raise UsageError(
                f"{what}: {type(self._error).__name__}: {self._error}. Look at the arguments of RayTaskRunner, and whether "
                "Ray runs there: ray status"
            ) from self._error

    def _keep(self) -> None:
        ray = _imported()
        try:
            with _signals_kept(), _loggers_quiet():
                ray.init(**self._arguments)
        except BaseException as error:
            self._error = error
            return
        finally:
            self._is_there.set()
        self._let_go.wait()
        try:
            ray.shutdown()
        finally:
            self._is_gone.set()

    def shut_down(self) -> None:
        """Disconnect, and end a Ray that was started here."""
        self._let_go.wait(max(0.0, self.shows_until - monotonic()))
        self._let_go.set()
        self._is_gone.wait(SHUTDOWN_SECONDS)


@contextlib.contextmanager
def _environment(is_local: bool) -> Iterator[None]:
    """Let Ray, and the processes that it starts in the block, see how it is to behave."""
    added = {name: value for name, value in _ENVIRONMENT.items() if is_local and name not in os.environ}
    os.environ.update(added)
    try:
        with _to_itself_only("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in added):
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _to_itself_only(wanted: bool) -> Iterator[None]:
    """Let this process speak with its Ray through the loopback, without a decision for the Ray that it uses next."""
    if not wanted:
        yield
        return
    _imported()
    from ray._private import ray_constants as constants  # read from the environment when Ray was imported, and then kept

    setattr(constants, _CLUSTERS, False)
    try:
        yield
    finally:
        setattr(constants, _CLUSTERS, sys.platform not in ("darwin", "win32"))


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo that Ray takes SIGTERM for itself, in a way that ends the process three seconds after it was told to stop.

    Python can set a handler on its main thread only, and this is another one.
    """
    action = getattr(ctypes.CDLL(None), "sigaction", None) if os.name == "posix" else None
    before = ctypes.create_string_buffer(_SIGACTION_BYTES)
    known = action is not None and action(signal.SIGTERM, None, before) == 0
    try:
        yield
    finally:
        if action is not None and known:
            action(signal.SIGTERM, before, None)


@contextlib.contextmanager
def _loggers_quiet() -> Iterator[None]:
    """Keep back that Ray is started on a thread, and how it is secured."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        if logger.level == logging.ERROR:
            logger.setLevel(level)
