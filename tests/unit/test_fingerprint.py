"""Which edits of a program make a flow's code count as edited."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import timeit
from pathlib import Path

import pytest

from wfengine.fingerprint import flow_code

ROOT = Path(__file__).parents[2]

HELPERS = '''
RATE = 3
NAMES = ("a", "b")
SETTINGS = {"a": 1}

def clean(x):
    """Say what it does."""
    return deeper(x) * RATE

def deeper(x):
    return x + 1

def unused(x):
    return x
'''

FLOW = '''
import functools
import math
import helpers
import pack.sub
from helpers import NAMES, SETTINGS

class Task:
    def __init__(self, fn):
        self.fn = fn
        self.__wfengine_key__ = fn.__name__

def task(fn):
    return Task(fn)

LIMIT = 5
START = object()

@task
def load(x):
    return x + 1

class Reader:
    size = 4

    def read(self):
        return self.size + 1

    @property
    def width(self):
        return 1

class Other(Reader):
    pass

def local(x):
    # a comment
    return x + LIMIT

@functools.lru_cache
def cached(x):
    return x - 1

def outer(step):
    def inner(x):
        return step(x)
    return inner

wrapped = outer(local)

def flow(n=1, *, kind="a"):
    """Run it."""
    total = math.sqrt(4)
    for item in range(3):
        total += load(item)
    text = """
  two lines
