"""How the page changes anything: by the very command that it shows, as a process of its own.

So a button and the command line cannot differ; code of a user's flows is never loaded into the process of the page, which a
program may have mounted in itself; and a run that was resumed from here lives on when the page ends. The words are made from
values whose form is checked, each is one argument, and there is no shell.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wfengine_journal.errors import UsageError, WfengineError
from wfengine_journal.threads import start_thread

#: Seconds in which a command that changes something has to end. A run that was started is looked at, for a refusal to be told:
#: until it is seen to have begun, every so often and so long at the most, or, of many, for so long.
COMMAND_SECONDS = 60.0
BEGUN_SECONDS = 30.0
LOOK_SECONDS = 0.1
START_SECONDS = 1.5
#: Processes that were started here at a time, and bytes of what one of them said.
STARTED_LIMIT = 50
OUTPUT_BYTES = 2_000_000
#: Bytes of one argument: Linux takes no more than 128 KiB.
ARGUMENT_BYTES = 100_000


class CommandError(UsageError):
    """A command refused. Its text is that of the command."""

    def __init__(self, message: str, code: str, exit_code: int) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command. `is_going_on`: it had not ended when this was said."""

    command: str
    answer: dict[str, object]
    is_going_on: bool = False


def shown(words: Sequence[str], named: str | None = None) -> str:
    """Return the command line for people to type. `named`: the journal, where it is not the one found by itself."""
    end = words.index("--") if "--" in words else len(words)
    options, names = list(words[:end]), list(words[end + 1 :])
    options += ["--journal", named] if named else []
    # What stands behind -- is no option; it is left out where it makes no difference.
    return shlex.join(["wfengine", *options, *(["--"] if any(name.startswith("-") for name in names) else []), *names])


class Commands:
    """Runs commands about one journal. Its methods may be called from any thread."""

    def __init__(self, path: Path, named: str | None) -> None:
        self._path = path
        self._named = named
        self._folder = Path.cwd()
        self._lock = threading.Lock()
        self._started = 0

    def shown(self, words: Sequence[str]) -> str:
        """Return the command line for people to type."""
        return shown(words, self._named)

    def run(self, words: Sequence[str], given: bytes | None = None) -> Done:
        """Run a command to its end. Raises CommandError where it refuses.

        `given` is its standard input: what must not stand in a command line, where every user of the machine could read it.
        """
        process, output = self._start(words, takes_input=given is not None)
        try:
            if given is None:
                process.wait(COMMAND_SECONDS)
            else:
                process.communicate(given, COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise UsageError(f"It took longer than {COMMAND_SECONDS:g} s and was stopped: {self.shown(words)}") from None
        finally:
            self._ended()
        with output:
            return Done(self.shown(words), _answer(process.returncode, output))

    def start(self, words: Sequence[str], begun: Callable[[], bool] | None = None) -> Done:
        """Start a command that executes a run, and let it go on. Raises CommandError where it refuses.

        `begun` tells whether what it executes has begun, so that it will not refuse any more; without it that is not known.
        """
        process, output = self._start(words)
        if not _has_ended(process, begun):
            start_thread("wfengine-page-child", lambda: self._wait_for(process, output))
            return Done(self.shown(words), {"pid": process.pid}, is_going_on=True)
        self._ended()
        with output:
            return Done(self.shown(words), _answer(process.returncode, output))

    def _start(self, words: Sequence[str], *, takes_input: bool = False) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        for word in words:
            if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
                raise UsageError("A text holds a NUL, or a character that is not valid in UTF-8.")
            if len(word.encode()) > ARGUMENT_BYTES:
                raise UsageError(f"A text is longer than {ARGUMENT_BYTES} bytes. Use the command line, with a file.")
        with self._lock:
            if self._started >= STARTED_LIMIT:
                raise UsageError(f"{STARTED_LIMIT} commands of this page are still going on. Wait until one has ended.")
            self._started += 1
        output = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        # What a user typed stands in `words` only after '=', or after '--': it is never read as an option.
        line = [sys.executable, "-m", "wfengine", "--json", f"--journal={self._path}", *words]
        try:
            process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
            )
        except OSError as error:
            self._ended()
            output.close()
            raise WfengineError(f"The command could not be started: {error.strerror or error}.") from error
        return process, output

    def _wait_for(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        process.wait()
        output.close()
        self._ended()

    def _ended(self) -> None:
        with self._lock:
            self._started -= 1


def _has_ended(process: subprocess.Popen[bytes], begun: Callable[[], bool] | None) -> bool:
    """Wait until a process has ended, or what it does has begun."""
    limit, step = (START_SECONDS, START_SECONDS) if begun is None else (BEGUN_SECONDS, LOOK_SECONDS)
    for _ in range(round(limit / step)):
        try:
            process.wait(step)
            return True
        except subprocess.TimeoutExpired:
            if begun is not None and begun():
                return False
    return False


def _answer(code: int, output: IO[bytes]) -> dict[str, object]:
    """Return the JSON object that a command printed. Raises CommandError where it says that it refused."""
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - OUTPUT_BYTES))
    text = output.read().decode("utf-8", "replace")
    found: dict[str, object] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                parsed = json.loads(line)
            except ValueError:
                continue
            if isinstance(parsed, dict) and "schema_version" in parsed:
                found = parsed
    error = found.get("error")
    if isinstance(error, dict):
        raise CommandError(str(error.get("message")), str(error.get("code")), code)
    runs = found.get("runs")
    if isinstance(runs, list) and len(runs) == 1 and isinstance(runs[0], dict) and isinstance(runs[0].get("error"), dict):
        error = runs[0]["error"]  # of a resume that the engine refused
        raise CommandError(str(error.get("message")), str(error.get("code")), code)
    if not found and code != 0:
        raise CommandError(text.strip()[-2000:] or f"It ended with exit code {code}.", "WF100", code)
    return {**found, "exit_code": code}
