"""The fingerprint of a flow's code: did a person edit the flow since these rows were written?

Flow code is the flow function and the plain functions it reaches in the user's own modules, each as its syntax tree
without decorators, docstrings, comments and line numbers; where the source cannot be trusted, as its code object.
Scalars and tuples that stand at the top of a user's module, or in a class, count when a function names them. Tasks and
flows are noted by key and not entered: an edited task body never makes a flow look edited. Not followed: names that are
imported inside a function, methods of objects (unless a function names their class), and other globals.

Nothing is imported or called here.
"""

from __future__ import annotations
import __future__

import ast
import functools
import linecache
import re
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from xxhash import xxh3_128_hexdigest

from wfengine.canonical import canonical_hash, code_hash, is_user_file

#: Functions and classes that one fingerprint takes in; a flow that reaches more is told apart by the nearest ones.
MAX_REACHED = 500
#: Lines that a function may have beyond its last line of code: closing brackets, trailing comments, a long string.
MAX_TRAILING_LINES = 200
#: Characters of source kept for people.
SOURCE_LIMIT = 256 * 1024

_OWN_PACKAGES = frozenset({"wfengine", "wfengine_journal", "wfengine_scheduler"})
_CONSTANT_TYPES = frozenset({str, int, float, bool, type(None), bytes, complex})
_FUTURE_FLAGS = functools.reduce(
    lambda flags, name: flags | int(getattr(__future__, name).compiler_flag), __future__.all_feature_names, 0
)

_Definition = ast.FunctionDef | ast.AsyncFunctionDef
_Chain = tuple[str, ...]


class FlowCode(NamedTuple):
    """What a flow's code is: a hash to compare, and the text for people."""

    hash: str  # xxh3_128, 32 hex digits
    source: str | None  # the texts of the functions found, the flow first; None when its own cannot be read


def flow_code(fn: Callable[..., object]) -> FlowCode:
    """Return the fingerprint of a flow's function. Reads source files; takes a few milliseconds."""
    walk = _Reach()
    walk.add(fn, trusted=True)
    walk.add_class_of_method(fn)
    walk.follow()
    digest = _hexdigest("\n".join(sorted(walk.entries)))
    if not walk.sources or walk.sources[0] is None:
        return FlowCode(digest, None)
    return FlowCode(digest, "\n\n".join(filter(None, walk.sources))[:SOURCE_LIMIT])


def own_code(fn: Callable[..., object]) -> str:
    """Return what a task's own function does, as text to compare: the compiler that made its code, and a hash of that."""
    code = getattr(_innermost(fn), "__code__", None)
    return f"{sys.implementation.cache_tag}:{'' if code is None else _own_hash(code)}"


def _innermost(fn: object) -> object:
    for _ in range(MAX_REACHED):
        inner = getattr(fn, "__wrapped__", None) or getattr(fn, "func", None)
        if inner is None:
            break
        fn = inner
    return fn


@functools.lru_cache(maxsize=1024)
def _own_hash(code: types.CodeType) -> str:
    return code_hash(code).hex()


def _hexdigest(text: str) -> str:
    return xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


