"""Judge the disks found after a cut: what is in the file, and whether the run goes on from there."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.crash import effects, invariants
from tests.crash.harness import ZOO as ZOO_PROGRAM
from tests.crash.harness import Case
from tests.crash.nursery import Nursery
from tests.crash.zoo import ZOO
from tests.interrupting import until_interrupted
from tests.power_loss.disks import KINDS, Disk, write_out
from tests.power_loss.recording import MARKS, Operation
from tests.power_loss.workloads import KEPT, RUNS

#: Prefixes of violations that say that something acknowledged is gone, which durability "process" does not promise.
LOST = ("lost", "acknowledged-is-recorded", "logs-kept")


class Judge(Protocol):
    """Says what is wrong with a folder that was found after a cut."""

    def __call__(self, folder: Path, /) -> list[str]: ...


@dataclass(slots=True)
class Tally:
    """What came of a number of images."""

    images: int = 0
    damaged: int = 0
    lost: int = 0
    resumed: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.images} images, {self.damaged} damaged, {self.lost} lost something acknowledged, {self.resumed} resumed"


def judge_plain(folder: Path) -> list[str]:
    """Judge what the plain program left."""
    path = folder / "journal.db"
    given = [int(each.call) for each in effects.read(folder / MARKS) if each.kind == "ack"]
    try:
        with closing(sqlite3.connect(path)) as connection:
            damage = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            if damage:
                return [f"file-sound: {damage[0]}"]
            if not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():
                return [f"lost: {given}, with the table"] if given else []
            last = connection.execute("SELECT coalesce(max(number), -1) FROM plain").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return [f"file-sound: {error}"]
    return [f"lost: rows {last + 1} to {given[-1]}"] if given and last < given[-1] else []


def judge_upkeep(folder: Path) -> list[str]:
    """Judge what pruning, a backup and an extract left: the runs that stay are there, and what was said to be done is done."""
    done = {each.call for each in effects.read(folder / MARKS) if each.kind == "ack"}
    wrong = []
    for name, mark, least in (("journal.db", "runs", KEPT), ("copy.db", "copied", KEPT), ("small.db", "extracted", 1)):
        if not (folder / name).exists():
            wrong += [f"lost: {name}"] if mark in done else []
            continue
        try:
            with closing(sqlite3.connect(folder / name)) as connection:
                damage = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
                if damage or (mark not in done and name == "journal.db"):
                    wrong += [f"file-sound: {name}: {text}" for text in damage[:1]]
                    continue
                runs = connection.execute("SELECT id FROM runs WHERE state = 'COMPLETED' ORDER BY id").fetchall()
                calls = connection.execute(
                    "SELECT count(*) FROM task_run t WHERE result_hash IS NOT NULL AND (result IS NOT NULL"
                    " OR EXISTS (SELECT 1 FROM value v WHERE v.hash = t.result_hash))"
                ).fetchone()[0]
        except sqlite3.DatabaseError as error:
            wrong.append(f"file-sound: {name}: {error}")
            continue
        if len(runs) < least or runs[-1] != (RUNS if name != "small.db" else runs[-1][0],) or calls != 8 * len(runs):
            wrong.append(f"lost: {name} has {calls} results of runs {runs}")
        if name == "journal.db" and "pruned" in done and len(runs) != KEPT:
            wrong.append(f"lost: what pruning deleted is there again: {runs}")
    return wrong


def judge_journal(folder: Path) -> list[str]:
    """Judge what a flow left, after SQLite rolled back or recovered what it had to."""
    path = folder / "journal.db"
    try:
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        return invariants.after_kill(path, effects.read(folder / MARKS))
    except sqlite3.DatabaseError as error:
        return [f"file-sound: {error}"]


@dataclass(frozen=True, slots=True)
class Resumer:
    """Goes on with a flow's run from an image, in a fresh process."""

    flow: str
    program: Path
    expected: object
    durability: str
    nursery: Nursery | None = None

    def problems(self, folder: Path) -> list[str]:
        """Return what is wrong once the run has ended."""
        case = Case(folder, self.flow, ("--durability", self.durability), self.program)
        ending = case.run(nursery=self.nursery)
        if not ending.said.startswith("result ") or ending.result != self.expected:
            return [f"result-equal: {ending.said!r} (exit code {ending.returncode})\n{ending.stderr}"]
        if self.durability == "process":
            return invariants.file_sound(case.journal) + invariants.history_gapless(case.journal)
        in_flight = ZOO[self.flow].in_flight if self.program == ZOO_PROGRAM else 1
        return invariants.after_end(case.journal, case.effects(), in_flight, is_ordered=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which images of a recording are made: all that is random in image n depends on the seed and n alone."""

    seed: int
    images: Sequence[int]
    resume_each: int = 0

    def dice(self, number: int) -> random.Random:
        """Return the randomness of one image; what it gives first is the place of the cut."""
        return random.Random(f"{self.seed}/{number}")


def judge_all(operations: Sequence[Operation], plan: Plan, judge: Judge, folder: Path, resumer: Resumer | None = None) -> Tally:
    """Rebuild images of a recording and judge each. `folder` is emptied of all that were right."""
    tally = Tally()
    disk = Disk()
    done = 0
    numbers = {number: plan.dice(number) for number in plan.images}
    cuts = sorted((dice.randint(0, len(operations)), number) for number, dice in numbers.items())
    for cut, number in until_interrupted(cuts):
        for each in operations[done:cut]:
            disk.do(each)
        done = max(done, cut)
        kind = KINDS[number % len(KINDS)]
        image = folder / str(number)
        files, marks = disk.cut(kind, numbers[number]), bytes(disk.marks)
        write_out(files, marks, image)
        found = judge(image)
        if resumer is not None and plan.resume_each and number // len(KINDS) % plan.resume_each == 0:
            shutil.rmtree(image)
            write_out(files, marks, image)
            found += resumer.problems(image)
            tally.resumed += 1
        _count(tally, found, f"image {number} ({kind}, cut after operation {cut})")
        shutil.rmtree(image)
    return tally


def _count(tally: Tally, found: list[str], what: str) -> None:
    lost = [each for each in found if each.startswith(LOST)]
    tally.images += 1
    tally.lost += bool(lost)
    tally.damaged += len(lost) < len(found)
    tally.violations += [f"{what}: {each}" for each in found]
