"""The reference of the REST API, made of its OpenAPI document."""

from __future__ import annotations

from typing import Any

from wfengine.page.api import openapi


def page() -> str:
    """Return the page."""
    document: dict[str, Any] = openapi(read_only=False)
    lines = [
        "# REST",
        "",
        "Every operation of the API that `wfengine ui` serves, by its OpenAPI document, which a served page has at",
        "`/api/v1/openapi.json`. How to ask is on [the page about it](../api.md).",
        "",
    ]
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).extend(_described(path, method, operation))
    for tag, described in by_tag.items():
        lines += [f"## {tag}", "", *described]
    return "\n".join(lines)


def _described(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    lines = [f"### {method.upper()} {path.replace('{', '&#123;')}", "", operation["summary"], ""]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    rows = [
        (each["name"], each["in"], each["schema"], each["required"], each["description"]) for each in operation["parameters"]
    ]
    rows += [
        (name, "body", given, name in body["required"], given.get("description", ""))
        for name, given in body.get("properties", {}).items()
    ]
    if rows:
        lines += ["| Name | In | Type | |", "|---|---|---|---|"]
        lines += [
            f"| `{name}` | {place} | {_type(kind)}{', required' if needed else ''} | {_cell(text)} |"
            for name, place, kind, needed, text in rows
        ]
        lines.append("")
    return lines


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")