class _Reach:
    """One search from a flow's function. `entries` says what was found, in no particular order."""

    def __init__(self) -> None:
        self.entries: set[str] = set()
        self.sources: list[str | None] = []  # by function, in the order found; None where it cannot be read
        self._seen: dict[int, object] = {}
        self._queue: deque[types.FunctionType] = deque()

    def add(self, value: object, *, trusted: bool = False) -> None:
        """Take in what a name stands for; `trusted` takes in a function wherever its code comes from."""
        key = _quiet_getattr(value, "__wfengine_key__")
        if type(key) is str:
            self.entries.add(f"call {key}")
            return
        for part in _unwrapped(value):
            if id(part) in self._seen or len(self._seen) >= MAX_REACHED:
                continue
            if isinstance(part, types.FunctionType) and (trusted or _is_user_function(part)):
                self._seen[id(part)] = part
                self._queue.append(part)
            elif isinstance(part, type) and _is_user_class(part):
                self._seen[id(part)] = part
                self._add_class(part)

    def add_class_of_method(self, fn: Callable[..., object]) -> None:
        """Take in the class that a method stands in: its other methods are called through `self`, which names no class."""
        code = getattr(fn, "__code__", None)
        if code is None or code.co_varnames[:1] not in (("self",), ("cls",)):
            return
        names: Mapping[str, object] = fn.__globals__
        value: object = None
        for name in fn.__qualname__.split(".")[:-1]:
            value = names.get(name)
            names = vars(value) if isinstance(value, type) else {}
        if isinstance(value, type):
            self.add(value)

    def follow(self) -> None:
        """Take in all functions that can be reached."""
        while self._queue:
            fn = self._queue.popleft()
            known = _read(fn)
            self.sources.append(known.text)
            self.entries.add(known.entry)
            self._add_references(fn, known.chains)

    def _add_references(self, fn: types.FunctionType, chains: Iterable[_Chain]) -> None:
        cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
        for name in sorted(cells):
            self.add(_cell_contents(cells[name]))
        for value in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
            self.add(value)
        for chain in chains:
            if chain[0] in fn.__globals__ and chain[0] not in cells:
                self._add_chain(chain, fn.__globals__[chain[0]])

    def _add_chain(self, chain: _Chain, value: object) -> None:
        """Take in what a dotted name leads to, through modules and classes."""
        owner: object = None
        for place, name in enumerate(chain):
            if place:
                if not isinstance(value, types.ModuleType | type):
                    break
                owner, value = value, vars(value).get(name)
            if _is_constant(value) and (owner is None or _is_user_owner(owner)) and not name.startswith("__"):
                self.entries.add(f"constant {'.'.join(chain[: place + 1])} {canonical_hash(value).hex()}")
        self.add(value)

    def _add_class(self, cls: type) -> None:
        for name in sorted(vars(cls)):
            value = vars(cls)[name]
            for part in _unwrapped(value):
                # Methods that were written by a decorator say nothing that the class's own text does not.
                if isinstance(part, types.FunctionType) and not part.__code__.co_filename.startswith(_GENERATED):
                    self.add(part)
            if isinstance(value, type) and value.__qualname__.startswith(cls.__qualname__ + "."):
                self.add(value)
        for base in cls.__bases__:
            self.add(base)


_GENERATED = ("<string>", "<attrs generated")


def _unwrapped(value: object) -> Iterator[object]:
    """Give the functions and classes inside what a name stands for."""
    if isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, types.MethodType | staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, functools.cached_property):
        yield value.func
    elif isinstance(value, _CACHED):
        yield value.__wrapped__
    else:
        yield value


_CACHED = type(functools.lru_cache(len))


class _Read(NamedTuple):
    """What the text of one function says."""

    code: types.CodeType
    namespace: dict[str, object]
    lines: list[str]  # of the whole file: linecache gives this very list until the file changes
    entry: str
    text: str | None  # None: the file does not hold this code
    chains: tuple[_Chain, ...]


#: By id of the code object: parsing costs a third of a small flow run, and what a function refers to is looked up anew.
_READ: dict[int, _Read] = {}
#: Functions that are remembered; a notebook makes a new one each time a cell is run.
MAX_READ = 1000


#: The lines of what has no file; one list, as it is compared by identity.
_NO_LINES: list[str] = []


def _read(fn: types.FunctionType) -> _Read:
    """Return what the text of a function says, from the last time if nothing changed."""
    code, namespace = fn.__code__, fn.__globals__
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, namespace) or _NO_LINES
    known = _READ.get(id(code))
    if known is None or known.code is not code or known.namespace is not namespace or known.lines is not lines:
        if len(_READ) >= MAX_READ:
            _READ.clear()
        known = _READ[id(code)] = _Read(code, namespace, lines, *_read_anew(fn, lines))
    return known


def _read_anew(fn: types.FunctionType, lines: list[str]) -> tuple[str, str | None, tuple[_Chain, ...]]:
    found = _find_definition(fn, lines)
    if found is None:
        entry = f"code {fn.__qualname__} {code_hash(fn.__code__).hex()}"
        return entry, None, tuple(sorted(set(_names_of_code(fn))))
    definition, text = found
    _strip(definition, fn.__globals__)
    return f"function {fn.__qualname__} {_tree_hash(definition)}", text, tuple(sorted(set(_names_of_tree(definition))))


