"""Serve for an hour, killed now and then, and look whether anything grows.

    python -m tests.soak --minutes 60

A daemon (`serving`) runs two schedules of flows that do some of everything. In the first third of the time it is killed four
times and started anew; then one life has to stay flat: descriptors, threads, resident memory. The log beside the journal is to
stay small all the time, and in the end every tick has its run and every run its end. A line at each interval, one of summary.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash import invariants
from tests.crash.harness import environment
from tests.daemons import DaemonProcess

#: Kills in the first third.
KILLS = 4
#: Share of the last life that is warming up, and not judged.
WARM_UP = 0.25
#: The log may be so large at any time, in bytes.
LARGEST_LOG = 64 * 1024 * 1024
#: From the first to the last third of what is judged, descriptors and threads may differ by so many: runs that go on just then.
MOST_MORE = 12
#: Resident memory may grow by so many kilobytes an hour, and by so many beside that, whatever the time: the allocator's steps.
KILOBYTES_AN_HOUR, KILOBYTES_AT_ALL = 1024.0, 4096.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the daemon held at one moment."""

    at: float
    pid: int
    descriptors: int
    threads: int
    resident: int  # kilobytes
    log: int  # bytes
    runs: int

    def __str__(self) -> str:
        return (
            f"{self.at:6.0f} s: process {self.pid}, {self.descriptors} descriptors, {self.threads} threads,"
            f" {self.resident} kB resident, {self.log / 1024:.0f} kB of log, {self.runs} runs"
        )


@dataclass(slots=True)
class Soak:
    """What was seen."""

    samples: list[Sample] = field(default_factory=list)
    kills: int = 0
    violations: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Compare the beginning of the last life, once warm, with its end."""
        last = [sample for sample in self.samples if sample.pid == self.samples[-1].pid]
        judged = last[int(len(last) * WARM_UP) :]
        if len(judged) < 6:
            self.violations.append(f"too-short: {len(judged)} samples of the last life")
            return
        third = len(judged) // 3
        hours = (judged[-1].at - judged[0].at) / 3600
        for name, allowed in (
            ("descriptors", MOST_MORE), ("threads", MOST_MORE),
            ("resident", KILOBYTES_AT_ALL + KILOBYTES_AN_HOUR * hours),
        ):  # fmt: skip
            first, end = (statistics.median(getattr(each, name) for each in part) for part in (judged[:third], judged[-third:]))
            if end - first > allowed:
                self.violations.append(f"growth: {name} from {first:g} to {end:g} in {hours:.2f} h")
        largest = max(sample.log for sample in self.samples)
        if largest > LARGEST_LOG:
            self.violations.append(f"log-small: it had {largest} bytes")

    def __str__(self) -> str:
        last = [sample for sample in self.samples if sample.pid == self.samples[-1].pid]
        warm = last[int(len(last) * WARM_UP) :] or last
        spans = ", ".join(
            f"{name} {getattr(warm[0], name)} to {getattr(warm[-1], name)} (most {max(getattr(each, name) for each in warm)})"
            for name in ("descriptors", "threads", "resident")
        )
        log = max(sample.log for sample in self.samples) / 1024
        return (
            f"{self.samples[-1].at / 60:.1f} minutes, {self.samples[-1].runs} runs, {self.kills} kills; in the last life, once"
            f" warm: {spans}; log at most {log:.0f} kB; {len(self.violations)} violations"
        )


def take_sample(began: float, pid: int, journal: Path) -> Sample:
    """Look at a process, and at the files."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text(encoding="ascii").splitlines() if ":" in line)
    log = Path(f"{journal}-wal")
    ((runs,),) = invariants.query(journal, "SELECT count(*) FROM flow_run WHERE parent_task_run_id IS NULL") or [(0,)]
    return Sample(
        time.monotonic() - began, pid, len(list((process / "fd").iterdir())), int(status["Threads"]),
        int(status["VmRSS"].split()[0]), log.stat().st_size if log.exists() else 0, int(str(runs)),
    )  # fmt: skip


def soak(folder: Path, seconds: float, interval: float, say: Callable[[str], object]) -> Soak:
    """Serve for so long; look at every interval."""
    journal, found = folder / "journal.db", Soak()
    variables = environment() | {"WFENGINE_SOAK_FOLDER": str(folder)}
    command = ("-m", "tests.soak.serving", str(journal), "0")
    began = time.monotonic()
    kills = [seconds / 3 * (number + 1) / KILLS for number in range(KILLS)] + [seconds]
    for until in kills:
        with DaemonProcess(folder, *command, environment=variables) as daemon:
            daemon.wait_until_ready()
            while time.monotonic() - began < until:
                time.sleep(max(0.0, min(interval, until - (time.monotonic() - began))))
                if daemon.process.poll() is not None:
                    found.violations.append(f"daemon-lives: it ended\n{daemon.said[-2000:]}")
                    return found
                found.samples.append(take_sample(began, daemon.process.pid, journal))
                say(str(found.samples[-1]))
            if until < seconds:
                daemon.kill()
                found.kills += 1
            elif (code := daemon.stop()) != 0:
                found.violations.append(f"daemon-stops: exit code {code}\n{daemon.said[-2000:]}")
    found.judge()
    found.violations += invariants.file_sound(journal) + invariants.history_gapless(journal) + _unended(journal)
    return found


def _unended(journal: Path) -> list[str]:
    """Return what did not end well; a run that the last stop left waits for the next daemon."""
    rows = invariants.query(
        journal,
        "SELECT r.id, r.state FROM flow_run r WHERE r.parent_task_run_id IS NULL AND r.state NOT IN ('COMPLETED', 'SCHEDULED')"
        " UNION ALL SELECT t.flow_run_id, 'tick without run' FROM tick t LEFT JOIN flow_run r ON r.id = t.flow_run_id"
        "  WHERE t.outcome = 'started' AND r.id IS NULL",
    )
    return [f"all-ended: {row}" for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; exit code 1 where something grew, or went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Serve for long and look what grows.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two looks")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="wfengine-soak-") as folder:
        found = soak(Path(folder), options.minutes * 60, options.interval, lambda line: print(line, flush=True))
    for violation in found.violations:
        print(violation)
    print(found)
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())
