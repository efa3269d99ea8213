"""Search for a sequence of events that makes the engine and the model differ.

    python -m tests.model.program --examples 20000 --seed 7

A difference is shown as the shortest sequence that has it, as Python lines that repeat it; they become a test in
`test_model.py`.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.crash.harness import environment
from tests.crash.nursery import Nursery
from tests.model.actor import BUG
from tests.model.machine import ACTOR, FlowRuns
from wfengine import use_journal
from wfengine_journal import store

#: Actions of one example.
STEPS = 25


@contextmanager
def machine(bug: str = "") -> Iterator[type[FlowRuns]]:
    """Give the state machine, with a process that its actors are forked from."""
    with tempfile.TemporaryDirectory(prefix="wfengine-model-") as folder:
        FlowRuns.empty = Path(folder) / "journal.db"
        use_journal(FlowRuns.empty)
        store.close_all()
        use_journal(None)
        FlowRuns.nursery = Nursery(ACTOR, environment() | {"PYTHONDONTWRITEBYTECODE": "1", BUG: bug})
        try:
            yield FlowRuns
        finally:
            FlowRuns.nursery.close()


def search(examples: int, number: int | None, steps: int = STEPS, *, bug: str = "") -> None:
    """Try so many examples: those of a number, or always the same ones. Raises AssertionError for a difference."""
    phases = [Phase.generate] if bug else [Phase.generate, Phase.shrink]
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, derandomize=number is None, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), phases=phases, print_blob=False, report_multiple_bugs=False,
    )  # fmt: skip
    with machine(bug) as made:

        class Seeded(made):  # type: ignore[misc, valid-type]  # a seed is set on a class
            """The machine of one seed."""

        if number is not None:
            seed(number)(Seeded)
        run_state_machine_as_test(Seeded, settings=chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the long form; exit code 1 if there was a difference, which is shown."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.program", description="Compare the engine with a model.")
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        search(options.examples, options.seed, options.steps)
    except AssertionError:
        print(f"{options.examples} examples, seed {options.seed}: a difference", flush=True)
        raise
    print(
        f"{options.examples} examples of up to {options.steps} actions, seed {options.seed}: no difference, in"
        f" {time.monotonic() - began:.0f} s (process {os.getpid()})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
