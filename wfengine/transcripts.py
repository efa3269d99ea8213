"""What a run's own process prints, as it comes: its lines for a log, its end for the journal, and notes of ours in between.

A note is put into the output by the program of `isolated_child`, between two NUL characters, with a token that only this
process and that one know, so that nothing a flow prints is taken for one. One pipe for all keeps everything in its order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

#: Of what a process prints, so much is kept for the journal, in bytes: the last of it.
TAIL_BYTES = 8192
#: Of what a process prints, so much goes on to the log, in bytes: the first of it.
LOG_BYTES = 1 << 20
#: A longer line goes on to the log in pieces, in bytes.
LINE_BYTES = 8192
#: A note is shorter than this, in bytes; a pipe takes so much at once and undivided.
NOTE_BYTES = 256

#: What ends a transcript's lines in the log when there are too many.
CUT = "... more of its output is not shown here; the last of it is kept in the journal"


def note(token: str, *words: object) -> bytes:
    """Return a note as it is written into the output."""
    return f"\0wfengine {token} {' '.join(map(str, words))}\0".encode()


class Transcript:
    """The output of one process. `feed` and `end` are called by the one thread that reads it."""

    def __init__(self, token: str, on_line: Callable[[str], object], on_note: Callable[[Sequence[str]], object]) -> None:
        """`on_line` is called for each line, as far as they go on to a log; `on_note` with the words of each note."""
        self._mark = f"\0wfengine {token} ".encode()
        self._on_line = on_line
        self._on_note = on_note
        self._held = b""  # what may be the beginning of a note
        self._line = b""  # what has no end of line yet
        self._tail = bytearray()
        self._log_bytes = LOG_BYTES

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        data = self._held + data
        self._held = b""
        while (found := data.find(self._mark)) >= 0:
            end = data.find(b"\0", found + len(self._mark), found + NOTE_BYTES)
            if end < 0 and len(data) - found < NOTE_BYTES:
                break
            self._print(data[:found])
            if end < 0:  # no note of ours is as long as that
                self._print(data[found : found + 1])
                data = data[found + 1 :]
                continue
            self._on_note(data[found + len(self._mark) : end].decode("utf-8", "backslashreplace").split(" "))
            data = data[end + 1 :]
        cut = found if found >= 0 else self._possible_mark(data)
        self._print(data[:cut])
        self._held = data[cut:]

    def _possible_mark(self, data: bytes) -> int:
        """Return where the data ends as a note begins; its length, if it does not."""
        for length in range(min(len(data), len(self._mark) - 1), 0, -1):
            if data.endswith(self._mark[:length]):
                return len(data) - length
        return len(data)

    def end(self) -> None:
        """Take notice that nothing more comes."""
        self._print(self._held)
        self._held = b""
        if self._line:
            self._log(self._line)
            self._line = b""

    def tail(self) -> str:
        """Return the last of what was printed, from any thread."""
        kept = bytes(self._tail)
        while kept and 0x80 <= kept[0] < 0xC0:  # the rest of a character that was cut
            kept = kept[1:]
        return kept.decode("utf-8", "backslashreplace").replace("\0", "\\x00")

    def _print(self, data: bytes) -> None:
        if not data:
            return
        self._tail += data
        del self._tail[:-TAIL_BYTES]
        if self._log_bytes <= 0:
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._log(line)
        while len(self._line) > LINE_BYTES:
            self._log(self._line[:LINE_BYTES])
            self._line = self._line[LINE_BYTES:]

    def _log(self, line: bytes) -> None:
        if self._log_bytes <= 0:
            return
        self._log_bytes -= len(line) + 1
        for start in range(0, max(len(line), 1), LINE_BYTES):
            text = line[start : start + LINE_BYTES].decode("utf-8", "backslashreplace")
            self._on_line(text.rstrip("\r"))
        if self._log_bytes <= 0:
            self._line = b""
            self._on_line(CUT)


def read_all(descriptor: int, transcript: Transcript) -> None:
    """Read to the end what a process and those that it started print. Blocks."""
    while data := os.read(descriptor, 65536):
        transcript.feed(data)
    transcript.end()
