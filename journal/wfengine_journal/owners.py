"""Who executes runs, and whether they still live.

Each process that executes runs has a row in `owner` and holds an operating-system lock on one byte of a disposable side
file (`journal.db-lock`), so its death is seen at once: the lock is free. Where the side file was deleted under a living
process, pid, start time and boot id tell. Never a lock on the journal file itself, which is SQLite's.

The locks are POSIX record locks (on Windows: region locks): a forked child does not inherit them. Closing any descriptor
of the side file would drop them all, so a process opens it once, and closes it with the journal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from wfengine_journal.errors import JournalUnwritableError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int, byte: int) -> bool:
        os.lseek(descriptor, byte, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int, byte: int) -> None:
        os.lseek(descriptor, byte, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int, byte: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int, byte: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, byte)


#: The byte that the one checkpointing process locks; owner n locks byte n, and ids begin at 1.
CHECKPOINT_BYTE = 0
#: The byte that the process holds which does what automations say: far beyond those of owners.
AUTOMATIONS_BYTE = 1 << 40
#: The byte that the process holds which sends notifications.
NOTIFICATIONS_BYTE = AUTOMATIONS_BYTE + 1
#: How often a held byte is asked about again before its holder counts as alive.
LIVENESS_TRIES = 20


class LockFile:
    """The side file of one journal, as opened once by this process."""

    def __init__(self, journal_path: Path) -> None:
        flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            self._descriptor = os.open(f"{journal_path}-lock", flags, 0o600)
        except OSError as error:
            raise JournalUnwritableError(
                f"The side file {journal_path}-lock of the journal cannot be opened: {error.strerror}. Nothing was written. "
                "See to its folder, its permissions and `ulimit -n`, then try again."
            ) from error

    def close(self) -> None:
        """Give every byte back. Only when nothing else of this process uses the journal."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def hold(self, byte: int) -> bool:
        """Lock a byte until the process ends; False if another process has it."""
        return _try_lock(self._descriptor, byte)

    def release(self, byte: int) -> None:
        """Give a byte back."""
        _unlock(self._descriptor, byte)

    def is_free(self, byte: int) -> bool:
        """Tell whether no other process holds the byte. Never ask about a byte this process holds."""
        if not _try_lock(self._descriptor, byte):
            return False
        _unlock(self._descriptor, byte)
        return True


def boot_id() -> str | None:
    """Return what identifies this boot of the machine, or None where the system does not tell."""
    try:
        # As bytes: opening a file as ASCII text imports a codec, whose lock a forked child may find held for ever.
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()
    except OSError:
        return None


def process_started(pid: int) -> str | None:
    """Return the start time of a living process in the kernel's own unit; None if it is dead or cannot be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):  # killed, but its parent has not looked yet
        return None
    return fields[19]


def host_name() -> str:
    """Return the name of this machine."""
    if hasattr(os, "uname"):
        return os.uname().nodename or "localhost"
    import platform  # slow to import, and asked once, by a process that executes runs

    return platform.node() or "localhost"


def role() -> str:
    """Return what this process is, for people: the end of its command line."""
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200] if sys.argv and sys.argv[0] else "python"
    return words.encode("utf-8", "backslashreplace").decode("utf-8")  # an argument need not be UTF-8


def is_alive(lock_file: LockFile, owner_id: int, pid: int, boot: str | None, started: str | None) -> bool:
    """Tell whether the process behind an owner row (not our own) lives."""
    same_process = boot is not None and boot == boot_id() and started is not None and started == process_started(pid)
    if same_process:
        return True
    # Asking takes the lock for an instant, so another asker can make a free byte look held: ask a few times.
    return not any(lock_file.is_free(owner_id) for _ in range(LIVENESS_TRIES))
