"""What the tests of isolated runs share: a deployment of a flow in a file, its runs, and processes for them."""

from __future__ import annotations

import textwrap
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfengine.isolation import Children
from wfengine_journal.deployments import DeploymentColumns, PutDeployment
from wfengine_journal.queued_runs import QueueRun, RunRequest
from wfengine_journal.store import Journal

#: Seconds after which a run of a test counts as hanging.
RUN_SECONDS = 60.0

HEAD = """
from __future__ import annotations
import asyncio, ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from wfengine import continue_as_new, flow, task

HERE = Path(__file__).parent

def note(text):
    with (HERE / "effects.txt").open("a") as effects:
        effects.write(f"{text}\\n")

def first_time(name="crashed"):
    if (HERE / name).exists():
        return False
    (HERE / name).touch()
    return True

@task
def step(number):
    note(f"step{number}")
    return number

"""


@dataclass
class Bench:
    """A program of the test, deployed flow by flow, and what runs it."""

    journal: Journal
    folder: Path
    children: Children
    deployments: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def write(self, text: str) -> None:
        """Write the program, with the head that all share before it."""
        (self.folder / "program.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")

    def deploy(self, flow: str, **columns: Any) -> None:
        """Record a deployment of a flow of the program."""
        record = DeploymentColumns(flow, f"file:{self.folder / 'program.py'}:{flow}", None, None, "{}", None, **columns)
        put = PutDeployment(self.journal.flow_id(flow, None), record, [], paused=None, at=self.journal.clock.now_text())
        self.journal.write(put, synced=False)
        self.deployments[flow] = put.id

    def queue(self, flow: str = "main", **parameters: object) -> int:
        """Put a run of a flow of the program into its queue; return its id."""
        if flow not in self.deployments:
            self.deploy(flow)
        self.count += 1
        request = RunRequest(self.deployments[flow], f"run-{self.count}", self.journal.clock.now_text(), parameters)
        change = QueueRun(request)
        self.journal.write(change, synced=False)
        return change.flow_run_id

    def launch(self, run_id: int, *, memory: int | None = None, seconds: float | None = None) -> threading.Event:
        """Launch a run; return what is set when it is over."""
        over = threading.Event()
        self.children.launch(run_id, memory_limit_bytes=memory, time_limit_seconds=seconds, ended=over.set)
        return over

    def live(self, run_id: int, *, memory: int | None = None, seconds: float | None = None) -> tuple[str, str | None]:
        """Launch a run and wait until it is over; return its state and message."""
        assert self.launch(run_id, memory=memory, seconds=seconds).wait(RUN_SECONDS)
        return self.state(run_id)

    def state(self, run_id: int) -> tuple[str, str | None]:
        """Return state and message of a run."""
        row = self.journal.records.get_flow_run(run_id)
        return row.state, row.state_message

    def is_over(self, run_id: int) -> bool:
        """Tell whether a run has ended."""
        return self.state(run_id)[0] in ("COMPLETED", "FAILED", "CANCELLED")

    def end(self, run_id: int) -> tuple[object, ...]:
        """Return exit code, peak memory and output of the last execution of a run."""
        rows = self.journal.records.rows(
            "SELECT exit_code, peak_memory_bytes, output FROM execution WHERE flow_run_id = ? ORDER BY epoch DESC", (run_id,)
        )
        return rows[0]

    @property
    def effects(self) -> list[str]:
        """What the program noted so far, over all processes."""
        file = self.folder / "effects.txt"
        return file.read_text(encoding="utf-8").split() if file.exists() else []

    def wait_for(self, name: str) -> str:
        """Wait until the program has noted something that begins like that; return the rest of it."""
        over = threading.Event()
        for _ in range(int(RUN_SECONDS / 0.01)):
            found = [effect for effect in self.effects if effect.startswith(name)]
            if found:
                return found[0].removeprefix(name)
            over.wait(0.01)
        raise AssertionError(f"{name} was not noted in {RUN_SECONDS} s, only {self.effects}")


def is_alive(pid: int) -> bool:
    """Tell whether a process lives; one that only waits to be looked at by its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def assert_dies(pid: int) -> None:
    """Wait until a process that was killed is dead."""
    over = threading.Event()
    for _ in range(int(RUN_SECONDS / 0.01)):
        if not is_alive(pid):
            return
        over.wait(0.01)
    raise AssertionError(f"process {pid} still lives")


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
