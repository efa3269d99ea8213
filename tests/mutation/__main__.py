"""Whether the tests would notice: small wrong changes of the journal's core and of the replay key, each judged by the tests.

    python -m tests.mutation --sample 200 --seed 7
    python -m tests.mutation --modules transitions.py corrections.py

A process that has collected the tests forks one for each change. There the changed functions take the place of the true ones,
and the tests that call them run, quickest first, up to the first that fails. A change that no test notices survives: it is
printed with its place, and somebody says why it is no fault, or writes the test. The sources are never written. Programs that a
test starts run as they are, so only what a test sees in its own process counts.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from tests.mutation.changes import Change, compile_changed, list_changes

ROOT = Path(__file__).parents[2]
MODULES = {
    "transitions.py": "wfengine_journal.transitions",
    "run_transitions.py": "wfengine_journal.run_transitions",
    "corrections.py": "wfengine_journal.corrections",
    "recorded_calls.py": "wfengine_journal.recorded_calls",
    "records.py": "wfengine_journal.records",
    "identity.py": "wfengine.identity",
}
#: The tests that judge: those of the journal's core and of replay that work in their own process.
TESTS = """
    journal/test_transitions.py journal/test_transition_columns.py journal/test_recorded_rows.py journal/test_child_ends.py
    journal/test_unknown_commits.py unit/test_identity.py engine/test_reruns.py engine/test_drift.py
    engine/test_replay_identity.py engine/test_replay_outcomes.py engine/test_replay_scopes.py engine/test_retries.py
    engine/test_returned_states.py engine/test_transactions.py engine/test_subflows.py engine/test_in_doubt.py
    engine/test_idempotency.py engine/test_waiting_runs.py engine/test_cancellation.py
