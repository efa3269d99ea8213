"""The rules of the repository that a machine can check: who may import, print, ask the time, and speak SQL."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import wfengine
from wfengine_journal.schema import read_sql

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(file for folder in ("wfengine", "journal", "scheduler") for file in (ROOT / folder).rglob("*.py"))
#: A tripwire that makes one look again, not a style: lines of a module, and of a function without its docstring.
MODULE_LINES = 600
FUNCTION_LINES = 70

#: What executes the statements of a user in a database of the user's; it has nothing to do with the journal.
FOREIGN_DATABASES = tuple(f"wfengine/integrations/{name}.py" for name in ("marks", "paging", "sql", "statements"))

FORBIDDEN_AT_IMPORT = (
    "asyncio", "click", "sqlite_utils", "croniter", "tenacity", "rich", "pydantic", "cloudpickle", "multiprocessing",
    "importlib.metadata", "distributed", "dask",
)  # fmt: skip


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    return [(name_of(file), node) for file in SOURCES for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]


@cache
def called(node: ast.AST) -> str:
    """Return the dotted name of what a node calls, '' if it calls nothing or something without a name."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) else ""


def test_sql_is_executed_in_the_journal_only() -> None:
    offenders = [
        f"{name}:{node.lineno}"  # type: ignore[attr-defined]  # a call has a line
        for name, node in nodes()
        if not name.startswith(("journal/", *FOREIGN_DATABASES))
        and called(node).rpartition(".")[2] in ("execute", "executemany", "executescript")
    ]
    assert offenders == []


def test_only_the_clock_asks_for_the_time_and_sleeps() -> None:
    asking = re.compile(r"(^|\.)(datetime|date)\.(now|utcnow|today)$|^time\.(time|time_ns|monotonic|perf_counter|sleep)$")
    offenders = [
        f"{name}:{node.lineno} {called(node)}"  # type: ignore[attr-defined]
        for name, node in nodes()
        if asking.search(called(node)) and name != "journal/wfengine_journal/clock.py"
    ]
    assert offenders == []


def test_only_the_command_line_prints() -> None:
    offenders = [
        f"{name}:{node.lineno}"  # type: ignore[attr-defined]
        for name, node in nodes()
        if called(node) == "print" and not name.startswith("wfengine/cli/")
    ]
    assert offenders == []


def test_the_command_line_holds_no_sql() -> None:
    statement = re.compile(
        r"^\s*(SELECT\s|INSERT\s+(OR|INTO)\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(TABLE|VIEW|INDEX)\s|PRAGMA\s\w+\s*=|WITH\s+\w+\s+AS\s)"
    )
    offenders = [
        f"{name}:{node.lineno} {node.value[:40]!r}"
        for name, node in nodes()
        if name.startswith("wfengine/cli/") and isinstance(node, ast.Constant) and isinstance(node.value, str)
        if statement.match(node.value)
    ]
    assert offenders == []


def test_importing_wfengine_loads_none_of_the_heavy_modules() -> None:
    program = "import sys; before = set(sys.modules); import wfengine; print('\\n'.join(sorted(set(sys.modules) - before)))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    loaded = set(shown.split())
    assert "wfengine.flows" in loaded
    assert [module for module in FORBIDDEN_AT_IMPORT if module in loaded] == []


def test_the_public_names_are_those_on_the_list() -> None:
    listed = (ROOT / "tests" / "unit" / "public_names.txt").read_text(encoding="utf-8").split()
    assert sorted(wfengine.__all__) == listed
    assert not [name for name in listed if not hasattr(wfengine, name)]


def test_every_public_object_says_what_it_does() -> None:
    silent = []
    for name in wfengine.__all__:
        thing = getattr(wfengine, name)
        if isinstance(thing, str | ModuleType):
            continue
        if not (inspect.getdoc(thing) or "").strip():
            silent.append(name)
        if inspect.isclass(thing):
            members = [member for member in vars(thing) if not member.startswith("_")]
            for member in members:
                value = inspect.getattr_static(thing, member)
                if (inspect.isroutine(value) or isinstance(value, property)) and not inspect.getdoc(value):
                    silent.append(f"{name}.{member}")
    assert silent == []


def test_users_see_one_package() -> None:
    things = [getattr(wfengine, name) for name in wfengine.__all__]
    assert {thing.__module__ for thing in things if not isinstance(thing, str | ModuleType)} == {"wfengine"}


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_modules_say_what_they_are_for_and_stay_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "a module begins with what it is responsible for"
    long = [
        f"{node.name} ({lines} lines)"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := body_lines(node)) > FUNCTION_LINES
    ]
    assert long == []


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function, its docstring not counted."""
    lines = (node.end_lineno or 0) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def test_nothing_imports_upwards() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_no_import_of_a_higher_layer_is_hidden_in_a_function() -> None:
    above = {"journal/": ("wfengine_scheduler", "wfengine."), "scheduler/": ("wfengine.",)}
    offenders = []
    for name, node in nodes():
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        for folder, forbidden in above.items():
            if name.startswith(folder) and any(f"{module}.".startswith(forbidden) for module in modules):
                offenders.append(f"{name}: {modules}")
    assert offenders == []


def columns_of_the_schema() -> Iterator[tuple[str, str, bool]]:
    """Yield table, column, and whether the DDL has a comment on it."""
    for table in re.finditer(r"CREATE TABLE (\w+) \((.*?)\n\) STRICT", read_sql("schema.sql"), re.DOTALL):
        for line in table[2].splitlines():
            column = re.match(r"    (\w+)\s+(?:TEXT|INTEGER|BLOB|ANY)\b", line)
            if column:
                yield table[1], column[1], "--" in line


def test_every_column_has_a_comment_or_is_explained_by_the_format_s_table() -> None:
    text = (ROOT / "journal" / "FORMAT.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### `(\w+)`(.*?)(?=^##|\Z)", text, re.DOTALL | re.MULTILINE))
    found = list(columns_of_the_schema())
    assert len(found) > 100
    unexplained = [
        f"{table}.{column}"
        for table, column, commented in found
        if not commented and not re.search(rf"^\| `{column}` \| [^|]*\| \S", sections.get(table, ""), re.MULTILINE)
    ]
    assert unexplained == []
