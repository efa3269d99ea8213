"""Runs command lines in this process under an audit hook, and prints what they did that reading must not do.

`python -m tests.security.audited FOLDER VERB...`: each argument after the folder is a command line as JSON. All are run once
before, without the hook, so that what they import is there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from wfengine.cli import _run

#: What no reading verb does: load a pickle, make or run code, start another program, use the network.
FORBIDDEN = (
    *("pickle.find_class", "exec", "compile", "marshal.loads", "code.__new__", "import"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
    *("socket.", "urllib.", "ftplib.", "smtplib.", "webbrowser.", "http.client"),
    *("sqlite3.enable_load_extension", "sqlite3.load_extension", "ctypes."),
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """Notes what is forbidden while it is on. A hook cannot be taken away again."""

    def __init__(self, folder: Path) -> None:
        self._may_write = (f"{folder}{os.sep}", str(Path(tempfile.gettempdir()) / "wfengine-"), os.devnull)
        self.is_on = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.is_on:
            return
        if event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {arguments!r}"[:300])
        elif (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING) or event in (
            "os.remove",
            "os.rename",
            "os.rmdir",
            "os.mkdir",
            "os.chmod",
            "os.link",
            "os.symlink",
            "os.truncate",
        ):
            self._written(event, arguments[0])

    def _written(self, event: str, path: object) -> None:
        text = str(Path(os.fsdecode(path)).resolve()) if isinstance(path, str | bytes | os.PathLike) else repr(path)
        if not f"{text}{os.sep}".startswith(self._may_write):
            self.seen.append(f"{event} {text}")


def main() -> None:
    """Print a JSON object: command line -> what it did that is forbidden; only those that did something."""
    folder = Path(sys.argv[1]).absolute()
    os.chdir(folder)
    watch = Watch(folder)
    sys.addaudithook(watch)
    found = {}
    for warm in (True, False):
        for text in sys.argv[2:]:
            watch.seen.clear()
            watch.is_on = not warm
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                _run(json.loads(text))
            watch.is_on = False
            if watch.seen:
                found[text] = list(watch.seen)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
