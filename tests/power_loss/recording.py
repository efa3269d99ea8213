"""Run a program under the recorder, and read what it did."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SOURCE = Path(__file__).with_name("recorder.c")
HEAD = struct.Struct("<cHQIQ")
#: The file whose lines are marks, not data: it stands outside of the world that loses its power.
MARKS = "effects.txt"
LIMIT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing done to a file of the folder; the kinds are those of recorder.c."""

    kind: str
    name: str
    offset: int
    data: bytes
    nanoseconds: int


def compile_recorder(folder: Path) -> Path:
    """Compile the recorder into a folder; RuntimeError without gcc."""
    if shutil.which("gcc") is None:
        raise RuntimeError("The power-loss tests compile a recorder and found no gcc. Debian, Ubuntu: apt install gcc")
    library = folder / "recorder.so"
    command = ["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS)
    return library


def record(library: Path, command: Sequence[str], folder: Path, log: Path, environment: dict[str, str]) -> list[Operation]:
    """Run a command to its end, whose files are in `folder`, empty before; return what it did to them."""
    folder.mkdir(parents=True)
    variables = {"LD_PRELOAD": str(library), "POWER_LOSS_FOLDER": str(folder), "POWER_LOSS_LOG": str(log)}
    done = subprocess.run(
        command, env={**os.environ, **environment, **variables}, cwd=folder.parent, timeout=LIMIT_SECONDS,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0 or done.stdout.startswith("error"):
        raise AssertionError(f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return read(log)


def read(log: Path) -> list[Operation]:
    """Return the operations of a recording, without those on the shared memory of the log, which no disk keeps."""
    return [each for each in _read_all(log.read_bytes()) if not each.name.endswith("-shm")]


def _read_all(content: bytes) -> Iterator[Operation]:
    place = 0
    while place < len(content):
        kind, name_length, offset, length, nanoseconds = HEAD.unpack_from(content, place)
        start = place + HEAD.size
        place = start + name_length + length
        name = content[start : start + name_length].decode()
        operation = Operation(kind.decode(), name, offset, content[start + name_length : place], nanoseconds)
        assert operation.kind != "X", f"{name or 'the folder'} was changed in a way that the rebuilder does not know"
        yield operation


# ------------------------------------------------------------------------------------------- planted bugs


def without_syncs(operations: Sequence[Operation]) -> list[Operation]:
    """Plant a bug: no sync ever reached the disk."""
    return [each for each in operations if each.kind != "S"]


def acknowledged_early(operations: Sequence[Operation], by: int) -> list[Operation]:
    """Plant a bug: each outcome is told to the flow `by` operations before it was."""
    moved = list(operations)
    for place, each in enumerate(operations):
        if each.name == MARKS and each.data.startswith(b"ack"):
            moved.remove(each)
            moved.insert(max(0, place - by), replace(each, nanoseconds=each.nanoseconds))
    return moved


def synced_before_written(operations: Sequence[Operation]) -> list[Operation]:
    """Plant a bug: what is written before a sync of its file comes after it."""
    moved: list[Operation] = []
    waiting: list[Operation] = []
    for each in operations:
        if each.kind == "W" and each.name != MARKS:
            waiting.append(each)
            continue
        moved.append(each)
        if each.kind == "S":
            moved += waiting
            waiting = []
    return moved + waiting
