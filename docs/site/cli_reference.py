"""The reference of the command line, made of the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from wfengine.cli import root
from wfengine.cli.base import GLOBAL_OPTIONS


def page() -> str:
    """Return the page."""
    context = click.Context(root, info_name="wfengine")
    lines = [
        "# Command line",
        "",
        "Every command, with its options, as `--help` has it. A RUN is an id, a name, the beginning of a name, or `@last`:",
        "the newest that somebody started, not one out of a queue.",
        "",
        "These options are taken by each command, before its name and after it:",
        "",
        *_table(list(GLOBAL_OPTIONS), context),
        "",
    ]
    for command, inner in _commands(root, context):
        lines += _described(command, inner)
    return "\n".join(lines)


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        yield command, inner
        if isinstance(command, click.Group):
            yield from _commands(command, inner)


def _described(command: click.Command, context: click.Context) -> list[str]:
    depth = "##" if context.parent is not None and context.parent.parent is None else "###"
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"{depth} {context.command_path}", "", f"```text\n{usage}\n```", ""]
    lines += [_paragraphs(inspect.cleandoc(command.help or "")), ""]
    own = [each for each in command.params if each not in GLOBAL_OPTIONS and isinstance(each, click.Option)]
    if table := _table(own, context):
        lines += [*table, ""]
    if command.epilog:
        lines += [f"```text\n{command.epilog.replace(chr(8), '').strip()}\n```", ""]
    return lines


def _paragraphs(text: str) -> str:
    """Return a help text as Markdown; what stands below a backspace keeps its lines."""
    parts = []
    for part in text.replace("\f", "").strip().split("\n\n"):
        kept = part.startswith("\b")
        parts.append(f"```text\n{part.removeprefix(chr(8)).strip(chr(10))}\n```" if kept else escaped(part))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Return text whose signs do not become HTML or columns of a table."""
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("|", "\\|")
        .replace("*", "\\*")
        .replace("_", "\\_")
    )


def _table(options: list[click.Option], context: click.Context) -> list[str]:
    rows = [record for each in options if (record := each.get_help_record(context)) is not None]
    if not rows:
        return []
    return [
        "| Option | |",
        "|---|---|",
        *(f"| `{names.replace('|', chr(92) + '|')}` | {escaped(help)} |" for names, help in rows),
    ]
