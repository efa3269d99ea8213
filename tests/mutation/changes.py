"""Small wrong changes of a module's source, such as a person could make; `python -m tests.mutation` judges tests by them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COLUMN = r"\b(?:\w\.)?[a-z_]+"
#: Conditions with one parameter; what takes their place needs the parameter too.
_WITH_PARAMETER = re.compile(rf"(?<!ELSE )\+?{_COLUMN} (?:=|<>|>=|<=|>|<|IS) \?(?! IS)")
_WITH_LITERAL = re.compile(rf"{_COLUMN} (?:=|<>|IN|IS NOT|IS) (?:'\w+'|NULL|\('[^()]*'\)|\d+)")
_LISTED = (re.compile(r"'\w+', (?=')"), re.compile(r", '\w+'(?=\))"))
_SET = re.compile(r"\b([a-z_]+) = (?:NULL|0)\b")


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as a node of the tree that takes the place of another."""

    line: int
    function: str  # qualified name of the outermost function that holds it; '' for what the module itself does
    what: str
    owner: object  # a node, or a list of a node
    place: str | int
    node: ast.AST

    def __str__(self) -> str:
        return f"{self.function or 'module'}: {self.what}"


def list_changes(tree: ast.Module) -> list[Change]:
    """Return every change of a module, in the order of its source."""
    return [Change(line, *rest) for line, *rest in _walk(tree, "", is_inside=False)]  # type: ignore[arg-type]


def compile_changed(tree: ast.Module, change: Change, filename: str) -> CodeType:
    """Return the code of the module with that change; the tree is afterwards what it was."""
    before = _put(change.owner, change.place, change.node)
    try:
        return compile(tree, filename, "exec", dont_inherit=True)
    finally:
        _put(change.owner, change.place, before)


def _put(owner: object, place: str | int, node: object) -> object:
    if isinstance(owner, list):
        before, owner[place] = owner[place], node  # type: ignore[index, call-overload]
        return before
    before = getattr(owner, str(place))
    setattr(owner, str(place), node)
    return before


def _walk(node: ast.AST, function: str, *, is_inside: bool) -> Iterator[tuple[object, ...]]:
    for owner, place, child in _children(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring
        if place in ("annotation", "returns", "decorator_list", "slice"):
            continue
        for what, changed in _changes_of(child, is_inside=is_inside):
            yield child.lineno, function, what, owner, place, ast.copy_location(changed, child)  # type: ignore[attr-defined]
        if isinstance(child, ast.Compare):
            yield from _comparisons(child, function)
        named, inside = function, is_inside
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not is_inside:
            named = f"{function}.{child.name}" if function else child.name
            inside = isinstance(child, ast.FunctionDef)
        yield from _walk(child, named, is_inside=inside)


def _children(node: ast.AST) -> Iterator[tuple[object, str | int, ast.AST]]:
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield node, name, value
        elif isinstance(value, list) and name not in ("decorator_list", "ops"):
            yield from ((value, index, item) for index, item in enumerate(value) if isinstance(item, ast.AST))


def _comparisons(node: ast.Compare, function: str) -> Iterator[tuple[object, ...]]:
    for index, operator in enumerate(node.ops):
        other = _COMPARISONS[type(operator)]
        yield node.lineno, function, f"{type(operator).__name__} to {other.__name__}", node.ops, index, other()


def _changes_of(node: ast.AST, *, is_inside: bool) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "'not' dropped", node.operand
    elif isinstance(node, ast.BoolOp):
        is_and = isinstance(node.op, ast.And)
        yield "and to or" if is_and else "or to and", ast.BoolOp(ast.Or() if is_and else ast.And(), node.values)
    elif isinstance(node, ast.IfExp):
        yield "branches exchanged", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Raise):
        yield "'raise' deleted", ast.Pass()
    elif is_inside and isinstance(node, ast.If):
        yield "condition always holds", ast.If(ast.copy_location(ast.Constant(True), node), node.body, node.orelse)
        yield "condition never holds", ast.If(ast.copy_location(ast.Constant(False), node), node.body, node.orelse)
    elif is_inside and isinstance(node, ast.Expr | ast.AugAssign):
        yield "statement deleted", ast.Pass()


def _constants(value: object) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(value, bool):
        yield f"{value} to {not value}", ast.Constant(not value)
    elif isinstance(value, int):
        yield f"{value} to {value + 1}", ast.Constant(value + 1)
    elif isinstance(value, str):
        for what, text in _sql(value):
            yield what, ast.Constant(text)


def _sql(text: str) -> Iterator[tuple[str, str]]:
    """Change a statement: a condition that always holds, a state more or less, a column that is not reset, the order."""
    if "SELECT" not in text and " WHERE " not in text and " AND " not in text and "UPDATE" not in text:
        return
    start = text.index(" WHERE ") if " WHERE " in text else 0 if "UPDATE" not in text else len(text)
    for found in _WITH_PARAMETER.finditer(text, start):
        yield f"{found[0]!r} always holds", text[: found.start()] + "coalesce(?, 1) IS NOT NULL" + text[found.end() :]
    for found in _WITH_LITERAL.finditer(text, start):
        yield f"{found[0]!r} always holds", text[: found.start()] + "1" + text[found.end() :]
    for pattern in _LISTED:
        for found in pattern.finditer(text, start):
            yield f"{found[0]!r} dropped", text[: found.start()] + text[found.end() :]
    if text.startswith("UPDATE"):
        for found in _SET.finditer(text, 0, start):
            yield f"{found[0]!r} not set", text[: found.start()] + f"{found[1]} = {found[1]}" + text[found.end() :]
    for found in re.finditer(r"version \+ 1", text):
        yield "'version + 1' is 'version + 2'", text[: found.start()] + "version + 2" + text[found.end() :]
    if " ORDER BY id" in text:
        yield "'ORDER BY id' reversed", text.replace(" ORDER BY id", " ORDER BY id DESC")
