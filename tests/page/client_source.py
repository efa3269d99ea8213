"""Write the methods of the API's client from the table of operations: `python -m tests.page.client_source`.

A test holds the files against what this makes, so that no operation can be forgotten there.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wfengine.page.operations import Operation
from wfengine.page.parameters import Parameter
from wfengine.page.table import OPERATIONS

ROOT = Path(__file__).parents[2]

HEAD = '''"""Operations of the API that {what}, as methods: written by `python -m tests.page.client_source`, not by hand."""

from __future__ import annotations

from collections.abc import {imports}
from typing import Any, ClassVar

Answer = dict[str, Any]


class {name}:
    """A method for each operation that {what}. A refusal is raised as one of wfengine's errors."""

    {names_are}: ClassVar[tuple[str, ...]] = (
{names}
    )

    def _ask(
        self, method: str, path: str, places: Mapping[str, object], query: Mapping[str, object], body: Mapping[str, object]
    ) -> Answer:
        raise NotImplementedError
'''

KINDS = {
    "integer": "int", "string": "str", "boolean": "bool", "json": "object", "object": "Mapping[str, object]",
    "integers": "Sequence[int]", "strings": "Sequence[str]", "count": "int | str",
}  # fmt: skip


def parameter_text(each: Parameter) -> str:
    """Return a parameter as it stands in a signature."""
    kind = KINDS[each.kind]
    if each.required:
        return f"{each.name}: {kind}"
    if isinstance(each.default, str | int):
        return f"{each.name}: {kind} = {each.default!r}"
    return f"{each.name}: {kind} = None" if kind == "object" else f"{each.name}: {kind} | None = None"


def method_text(operation: Operation) -> str:
    """Return the method of an operation."""
    places = [each for each in operation.parameters if each.place == "path"]
    others = [each for each in operation.parameters if each.place != "path"]
    others.sort(key=lambda each: not each.required)
    parameters = ["self", *map(parameter_text, places), *(["*"] if others else []), *map(parameter_text, others)]
    told = [f"    `{each.name}`: {each.description}" for each in others]

    def values(place: str) -> str:
        return "{" + ", ".join(f'"{each.name}": {each.name}' for each in operation.parameters if each.place == place) + "}"

    doc = "\n    ".join([operation.summary, "", *told, ""]) if told else operation.summary
    said = f'"{operation.method}", "{operation.path}", {values("path")}, {values("query")}, {values("body")}'
    return (
        f"    def {operation.name.replace('.', '_')}({', '.join(parameters)}) -> Answer:\n"
        f'        """{doc}"""\n'
        f"        return self._ask({said})\n"
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
    names = "\n".join(f'        "{each.name}",' for each in operations)
    methods = list(map(method_text, operations))
    imports = "Mapping, Sequence" if any("Sequence[" in each for each in methods) else "Mapping"
    head = HEAD.format(imports=imports, names=names, name=name, what=what, names_are=name.upper())
    text = "\n".join([head, *methods])
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "wfengine/api_reads.py", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


if __name__ == "__main__":
    for path, text in sources().items():
        path.write_text(text, encoding="utf-8")
