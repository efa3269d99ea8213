"""A process that forks while its other threads run flows with transactions: `python -m tests.crash.forks JOURNAL FORKS`.

Each child runs a flow, or is refused, and ends. Says at the end how many did within their time.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from wfengine import ThreadTaskRunner, flow, task, use_journal
from wfengine.sql import current_connection
from wfengine_journal.errors import WfengineError

#: Seconds that a child has: only one that hangs needs more.
CHILD_SECONDS = 30


@task
def add(left: int, right: int) -> int:
    return left + right


@task(transaction=True)
def book(number: int) -> None:
    own = current_connection()
    own.execute("CREATE TABLE IF NOT EXISTS user_booked (number INTEGER)")
    own.execute("INSERT INTO user_booked VALUES (?)", (number,))


@flow(task_runner=ThreadTaskRunner(max_workers=3))
def crossing(number: int) -> int:
    booked = [book.submit(number + place) for place in range(2)]
    total = sum(add.map(range(3), number).result())
    for future in booked:
        future.result()
    return total


def be_a_child() -> None:
    try:
        crossing(1)
    except WfengineError:
        return  # it was forked while something was under way, and says so


def fork_once() -> int:
    """Return the exit code of a child: negative where it had to be ended."""
    pid = os.fork()
    if pid == 0:
        try:
            be_a_child()
        finally:
            os._exit(0)
    ending = threading.Timer(CHILD_SECONDS, os.kill, (pid, signal.SIGKILL))
    ending.start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ending.cancel()
    return status


def main() -> None:
    use_journal(Path(sys.argv[1]), durability="process")
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            crossing(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    ended = 0
    for _ in range(int(sys.argv[2])):
        if fork_once() != 0:
            break
        ended += 1
    over.set()
    for thread in threads:
        thread.join()
    print(ended)


if __name__ == "__main__":
    main()
