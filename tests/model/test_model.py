"""Sequences of events over several runs, with processes that are killed, held against a model in plain Python."""

from __future__ import annotations

import os
import random
from contextlib import nullcontext

import pytest

from tests.model.machine import FlowRuns
from tests.model.oracle import Run
from tests.model.program import machine, search

pytestmark = pytest.mark.crash

#: Examples of each test, and actions of an example; the long form is `python -m tests.model.program`.
EXAMPLES, STEPS = 5, 12


@pytest.mark.timeout(600)
def test_the_engine_does_what_the_model_says() -> None:
    search(EXAMPLES, None, STEPS)


@pytest.mark.timeout(600)
def test_the_engine_does_what_the_model_says_whatever_the_seed() -> None:
    """WFENGINE_MODEL_SEED repeats a run of this test."""
    seed = int(os.environ.get("WFENGINE_MODEL_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"WFENGINE_MODEL_SEED={seed}")
    search(EXAMPLES, seed, STEPS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", ["outcome not recorded", "value of another call", "tick without run", "executed twice"])
def test_a_bug_that_is_planted_is_found(bug: str) -> None:
    with pytest.raises(AssertionError):
        search(40, None, STEPS, bug=bug)


@pytest.mark.parametrize("bug", ["", "orphan not noted", "value of another call"])
def test_a_fixed_sequence_is_played_and_a_bug_in_it_found(bug: str) -> None:
    """A run fails, a call before the failure is edited, a person resumes, and is killed; then it is recovered."""
    with machine(bug) as made, pytest.raises(AssertionError) if bug else nullcontext():
        played = made()
        played.begin(["work", "work", "shaky", "hear"])
        try:
            play(played)
        finally:
            played.teardown()


def play(played: FlowRuns) -> None:
    first, second, shaky, _hear = played.program
    run = Run(1)
    played.break_these({shaky.name})
    played.execute([run], "start", kill=0, by_person=False)
    assert run.state == "FAILED"
    played.rewrite((first, second._replace(version=1), *played.program[2:]))
    played.break_these(set())
    played.execute([run], "resume", 1, kill=3, by_person=True)
    assert run.state == "CRASHED"
    played.execute([run], "recover", kill=0, by_person=False)
    assert run.state == "COMPLETED"
    assert run.orphans == [second]
    played.every_run_is_as_the_model_says()
