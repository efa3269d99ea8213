"""The reference of Python: the public names, their signatures and what they say of themselves."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType

#: The modules whose public names are for users, and what each is about. A name stands where it is first found.
MODULES = (
    "wfengine",
    "wfengine.artifacts",
    "wfengine.automations",
    "wfengine.cache_policies",
    "wfengine.concurrency",
    "wfengine.deployments",
    "wfengine.events",
    "wfengine.input",
    "wfengine.recovery",
    "wfengine.runtime",
    "wfengine.schedules",
    "wfengine.secrets",
    "wfengine.serializers",
    "wfengine.sql",
    "wfengine.states",
    "wfengine.task_runners",
    "wfengine.testing",
    "wfengine.transactions",
    "wfengine.variables",
)

#: Characters of a signature that stand in one line.
WIDTH = 90


def page() -> str:
    """Return the page."""
    lines = [
        "# Python",
        "",
        "The public names, as the code describes them. Errors have [a page of their own](../errors.md).",
        "",
    ]
    seen: set[int] = set()
    for name in MODULES:
        module = importlib.import_module(name)
        lines += [f"## {name}", "", _text(module), ""]
        for member in public_names(module):
            thing = getattr(module, member)
            if isinstance(thing, str | ModuleType) or id(thing) in seen:
                continue
            seen.add(id(thing))
            lines += _described(f"{name}.{member}", member, thing)
    return "\n".join(lines)


def public_names(module: ModuleType) -> list[str]:
    """Return what a module offers: its `__all__`, or what it defines itself without an underscore."""
    if names := getattr(module, "__all__", None):
        return sorted(names, key=str.lower)
    return sorted(
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
    )


def _described(path: str, name: str, thing: object) -> list[str]:
    if not callable(thing):
        return [f"### {path}", "", f"`{type(thing).__name__}`", ""]
    lines = [f"### {path}", "", f"```python\n{_in_lines(_signature(name, thing))}\n```", "", _text(thing), ""]
    if inspect.isclass(thing):
        for member, value in vars(thing).items():
            if not member.startswith("_") and (entry := _member(member, value)):
                lines += [entry]
        lines.append("")
    return lines


def _member(name: str, value: object) -> str | None:
    if isinstance(value, property):
        return f"- `{name}`: {_first(value)}"
    function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    if not inspect.isfunction(function):
        return None
    return f"- `{_signature(name, function, bound=not isinstance(value, staticmethod))}`: {_first(function)}"


def _signature(name: str, thing: object, bound: bool = False) -> str:
    try:
        signature = inspect.signature(thing)  # type: ignore[arg-type]  # it is callable; what has no signature raises
    except (TypeError, ValueError):
        return f"{name}(...)"
    parameters = [
        each.replace(annotation=_Bare(each.annotation)) if isinstance(each.annotation, str) else each
        for each in list(signature.parameters.values())[1 if bound else 0 :]
    ]
    returned = signature.return_annotation
    returned = inspect.Signature.empty if inspect.isclass(thing) else _Bare(returned) if isinstance(returned, str) else returned
    shown = str(signature.replace(parameters=parameters, return_annotation=returned))
    shown = re.sub(r"<([\w.]+) object at 0x[0-9a-f]+>", "...", shown)
    shown = re.sub(r"<function (\w+)[^>]*>", r"\1", shown)
    return name + shown.replace("wfengine_journal.", "").replace("collections.abc.", "")


def _in_lines(signature: str) -> str:
    """Return a signature that is too long for a line with a line for each parameter."""
    if len(signature) <= WIDTH:
        return signature
    name, _, rest = signature.partition("(")
    depth, parameters = 1, [""]
    for place, sign in enumerate(rest):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0:
            return "\n".join([f"{name}(", *(f"    {each.strip()}," for each in parameters), rest[place:]])
        if sign == "," and depth == 1:
            parameters.append("")
        else:
            parameters[-1] += sign
    return signature


class _Bare:
    """An annotation that is kept as text, shown without quotation marks."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _first(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split()).replace("<", "&lt;")


def _text(thing: object) -> str:
    """Return a docstring as Markdown: what is indented is code."""
    parts = (inspect.getdoc(thing) or "").split("\n\n")
    return "\n\n".join(part if part.startswith("    ") else part.replace("<", "&lt;") for part in parts)
