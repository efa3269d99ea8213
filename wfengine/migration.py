"""Tell what of a file written for Prefect would not run, or would mean something else, after its imports are replaced.

Files are only parsed, never imported or run. What is there is asked of wfengine itself: modules and attributes by importing
them, options of the decorators from their tables, methods from the classes. `migration_notes` holds explanations.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import ModuleType

import wfengine
from wfengine.flows import _DEFAULTS as FLOW_OPTIONS
from wfengine.migration_notes import BINDS_PREFECT, CHANGES, CHANGING, DIFFERS, INTEGRATION, LEFT_OUT, MOVED
from wfengine.tasks import _DEFAULTS as TASK_OPTIONS
from wfengine_journal.errors import UsageError

#: A larger file was not written by hand; in bytes.
FILE_LIMIT = 4_000_000
#: Folders that hold other people's code.
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages"})
#: Packages whose names are checked: the same file can be checked before and after its imports are replaced.
ROOTS = ("prefect", "wfengine")


class Kind(Enum):
    """What is wrong."""

    MISSING = "missing"  # not in wfengine: the file fails there
    DIFFERS = "differs"  # there, and means something else
    UNREADABLE = "unreadable"  # no Python that could be checked


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at; `line` is 0 for a file as a whole."""

    path: Path
    line: int
    kind: Kind
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in how many files; `prefect_files` are those that use Prefect at all."""

    files: int
    prefect_files: int
    findings: tuple[Finding, ...]

    def count(self, kind: Kind) -> int:
        """Return how many findings are of a kind."""
        return sum(finding.kind is kind for finding in self.findings)


def check_paths(paths: Iterable[Path]) -> Report:
    """Check files, and all Python files of folders. Raises UsageError for a path that is not there."""
    files = users = 0
    findings: list[Finding] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}. Name Python files, or a folder that holds some.")
        for file in sorted(_python_files(path)) if path.is_dir() else [path]:
            files += 1
            uses_prefect, found = check_file(file)
            users += uses_prefect
            findings += found
    return Report(files, users, tuple(findings))


def _python_files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS or (entry / "pyvenv.cfg").exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _python_files(entry)
        elif entry.suffix == ".py" and entry.is_file():
            yield entry


def check_file(path: Path) -> tuple[bool, list[Finding]]:
    """Return whether a file uses Prefect, and what is to be looked at in it, by line."""
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise ValueError(f"it is larger than {FILE_LIMIT:,} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a file may have invalid escapes and still be Python
            tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno or 0 if isinstance(error, SyntaxError) else 0
        reason = error.msg if isinstance(error, SyntaxError) else error
        return False, [Finding(path, line, Kind.UNREADABLE, path.name, f"cannot be read as Python: {reason}")]
    checker = _Checker(path, tree)
    return checker.uses_prefect, checker.findings()


# ------------------------------------------------------------------------------------------- what wfengine has


@dataclass(frozen=True, slots=True)
class _Found:
    """What a dotted name leads to: `thing`, and the name up to which it is there (`missing` is '' when all of it is)."""

    thing: object
    missing: str = ""


@cache
def _look_up(name: str) -> _Found:
    """Look a name without its root up in wfengine: modules, then attributes, as far as classes go."""
    thing: object = wfengine
    done: list[str] = []
    for part in name.split(".") if name else ():
        done.append(part)
        if not isinstance(thing, ModuleType | type):
            break  # an object whose attributes cannot be known without running the code
        found = _attribute(thing, part)
        if found is _NOTHING:
            return _Found(thing, ".".join(done))
        thing = found
    return _Found(thing)


_NOTHING = object()


def _attribute(owner: ModuleType | type, name: str) -> object:
    if name.startswith("_") and not name.endswith("__"):
        return _NOTHING  # private to Prefect; what has that name here is something else
    if hasattr(owner, name):
        found: object = getattr(owner, name)
        return found
    if isinstance(owner, ModuleType) and hasattr(owner, "__path__") and name.isidentifier() and not name.startswith("_"):
        try:
            return importlib.import_module(f"{owner.__name__}.{name}")
        except ImportError:
            return _NOTHING
    return _NOTHING


def _explained(name: str, have: object) -> str:
    """Return why a name is not there and what to use instead."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        known = ".".join(parts[:length])
        if text := LEFT_OUT.get(known):
            return text
    near = difflib.get_close_matches(parts[-1], [known for known in dir(have) if not known.startswith("_")], 1, 0.75)
    return "wfengine has nothing of this name" + (f"; it has {near[0]}" if near else "")