# What is the user's own


def _is_user_function(fn: types.FunctionType) -> bool:
    return is_user_file(fn.__code__.co_filename) and _root(fn.__module__) not in _OWN_PACKAGES


def _is_user_class(cls: type) -> bool:
    return _is_user_owner(sys.modules.get(cls.__module__)) and _root(cls.__module__) not in _OWN_PACKAGES


def _is_user_owner(owner: object) -> bool:
    """Tell whether a module or class is the user's own. A module that is loaded under no name is a script."""
    if isinstance(owner, type):
        return _is_user_class(owner)
    if not isinstance(owner, types.ModuleType):
        return True
    filename = vars(owner).get("__file__")
    if isinstance(filename, str):
        return is_user_file(filename)
    return owner.__name__ not in sys.builtin_module_names and _root(owner.__name__) not in sys.stdlib_module_names


def _root(module: object) -> str:
    return str(module).partition(".")[0]


def _is_constant(value: object) -> bool:
    if type(value) is tuple or type(value) is frozenset:
        return all(map(_is_constant, value))
    return type(value) in _CONSTANT_TYPES


def _quiet_getattr(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except Exception:  # a class may answer any name, in any way
        return None


def _cell_contents(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


# Source


def _find_definition(fn: types.FunctionType, lines: list[str]) -> tuple[_Definition, str] | None:
    """Return the syntax tree and text of a function, or None if the file does not hold the code that is loaded."""
    code = fn.__code__
    start = code.co_firstlineno - 1
    if code.co_name.startswith("<") or not 0 <= start < len(lines):
        return None
    margin = len(lines[start]) - len(lines[start].lstrip())
    last = _last_line(code)
    for end in range(last, min(last + MAX_TRAILING_LINES, len(lines)) + 1):
        # The text can only end where nothing deeper follows; inside brackets or a string it does not parse yet.
        following = lines[end].lstrip() if end < len(lines) else ""
        if end < len(lines) and (not following or len(lines[end]) - len(following) > margin):
            continue
        definition = _parse(lines[start:end], margin)
        if definition is not None:
            is_loaded = definition.name == code.co_name and _compiled_hash(definition, fn, lines) == code_hash(code)
            return (definition, _dedented(lines[start:end], margin)) if is_loaded else None
    return None


def _last_line(code: types.CodeType) -> int:
    last = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
    return max([last, *(_last_line(inner) for inner in code.co_consts if isinstance(inner, types.CodeType))])


def _parse(lines: list[str], margin: int) -> _Definition | None:
    text = "".join(lines)
    try:
        # An indented function is parsed inside a block, for dedenting would change its strings of several lines.
        body = _syntax_tree("if 1:\n" + text if margin else text).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    inner = body[0].body if margin and isinstance(body[0], ast.If) else body
    return inner[0] if len(inner) == 1 and isinstance(inner[0], _Definition) else None


def _syntax_tree(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SystemError:
        # CPython 3.11 miscounts its depth when the garbage collector runs in the middle and a finalizer parses as well,
        # as the logging of a traceback does. It does not happen twice in a row.
        return ast.parse(text)


def _dedented(lines: list[str], margin: int) -> str:
    return "".join(line[margin:] if not line[:margin].strip() else line for line in lines).rstrip() + "\n"


def _compiled_hash(definition: _Definition, fn: types.FunctionType, lines: list[str]) -> bytes | None:
    """Return the hash of the code that this tree compiles to in the place of the loaded function."""
    code = fn.__code__
    decorators, definition.decorator_list = definition.decorator_list, []
    holder: ast.FunctionDef | ast.ClassDef | _Definition = definition
    if code.co_freevars:  # names from around it are compiled differently from globals
        targets: list[ast.expr] = [ast.Name(name, ast.Store()) for name in code.co_freevars]
        given = ast.fix_missing_locations(ast.Assign(targets, ast.Constant(None), lineno=1, col_offset=0))
        holder = _syntax_tree("def holder(): pass").body[0]  # type: ignore[assignment]  # that is a FunctionDef
        holder.body = [given, definition]
    try:
        tree = ast.Module([*_imports(fn, lines), holder], [])
        compiled = compile(tree, "<fingerprint>", "exec", flags=code.co_flags & _FUTURE_FLAGS, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return None
    finally:
        definition.decorator_list = decorators
    found = _inner_code(compiled, code.co_name, nested=holder is not definition)
    return None if found is None else code_hash(found)


_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+\S+[ \t]+)?import[ \t]+(\([^)]*\)|[^\n;#]*)", re.MULTILINE)


def _imports(fn: types.FunctionType, lines: list[str]) -> list[ast.stmt]:
    """Give imports of the names that a function uses: a call `a.b()` compiles differently when `a` was imported."""
    imported = {name for found in _IMPORT.findall("".join(lines)) for name in re.findall(r"\w+", found)}
    used = sorted(imported.intersection(_all_names(fn.__code__)).intersection(fn.__globals__))
    return [ast.fix_missing_locations(ast.Import([ast.alias(name) for name in used]))] if used else []


def _inner_code(compiled: types.CodeType, name: str, *, nested: bool) -> types.CodeType | None:
    wanted = "holder" if nested else name
    inner = [const for const in compiled.co_consts if isinstance(const, types.CodeType) and const.co_name == wanted]
    if not inner:
        return None
    return _inner_code(inner[-1], name, nested=False) if nested else inner[-1]


# The syntax tree


def _strip(definition: _Definition, names: dict[str, object]) -> None:
    """Remove what does not count: decorators, docstrings, and the bodies of tasks and flows defined inside."""
    definition.decorator_list = []
    for node in ast.walk(definition):
        if not isinstance(node, _Definition | ast.ClassDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        if any(_is_ours(decorator, names) for decorator in node.decorator_list):
            node.decorator_list, node.body = [], []


def _is_ours(decorator: ast.expr, names: dict[str, object]) -> bool:
    """Tell whether a decorator is one of wfengine: `@task`, `@flow(...)`, `@wfengine.task`."""
    chain = _chain(decorator.func if isinstance(decorator, ast.Call) else decorator)
    value = names.get(chain[0]) if chain else None
    return _root(_quiet_getattr(value, "__module__") or _quiet_getattr(value, "__name__")) in _OWN_PACKAGES


def _tree_hash(definition: _Definition) -> str:
    out: list[str] = []
    _dump(definition, out)
    return _hexdigest("".join(out))


def _dump(node: object, out: list[str]) -> None:
    """Append the text of a tree. Empty fields are left out, so that a newer Python's new fields do not count."""
    if isinstance(node, ast.AST):
        out.append(type(node).__name__ + "(")
        for name in node._fields:
            value = getattr(node, name, None)
            if name in _WITHOUT_MEANING or ((value is None or value == []) and not isinstance(node, ast.Constant)):
                continue
            out.append(name + "=")
            _dump(value, out)
        out.append(")")
    elif isinstance(node, list):
        out.append("[")
        for item in node:
            _dump(item, out)
        out.append("]")
    else:
        out.append(f"{type(node).__name__} {node!r},")


#: Load or store follows from the place; `u""` is the same text as `""`; type comments are comments.
_WITHOUT_MEANING = frozenset({"ctx", "kind", "type_comment"})


def _chain(node: ast.AST) -> _Chain:
    """Return the names of a dotted expression, `helpers.text.clean`; empty if it is anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _names_of_tree(definition: _Definition) -> Iterator[_Chain]:
    nodes: list[ast.AST] = [definition]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name):
            yield (node.id,)
        elif isinstance(node, ast.Attribute) and (chain := _chain(node)):
            yield chain
        else:
            nodes.extend(ast.iter_child_nodes(node))


def _names_of_code(fn: types.FunctionType) -> Iterator[_Chain]:
    """Give the dotted names that a code object may mean: it does not say which attribute belongs to which name."""
    names = sorted(set(_all_names(fn.__code__)))
    for name in names:
        yield (name,)
        if isinstance(fn.__globals__.get(name), types.ModuleType | type):
            yield from ((name, other) for other in names)


def _all_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _all_names(inner)
