"""Let every system call of a small flow's journal go wrong, in every way, and kill the process before and after each.

    python -m tests.faults.program --all

is the long form; it prints one line of summary for each kind, and a line for each violation. Without `--all` it does a
sample: every `--stride`-th call, beginning where `--seed` says. Ctrl-C ends it after the faults it is at.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults import harness, injector
from tests.faults.injector import DISK_KINDS, HARMLESS_KINDS, KILL_KINDS, Fault
from tests.faults.small_flow import EXPECTED, FLOW
from tests.interrupting import end_early_on_interrupt, until_interrupted

#: No kind of call is made so often by the small flow.
MOST_CALLS = 3000
SMALL_FLOW = harness.Program(Path(__file__).with_name("small_flow.py"), FLOW, EXPECTED, harness.after_fault, harness.after_end)


def series(kinds: Sequence[str], stride: int, seed: int) -> Iterator[Fault]:
    """Return of each kind, once and for good, every `stride`-th fault; where it begins depends on the seed alone."""
    for kind in kinds:
        for sticky in (False,) if kind in KILL_KINDS or kind == "eintr" else (False, True):
            first = random.Random(f"{seed}/{kind}/{sticky}").randrange(stride) + 1
            yield from (Fault(kind, number, sticky) for number in range(first, MOST_CALLS, stride))


def summary(struck: Sequence[harness.Struck], kind: str) -> str:
    """Return the line that can be quoted about one kind of fault."""
    of_kind = [one for one in struck if one.fault.kind == kind]
    told = sum(one.ending.said.startswith("error ") for one in of_kind)
    done = sum(one.ending.said.startswith("result ") and not one.ending.was_killed for one in of_kind)
    violations = len(harness.all_violations(of_kind))
    return (
        f"{kind}: {len(of_kind)} faults, {told} ended in a plain error, {done} did not keep the flow from its result; "
        f"all resumed; {violations} violations"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit code 1 if there were violations, whose folders are kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.program", description="Let every system call go wrong.")
    parser.add_argument("--all", action="store_true", help="every call, not a sample")
    parser.add_argument("--stride", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", default=[*DISK_KINDS, *HARMLESS_KINDS, *KILL_KINDS])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    options = parser.parse_args(arguments)
    end_early_on_interrupt()
    folder = Path(tempfile.mkdtemp(prefix="wfengine-faults-"))
    faults = series(options.kinds, 1 if options.all else options.stride, options.seed)
    struck = harness.strike_all(SMALL_FLOW, folder, injector.build(folder), until_interrupted(faults))
    violations = harness.all_violations(struck)
    for violation in violations:
        print(violation)
    for kind in options.kinds:
        print(summary(struck, kind))
    print(f"{len(struck)} faults; {len(violations)} violations (seed {options.seed})")
    if not violations:
        shutil.rmtree(folder)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
