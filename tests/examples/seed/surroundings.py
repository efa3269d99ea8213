"""What the programs of this folder share: a file of side effects, and a kill at a boundary that the test chose."""

import os
import signal
import threading
from pathlib import Path

from wfengine.listeners import add_listener


def note(text):
    """Write down that something happened; the file outlives the process."""
    with Path("effects.txt").open("a", encoding="utf-8") as effects:
        effects.write(f"{text}\n")


def _kill_after(task, limit):
    """Kill this process when so many calls of a task are completed and committed."""
    lock, done = threading.Lock(), []

    def kill(event):
        if event.name == task and event.state == "COMPLETED":
            with lock:
                done.append(event)
                if len(done) == limit:
                    os.kill(os.getpid(), signal.SIGKILL)

    add_listener(kill)


if "KILL_AFTER" in os.environ:
    _task, _, _limit = os.environ["KILL_AFTER"].partition(":")
    _kill_after(_task, int(_limit))
