"""The process that makes the spans of another one and sends them by OTLP, so that the runs of that one pay nothing for it.

It reads the journal, which is committed, and is told through its standard input what ended: one object of `marshal` after the
other, from a process of the same Python that started it. The first is (path of the journal, its id), then `Notes` each, None
at the end. To each but the last it answers a JSON list of lines for the log. It ends when its input does, whatever
became of the process that started it.
"""

from __future__ import annotations

import json
import logging
import marshal
import os
import signal
import sys
from pathlib import Path
from typing import IO

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from wfengine.listeners.spans import Notes, SpanMaker
from wfengine_journal.errors import JournalError
from wfengine_journal.queries import reading

#: How many lines of the log one answer has at the most.
LINES_LIMIT = 20
#: How many spans wait to be sent: OpenTelemetry's own variable, and its default.
QUEUE_VARIABLE, QUEUE_SPANS = "OTEL_BSP_MAX_QUEUE_SIZE", 2048
#: How far this process stands back where processors are scarce: spans may come later, runs may not.
NICENESS = 10


class _Lines(logging.Handler):
    """Keeps what is logged here, for the process that the spans are of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if len(self.lines) < LINES_LIMIT:
            self.lines.append(record.getMessage())

    def take(self) -> list[str]:
        """Return the lines since the last time."""
        taken, self.lines = self.lines, []
        return taken


class _Sender:
    """Makes spans of what is told, and sends them; where the receiver is slow it is waited for, and nothing is dropped."""

    def __init__(self, path: Path, journal_id: str) -> None:
        self._path = path
        self._maker = SpanMaker(journal_id)
        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        self._room = self._queue = int(os.environ.get(QUEUE_VARIABLE) or QUEUE_SPANS)

    def send(self, notes: Notes) -> None:
        """Make and send the spans of what ended."""
        try:
            with reading(self._path) as connection:
                spans = [*self._maker.make(connection, notes)]
        except JournalError:
            return  # who writes next meets it, and says so
        for span in spans:
            if self._room == 0:
                self._processor.force_flush()
                self._room = self._queue
            self._processor.on_end(span)
            self._room -= 1

    def close(self) -> None:
        """Send what is left."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # it has no types


def serve(told: IO[bytes], answers: IO[bytes]) -> None:
    """Do as told until the end."""
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    sender: _Sender | None = None
    try:
        path, journal_id = marshal.load(told)
        sender = _Sender(Path(path), journal_id)
        while True:
            _answer(answers, lines)
            request = marshal.load(told)
            if request is None:
                break
            sender.send(request)
    except EOFError:
        pass  # the process was killed; what it had told of is sent
    except Exception as error:
        logging.getLogger("wfengine.listeners").warning("Spans cannot be sent any more: %s", error)
    finally:
        if sender is not None:
            sender.close()
        _answer(answers, lines)


def _answer(answers: IO[bytes], lines: _Lines) -> None:
    try:
        answers.write(json.dumps(lines.take()).encode() + b"\n")
        answers.flush()
    except OSError:
        pass  # nobody is there any more


def main() -> None:
    """Serve standard input and output; signals for the whole group are left to the process that started this one."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    serve(sys.stdin.buffer, sys.stdout.buffer)
