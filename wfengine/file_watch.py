"""Files that come, change and go in folders, as events: file.added, file.changed, file.deleted of the resource file.PATH.

A file counts once its size and time have rested, so that one which is still being written is left alone. What is compared with
is what the journal holds of it: a watcher that was off finds what it missed when it starts, and repeats nothing; two of them
write one event. Needs the package watchfiles, which wakes this; what it looks at then are the files themselves.
"""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wfengine.plain_json import plain_json
from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import ForkedProcessError, InternalError, JournalError, UsageError
from wfengine_journal.events import PutFileEvent, list_watched_files
from wfengine_scheduler.services import ThreadedService

if TYPE_CHECKING:
    from wfengine_journal.store import Journal

#: How long a file has to rest, in seconds, unless it is said otherwise.
REST_SECONDS = 1.0
#: Files in one folder that are looked at.
FILES_LIMIT = 100_000
#: How long the watcher of the system waits at the most before this looks, in milliseconds; and after a fault, in seconds.
WAIT_MILLISECONDS = 500
AGAIN_SECONDS = 5.0

_logger = logging.getLogger("wfengine.file_watch")


@dataclass(frozen=True)
class Folder:
    """A folder whose files are watched: those whose names fit `pattern`, in folders below it too unless told otherwise.

    Names that begin with a dot are left alone.
    """

    path: str | os.PathLike[str]
    pattern: str = "*"
    recursive: bool = True

    @property
    def real(self) -> str:
        """Its absolute path."""
        return os.path.realpath(self.path)

    def holds(self, path: str) -> bool:
        """Tell whether a path is one of a file to watch."""
        parts = Path(os.path.relpath(path, self.real)).parts
        if any(part.startswith(".") for part in parts) or (len(parts) > 1 and not self.recursive):
            return False
        return fnmatch.fnmatchcase(parts[-1], self.pattern)


