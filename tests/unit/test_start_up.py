"""What starting costs, in numbers that do not depend on time: modules that are loaded, transactions that make a new file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wfengine import flow, task, use_journal
from wfengine_journal import schema, store
from wfengine_journal.clock import SystemClock
from wfengine_journal.connection import open_writer

#: Each of these takes as long to load as a dozen of our own modules; who needs one imports it where it is used.
HEAVY = frozenset({
    "asyncio", "concurrent.futures", "cloudpickle", "croniter", "decimal", "email", "fractions", "http", "importlib.metadata",
    "multiprocessing", "pydantic", "random", "rich", "socket", "sqlite_utils", "ssl", "statistics", "subprocess", "tempfile",
    "jinja2", "starlette", "tenacity", "tomllib", "unittest", "uvicorn", "wfengine.page", "xml", "zoneinfo",
})  # fmt: skip

#: What is started, how many modules of ours it loads at the most, and how many others (of Python's own library and click's;
#: Python 3.13 has a few more than 3.11, on which this was counted).
STARTS = {
    "import wfengine": (93, 70),
    "wfengine --help": (97, 98),
    "wfengine runs ls": (102, 98),
    "wfengine runs --help": (102, 98),
    "wfengine runs show 1": (107, 98),
}
#: Modules of ours that may be added before somebody looks here again.
ROOM = 4

COUNTING = """
import contextlib, io, json, sys
before = set(sys.modules)
words = sys.argv[1].split()
if words[0] == "import":
    import wfengine
else:
    from wfengine.cli import main
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(words[1:])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(what: str, journal: Path) -> set[str]:
    """Return the modules that a new process loads for it."""
    environment = {**os.environ, "WFENGINE_JOURNAL": str(journal)}
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, what], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with a run in it."""

    @flow
    def hello() -> None:
        pass

    use_journal(tmp_path / "journal.db")
    hello()
    store.close_all()
    return tmp_path / "journal.db"


@pytest.mark.parametrize("what", STARTS)
def test_a_start_loads_so_many_modules_at_the_most_and_none_that_is_slow_to_load(what: str, journal: Path) -> None:
    modules = loaded(what, journal)
    heavy = HEAVY | ({"click"} if what == "import wfengine" else set())
    assert sorted(modules & heavy) == [], "import it in the function that needs it, with a comment that says so"
    ours = sorted(name for name in modules if name.partition(".")[0].startswith("wfengine"))
    others = sorted(modules - set(ours))
    most_ours, most_others = STARTS[what]
    advice = "is each of them needed for this start? Import it later where not; else raise the number here, and say why"
    assert len(ours) <= most_ours + ROOM, f"{len(ours)} modules of ours: {advice}: {' '.join(ours)}"
    assert len(others) <= most_others, f"{len(others)} other modules: {advice}: {' '.join(others)}"


def test_a_new_file_is_made_in_one_transaction(tmp_path: Path) -> None:
    connection, version = open_writer(tmp_path / "journal.db")
    assert version == 0
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    schema.create(connection, SystemClock(), "a test")
    connection.set_trace_callback(None)
    connection.close()
    assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    assert [statements.count(statement) for statement in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")] == [1, 1, 0]
    assert sum(statement.startswith("CREATE TABLE") for statement in statements) > 20


def test_the_first_run_in_a_new_file_takes_few_transactions_and_further_ones_fewer(tmp_path: Path) -> None:
    @task
    def step() -> None:
        pass

    @flow
    def hello() -> None:
        step()

    journal = use_journal(tmp_path / "journal.db")
    hello()
    first = journal._writer.commits
    hello()
    further = journal._writer.commits - first
    store.close_all()
    assert (first, further) == (9, 5)
