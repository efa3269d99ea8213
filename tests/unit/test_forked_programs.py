"""A forked program is as good as a started one: what both say and how they end is compared, and what differs is known."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, TimeoutExpired

import pytest

from tests import forked

pytestmark = pytest.mark.skipif(not forked._MAY_FORK, reason="no process is forked here")

SEEN = """
import os, sys, signal, threading, warnings
print(sys.argv, sys.orig_argv[1:], os.getcwd(), sorted(os.environ.items()), sys.warnoptions, sys.dont_write_bytecode)
print(sys.path, __name__, globals().get("__file__"), sys.modules["__main__"].__dict__ is globals())
print(sorted(set(globals()) - {"__annotations__"}))
print(sys.stdin.read(), sys.stdin.encoding, sys.stdin.errors)
for stream in (sys.stdout, sys.stderr):
    print(stream.encoding, stream.errors, stream.newlines, stream.line_buffering, stream.write_through, stream.isatty())
print(threading.active_count(), threading.current_thread() is threading.main_thread(), os.getpgrp() == os.getsid(0))
print([(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD)])
print(warnings.filters, signal.pthread_sigmask(signal.SIG_BLOCK, []), sorted(os.listdir("/proc/self/fd")))
print(len(os.listdir("/proc/self/task")))
"""

PROGRAMS = {
    "what is set": SEEN,
    "an error": "1 / 0",
    "an error in a function": "def fail():\n    raise ValueError('é')\nfail()",
    "an exit code": "import sys; sys.exit(7)",
    "a large exit code": "import sys; sys.exit(-1)",
    "an exit with words": "import sys; sys.exit('bye')",
    "an interrupt": "raise KeyboardInterrupt",
    "a kill": "import os; os.kill(os.getpid(), 9)",
    "an end at once": "import os; print('lost?'); os._exit(3)",
    "a thread and what is done at the end": (
        "import atexit, threading\natexit.register(print, 'end')\n"
        "threading.Timer(0.05, print, ['thread']).start()\nprint('main')"
    ),
    "a daemon thread": "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start(); print(1)",
    "a pool": "from concurrent.futures import ThreadPoolExecutor as T; T(1).submit(print, 'in a pool')",
    "a warning": "import warnings; warnings.warn('careful')",
    "an unclosed output": "import os; os.close(1); print('nowhere')",
    "a process of its own": (
        "import multiprocessing\nif __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=print, args=(1,))\n"
        "    child.start()\n    child.join()\n    print(child.exitcode)"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("program", "how"),
    [(program, "file") for program in PROGRAMS]
    + [(program, how) for program in ("what is set", "an error", "a warning") for how in ("-c", "-m", "-W error -c")],
)
def test_a_forked_program_says_and_ends_as_a_started_one(tmp_path: Path, program: str, how: str) -> None:
    file = tmp_path / "some_program.py"
    file.write_text(PROGRAMS[program], encoding="utf-8")
    arguments = {
        "-c": ["-c", PROGRAMS[program]], "-m": ["-m", "some_program"], "file": ["some_program.py"],
        "-W error -c": ["-W", "error", "-c", PROGRAMS[program]],
    }[how]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": "/nowhere", "PYTHONWARNINGS": "ignore::UserWarning", "ONE": "1"}
    command = [sys.executable, *arguments, "an argument", "-x"]
    options = {"cwd": tmp_path, "env": environment, "input": "told", "timeout": 60.0, "start_new_session": how == "-m"}
    found, expected = (vars(forked.run(command, is_fresh=is_fresh, **options)) for is_fresh in (False, True))
    assert found == expected


def test_a_run_and_its_resume_have_different_hash_seeds() -> None:
    command = [sys.executable, "-c", "print(hash('x'))"]
    assert forked.run(command, timeout=60).stdout != forked.run(command, timeout=60).stdout


def test_what_is_set_before_python_begins_gets_a_started_process() -> None:
    command = [sys.executable, "-c", "print(hash('x'))"]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    said = {forked.run(command, timeout=60, env=environment).stdout for _ in range(2)}
    assert said == {forked.run(command, timeout=60, env=environment, is_fresh=True).stdout}


def test_a_forked_program_is_signalled_waited_for_and_given_up_as_any() -> None:
    command = [sys.executable, "-c", "import sys, time; print('ready', flush=True); time.sleep(600)"]
    with forked.Popen(command, stdin=DEVNULL, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        with pytest.raises(TimeoutExpired):
            process.wait(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == process.poll() == process.returncode == -signal.SIGTERM
    with pytest.raises(TimeoutExpired):
        forked.run(command, timeout=0.01)
