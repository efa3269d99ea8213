"""Let the disk fail under the daemon: it says so and ends with a code that a service manager restarts, or it is not noticed.

    python -m tests.faults.daemons --faults 2000 --seed 7

is the long form; it prints one line of summary, and a line for each violation. `wfengine serve` executes two ticks that are
due, and two runs that an automation starts. Whatever call on the journal's files goes wrong: no tick, firing or run may be
lost or doubled, nothing may be recorded as failed or as done that is not, and the next daemon does what is left.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash import effects, invariants
from tests.crash.harness import Ending, environment
from tests.crash.nursery import Nursery
from tests.faults import injector
from tests.faults.daemon_child import IS_DONE, PAGES_VARIABLE
from tests.faults.injector import LASTING_KINDS, LINE_OF_NOTE, Fault
from tests.faults.served_flows import FIRINGS, RUNS, TICKS
from tests.interrupting import end_early_on_interrupt, until_interrupted

PROGRAM = Path(__file__).with_name("daemon_child.py")
FLOWS = Path(__file__).with_name("served_flows.py")
#: Calls of a daemon on its files, of each kind about so many; what comes too late strikes nobody.
MOST_CALLS = {"enospc": 470, "eio": 470, "sync": 26, "read": 180, "open": 8, "readonly": 470}
#: The exit codes of a daemon: it was stopped, or the journal is in trouble, after which a service manager starts it again.
STOPPED, JOURNAL = 0, 5
#: What may be found in no word of a daemon's: a fault of the disk is none of ours.
DEFECT = re.compile(r"Traceback|[Ff]ault in wfengine|WF900|Please report|Exception ignored|Error in atexit")


@dataclass(slots=True)
class Tally:
    """What came of all faults."""

    struck: int = 0
    told: int = 0
    done: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{self.struck} faults under a daemon ({kinds}): {self.told} ended it plainly, {self.done} did not keep it from "
            f"its work; all was done by the next one; {len(self.violations)} violations"
        )


class Bench:
    """Lets daemons serve copies of one journal, in one folder."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder = folder / "bench"
        folder.mkdir(exist_ok=True)
        self._sound = folder / "sound.db"
        command = [sys.executable, str(FLOWS), str(self._sound)]
        subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=120)
        self._nursery = Nursery(PROGRAM, environment() | {"LD_PRELOAD": str(library)})

    def close(self) -> None:
        """End the nursery."""
        self._nursery.close()

    @property
    def journal(self) -> Path:
        """The journal that is served just now."""
        return self._folder / "journal.db"

    def strike(self, fault: Fault, tally: Tally) -> None:
        """Let a daemon serve a fresh journal with a fault, a second one go on, with it if it lasts, and a last one without."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)
        shutil.copyfile(self._sound, self.journal)
        variables = _variables(fault, self.journal)
        ending = self._serve(variables)
        struck = self._folder / LINE_OF_NOTE
        if not (struck.exists() or (fault.kind == "pages" and ending.returncode == JOURNAL)):
            if ending.returncode != STOPPED:
                tally.violations.append(f"without a fault: {ending}")
            return
        tally.struck += 1
        tally.kinds[fault.kind] += 1
        tally.told += ending.returncode == JOURNAL
        tally.done += ending.returncode == STOPPED
        wrong = self._judge(ending)
        if ending.returncode != STOPPED and fault.sticky:
            wrong += [f"begun again on the bad disk: {text}" for text in self._judge(self._serve(variables))]
        if not self._is_done():
            last = self._serve({})
            if last.returncode != STOPPED or not self._is_done():
                wrong.append(f"next-daemon: {last}")
        wrong += self._judge_end()
        where = struck.read_text(encoding="utf-8").strip() if struck.exists() else "the file's size"
        tally.violations += [f"{fault} ({where}): {text}" for text in wrong]

    def _serve(self, variables: dict[str, str]) -> Ending:
        for name in ("stdout.txt", "stderr.txt"):
            (self._folder / name).unlink(missing_ok=True)
        witness = {effects.VARIABLE: str(self._folder / "effects.txt"), "FAULTS_AT": "0", "WFENGINE_NOTIFICATIONS": "off"}
        code = self._nursery.run(self._folder, [str(self.journal)], witness | variables)
        said = [self._folder / name for name in ("stdout.txt", "stderr.txt")]
        return Ending(code, *(path.read_text(encoding="utf-8") if path.exists() else "" for path in said))

    def _is_done(self) -> bool:
        return invariants.query(self.journal, IS_DONE) == [(1,)]

    def _judge(self, ending: Ending) -> list[str]:
        """Return what is wrong with how a daemon ended, and with the file right then."""
        wrong = []
        if ending.returncode not in (STOPPED, JOURNAL):
            wrong.append(f"exit-code: {ending}")
        if DEFECT.search(ending.said + ending.stderr):
            wrong.append(f"plain-message: {ending}")
        if ending.returncode == JOURNAL and not re.search(r"error\[WF\d+\]: .*journal\.db", ending.stderr):
            wrong.append(f"plain-message: {ending}")
        if ending.returncode == STOPPED and not self._is_done():
            wrong.append(f"stuck: it did not end by itself, nor do what was due: {ending}\n{self._states()}")
        return wrong + self._judge_file()

    def _judge_file(self) -> list[str]:
        witness = effects.read(self._folder / "effects.txt")
        path = self.journal
        if invariants.is_unborn(path):
            return []
        wrong = invariants.file_sound(path) + invariants.history_gapless(path)
        wrong += invariants.acknowledged_never_again(witness) + invariants.acknowledged_is_recorded(path, witness)
        failed = invariants.query(
            path,
            "SELECT 'task', id, state FROM task_run WHERE state = 'FAILED'"
            " UNION ALL SELECT 'flow', id, state FROM flow_run WHERE state = 'FAILED'"
            " UNION ALL SELECT 'firing', id, state FROM firings WHERE state = 'failed' OR results LIKE '%failed%'"
            " UNION ALL SELECT 'completed without its result', id, state FROM task_run"
            "  WHERE state = 'COMPLETED' AND result IS NULL AND NOT EXISTS (SELECT 1 FROM value v WHERE v.hash = result_hash)"
            " UNION ALL SELECT 'completed without its tasks', r.id, r.state FROM flow_run r WHERE r.state = 'COMPLETED'"
            "  AND EXISTS (SELECT 1 FROM task_run t WHERE t.flow_run_id = r.id AND t.state <> 'COMPLETED')",
        )
        doubled = invariants.query(
            path, "SELECT nominal_at, count(*) FROM tick GROUP BY schedule_id, nominal_at HAVING count(*) > 1"
        )
        return wrong + [f"no-false-state: {row}" for row in failed] + [f"tick-once: {row}" for row in doubled]

    def _judge_end(self) -> list[str]:
        """Return what is wrong once a sound daemon has done the rest."""
        wrong = self._judge_file()
        found = {
            "ticks": (TICKS, "SELECT count(*) FROM tick WHERE outcome = 'started'"),
            "runs": (RUNS, "SELECT count(*) FROM flow_run"),
            "runs of ticks": (TICKS, "SELECT count(DISTINCT nominal_at) FROM flow_run WHERE nominal_at IS NOT NULL"),
            "firings": (FIRINGS, "SELECT count(*) FROM firings"),
            "events of firings": (FIRINGS, "SELECT count(*) FROM events WHERE name = 'order.shipped'"),
            "parameters": (FIRINGS, "SELECT count(DISTINCT parameters) FROM runs WHERE flow = 'ship'"),
        }
        for what, (expected, sql) in found.items():
            rows = invariants.query(self.journal, sql)
            if rows != [(expected,)]:
                wrong.append(f"once: {what} are {rows}, not {expected}\n{self._states()}")
        return wrong

    def _states(self) -> str:
        runs = invariants.query(self.journal, "SELECT id, flow, state, state_name, message FROM runs")
        return f"{runs} {invariants.query(self.journal, 'SELECT id, state, results FROM firings')}"


def _variables(fault: Fault, journal: Path) -> dict[str, str]:
    if fault.kind == "pages":
        return {PAGES_VARIABLE: str(fault.number)}
    return fault.variables(journal)


def drawn(count: int, seed: int) -> Iterator[Fault]:
    """Draw faults, of each kind as many."""
    kinds = (*LASTING_KINDS, "pages")
    for number in range(count):
        dice = random.Random(f"{seed}/{number}")
        kind = kinds[number % len(kinds)]
        if kind == "pages":
            yield Fault(kind, dice.randrange(12), sticky=True)
        else:
            yield Fault(kind, dice.randint(1, MOST_CALLS[kind]), dice.random() < 0.5)


def strike_all(folder: Path, faults: Iterable[Fault]) -> Tally:
    """Let these faults happen, one after the other."""
    tally = Tally()
    bench = Bench(folder, injector.build(folder))
    try:
        for fault in until_interrupted(faults):
            bench.strike(fault, tally)
    finally:
        bench.close()
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long form; exit code 1 if there were violations."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.daemons", description="Let the disk fail under the daemon.")
    parser.add_argument("--faults", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--one", nargs=3, metavar=("KIND", "CALL", "STICKY"), help="one fault: eio 7 1")
    options = parser.parse_args(arguments)
    end_early_on_interrupt()
    faults = drawn(options.faults, options.seed)
    if options.one:
        kind, number, sticky = options.one
        faults = iter([Fault(kind, int(number), sticky == "1")])
    with tempfile.TemporaryDirectory(prefix="wfengine-daemons-") as folder:
        tally = strike_all(Path(folder), faults)
    for violation in tally.violations:
        print(violation)
    print(f"{tally} (seed {options.seed})")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