"""
    other = Other().read() + Reader.size
    total += helpers.clean(total) + local(n) + pack.sub.fn(1) + wrapped(1)
    return total + other + cached(2) + len(NAMES) + len(SETTINGS) + len(text)
'''

SUB = "def fn(x):\n    return x\n"

RUN = """
import sys
sys.dont_write_bytecode = True
sys.path[:0] = [{folder!r}, {root!r}, {root!r} + "/journal"]
import program
from wfengine.fingerprint import flow_code
code = flow_code(program.flow)
print(code.hash, code.source is not None)
"""


def fingerprint(folder: Path, *edits: tuple[str, str, str], seed: str = "0") -> str:
    """Write the program with (file, old, new) edits and return the hash that a new process computes."""
    texts = {"helpers.py": HELPERS, "program.py": FLOW, "pack/sub.py": SUB}
    for name, old, new in edits:
        assert old in texts[name]
        texts[name] = texts[name].replace(old, new)
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    code = RUN.format(folder=str(folder), root=str(ROOT))
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    digest, has_source = run.stdout.split()
    assert has_source == "True"
    return digest


UNCHANGED = {
    "comment": ("program.py", "# a comment", "# another one"),
    "blank line": ("program.py", "    total = ", "\n\n    total = "),
    "line shift": ("helpers.py", "\nRATE", "\n\n\n\n# new\nRATE"),
    "docstring of the flow": ("program.py", "Run it.", "Run it again."),
    "no docstring": ("helpers.py", '    """Say what it does."""\n', ""),
    "layout": ("program.py", "range(3)", "range(\n        3,\n    )"),
    "body of a task": ("program.py", "return x + 1\n\nclass", "return x + 2\n\nclass"),
    "function that is not reached": ("helpers.py", "    return x\n", "    return -x\n"),
    "global that is no constant": ("helpers.py", '{"a": 1}', '{"a": 2}'),
    "decorator": ("program.py", "@functools.lru_cache\n", "@functools.lru_cache(maxsize=3)\n"),
    "quotes": ("program.py", 'kind="a"', "kind='a'"),
}
CHANGED = {
    "constant of the module": ("program.py", "LIMIT = 5", "LIMIT = 6"),
    "constant of another module": ("helpers.py", "RATE = 3", "RATE = 4"),
    "tuple": ("helpers.py", '("a", "b")', '("a", "c")'),
    "constant of a class": ("program.py", "size = 4", "size = 5"),
    "loop bound": ("program.py", "range(3)", "range(4)"),
    "helper": ("program.py", "return x + LIMIT", "return x - LIMIT"),
    "helper in another module": ("helpers.py", "* RATE", "- RATE"),
    "helper of a helper": ("helpers.py", "return x + 1", "return x + 2"),
    "helper in a package": ("pack/sub.py", "return x", "return -x"),
    "method of a base class": ("program.py", "self.size + 1", "self.size + 2"),
    "property": ("program.py", "        return 1\n", "        return 2\n"),
    "default": ("program.py", "n=1", "n=2"),
    "wrapper": ("program.py", "return step(x)", "return step(-x)"),
    "cached helper": ("program.py", "return x - 1", "return x - 2"),
    "which task": ("program.py", "load", "fetch"),
    "string of several lines": ("program.py", "  two lines", "    two lines"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fingerprint(tmp_path_factory.mktemp("original"))


@pytest.mark.parametrize("name", UNCHANGED)
def test_an_edit_that_changes_nothing_keeps_the_fingerprint(name: str, tmp_path: Path, original: str) -> None:
    assert fingerprint(tmp_path, UNCHANGED[name]) == original


@pytest.mark.parametrize("name", CHANGED)
def test_an_edit_of_what_the_flow_does_changes_the_fingerprint(name: str, tmp_path: Path, original: str) -> None:
    assert fingerprint(tmp_path, CHANGED[name]) != original


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_fingerprint_is_the_same_in_every_process(seed: str, tmp_path: Path, original: str) -> None:
    assert fingerprint(tmp_path, seed=seed) == original


def test_tasks_defined_inside_the_flow_count_by_their_signature_only(tmp_path: Path) -> None:
    hashes = []
    for number, (body, after) in enumerate([("x + 1", "1"), ("x + 2", "1"), ("x + 1", "2")]):
        namespace: dict[str, object] = {}
        path = tmp_path / f"nested{number}.py"
        path.write_text(
            f"def flow():\n    @task(retries=3)\n    def inner(x):\n        return {body}\n    return inner({after})\n"
        )

        def task(**options: object) -> None: ...

        task.__module__ = "wfengine.tasks"
        namespace["task"] = task
        exec(compile(path.read_text(), str(path), "exec"), namespace)
        hashes.append(flow_code(namespace["flow"]).hash)  # type: ignore[arg-type]  # a function
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


def test_code_without_source_counts_by_what_it_does() -> None:
    def of(text: str) -> str:
        names: dict[str, object] = {}
        exec(text, names)
        code = flow_code(names["flow"])  # type: ignore[arg-type]  # a function
        assert code.source is None
        return code.hash

    first = of("N = 1\ndef help(x): return x + N\ndef flow(): return help(1)")
    assert first == of("\n\nN = 1\ndef help(x):\n  return x + N\ndef flow():\n  'doc'\n  return help(1)")
    assert first != of("N = 1\ndef help(x): return x - N\ndef flow(): return help(1)")
    assert first != of("N = 2\ndef help(x): return x + N\ndef flow(): return help(1)")


def test_a_file_that_was_edited_after_it_was_loaded_is_not_taken_for_the_loaded_code(tmp_path: Path) -> None:
    path = tmp_path / "edited.py"
    path.write_text("def flow(x):\n    return x + 1\n")
    names: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    before = flow_code(names["flow"])  # type: ignore[arg-type]  # a function
    path.write_text("def flow(x):\n    return x + 20\n")
    after = flow_code(names["flow"])  # type: ignore[arg-type]  # a function
    exec(compile(path.read_text(), str(path), "exec"), names)
    reloaded = flow_code(names["flow"])  # type: ignore[arg-type]  # a function
    assert before.source == "def flow(x):\n    return x + 1\n"
    assert after.source is None
    assert len({before.hash, after.hash, reloaded.hash}) == 3


def test_functions_that_call_each_other_and_closures_end() -> None:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    def flow() -> bool:
        """
                Several
        lines.
        """
        return even(10)

    code = flow_code(flow)
    assert code.source is not None
    assert code.source.startswith("def flow() -> bool:")
    assert code.source.count("def ") == 3


def test_a_fingerprint_takes_a_few_milliseconds(tmp_path: Path) -> None:
    body = "".join(f"    if x > {n}:\n        x = max(x - {n}, len(str(x)))\n" for n in range(8))
    helpers = "".join(f"def helper{n}(x):\n{body}    return x\n\n" for n in range(5))
    path = tmp_path / "timed.py"
    calls = " + ".join(f"helper{n}(1)" for n in range(5))
    path.write_text(helpers + textwrap.dedent(f"def flow():\n    return {calls}\n"))
    names: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    seconds = min(timeit.repeat(lambda: flow_code(names["flow"]), number=3, repeat=5)) / 3  # type: ignore[arg-type]  # a function
    print(f"{seconds * 1e3:.2f} ms")
    assert seconds < 30e-3  # ten times the aim: a busy machine must not fail it
