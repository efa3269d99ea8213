"""Kill flows at random moments, again and again, during recovery too, until so many kills are done.

    python -m tests.crash.program --kills 10000 --seed 7

is the long form; it prints one line of summary, and a line for each violation. Ctrl-C ends it after the runs it is at.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.crash import invariants
from tests.crash.harness import ZOO as ZOO_PROGRAM
from tests.crash.harness import Case, Ending, environment, in_parallel
from tests.crash.nursery import Life, Nursery, kill_after
from tests.crash.zoo import ZOO
from tests.interrupting import end_early_on_interrupt, is_interrupted

#: What is killed: a long flow over threads and subflows, one over asyncio, one in which transactions of user code, messages,
#: sleeps and nested tasks cross; in both durabilities.
FLOWS = ("long_chain", "long_gather", "long_crossing")
#: A child is killed at most so long after it began, in seconds: about half the time an uninterrupted run takes, so that most
#: runs are killed several times. Every second time it is the time in which it worked, which no busy machine stretches.
LONGEST_LIFE_SECONDS = 0.15
#: Children of every so many runs are fresh processes; those of the others are forked by one that has imported everything,
#: which lets the same machine kill ten times as many.
FRESH_EACH = 10


@dataclass(slots=True)
class Tally:
    """What came of it."""

    kills: int = 0
    runs: int = 0
    acknowledged: int = 0
    most_kills_of_a_run: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills over {self.runs} runs, up to {self.most_kills_of_a_run} of one run; "
            f"{self.acknowledged} outcomes acknowledged; {len(self.violations)} violations"
        )


class Torture:
    """Random kills on two children at a time."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self._folder = folder
        self._kills = kills
        self._seed = seed
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._problems: list[BaseException] = []
        self._expected: dict[str, object] = {}
        self.tally = Tally()

    def run(self) -> Tally:
        """Kill until the number is reached; return what came of it."""
        self._expected = {flow: Case(self._folder / flow, flow).run().result for flow in FLOWS}
        in_parallel(self._work, 2)
        if self._problems:
            raise self._problems[0]
        return self.tally

    def _work(self) -> None:
        nursery = Nursery(ZOO_PROGRAM, environment()) if hasattr(os, "pidfd_open") else None
        try:
            while self.tally.kills < self._kills and not self._problems and not is_interrupted():
                with self._lock:
                    number = next(self._numbers)
                self._torture_one_run(number, None if number % FRESH_EACH == 0 else nursery)
        except BaseException as problem:
            self._problems.append(problem)
        finally:
            if nursery is not None:
                nursery.close()

    def _torture_one_run(self, number: int, nursery: Nursery | None) -> None:
        """Kill one run until a child of it reaches the end; what is random depends on seed and number alone."""
        dice = random.Random(f"{self._seed}/{number}")
        flow = FLOWS[number % len(FLOWS)]
        options = ("--durability", dice.choice(["power", "process"]))
        case = Case(self._folder / str(number), flow, options)
        violations: list[str] = []
        kills = 0
        while True:
            ending = _live(case, Life(dice.uniform(0.0, LONGEST_LIFE_SECONDS), dice.random() < 0.5), nursery)
            if not ending.was_killed:
                break
            kills += 1
            violations += invariants.after_kill(case.journal, case.effects())
            if ending.said.startswith("result"):
                break  # it was killed after it had said everything
        if not ending.said.startswith("result ") or ending.result != self._expected[flow]:
            violations.append(f"result-equal: {ending.said!r} (exit code {ending.returncode})\n{ending.stderr}")
        violations += invariants.after_end(case.journal, case.effects(), ZOO[flow].in_flight, is_ordered=False)
        self._count(number, flow, kills, case, violations)

    def _count(self, number: int, flow: str, kills: int, case: Case, violations: list[str]) -> None:
        with self._lock:
            tally = self.tally
            tally.kills += kills
            tally.runs += 1
            tally.acknowledged += len({effect.call for effect in case.effects() if effect.kind == "ack"})
            tally.most_kills_of_a_run = max(tally.most_kills_of_a_run, kills)
            tally.violations += [f"run {number} of {flow}, {case.folder}: {text}" for text in violations]
        if not violations:
            shutil.rmtree(case.folder)


def _live(case: Case, life: Life, nursery: Nursery | None) -> Ending:
    if nursery is not None:
        return case.run(nursery=nursery, life=life)
    child = case.start()
    child.wait_for("ready")
    if hasattr(os, "pidfd_open"):
        kill_after(child.pid, life)
    else:
        child.kill_after(life.seconds)
    return child.end()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long form; exit code 1 if there were violations, whose folders are kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.program", description="Kill flows at random moments.")
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args(arguments)
    end_early_on_interrupt()
    folder = Path(tempfile.mkdtemp(prefix="wfengine-crash-"))
    tally = Torture(folder, options.kills, options.seed).run()
    for violation in tally.violations:
        print(violation)
    print(f"{tally} (seed {options.seed})")
    if not tally.violations:
        shutil.rmtree(folder)
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