def _options_of(thing: object) -> tuple[str, Iterable[str]] | None:
    """Return the decorator's name and its options."""
    if thing is wfengine.flow:
        return "@flow", FLOW_OPTIONS
    return ("@task", TASK_OPTIONS) if thing is wfengine.task else None


def _keywords_of(thing: object) -> set[str] | None:
    """Return the names that a callable takes by keyword; None when it takes any, or nobody can tell."""
    try:
        parameters = inspect.signature(thing).parameters.values() if callable(thing) else ()
    except (TypeError, ValueError):
        return None
    if not parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}


@cache
def _probe(kind: str) -> object:
    """Return a flow or task to ask for its attributes, a class for the others."""
    if kind == "Flow":
        return wfengine.flow(_nothing)
    if kind == "Task":
        return wfengine.task(_nothing)
    return {"Future": wfengine.TaskFuture, "State": wfengine.State}[kind]


def _nothing() -> None:
    """The function of the probes."""


# ------------------------------------------------------------------------------------------- what a file uses


class _Checker(ast.NodeVisitor):
    """Goes over one file. Names are taken to mean the same in the whole file, which is how they are used in practice."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._path = path
        self._found: dict[tuple[int, str, str], Finding] = {}
        self._missing_imports: set[str] = set()
        self._flow_depth = 0
        self.uses_prefect = False
        # Local name -> dotted name of what was imported; local name -> what kind of object it is bound to.
        self._names: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        for node in ast.walk(tree):
            self._note_import(node)
        self._note_kinds(tree)
        self.visit(tree)

    def findings(self) -> list[Finding]:
        """Return what was found, by line."""
        return sorted(self._found.values(), key=lambda finding: (finding.line, finding.name))

    def _add(self, node: ast.AST, kind: Kind, name: str, text: str) -> None:
        line = getattr(node, "lineno", 0)
        self._found.setdefault((line, name, kind.value), Finding(self._path, line, kind, name, text))

    # ------------------------------------------------------------------------------- names

    def _note_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                target = alias.name if alias.asname else alias.name.partition(".")[0]
                self._names[alias.asname or target] = target
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _note_kinds(self, tree: ast.Module) -> None:
        """Note which names stand for flows, tasks, futures and states: in the whole file, or not at all."""
        assigned = [
            (node.targets[0], node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        ]
        others = list(_other_bindings(tree, {id(target) for target, _ in assigned}))
        for _ in range(3):  # a name may get its kind from one whose kind is found later; longer chains are not followed
            kinds: dict[str, set[str]] = {}
            for name, definition in others:
                kinds.setdefault(name, set()).add("" if definition is None else self._decorated_kind(definition))
            for target, value in assigned:
                kinds.setdefault(target.id, set()).add(self._kind_of(value))
            self._kinds = {name: next(iter(found)) for name, found in kinds.items() if len(found) == 1}

    def _decorated_kind(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        for decorator in node.decorator_list:
            target = decorator.func if isinstance(decorator, ast.Call) else decorator
            kind = _KINDS.get(id(self._thing(target)), "")
            if kind:
                return kind
        return ""

    def _kind_of(self, value: ast.expr) -> str:
        """Return what an expression gives, where that can be told: 'Flow', 'Task', 'Future', 'State'."""
        if isinstance(value, ast.Await):
            value = value.value
        if not isinstance(value, ast.Call):
            return self._kinds.get(value.id, "") if isinstance(value, ast.Name) else ""
        if any(keyword.arg == "return_state" for keyword in value.keywords):
            return "State"
        if isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Name):
            kind = self._kinds.get(value.func.value.id, "")
            if kind:
                attribute = value.func.attr
                return kind if attribute == "with_options" else "Future" if (kind, attribute) == ("Task", "submit") else ""
        return _KINDS.get(id(self._thing(value.func)), "")

    def _dotted(self, node: ast.expr) -> str | None:
        """Return the full dotted name of a chain of attributes that begins with something imported."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._names:
            return None
        return ".".join([self._names[node.id], *reversed(parts)])

    def _thing(self, node: ast.expr) -> object:
        name = _without_root(self._dotted(node) or "")
        found = _look_up(name) if name is not None else None
        return None if found is None or found.missing else found.thing

    # ------------------------------------------------------------------------------- visits

    def visit_Import(self, node: ast.Import) -> None:
        """Check `import prefect.x`."""
        for alias in node.names:
            self._check_import(node, alias.name)
            if alias.name.startswith("prefect.") and alias.asname is None:
                self._add(node, Kind.DIFFERS, f"import {alias.name}", BINDS_PREFECT)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Check `from prefect.x import y`."""
        if not node.level and node.module:
            for alias in node.names:
                self._check_import(node, node.module if alias.name == "*" else f"{node.module}.{alias.name}")

    def _check_import(self, node: ast.AST, full_name: str) -> None:
        name = _without_root(full_name)
        if name is not None:
            self.uses_prefect = True
            if self._check_name(node, name):
                self._missing_imports.add(full_name)
        elif full_name.startswith("prefect_"):
            self.uses_prefect = True
            self._add(node, Kind.MISSING, full_name, MOVED.get(full_name.partition(".")[0], INTEGRATION))

    def _check_name(self, node: ast.AST, name: str) -> bool:
        """Check a name without its root; tell whether it is missing."""
        found = _look_up(name)
        if found.missing:
            self._add(node, Kind.MISSING, f"prefect.{name}", _explained(found.missing, found.thing))
            return True
        if text := DIFFERS.get(name):
            self._add(node, Kind.DIFFERS, f"prefect.{name}", text)
        return False

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Check a chain of attributes that begins with a name of Prefect's, or with a flow, task, future or state."""
        dotted = self._dotted(node)
        if dotted is None:
            self._check_member(node)
            self.generic_visit(node)
            return
        name = _without_root(dotted)
        if name and not any(dotted == missing or dotted.startswith(f"{missing}.") for missing in self._missing_imports):
            self._check_name(node, name)

    def _check_member(self, node: ast.Attribute) -> None:
        kind = self._kinds.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
        if kind and not hasattr(_probe(kind), node.attr):
            self._add(node, Kind.MISSING, f"{kind}.{node.attr}", _explained(f"{kind}.{node.attr}", _probe(kind)))

    def visit_Call(self, node: ast.Call) -> None:
        """Check the keywords of decorators, classes and methods, and what changes by itself in a flow's own code."""
        dotted = self._dotted(node.func)
        if dotted is not None and self._flow_depth and _changes(dotted):
            self._add(node, Kind.DIFFERS, dotted, CHANGES)
        if dotted is not None and dotted in ("importlib.import_module", "__import__") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                self._check_import(node, first.value)
        self._check_keywords(node)
        self.generic_visit(node)

    def _check_keywords(self, node: ast.Call) -> None:
        thing, label = self._called(node.func)
        options = _options_of(thing)
        known = set(options[1]) if options is not None else _keywords_of(thing)
        label = options[0] if options is not None else label
        for keyword in node.keywords:
            if keyword.arg is None or known is None:
                continue
            name = f"{label}({keyword.arg})"
            if keyword.arg not in known:
                near = difflib.get_close_matches(keyword.arg, known, 1, 0.75)
                text = LEFT_OUT.get(name) or "no such option" + (f"; there is {near[0]}" if near else "")
                self._add(keyword, Kind.MISSING, name, text)
            elif name in DIFFERS:
                self._add(keyword, Kind.DIFFERS, name, DIFFERS[name])

    def _called(self, func: ast.expr) -> tuple[object, str]:
        """Return what a call calls, as far as it can be told, and its name."""
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
            kind = self._kinds.get(func.value.id, "")
            if kind in ("Flow", "Task") and func.attr == "with_options":
                return (wfengine.flow if kind == "Flow" else wfengine.task), kind
            if kind == "Flow":
                return getattr(_probe(kind), func.attr, None), f"{kind}.{func.attr}"
        thing = self._thing(func)
        return thing, f"prefect.{_without_root(self._dotted(func) or '')}"

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Note when the code of a flow begins and ends; that of a task inside it is not the flow's."""
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Do as visit_FunctionDef does."""
        self._visit_function(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        kind = self._decorated_kind(node)
        before = self._flow_depth
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._flow_depth = 1 if kind == "Flow" else 0 if kind == "Task" else before
        for child in [node.args, *node.body, *([node.returns] if node.returns else [])]:
            self.visit(child)
        self._flow_depth = before


_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def _other_bindings(tree: ast.Module, handled: set[int]) -> Iterator[tuple[str, _Definition | None]]:
    """Yield every name that is bound other than by a plain assignment, with the function that it is bound to, if one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield node.name, None
        elif isinstance(node, ast.arg):
            yield node.arg, None
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and id(node) not in handled:
            yield node.id, None


_KINDS = {id(wfengine.flow): "Flow", id(wfengine.task): "Task"}


def _without_root(name: str) -> str | None:
    """Return a dotted name without its first part if that is Prefect's or ours, else None."""
    root, _, rest = name.partition(".")
    return rest if root in ROOTS else None


def _changes(name: str) -> bool:
    return any(name == known or (known.endswith(".") and name.startswith(known)) for known in CHANGING)
