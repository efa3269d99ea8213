"""Write the methods of the API's client from the table of operations: `python -m tests.page.client_source`.

A test holds the files against what this makes, so that no operation can be forgotten there.
"""

from __future__ import annotations

import keyword
import subprocess
import sys
from pathlib import Path

from wfengine.page.operations import Operation
from wfengine.page.parameters import Parameter
from wfengine.page.table import OPERATIONS

ROOT = Path(__file__).parents[2]

HEAD = '''"""Operations of the API that {what}, as methods: written by `python -m tests.page.client_source`, not by hand."""

from __future__ import annotations

{imports}

from wfengine.api_calls import Answer, ApiCalls


class {name}(ApiCalls):
    """A method for each operation that {what}. A refusal is raised as one of wfengine's errors."""

    {names_are}: ClassVar[tuple[str, ...]] = (
{names}
    )
'''

KINDS = {
    "integer": "int", "string": "str", "boolean": "bool", "json": "object", "object": "Mapping[str, object]",
    "integers": "Sequence[int]", "strings": "Sequence[str]", "count": "int | str",
}  # fmt: skip


def argument(each: Parameter) -> str:
    """Return the name that a parameter has in Python, where some words are taken."""
    return each.name + "_" * keyword.iskeyword(each.name)


def is_file(operation: Operation) -> bool:
    """Tell whether the answer is a file to take away, and not JSON."""
    return operation.media_types != ("application/json",)


def parameter_text(each: Parameter) -> str:
    """Return a parameter as it stands in a signature."""
    name, kind = argument(each), KINDS[each.kind]
    if each.required:
        return f"{name}: {kind}"
    if isinstance(each.default, str | int):
        return f"{name}: {kind} = {each.default!r}"
    return f"{name}: {kind} = None" if kind == "object" else f"{name}: {kind} | None = None"


def method_text(operation: Operation) -> str:
    """Return the method of an operation."""
    places = [each for each in operation.parameters if each.place == "path"]
    others = [each for each in operation.parameters if each.place != "path"]
    others.sort(key=lambda each: not each.required)
    parameters = ["self", *map(parameter_text, places), *(["*"] if others else []), *map(parameter_text, others)]
    told = [f"    `{argument(each)}`: {each.description}" for each in others]

    def values(place: str) -> str:
        return "{" + ", ".join(f'"{each.name}": {argument(each)}' for each in operation.parameters if each.place == place) + "}"

    doc = "\n    ".join([operation.summary, "", *told, ""]) if told else operation.summary
    said = f'"{operation.path}", {values("path")}, {values("query")}'
    if is_file(operation):
        kind, asked = "IO[bytes]", f"self._fetch({said})"
    else:
        kind, asked = "Answer", f'self._ask("{operation.method}", {said}, {values("body")})'
    return (
        f"    def {operation.name.replace('.', '_')}({', '.join(parameters)}) -> {kind}:\n"
        f'        """{doc}"""\n'
        f"        return {asked}\n"
    )


def sources() -> dict[Path, str]:
    """Return the files by path."""
    return {
        ROOT / "wfengine" / "api_reads.py": _source("Reads", "read", [each for each in OPERATIONS if not each.changes]),
        ROOT / "wfengine" / "api_changes.py": _source(
            "Changes", "change something", [each for each in OPERATIONS if each.changes]
        ),
    }


def _source(name: str, what: str, operations: list[Operation]) -> str:
    names = "\n".join(f'        "{each.name}",' for each in operations if not is_file(each))
    methods = list(map(method_text, operations))
    written = "".join(methods)
    needed = [each for each in ("Mapping", "Sequence") if f"{each}[" in written]
    imports = f"from collections.abc import {', '.join(needed)}\n" if needed else ""
    imports += f"from typing import {'IO, ' if 'IO[' in written else ''}ClassVar"
    head = HEAD.format(imports=imports, names=names, name=name, what=what, names_are=name.upper())
    text = "\n".join([head, *methods])
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "wfengine/api_reads.py", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


if __name__ == "__main__":
    for path, text in sources().items():
        path.write_text(text, encoding="utf-8")