class FileWatch(ThreadedService):
    """Watches folders. See `wfengine_scheduler.services.Service`."""

    name = "file watch"

    def __init__(
        self, journal: Journal, folders: Iterable[Folder | str | os.PathLike[str]], *, rest_seconds: float = REST_SECONDS
    ) -> None:
        """Raises UsageError for a folder that is not there."""
        super().__init__()
        self._journal = journal
        self._folders = [each if isinstance(each, Folder) else Folder(each) for each in folders]
        for folder in self._folders:
            if not Path(folder.real).is_dir():
                raise UsageError(f"The folder {os.fspath(folder.path)} cannot be watched: it is not there. Make it: mkdir -p")
        self._rest = rest_seconds
        self._waiting: dict[str, tuple[str | None, float]] = {}  # path: its stamp, and since when it is that
        self._known: dict[str, str | None] = {}  # path: the stamp that the journal has, as far as this has written it
        self.written = 0

    # ---- as the daemon sees it

    def start(self) -> None:
        """Begin to watch, on a thread of its own. Raises UsageError without the package watchfiles."""
        _watchfiles()
        super().start()

    def report(self) -> dict[str, object]:
        """Return how it is."""
        return {"folders": [folder.real for folder in self._folders], "waiting": len(self._waiting), "events": self.written}

    def _work(self) -> None:
        watch = _watchfiles()
        while not self._stopping.is_set():
            try:
                is_first = True
                for changes in watch(
                    *(folder.real for folder in self._folders), watch_filter=None, stop_event=self._stopping, debounce=100,
                    step=50, rust_timeout=WAIT_MILLISECONDS, yield_on_timeout=True, raise_interrupt=False,
                    ignore_permission_denied=True,
                ):  # fmt: skip
                    # The first time the system watches already, so what a scan does not find is told of later.
                    self.step(None if is_first else [path for _, path in changes])
                    is_first = False
            except (JournalError, ForkedProcessError, InternalError):
                raise
            except Exception as error:
                _logger.error("Folders cannot be watched, and it is tried again: %s: %s", type(error).__name__, error)
                self._stopping.wait(AGAIN_SECONDS)

    # ---- looking

    def step(self, paths: Sequence[str] | None = None) -> int:
        """Look at these paths (None: at everything), and at what waits; return how many events were written."""
        now = self._journal.clock.monotonic_seconds()
        for path in self._everything() if paths is None else self._below(paths):
            self._note(path, now)
        before = self.written
        for path, (stamp, since) in list(self._waiting.items()):
            if now - since >= self._rest:
                self._settle(path, stamp, now)
        return self.written - before

    def _note(self, path: str, now: float) -> None:
        stamp = _stamp(path)
        waiting = self._waiting.get(path)
        if waiting is None or waiting[0] != stamp:
            if waiting is None and path in self._known and self._known[path] == stamp:
                return
            self._waiting[path] = (stamp, now)

    def _settle(self, path: str, stamp: str | None, now: float) -> None:
        present = _stamp(path)
        if present != stamp:
            self._waiting[path] = (present, now)
            return
        del self._waiting[path]
        change = self._change(path, stamp)
        self._journal.write(change, synced=True)
        self._known[path] = stamp
        if stamp is None:
            self._known.pop(path)
        self.written += change.written is not None

    def _change(self, path: str, stamp: str | None) -> PutFileEvent:
        shown = _text(path)
        payload: dict[str, object] = {"path": shown, "name": _text(Path(path).name), "folder": _text(str(Path(path).parent))}
        if stamp is not None:
            nanoseconds, size = map(int, stamp.split("-"))
            payload |= {"size": size, "modified": text_from_seconds(max(nanoseconds, 0) / 1e9)}
        labels = {"folder": payload["folder"], "name": payload["name"]}
        return PutFileEvent(
            shown, stamp, resource=f"file.{shown}", labels=plain_json(labels, "labels"), payload=plain_json(payload, "payload"),
            at=self._journal.clock.now_text(),
        )  # fmt: skip

    def _everything(self) -> Iterator[str]:
        """Give the files that are there, and those that the journal knows."""
        for folder in self._folders:
            there = set()
            for count, path in enumerate(_walk(folder), 1):
                if count > FILES_LIMIT:
                    raise UsageError(f"The folder {folder.real} holds more than {FILES_LIMIT} files. Watch a smaller one.")
                there.add(_text(path))
                yield path
            for known in list_watched_files(self._journal.records, _text(folder.real)):
                if known not in there and folder.holds(known):
                    yield known

    def _below(self, paths: Sequence[str]) -> Iterator[str]:
        """Give the files that a change concerns: a folder that was moved stands for all in it."""
        for path in paths:
            for folder in self._folders:
                if not path.startswith(folder.real + os.sep):
                    continue
                if Path(path).is_dir():
                    yield from (each for each in _walk(folder) if each.startswith(path + os.sep))
                else:
                    yield from ([path] if folder.holds(path) else [])
                    yield from [known for known in self._known if known.startswith(path + os.sep)]


def _walk(folder: Folder) -> Iterator[str]:
    for parent, folders, names in os.walk(folder.real):
        folders[:] = [name for name in folders if not name.startswith(".")] if folder.recursive else []
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - a name need not be text that Path can show
            if folder.holds(path):
                yield path


def _stamp(path: str) -> str | None:
    """Return what tells one content of a file from another; None where there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    if not os.path.isfile(path):  # noqa: PTH113 - as above
        return None
    return f"{max(status.st_mtime_ns, 0)}-{status.st_size}"


def _text(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _watchfiles() -> Callable[..., Iterator[Iterable[tuple[object, str]]]]:
    """Return the function `watch` of the package."""
    try:
        from watchfiles import watch
    except ImportError as error:
        raise UsageError("Watching folders needs the package watchfiles: pip install 'wfengine[watch]'") from error
    return watch
