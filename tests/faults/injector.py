"""Build the fault injector and say what it shall do: `injector.c` is loaded before all else into a process under test."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("injector.c")
#: Faults of a disk: a full one, failing writes, failing syncs, failing reads, and no more files to be opened.
DISK_KINDS = ("enospc", "eio", "sync", "read", "open")
#: What a process that goes on for long meets as well: a disk that became read-only under it.
LASTING_KINDS = (*DISK_KINDS, "readonly")
#: What is no fault but allowed by POSIX: nobody may notice it.
HARMLESS_KINDS = ("short", "eintr")
KILL_KINDS = ("kill-before", "kill-after")
LINE_OF_NOTE = "fault.txt"


@dataclass(frozen=True, slots=True)
class Fault:
    """The n-th call of those that `kind` is about goes wrong; with `sticky` all later ones as well."""

    kind: str
    number: int
    sticky: bool = False

    def variables(self, journal: Path) -> dict[str, str]:
        """Return the environment variables by which the injector knows it."""
        return {
            "FAULTS_KIND": self.kind,
            "FAULTS_AT": str(self.number),
            "FAULTS_STICKY": "1" if self.sticky else "0",
            "FAULTS_PREFIX": str(journal),
            "FAULTS_NOTE": str(journal.with_name(LINE_OF_NOTE)),
        }

    def __str__(self) -> str:
        return f"{self.kind}{' from' if self.sticky else ' at'} call {self.number}{' on' if self.sticky else ''}"


def is_possible() -> bool:
    """Tell whether this machine can build the injector: Linux with a C compiler."""
    return Path("/proc/self/fd").exists() and shutil.which("gcc") is not None


def build(folder: Path) -> Path:
    """Compile the injector into a folder; return the library's path."""
    library = folder / "injector.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def arm() -> None:
    """In a process that has the injector: begin to count, as the environment says now."""
    if "FAULTS_KIND" in os.environ:
        ctypes.CDLL(None).faults_arm()
