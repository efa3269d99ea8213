"""Wrong changes that the tests must notice, and two that are no faults: the gate's part of `python -m tests.mutation`."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

from tests import forked
from tests.crash.harness import environment
from tests.mutation.__main__ import FIXED, put_in_place
from tests.mutation.changes import list_changes

SOURCE = '''
LIMIT = 2
def guard(version, seen=1):
    """Not changed."""
    if version != seen:
        raise ValueError
    return version < LIMIT and not seen
SQL = "UPDATE t SET state = 'A', fatal = NULL WHERE id = ? AND version = ? AND state IN ('A', 'B')"
'''


def test_faults_of_the_journal_are_noticed_and_what_is_no_fault_is_not() -> None:
    command = [sys.executable, "-m", "tests.mutation", "--fixed", "--tests"]
    tests = ["journal/test_transition_columns.py"]
    ended = forked.run([*command, *tests], timeout=280, is_fresh=True, env=environment(), cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [re.sub(r":\d+ ", " ", line) for line in ended.stdout.splitlines()]
    assert lines[:-1] == [
        f"{'killed' if is_noticed else 'survived'}: {module} {function}: {what}" for module, function, what, is_noticed in FIXED
    ]
    assert lines[-1].startswith(f"{len(FIXED)} changes: {len(FIXED) - 2} killed, 0 hung, 2 survived (seed ")


def test_each_kind_of_change_is_made() -> None:
    found = {change.what for change in list_changes(ast.parse(SOURCE))}
    assert found == {
        "2 to 3", "1 to 2", "NotEq to Eq", "condition always holds", "condition never holds", "'raise' deleted", "Lt to LtE",
        "and to or", "'not' dropped", "'id = ?' always holds", "'version = ?' always holds",
        "\"state IN ('A', 'B')\" always holds", "\"'A', \" dropped", "\", 'B'\" dropped", "'fatal = NULL' not set",
    }  # fmt: skip


def test_a_change_takes_the_place_of_the_true_function_and_constant(tmp_path: Path) -> None:
    module = ModuleType("planted")
    module.__file__ = str(tmp_path / "planted.py")
    exec(compile(SOURCE, module.__file__, "exec"), vars(module))
    sys.modules["planted"] = module
    try:
        tree = ast.parse(SOURCE)
        guard = module.guard
        for change in list_changes(tree):
            if change.what in ("1 to 2", "2 to 3"):
                put_in_place(module, tree, change)
                assert (guard.__defaults__, module.LIMIT) == (((2,), 2) if change.what == "1 to 2" else ((1,), 3))
        assert ast.dump(tree) == ast.dump(ast.parse(SOURCE))
    finally:
        del sys.modules["planted"]
