"""Cut the power of recorded runs, again and again, and judge what the disk may hold then.

    python -m tests.power_loss.program --images 20000 --seed 7

is the long form: so many images of flows in both durabilities, the calibration by plain SQLite before. It prints a line of
summary, a line for each violation with the command that repeats it, and keeps the recordings then. Ctrl-C ends it early.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.effects import VARIABLE
from tests.crash.harness import ROOT, Case, environment
from tests.crash.harness import ZOO as ZOO_PROGRAM
from tests.crash.nursery import Nursery
from tests.interrupting import end_early_on_interrupt, is_interrupted
from tests.power_loss.judging import LOST, Plan, Resumer, Tally, judge_all, judge_journal, judge_plain, judge_upkeep
from tests.power_loss.recording import MARKS, Operation, compile_recorder, read, record

#: Where images are written when there is such a place: nothing of them has to outlive this machine's own power.
MEMORY = next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None)
WORKLOADS = ROOT / "tests" / "power_loss" / "workloads.py"


@dataclass(frozen=True, slots=True)
class Subject:
    """A flow that is recorded, in one durability."""

    flow: str
    durability: str
    program: Path = ZOO_PROGRAM

    @property
    def name(self) -> str:
        """Return what its recording is called."""
        return f"{self.flow}-{self.durability}"


#: What is judged: threads and subflows, asyncio, and the log folded into the file again and again.
SUBJECTS = tuple(
    Subject(flow, durability, program)
    for durability in ("power", "process")
    for flow, program in (("long_chain", ZOO_PROGRAM), ("long_gather", ZOO_PROGRAM), ("folded", WORKLOADS))
)


class Laboratory:
    """A folder with the compiled recorder, the recordings, and the images that are looked at just now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._library: Path | None = None

    def record(self, name: str, command: Sequence[str]) -> list[Operation]:
        """Record a command, whose words {folder} are where its files go; a recording that is kept there is read."""
        log, files = self.folder / f"{name}.log", self.folder / name
        if log.exists():
            return read(log)
        if self._library is None:
            self._library = compile_recorder(self.folder)
        words = [word.replace("{folder}", str(files)) for word in command]
        variables = {**environment(), VARIABLE: str(files / MARKS)}
        return record(self._library, [sys.executable, *words], files, log, variables)

    def plain(self, journal_mode: str, synchronous: str) -> list[Operation]:
        """Record the plain program."""
        words = [str(WORKLOADS), "plain", "{folder}/journal.db", journal_mode, synchronous]
        return self.record(f"plain-{journal_mode}-{synchronous}", words)

    def upkeep(self) -> list[Operation]:
        """Record pruning, a backup and an extract."""
        return self.record("upkeep", [str(WORKLOADS), "upkeep", "{folder}/journal.db"])

    def flow(self, subject: Subject) -> list[Operation]:
        """Record a flow."""
        words = [str(subject.program), subject.flow, "--journal", "{folder}/journal.db", "--durability", subject.durability]
        return self.record(subject.name, words)

    def judge(self, subject: Subject, plan: Plan) -> Tally:
        """Judge images of a flow; what durability "process" does not promise is counted and no violation."""
        operations = self.flow(subject)
        expected = Case(self.folder / f"{subject.name}-expected", subject.flow, (), subject.program)
        result = expected.run().result if plan.resume_each else None
        shutil.rmtree(expected.folder, ignore_errors=True)
        nursery = Nursery(subject.program, environment())
        try:
            resumer = Resumer(subject.flow, subject.program, result, subject.durability, nursery)
            tally = judge_all(operations, plan, judge_journal, self.folder / "images", resumer)
        finally:
            nursery.close()
        assert tally.images == len(plan.images) or is_interrupted()
        if subject.durability == "process":
            tally.violations = [each for each in tally.violations if not each.partition(": ")[2].startswith(LOST)]
        return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long form; exit code 1 if there were violations."""
    parser = argparse.ArgumentParser(prog="python -m tests.power_loss.program", description="Cut the power of recorded runs.")
    parser.add_argument("--images", type=int, default=20_000, help="of flows, shared out over the recordings")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--resume-each", type=int, default=40, help="go on for real from each n-th image")
    parser.add_argument("--from", dest="kept", type=Path, help="a folder with the recordings of an earlier run")
    parser.add_argument("--only", help="one recording, such as long_chain-power")
    parser.add_argument("--image", type=int, help="one image, and go on from it")
    options = parser.parse_args(arguments)
    end_early_on_interrupt()
    folder = options.kept or Path(tempfile.mkdtemp(prefix="wfengine-power-", dir=MEMORY))
    laboratory = Laboratory(folder)
    if options.image is None:
        calibrate(laboratory, options.seed)
    share = -(-options.images // len(SUBJECTS))
    bad = judge_commands(laboratory, options.seed, share, options.image) if options.only in (None, "upkeep") else 0
    for subject in SUBJECTS:
        if options.only not in (None, subject.name):
            continue
        images = range(share) if options.image is None else [options.image]
        tally = laboratory.judge(subject, Plan(options.seed, images, options.resume_each if options.image is None else 1))
        for violation in tally.violations:
            number = violation.split(" ", 2)[1]
            print(violation)
            print(
                f"  repeat: python -m tests.power_loss.program --from {folder} --seed {options.seed} --only {subject.name} "
                f"--image {number}"
            )
        bad += len(tally.violations)
        print(f"{subject.name}: {tally}; {len(tally.violations)} violations (seed {options.seed})", flush=True)
    if not bad and options.kept is None:
        shutil.rmtree(folder)
    return 1 if bad else 0


def judge_commands(laboratory: Laboratory, seed: int, share: int, image: int | None) -> int:
    """Judge images of pruning, a backup and an extract; return how many violations there were."""
    plan = Plan(seed, range(share) if image is None else [image])
    tally = judge_all(laboratory.upkeep(), plan, judge_upkeep, laboratory.folder / "images")
    for violation in tally.violations:
        print(violation)
    print(f"prune, backup, extract: {tally}; {len(tally.violations)} violations (seed {seed})", flush=True)
    return len(tally.violations)


def calibrate(laboratory: Laboratory, seed: int, images: int = 600) -> dict[str, Tally]:
    """Judge plain SQLite in modes whose promises are known, print what came of it, and return it."""
    tallies = {}
    for modes in (("WAL", "FULL"), ("WAL", "NORMAL"), ("OFF", "OFF")):
        operations = laboratory.plain(*modes)
        tally = judge_all(operations, Plan(seed, range(images)), judge_plain, laboratory.folder / "images")
        tallies["+".join(modes)] = tally
        print(f"plain SQLite, {'+'.join(modes)}: {tally}", flush=True)
    return tallies


if __name__ == "__main__":
    sys.exit(main())
