"""Let the disk fail under every command: it must say so plainly, never claim what it did not do, and work once the disk does.

    python -m tests.faults.commands --faults 2000 --seed 7

is the long form; it prints one line of summary, and a line for each violation.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.nursery import Nursery
from tests.damage.child import VERBS
from tests.damage.rich import environment, make_rich
from tests.faults import injector
from tests.faults.command_child import FOUND
from tests.faults.injector import DISK_KINDS, LINE_OF_NOTE, Fault
from tests.interrupting import end_early_on_interrupt, until_interrupted

PROGRAM = Path(__file__).with_name("command_child.py")
#: Commands that write, each with the rich journal before it; those that only read are the ones of tests/damage.
WRITING: tuple[tuple[str, ...], ...] = (
    ("variables", "set", "size", "7"),
    ("variables", "unset", "colour"),
    ("limits", "set", "database", "--slots", "3"),
    ("queues", "pause", "default"),
    ("deployments", "run", "parent/hourly"),
    ("send", "13", '"again"', "--topic", "later"),
    ("automations", "apply", "automations.toml"),
    ("schedules", "pause", "parent/hourly"),
    ("prune", "--older-than", "0s", "--keep", "1"),
    ("fork", "1"),
    ("cancel", "14"),
    ("resume", "4"),
    ("retry", "4"),
    ("import", "other.db"),
    ("run", "flows.py:listening"),
    ("backup", "copy.db", "--force"),
    ("extract", "1", "small.db", "--force"),
    ("recover", "journal.db", "-o", "rescued.db", "--force"),
)
READING = tuple(verb for verb in VERBS if verb[0] not in ("backup", "extract", "recover"))
COMMANDS = (*WRITING, *READING)
#: What a command may write beside the journal.
TARGETS = ("copy.db", "small.db", "rescued.db")
#: Calls of a command on its files, at most: later ones are hardly ever made.
MOST_CALLS = 400


@dataclass(slots=True)
class Outcome:
    """How a command ended, and what is in the files then: rows of each table, or what is wrong with the file."""

    code: int | None
    wrong: list[str]
    err: str
    files: dict[str, object]


@dataclass(slots=True)
class Tally:
    """What came of all faults."""

    struck: int = 0
    told: int = 0
    done: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.struck} faults under {len(self.commands)} commands: {self.told} told plainly, {self.done} did not keep the "
            f"command from its end; {len(self.violations)} violations"
        )


class Bench:
    """Runs commands on copies of one journal, in one folder."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder = folder / "bench"
        self._sound = folder / "sound"
        self._sound.mkdir()
        make_rich(self._sound)
        shutil.copy(self._sound / "journal.db", self._sound / "other.db")
        variables = environment(self._folder / "disk")
        self._nursery = Nursery(PROGRAM, variables | {"LD_PRELOAD": str(library)})
        self._clean: dict[tuple[str, ...], Outcome] = {}

    def close(self) -> None:
        """End the nursery."""
        self._nursery.close()

    def strike(self, command: tuple[str, ...], fault: Fault, tally: Tally) -> None:
        """Run a command with a fault, and again without; count what came of it."""
        clean = self._clean.get(command)
        if clean is None:
            clean = self._clean[command] = self._run(command, None)
            tally.violations += [f"without a fault: {text}" for text in clean.wrong]
        found = self._run(command, fault)
        if not (self._folder / LINE_OF_NOTE).exists():
            return
        tally.struck += 1
        tally.commands[command[0]] += 1
        tally.told += found.code not in (0, clean.code)
        tally.done += found.code == clean.code
        tally.violations += [
            f"{fault}: {text}" for text in [*found.wrong, *_unsound(found), *self._judge(command, found, clean)]
        ]

    def _judge(self, command: tuple[str, ...], found: Outcome, clean: Outcome) -> list[str]:
        said = " ".join(command)
        struck = (self._folder / LINE_OF_NOTE).read_text(encoding="utf-8").strip()
        if found.code == 0 and "sync " in struck and struck.endswith(".part"):
            return [f"{said}: claims to have written what could not be synced ({struck})"]
        if found.code == clean.code == 0 and found.files != clean.files:
            differs = {name: rows for name, rows in found.files.items() if rows != clean.files.get(name)}
            return [f"{said}: claims to have done what it did not: {differs} {found.err}"]
        if found.code == clean.code:
            return []
        again = self._run(command, None, fresh=False)
        if again.code != clean.code and command[0] not in ("run", "resume", "retry", "cancel"):  # they may have begun
            return [f"{said}: ended with {again.code} when the disk worked again: {again.err}"]
        return [f"when the disk worked again: {text}" for text in [*again.wrong, *_unsound(again)]]

    def _run(self, command: tuple[str, ...], fault: Fault | None, *, fresh: bool = True) -> Outcome:
        disk = self._folder / "disk"
        if fresh:
            shutil.rmtree(self._folder, ignore_errors=True)
            shutil.copytree(self._sound, disk)
        variables = {"FAULTS_AT": "0"}
        if fault is not None:
            note = {"FAULTS_NOTE": str(self._folder / LINE_OF_NOTE), "FAULTS_PREFIX": f"{disk}/"}
            variables = fault.variables(disk / "journal.db") | note
        (self._folder / FOUND).unlink(missing_ok=True)
        code = self._nursery.run(self._folder, list(command), variables)
        if not (self._folder / FOUND).exists():
            errors = (self._folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
            return Outcome(code, [f"{' '.join(command)}: ended with {code}: {errors[-2000:]}"], "", {})
        found: dict[str, Any] = json.loads((self._folder / FOUND).read_text(encoding="utf-8"))
        files = {name: _content(disk / name) for name in ("journal.db", *TARGETS) if (disk / name).exists()}
        return Outcome(found["code"], found["wrong"], found["err"], files)


def _content(path: Path) -> object:
    """Return the rows of each table, counted, without those that say who was there; or what is wrong with the file."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            damage = connection.execute("PRAGMA integrity_check").fetchall()
            if damage != [("ok",)]:
                return f"damaged: {damage[:2]}"
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
            counted = (table for table in tables if table not in ("owner", "log", "sqlite_sequence"))
            return {table: connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in counted}
    except sqlite3.Error as error:
        return f"damaged: {error}"


def _unsound(outcome: Outcome) -> list[str]:
    return [f"{name} is {content}" for name, content in outcome.files.items() if isinstance(content, str)]


def drawn(count: int, seed: int, commands: Sequence[tuple[str, ...]] = COMMANDS) -> Iterator[tuple[tuple[str, ...], Fault]]:
    """Draw commands in turn, each with a fault: rather an early call than a late one, since few commands make many."""
    for number in range(count):
        dice = random.Random(f"{seed}/{number}")
        at = int(MOST_CALLS ** dice.random())
        yield commands[number % len(commands)], Fault(dice.choice(DISK_KINDS), at, dice.random() < 0.5)


def strike_all(folder: Path, faults: Iterable[tuple[tuple[str, ...], Fault]]) -> Tally:
    """Let these faults happen, one after the other."""
    tally = Tally()
    bench = Bench(folder, injector.build(folder))
    try:
        for command, fault in until_interrupted(faults):
            bench.strike(command, fault, tally)
    finally:
        bench.close()
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long form; exit code 1 if there were violations."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.commands", description="Let the disk fail under commands.")
    parser.add_argument("--faults", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--only", help="one command, by its first word")
    options = parser.parse_args(arguments)
    end_early_on_interrupt()
    chosen = [command for command in COMMANDS if options.only in (None, command[0])]
    with tempfile.TemporaryDirectory(prefix="wfengine-commands-") as folder:
        tally = strike_all(Path(folder), drawn(options.faults, options.seed, chosen))
    for violation in tally.violations:
        print(violation)
    print(f"{tally} (seed {options.seed})")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
