"""How long it takes from asking for an isolated run until it is RUNNING, by three ways to make its process.

    python -m benchmarks.launches [RUNS]

`spare`: a process that is ready waits to be told its run; what `wfengine.isolation` does. `afresh`: a process is started when
it is asked for. `fork server`: a process that has imported the engine is forked (multiprocessing's); not what is done, and why
stands in docs/isolation.md. The second column is of ten runs asked for at once, until the last one has ended.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wfengine.isolated_child import _live
from wfengine.isolation import Children
from wfengine.journals import use_journal
from wfengine_journal.clock import seconds_from_text
from wfengine_journal.deployments import DeploymentColumns, PutDeployment
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.store import Journal, close_all

RUNS = 20
BURST = 10
#: How long one run may take before the benchmark gives up, in seconds.
RUN_SECONDS = 60.0

PROGRAM = """\
from wfengine import flow

@flow
def nothing():
    return 1
"""


class Bench:
    """A journal with a deployment, of which runs are put into a queue one by one."""

    def __init__(self, folder: Path) -> None:
        (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
        self.journal: Journal = use_journal(folder / "journal.db")
        flow_id = self.journal.flow_id("nothing", None)
        columns = DeploymentColumns("bench", f"file:{folder / 'program.py'}:nothing", None, None, "{}", None)
        self.put = PutDeployment(flow_id, columns, [], paused=None, at=self.journal.clock.now_text())
        self.journal.write(self.put, synced=True)
        self._count = 0

    def queue(self) -> int:
        """Put a run into the queue and return its id."""
        self._count += 1
        change = QueueRun(RunRequest(self.put.id, f"run-{self._count}", self.journal.clock.now_text()))
        self.journal.write(change, synced=True)
        return change.flow_run_id

    def milliseconds(self, launch: Callable[[int, Callable[[], object]], object], pause: float) -> float:
        """Return the median time from asking until RUNNING."""
        took = []
        for _ in range(RUNS if len(sys.argv) < 2 else int(sys.argv[1])):
            run_id, ended = self.queue(), threading.Event()
            asked_at = time.time()
            launch(run_id, ended.set)
            assert ended.wait(RUN_SECONDS)
            at = self.journal.records.rows(
                "SELECT at FROM transition WHERE flow_run_id = ? AND task_run_id = 0 AND state = 'RUNNING'", (run_id,)
            )
            took.append(seconds_from_text(str(at[0][0])) - asked_at)
            time.sleep(pause)
        return statistics.median(took) * 1000

    def burst(self, launch: Callable[[int, Callable[[], object]], object]) -> float:
        """Return how long it takes to run some at once."""
        asked: list[threading.Event] = []
        began = time.perf_counter()
        for run_id in [self.queue() for _ in range(BURST)]:
            asked.append(threading.Event())
            launch(run_id, asked[-1].set)
        assert all(event.wait(RUN_SECONDS) for event in asked)
        return (time.perf_counter() - began) * 1000


def live(journal: str, run_id: int) -> None:
    """Live a run in a forked process."""
    opened = use_journal(journal)
    _live(opened, opened.records.get_flow_run(run_id))
    close_all()
    os._exit(0)


def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        rows = []

        children = Children(bench.journal)
        children.prepare()
        time.sleep(1)

        def spare(run_id: int, ended: Callable[[], object]) -> None:
            children.launch(run_id, memory_limit_bytes=None, time_limit_seconds=None, ended=ended)

        rows.append(("spare", bench.milliseconds(spare, pause=0.5), bench.burst(spare)))
        children.close(5)

        def afresh(run_id: int, ended: Callable[[], object]) -> None:
            one = Children(bench.journal)
            one.launch(run_id, memory_limit_bytes=None, time_limit_seconds=None, ended=ended)

        rows.append(("afresh", bench.milliseconds(afresh, pause=0.5), bench.burst(afresh)))

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["wfengine.isolated_child", "cloudpickle"])

        def forked(run_id: int, ended: Callable[[], object]) -> None:
            process = context.Process(target=live, args=(str(bench.journal.path), run_id))
            process.start()
            threading.Thread(target=lambda: (process.join(), ended())).start()

        forked(bench.queue(), lambda: None)
        time.sleep(2)
        rows.append(("fork server", bench.milliseconds(forked, pause=0.05), bench.burst(forked)))
        close_all()
    print(f"{'':<12}{'asked -> RUNNING, median':>26}{f'{BURST} at once, all ended':>26}")
    for name, one, many in rows:
        print(f"{name:<12}{one:>23.1f} ms{many:>23.0f} ms")


if __name__ == "__main__":
    main()
