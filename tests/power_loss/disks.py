"""The model of a disk, and the disks that could be found after a cut.

What is assumed, as SQLite documents it: a sync of a file makes durable all that was written to it before; a sync of the
folder makes durable which names there are. A new name, a rename, or a removal that was not synced by the folder may be
there or not. Of what was written to a file and not synced any part may be there, in sectors of 512 bytes and in any order; one
sector may be written in part, or hold garbage. A write disturbs no byte outside of its own range (powersafe overwrite).
A file's size follows what survived. The kinds of images:

    none      nothing that was not synced
    all       everything that was done
    prefix    the unsynced operations up to one of them, in their order
    subset    any subset of the unsynced sectors, truncations and names
    torn      a prefix, and half-way through the next sector
    garbage   a prefix, and the next sector holds other bytes than were written
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.power_loss.recording import MARKS, Operation

SECTOR = 512
KINDS = ("none", "all", "prefix", "subset", "torn", "garbage")


@dataclass(slots=True)
class File:
    """What is durable of a file's content."""

    content: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class Pending:
    """What was done and is not durable: one sector, one truncation (`data` is None), or one change of names."""

    file: File | None
    offset: int = 0
    data: bytes | None = None
    names: tuple[str, ...] = ()


Names = dict[str, File]


@dataclass(slots=True)
class Disk:
    """A folder whose power may be cut at any moment."""

    names: Names = field(default_factory=dict)
    durable_names: Names = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    marks: bytearray = field(default_factory=bytearray)

    def do(self, operation: Operation) -> None:
        """Take in one recorded operation."""
        name = operation.name
        if name == MARKS:
            self.marks += operation.data
        elif operation.kind == "S":
            self._sync(name)
        elif operation.kind in "CRUL":
            file = File() if operation.kind == "C" else self.names[name]
            pending = Pending(file if operation.kind == "C" else None, names=_change(operation))
            _rename(self.names, pending)
            self.pending.append(pending)
        else:
            file = self.names[name]
            data = operation.data if operation.kind == "W" else None
            self.pending += [Pending(file, offset, part) for offset, part in _sectors(operation.offset, data)]

    def _sync(self, name: str) -> None:
        if not name:
            done = [each for each in self.pending if each.names]
            for each in done:
                _rename(self.durable_names, each)
        else:
            file = self.names.get(name)
            done = [each for each in self.pending if each.file is file and not each.names]
            for each in done:
                _write(each.file, each)
        gone = {id(each) for each in done}
        self.pending = [each for each in self.pending if id(each) not in gone]

    def cut(self, kind: str, dice: random.Random) -> dict[str, bytes]:
        """Return name and content of the files found after a cut now."""
        chosen = _survivors(self.pending, kind, dice)
        contents: dict[int, File] = {}

        def copy_of(file: File | None) -> File | None:
            if file is None:
                return None
            return contents.setdefault(id(file), File(bytearray(file.content)))

        names = {name: copy_of(file) for name, file in self.durable_names.items()}
        found: Names = {name: file for name, file in names.items() if file is not None}
        for each in chosen:
            copied = Pending(copy_of(each.file), each.offset, each.data, each.names)
            if each.names:
                _rename(found, copied)
            else:
                _write(copied.file, copied)
        return {name: bytes(file.content) for name, file in found.items()}


def _change(operation: Operation) -> tuple[str, ...]:
    return (operation.kind, operation.name, operation.data.decode())


def _sectors(offset: int, data: bytes | None) -> list[tuple[int, bytes | None]]:
    if data is None:
        return [(offset, None)]
    parts: list[tuple[int, bytes | None]] = []
    place = 0
    while place < len(data):
        size = SECTOR - (offset + place) % SECTOR
        parts.append((offset + place, data[place : place + size]))
        place += size
    return parts


def _rename(names: Names, change: Pending) -> None:
    kind, name, new = change.names
    if kind == "C":
        assert change.file is not None
        names[name] = change.file
    elif name in names and kind == "L":
        names[new] = names[name]
    elif name in names:
        file = names.pop(name)
        if kind == "R":
            names[new] = file


def _write(file: File | None, change: Pending) -> None:
    assert file is not None
    content, end = file.content, change.offset + len(change.data or b"")
    if change.data is None:
        del content[change.offset :]
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if change.data is not None:
        content[change.offset : end] = change.data


def _survivors(pending: Sequence[Pending], kind: str, dice: random.Random) -> list[Pending]:
    if kind == "none":
        return []
    if kind == "all":
        return list(pending)
    if kind == "subset":
        share = dice.choice((0.1, 0.5, 0.9))
        return [each for each in pending if dice.random() < share]
    place = dice.randint(0, len(pending))
    chosen = list(pending[:place])
    if kind == "prefix" or place == len(pending) or pending[place].data is None:
        return chosen
    victim = pending[place]
    assert victim.data is not None
    part = victim.data[: dice.randint(0, len(victim.data))] if kind == "torn" else dice.randbytes(len(victim.data))
    return [*chosen, Pending(victim.file, victim.offset, part)]


def write_out(files: dict[str, bytes], marks: bytes, folder: Path) -> None:
    """Write the files found after a cut, and the marks made before it, into a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / MARKS).write_bytes(marks)
