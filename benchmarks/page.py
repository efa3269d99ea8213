"""W6: what each page takes on the server, in a file with very many task runs: `python -m benchmarks.page`.

The file is that of `benchmarks.growth`: a run of 100,000 task runs among 1,000,000, all of them the engine's own. Each page is
asked for in turns, over HTTP on this machine, of a file that was written to just now, so that nothing is kept from earlier,
and once more of the same file left alone; beside it stands a plain question in SQL for what it shows. The processor's time is
that of server and client together: on a machine that is busy with other things it is the one to look at.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from benchmarks.growth import LARGE, make, seconds
from wfengine.page import PageServer, app
from wfengine_journal import queries
from wfengine_journal.store import close_all

TOKEN = "a-token-for-a-benchmark"
#: Milliseconds that a page may take at the median.
LIMIT_MS = 100.0

#: Path of a page, and a plain question for what it shows, with {run} for the large run and {task} for one of its calls.
PAGES = (
    ("/", "SELECT state, count(*) FROM (SELECT state FROM flow_run ORDER BY id DESC LIMIT 20000) GROUP BY state"),
    ("/runs", "SELECT * FROM runs ORDER BY id DESC LIMIT 50"),
    ("/runs?q=state:failed", "SELECT * FROM runs WHERE state = 'FAILED' ORDER BY id DESC LIMIT 50"),
    ("/runs?q=flow:block", "SELECT * FROM runs WHERE flow = 'block' ORDER BY id DESC LIMIT 50"),
    ("/flows", "SELECT flow_id, count(*) FROM (SELECT flow_id FROM flow_run ORDER BY id DESC LIMIT 20000) GROUP BY flow_id"),
    ("/flow?name=block", "SELECT * FROM tasks WHERE run_id > {run} - 30 AND run_id < {run}"),
    ("/timeline?since=24h", "SELECT id, name, state, started_at, ended_at FROM flow_run ORDER BY id DESC LIMIT 1000"),
    ("/runs/{run}", "SELECT task_id, state, count(*) FROM task_run WHERE flow_run_id = {run} GROUP BY task_id, state"),
    (
        "/runs/{run}?from=0.5&to=0.6",
        "SELECT id, started_at, ended_at FROM task_run WHERE flow_run_id = {run} AND started_at <= '2' LIMIT 500",
    ),
    ("/runs/{run}?show=graph", "SELECT id, inputs, result FROM task_run WHERE flow_run_id = {run} LIMIT 1000"),
    ("/runs/{run}?show=tasks", "SELECT * FROM tasks WHERE run_id = {run} LIMIT 100"),
    ("/runs/{run}?show=logs", "SELECT * FROM logs WHERE run_id = {run} ORDER BY id DESC LIMIT 300"),
    ("/runs/{run}?show=history", "SELECT * FROM history WHERE run_id = {run} LIMIT 100"),
    ("/runs/{run}?show=values", "SELECT * FROM runs WHERE id = {run}"),
    ("/runs/{run}?show=code", "SELECT * FROM execution JOIN code ON code.id = code_id WHERE flow_run_id = {run}"),
    ("/tasks/{task}", "SELECT * FROM tasks WHERE id = {task}"),
    ("/keys", "SELECT 1"),
)


@dataclass(slots=True)
class Measured:
    """Seconds of one page's answers, of the processor, of a second answer, and of the plain question; bytes of the answer."""

    times: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    size: int = 0


def measure(path: Path, run: int, rounds: int) -> dict[str, Measured]:
    """Return what each page takes."""
    with queries.reading(path) as connection:
        task = connection.execute("SELECT max(id) - 1000 FROM task_run WHERE flow_run_id = ?", (run,)).fetchone()[0]
    server = PageServer(app(path, token=TOKEN), port=0)
    server.start()
    headers = {"authorization": f"Bearer {TOKEN}"}
    found: dict[str, Measured] = {page: Measured() for page, _ in PAGES}
    try:
        with (
            httpx.Client(base_url=server.address.rstrip("/"), headers=headers, timeout=60, trust_env=False) as client,
            queries.reading(path) as connection,
        ):

            def ask(address: str) -> int:
                answer = client.get(address)
                assert answer.status_code == 200, (address, answer.text)
                return len(answer.content)

            for turn in range(rounds + 1):
                for page, question in PAGES:
                    address, statement = (text.format(run=run, task=task) for text in (page, question))
                    path.touch()
                    began = time.process_time()
                    first = seconds(partial(ask, address))
                    processor = time.process_time() - began
                    left_alone = time.time() - 3600 - turn  # another instant each turn
                    os.utime(path, (left_alone, left_alone))
                    size = ask(address)
                    again = seconds(partial(ask, address))
                    plain = seconds(_asked(connection.execute, statement))
                    if turn:  # the first turn warms
                        each = found[page]
                        each.size = size
                        for values, taken in (
                            (each.times, first), (each.processor, processor), (each.again, again), (each.plain, plain)
                        ):  # fmt: skip
                            values.append(taken)
    finally:
        server.stop(10.0)
    return found


def _asked(execute: Callable[..., object], statement: str) -> Callable[[], object]:
    return lambda: execute(statement).fetchall()  # type: ignore[attr-defined]  # a cursor


def main() -> None:
    """Make the file, measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--tasks", type=int, default=LARGE, help=f"task runs in the file; default {LARGE:,}")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--folder", type=Path, help="where scratch files go: a local disk, not a RAM disk")
    parser.add_argument("--file", type=Path, help="a file that is made there, if it is not there yet, and kept")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.file is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wfengine-page-", dir=options.folder))
            path = Path(folder) / "journal.db"
        else:
            path = options.file
        if not path.exists():
            make(path, options.tasks)
        with queries.reading(path) as connection:
            run = int(connection.execute("SELECT max(id) FROM flow_run").fetchone()[0])
            calls = int(connection.execute("SELECT count(*) FROM task_run WHERE flow_run_id = ?", (run,)).fetchone()[0])
        print(f"{path.stat().st_size / 1e6:,.0f} MB, a run of {calls:,} task runs", flush=True)
        found = measure(path, run, options.rounds)
        close_all()
    names = " ".join(f"{name:>9}" for name in ("page ms", "of it CPU", "worst", "again ms", "SQL ms"))
    print(f"{names} {'kB':>7}  medians of {options.rounds} rounds")
    slow = []
    for page, each in found.items():
        median, processor, again, plain = (
            statistics.median(values) * 1000 for values in (each.times, each.processor, each.again, each.plain)
        )
        worst = max(each.times) * 1000
        print(f"{median:9.1f} {processor:9.1f} {worst:9.1f} {again:9.1f} {plain:9.1f} {each.size / 1000:7.1f}  {page}")
        if median > LIMIT_MS:
            slow.append(page)
    print(f"more than {LIMIT_MS:g} ms: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