"""
#: Seconds that a test may take to be one of those that judge.
QUICK_SECONDS = 1.0
#: Seconds of a processor that the tests of one change may take; a change that has a loop run for ever ends here.
CPU_SECONDS = 60
#: What the gate judges: (module, function, change, whether it is noticed). The last two are no faults, and survive.
FIXED = (
    ("transitions.py", "CompleteCall.apply", "'epoch = ?' always holds", True),
    ("transitions.py", "CompleteCall.apply", "\"state = 'RUNNING'\" always holds", True),
    ("transitions.py", "BeginCall.apply", "'raise' deleted", True),
    ("transitions.py", "FailAttempt.apply", "'version = ?' always holds", True),
    ("transitions.py", "SettleCall.apply", "statement deleted", True),
    ("run_transitions.py", "ClaimFlowRun.apply", "'epoch = ?' always holds", True),
    ("run_transitions.py", "EndFlowRun.apply", "'epoch = ?' always holds", True),
    ("run_transitions.py", "_interrupt_running_calls", "\"state = 'RUNNING'\" always holds", True),
    ("transitions.py", "store_error", "0 to 1", False),
    ("run_transitions.py", "CreateFlowRun.apply", "0 to 1", False),
)


class Judge:
    """Takes the place of pytest's loop: forks for each change, and runs the tests there."""

    def __init__(self, options: argparse.Namespace, out: Any) -> None:
        self._options = options
        self._out = out
        self._current = ""
        self._called: dict[str, set[tuple[str, str]]] = {}
        self._seconds: dict[str, float] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="mutation-"))
        self.survivors: list[str] = []
        self.ends: Counter[str] = Counter()
        self.is_complete = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return True  # a file could not be collected
        try:
            self._measure(session)
            chosen = self._choose()
            for module, tree, change in chosen:
                self._judge(session, module, tree, change)
            self.is_complete = True
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    # -------------------------------------------------------------------------------- which tests call what

    def _measure(self, session: pytest.Session) -> None:
        """Run all tests on the true source, and note which functions each of them calls."""
        notes = self._folder / "notes.json"

        def run() -> bool:
            threading.settrace(self._trace)
            sys.settrace(self._trace)
            for item in session.items:
                self._current = item.nodeid
                self._called[item.nodeid] = set()
                began = time.process_time()
                if not self._run(session, [item]):
                    return False
                self._seconds[item.nodeid] = time.process_time() - began
            notes.write_text(json.dumps([self._seconds, {name: sorted(keys) for name, keys in self._called.items()}]))
            return True

        end = self._fork(run, cpu_seconds=3600, seconds=3600)
        if end != "survived":
            raise SystemExit(f"The tests do not pass on the true source ({end}).")
        self._seconds, called = json.loads(notes.read_text())
        self._called = {name: {(file, function) for file, function in keys} for name, keys in called.items()}

    def _trace(self, frame: Any, event: str, argument: object) -> None:
        name = os.path.basename(frame.f_code.co_filename)  # noqa: PTH119 - for each call of a function
        if name in MODULES:
            self._called[self._current].add((name, frame.f_code.co_qualname.split(".<locals>")[0]))

    def _choose(self) -> list[tuple[str, ast.Module, Change]]:
        found = []
        for module in self._options.modules:
            tree = ast.parse(Path(importlib.import_module(MODULES[module]).__file__ or "").read_text())
            found += [(module, tree, change) for change in list_changes(tree)]
        if self._options.fixed:
            wanted = [fixed[:3] for fixed in FIXED]
            places = [(module, change.function, change.what) for module, _, change in found]
            return [found[places.index(place)] for place in wanted]
        if self._options.only:
            return [choice for choice in found if self._options.only in f"{choice[0]}:{choice[2].line} {choice[2]}"]
        count = min(self._options.sample or len(found), len(found))
        return random.Random(self._options.seed).sample(found, count)

    # -------------------------------------------------------------------------------- one change

    def _judge(self, session: pytest.Session, module: str, tree: ast.Module, change: Change) -> None:
        items = [item for item in session.items if self._is_judge(item.nodeid, module, change)]
        items.sort(key=lambda item: self._seconds[item.nodeid])

        def run() -> bool:
            try:
                put_in_place(importlib.import_module(MODULES[module]), tree, change)
            except Exception:
                return False  # a module that cannot be loaded is noticed by everybody
            return self._run(session, items)

        end = self._fork(run, cpu_seconds=CPU_SECONDS, seconds=self._options.limit) if items else "survived"
        self.ends[end] += 1
        line = f"{end}: {module}:{change.line} {change}"
        if end == "survived":
            self.survivors.append(line)
        if end != "killed" or self._options.fixed or self._options.only:
            self._say(line if items else f"{line} (no test calls it)")

    def _is_judge(self, name: str, module: str, change: Change) -> bool:
        is_called = not change.function or (module, change.function) in self._called[name]
        return is_called and self._seconds[name] <= QUICK_SECONDS

    @staticmethod
    def _run(session: pytest.Session, items: Sequence[pytest.Item]) -> bool:
        """Run tests up to the first that fails; tell whether none did."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            session._setupstate.teardown_exact(item)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                return False
        return True

    def _fork(self, run: Any, *, cpu_seconds: int, seconds: float) -> str:
        """Run it in a process of its own; return how that ended."""
        pid = os.fork()
        if pid == 0:
            os.setsid()
            code = 2
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
                code = 0 if run() else 1
            finally:
                os._exit(code)
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        is_late = not poll.poll(seconds * 1000)
        os.killpg(pid, signal.SIGKILL)  # what its tests left running, or itself
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if is_late or code == -signal.SIGXCPU:
            return "hung"
        return "survived" if code == 0 else "killed"


def put_in_place(module: ModuleType, tree: ast.Module, change: Change) -> None:
    """Let the functions and constants of a loaded module be those of its changed source."""
    changed: dict[str, Any] = {**{name: getattr(module, name) for name in ("__file__", "__name__", "__package__", "__spec__")}}
    exec(compile_changed(tree, change, str(module.__file__)), changed)
    functions = [function for function in gc.get_objects() if isinstance(function, FunctionType)]
    new = {_place(function): function for function in functions if function.__globals__ is changed}
    for function in functions:
        if function.__globals__ is vars(module) and _place(function) in new:
            other = new[_place(function)]
            function.__code__, function.__defaults__ = other.__code__, other.__defaults__
            function.__kwdefaults__ = other.__kwdefaults__
    for name, value in changed.items():
        before = getattr(module, name, None)
        if isinstance(value, str | int | float | tuple | dict) and not name.startswith("__") and value != before:
            for user in list(sys.modules.values()):
                if vars(user).get(name) is before:
                    setattr(user, name, value)


def _place(function: FunctionType) -> tuple[str, int]:
    return function.__qualname__, function.__code__.co_firstlineno


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge, print who survived and one line with all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--sample", type=int, help="how many changes, drawn by the seed; all without it")
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--limit", type=float, default=300, help="seconds for the tests of one change")
    parser.add_argument("--only", help="the changes whose line, as printed, has this in it")
    parser.add_argument("--fixed", action="store_true", help="what the gate judges")
    parser.add_argument("--tests", nargs="+", default=TESTS.split(), help="files below tests/")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    out = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        judge = Judge(options, out)
        files = [str(ROOT / "tests" / name) for name in options.tests]
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
            pytest.main(["-q", "-s", "-p", "no:randomly", f"--rootdir={ROOT}", f"--basetemp={folder}/t", *files], [judge])
        if not judge.is_complete:
            said.seek(0)
            print(said.read().decode(errors="replace")[-5000:], file=out, flush=True)
            return 2
    ends, total = judge.ends, judge.ends.total()
    print(
        f"{total} changes: {ends['killed']} killed, {ends['hung']} hung, {ends['survived']} survived"
        f" (seed {options.seed}, {time.monotonic() - began:.0f} s)", file=out, flush=True,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
