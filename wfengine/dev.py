"""`wfengine dev`: serve files, and serve them anew when they change.

The daemon is a process of its own, so that each reload has a fresh interpreter; this one only watches. A change is tried
first in a third process, which only loads the files: while they cannot be loaded, the old daemon goes on. What it runs is
given some seconds to end; the rest is taken up by the new daemon, with the new code.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from wfengine.supervision import Supervisor
from wfengine_journal.clock import Clock, SystemClock
from wfengine_journal.errors import UsageError

#: How often the files are looked at, in seconds.
LOOK_SECONDS = 0.3
#: How long runs may take to end before a reload, in seconds, unless it is told otherwise.
STOP_SECONDS = 5.0
#: How long the daemon may take to end beyond that before it is killed, in seconds.
KILL_AFTER_SECONDS = 5.0
#: How long the files may take to be loaded for a check, in seconds.
CHECK_SECONDS = 120.0
#: Files that are watched at the most, and how many folders deep.
MOST_FILES = 5000
DEEPEST = 8

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "dist", "build"})

#: When each file was changed last, and its size.
Snapshot: TypeAlias = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Served:
    """What is served: the files, and options of `wfengine serve` that are handed on."""

    files: tuple[str, ...]
    options: tuple[str, ...] = ()
    stop_seconds: float = STOP_SECONDS


def watched_folders(files: Sequence[str]) -> list[Path]:
    """Return the folders whose modules count: those of the files, 'FILE:FLOW' and modules of the working directory too."""
    folders: dict[Path, None] = {}
    for target in files:
        path = Path(target if Path(target).exists() else target.rpartition(":")[0] or target)
        if path.suffix == ".py" and not path.is_file():
            raise UsageError(f"There is no file {path}. Make it first: an empty one will do.")
        folders[path.resolve() if path.is_dir() else path.resolve().parent if path.exists() else Path.cwd()] = None
    return list(folders)


def snapshot(folders: Sequence[Path]) -> Snapshot:
    """Return what the Python files of these folders, and their wfengine.toml, look like now."""
    found: Snapshot = {}
    for folder in folders:
        for file in _files_of(folder, DEEPEST):
            if len(found) >= MOST_FILES:
                return found
            try:
                seen = file.stat()
            except OSError:
                continue  # gone since it was listed
            found[str(file)] = (seen.st_mtime_ns, seen.st_size)
    return found


def _files_of(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return  # an environment, not the user's code
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        if entry.suffix == ".py" or entry.name == "wfengine.toml":
            yield entry
        elif depth > 0 and entry.is_dir() and not entry.is_symlink():
            yield from _files_of(entry, depth - 1)


class Reloader:
    """Keeps a daemon running with the newest code that can be loaded. `run` on the main thread."""

    def __init__(self, served: Served, say: Callable[[str], object], clock: Clock | None = None) -> None:
        self._served = served
        self._tell = say
        self._supervisor = Supervisor()
        self._clock = clock or SystemClock()
        self._mail: queue.SimpleQueue[int] = queue.SimpleQueue()  # signals that came
        self._daemon: subprocess.Popen[bytes] | None = None
        self.stopped_by: int | None = None

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        folders = watched_folders(self._served.files)
        previous = {
            number: signal.signal(number, lambda got, _: self._mail.put(got)) for number in (signal.SIGTERM, signal.SIGINT)
        }
        seen = snapshot(folders)
        try:
            self._say(f"watching {', '.join(map(str, folders))} ({len(seen)} files); Ctrl-C ends")
            self._start_if_sound()
            while not self._is_told_to_stop():
                self._mention_a_dead_daemon()
                now = snapshot(folders)
                if now != seen:
                    now = self._settled(folders, now)
                    self._say(f"changed: {_named(seen, now)}")
                    seen = now
                    self._start_if_sound()
        finally:
            self._stop_daemon()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _say(self, text: str) -> None:
        self._tell(text)
        self._supervisor.tell(self._supervisor.status(f"dev: {text}"))

    def _is_told_to_stop(self) -> bool:
        try:
            self.stopped_by = self._mail.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return False
        return True

    def _settled(self, folders: Sequence[Path], now: Snapshot) -> Snapshot:
        """Wait until nothing changes any more: an editor, or a checkout, writes several files one after the other."""
        for _ in range(10):
            self._clock.sleep(LOOK_SECONDS / 3)
            before, now = now, snapshot(folders)
            if now == before:
                break
        return now

    def _start_if_sound(self) -> None:
        """Replace the daemon if the files can be loaded; else their error was shown, and what is there goes on."""
        if not self._can_be_loaded():
            going_on = self._daemon is not None and self._daemon.poll() is None
            self._say("the daemon goes on with the code as it was" if going_on else "waiting for a change")
            return
        self._stop_daemon()
        self._daemon = subprocess.Popen(
            [*self._command(), "--parent", str(os.getpid()), "--stop-timeout", str(self._served.stop_seconds)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches it through this process only, and so once
        )
        self._say(f"serving with the present code: pid {self._daemon.pid}")

    def _can_be_loaded(self) -> bool:
        try:
            return (
                subprocess.run(
                    [*self._command(), "--check", "--quiet"], stdin=subprocess.DEVNULL, timeout=CHECK_SECONDS
                ).returncode
                == 0
            )
        except subprocess.TimeoutExpired:
            self._say(f"the files were not loaded within {CHECK_SECONDS:.0f} s")
            return False

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "wfengine", "serve", *self._served.files, *self._served.options]

    def _mention_a_dead_daemon(self) -> None:
        if self._daemon is not None and self._daemon.poll() is not None:
            self._say(f"the daemon ended (exit status {self._daemon.returncode}); a change starts it again")
            self._daemon = None

    def _stop_daemon(self) -> None:
        """End the daemon in order; kill it if it takes much longer than it is allowed to, or at a second Ctrl-C."""
        daemon, self._daemon = self._daemon, None
        if daemon is None or daemon.poll() is not None:
            return
        daemon.terminate()
        until = self._clock.monotonic_seconds() + self._served.stop_seconds + KILL_AFTER_SECONDS
        while daemon.poll() is None and self._clock.monotonic_seconds() < until:
            try:
                self.stopped_by = self._mail.get(timeout=0.05)
            except queue.Empty:
                continue
            daemon.terminate()  # the second time it waits for nothing
        if daemon.poll() is None:
            daemon.kill()
        daemon.wait()


def _named(before: Snapshot, now: Snapshot) -> str:
    names = sorted(Path(name).name for name in {*before, *now} if before.get(name) != now.get(name))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
