"""Tasks for files: list by a pattern, copy, move, write; whole or not at all, and the same again after a kill.

    from wfengine.integrations.files import list_files, move_file

    @task(cache_policy=INPUTS)
    def load(file): ...

    @flow
    def arrivals():
        for file in list_files("incoming", "*.csv"):
            load(file)
            move_file(file["path"], "done")

A listed file is a dict with its path, size and time, which is another value once the file was changed. So a task that is
given it and has `cache_policy=INPUTS` does each new file once, in whatever run. Files as events: `wfengine.file_watch`.
"""

from __future__ import annotations

import errno
import filecmp
import fnmatch
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from wfengine.filesystems import sync_folder
from wfengine.runners.away import asks_the_flow
from wfengine.runs import current_task_run
from wfengine.scopes import current_scope
from wfengine.tasks import task
from wfengine_journal.clock import SystemClock, text_from_seconds
from wfengine_journal.errors import UsageError

__all__ = ["copy_file", "list_files", "move_file", "write_file"]

#: Files that one list may have, unless the call says otherwise.
MAX_FILES = 100_000

PathLike = str | os.PathLike[str]


@task(key="wfengine.integrations.files.list_files")
def list_files(
    folder: PathLike, pattern: str = "*", *, recursive: bool = False, rest_seconds: float = 0.0, max_files: int = MAX_FILES
) -> list[dict[str, object]]:
    """Return the files of a folder whose names fit a pattern: {"path", "size", "modified"}, in the order of their paths.

    Names that begin with a dot are left out, as are folders and what is no plain file; links to files are followed, links to
    folders are not. With `rest_seconds`, so are files that were changed that recently: they may still be written. "modified" is
    UTC, to the nanosecond. Raises UsageError for a folder that is not there, and for more than `max_files`.
    """
    top = Path(folder)
    if not top.is_dir():
        raise UsageError(f"The folder {top} whose files were to be listed is not there. Make it, or name another one.")
    now = SystemClock().wall_seconds()
    found: list[dict[str, object]] = []
    for path in _walk(top, recursive=recursive):
        if not fnmatch.fnmatchcase(path.name, pattern):
            continue
        try:
            seen = path.stat()
        except FileNotFoundError:  # it went meanwhile
            continue
        if not stat.S_ISREG(seen.st_mode) or (rest_seconds and now - seen.st_mtime < rest_seconds):
            continue
        seconds, rest = divmod(seen.st_mtime_ns, 10**9)
        modified = f"{text_from_seconds(seconds)[:19]}.{rest:09d}Z"
        found.append({"path": str(path), "size": seen.st_size, "modified": modified})
        if len(found) > max_files:
            raise UsageError(
                f"The folder {top} has more than {max_files:,} such files. Take a narrower pattern, or raise max_files."
            )
    return sorted(found, key=lambda file: str(file["path"]))


@task(key="wfengine.integrations.files.copy_file")
def copy_file(source: PathLike, target: PathLike, *, overwrite: bool = False) -> str:
    """Copy a file, whole or not at all; return where it is. It survives a power cut then.

    `target`: a file, or a folder that is there. A file that is there already and is another one raises UsageError, unless
    `overwrite`.
    """
    place, origin = _place(source, target), Path(source)
    _refuse_missing(origin)
    if not _is_taken(place, overwrite=overwrite):
        _copy(origin, place)
    elif not filecmp.cmp(origin, place, shallow=False):
        raise _taken(place)
    return str(place)


@task(key="wfengine.integrations.files.move_file")
def move_file(source: PathLike, target: PathLike, *, overwrite: bool = False) -> str:
    """Move a file, also to another disk; return where it is. At every moment it is whole at one of both places.

    `target` and `overwrite` as for `copy_file`. Where an execution of this call was cut off after it had moved the file, it is
    found at its target.
    """
    place, origin = _place(source, target), Path(source)
    if not origin.exists() and place.is_file() and _was_cut_off():
        return str(place)
    _refuse_missing(origin)
    if place.exists() and origin.samefile(place) and not origin.is_symlink():
        return str(place)
    if _is_taken(place, overwrite=overwrite) and not (_was_cut_off() and filecmp.cmp(origin, place, shallow=False)):
        raise _taken(place)
    _beside(place)
    try:
        origin.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(origin, place)
        origin.unlink()
    sync_folder(place.parent)
    sync_folder(origin.parent)
    return str(place)


@task(key="wfengine.integrations.files.write_file")
def write_file(path: PathLike, content: str | bytes, *, overwrite: bool = True) -> str:
    """Write a file, whole or not at all, text as UTF-8; return where it is. It survives a power cut then."""
    place = Path(path)
    data = content.encode() if isinstance(content, str) else content
    if not _is_taken(place, overwrite=overwrite):
        beside = _beside(place)
        beside.write_bytes(data)
        _settle(beside, place)
    elif place.read_bytes() != data:
        raise _taken(place)
    return str(place)


def _walk(top: Path, *, recursive: bool) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        yield from (Path(folder) / name for name in names if not name.startswith("."))


def _place(source: PathLike, target: PathLike) -> Path:
    place = Path(target)
    return place / Path(source).name if place.is_dir() else place


def _beside(place: Path) -> Path:
    """Return where a file is made before it gets its name: one place for all attempts of a call, so that none is left."""
    if not place.parent.is_dir():
        raise UsageError(f"The folder {place.parent} of {place.name} is not there. Make it first.")
    return place.parent / f".{current_task_run().idempotency_key}.part"


def _copy(source: Path, place: Path) -> None:
    beside = _beside(place)
    shutil.copyfile(source, beside)
    shutil.copystat(source, beside)
    _settle(beside, place)


def _settle(beside: Path, place: Path) -> None:
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    beside.replace(place)
    sync_folder(place.parent)


def _refuse_missing(source: Path) -> None:
    if not source.is_file():
        raise UsageError(f"{source} is not there, or is no file.")


def _is_taken(place: Path, *, overwrite: bool) -> bool:
    """Tell whether a file is there that must not be overwritten."""
    if place.is_dir():
        raise UsageError(f"{place} is a folder, and a file was to be there.")
    return not overwrite and place.exists()


def _taken(place: Path) -> UsageError:
    return UsageError(f"{place} exists, is another file, and is not overwritten. Say overwrite=True, or take another name.")


@asks_the_flow
def _was_cut_off() -> bool:
    """Tell whether an earlier attempt of this call neither completed nor failed."""
    scope = current_scope()
    return scope is not None and scope.call is not None and scope.call.attempt - 1 > scope.call.failures
