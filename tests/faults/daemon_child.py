"""`wfengine serve` with a fault of the disk ahead, until all that was to be done is done: then it is told to stop.

The exit code is the daemon's, and so is what it says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import sys
import tempfile
from pathlib import Path

from tests.crash.effects import append
from tests.crash.nursery import FLAG, serve
from tests.faults import injector
from tests.faults.served_flows import FIRINGS, RUNS
from wfengine_journal import store
from wfengine_journal.errors import WfengineError
from wfengine_journal.threads import start_thread

#: Where the seconds stand after which a daemon that has not done its work is stopped all the same: it hangs then.
SECONDS_VARIABLE = "FAULTS_SECONDS"
#: How many more pages the file may have, where that is the fault.
PAGES_VARIABLE = "FAULTS_PAGES"

#: Names a bug that is planted, to see the harness find it; each does its harm when the disk failed under the daemon.
BUG_VARIABLE = "FAULTS_BUG"
BUGS = {
    "blames a task": "UPDATE task_run SET state = 'FAILED', version = version + 1 WHERE state = 'RUNNING'",
    "doubles a run": """
        CREATE TEMP TABLE twin AS SELECT * FROM flow_run LIMIT 1;
        UPDATE twin SET id = NULL, name = name || '-twin', nominal_at = NULL;
        INSERT INTO flow_run SELECT * FROM twin;
    """,
    "forgets an event": "UPDATE firing SET state = 'done' WHERE state = 'pending'",
    "claims to be done": "",
}

IS_DONE = f"""
    SELECT (SELECT count(*) FROM flow_run WHERE state = 'COMPLETED') >= {RUNS}
       AND (SELECT count(*) FROM firings WHERE state = 'done') >= {FIRINGS}
"""


def _stop_when_done(path: Path, sock: socket.socket) -> None:
    try:
        while b"READY=1" not in sock.recv(4096):
            pass
    except OSError:
        return  # closed: the daemon ended just now
    journal = store.open_journal(path)  # the daemon's own: it is open
    while True:
        with contextlib.suppress(WfengineError, sqlite3.Error):  # a fault that met this look, and not the daemon
            mark = journal.changes.mark()
            if journal.read(lambda connection: bool(connection.execute(IS_DONE).fetchone()[0])):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            journal.changes.wait(mark, 1.0)


def execute() -> None:
    """Serve the journal that the command line names."""
    from wfengine.cli import _run

    append("start", str(os.getpid()))
    path = Path(sys.argv[1])
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    address = str(Path(tempfile.mkdtemp(prefix="wf-")) / "notify")
    sock.bind(address)
    os.environ["NOTIFY_SOCKET"] = address
    start_thread("until-done", lambda: _stop_when_done(path, sock))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # told to stop when it has ended by itself just now
    injector.arm()
    if pages := os.environ.get(PAGES_VARIABLE):
        _limit_pages(path, int(pages))
    arguments = ["serve", "--no-config", "--recover", "all", "--journal", str(path), "--timeout"]
    arguments.append(os.environ.get(SECONDS_VARIABLE, "60"))
    try:
        code = _run(arguments)
    finally:
        sock.detach()  # the thread may be waiting for it yet
        Path(address).unlink()
        Path(address).parent.rmdir()
    if code and (bug := os.environ.get(BUG_VARIABLE)):
        _do_harm(path, bug)
        code = 0 if bug == "claims to be done" else code
    sys.exit(code)


def _do_harm(path: Path, bug: str) -> None:
    store.close_all()
    os.environ |= {"FAULTS_AT": "0", "FAULTS_STICKY": "0"}
    injector.arm()  # it works again
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(BUGS[bug])


def _limit_pages(path: Path, more: int) -> None:
    """Let the file have no more than so many pages beyond those it has."""
    from wfengine import use_journal

    journal = use_journal(path)
    pages = journal.read_itself(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
    journal.read_itself(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + more}").fetchone())


if __name__ == "__main__":
    if sys.argv[1:] == [FLAG]:
        import wfengine.automations.service
        import wfengine.cli.daemon_logs
        import wfengine.cli.serve
        import wfengine.serving  # noqa: F401 - so that no child has to

        serve(execute)
    else:
        execute()
