"""Where large results can go instead of the journal: `LocalFileSystem`, or an object of your own with `write_path` and
`read_path`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from wfengine_journal.errors import UsageError
from wfengine_journal.location import make_private_folder

__all__ = ["LocalFileSystem", "ReadableFileSystem", "WritableFileSystem"]


class ReadableFileSystem:
    """Something that holds files by a relative path. A base for classes of your own; methods may be async."""

    def read_path(self, path: str) -> bytes:
        """Return the bytes of a file."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to read a file: write its method read_path.")


class WritableFileSystem(ReadableFileSystem):
    """Something that keeps files by a relative path.

    `write_path` must return only when the file would survive a power cut, since the journal then says that it is there.
    """

    def write_path(self, path: str, content: bytes) -> object:
        """Write a file, whole or not at all."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to write a file: write its method write_path.")


class LocalFileSystem(WritableFileSystem):
    """A folder of this machine; the working directory if none is named."""

    def __init__(self, basepath: str | os.PathLike[str] | None = None) -> None:
        self.basepath = None if basepath is None else str(basepath)

    def __repr__(self) -> str:
        return f"LocalFileSystem(basepath={self.basepath!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalFileSystem) and self.basepath == other.basepath

    def __hash__(self) -> int:
        return hash(self.basepath)

    @property
    def folder(self) -> Path:
        """Return the folder as an absolute path."""
        return Path(self.basepath or ".").expanduser().resolve()

    def resolve(self, path: str) -> Path:
        """Return where a path leads; UsageError for one that leads out of the folder."""
        base = self.folder
        target = (base / Path(path).expanduser()).resolve()
        if base not in target.parents:
            raise UsageError(f"The path {path!r} leads out of the folder {base}, or is that folder. Name a file in it.")
        return target

    def read_path(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return self.resolve(path).read_bytes()

    def write_path(self, path: str, content: bytes) -> str:
        """Write a file, whole or not at all, and return its absolute path; it then survives a power cut."""
        target = self.resolve(path)
        _make_folder(target.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=".writing-", dir=target.parent)  # mode 0600, as the journal
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
        return str(target)

    def link_path(self, path: str, existing: str) -> None:
        """Let a path lead to a file that is there already, in place of what it led to; by a copy where links cannot be."""
        target, source = self.resolve(path), self.resolve(existing)
        _make_folder(target.parent)
        temporary = target.parent / f".linking-{os.urandom(8).hex()}"
        try:
            os.link(source, temporary)
        except OSError:
            self.write_path(path, source.read_bytes())
            return
        temporary.replace(target)
        temporary.unlink(missing_ok=True)  # renaming one link over another of the same file leaves both
        sync_folder(target.parent)

    async def aread_path(self, path: str) -> bytes:
        """Return the bytes of a file."""
        return self.read_path(path)

    async def awrite_path(self, path: str, content: bytes) -> str:
        """Write a file, as write_path does."""
        return self.write_path(path, content)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a power cut."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    make_private_folder(folder)
    for each in missing:
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can (Windows cannot, and need not)."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
