"""What the command line writes: data to stdout, talk to stderr, nothing that could steer a terminal.

Text that comes out of a journal - names, messages, results, tracebacks - was chosen by whoever wrote the file, so it
passes `clean` or `clean_lines` before it is shown.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

import click

from wfengine.wording import duration_text as duration_text
from wfengine.wording import second_text
from wfengine.wording import size_text as size_text
from wfengine_journal import guarding
from wfengine_journal.clock import SystemClock, seconds_from_text

#: Version of the JSON objects that --json prints. It grows when a field changes its meaning or goes away.
SCHEMA_VERSION = 1
#: Columns used where there is no terminal to ask.
DEFAULT_WIDTH = 120

# CSI sequences; string sequences (OSC, DCS, PM, APC, SOS) that have an end; other two-character escapes.
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-~]"
)
# What is left of control characters, and the ones that reorder or hide text.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_STATES = {
    "COMPLETED": ("green", "✓", "+"),
    "FAILED": ("red", "✗", "x"),
    "CRASHED": ("magenta", "↯", "!"),
    "CANCELLED": ("yellow", "⊘", "-"),
    "CANCELLING": ("yellow", "⊘", "-"),
    "RUNNING": ("cyan", "▶", ">"),
    "PAUSED": ("yellow", "‖", "="),
    "SCHEDULED": ("blue", "◷", "."),
    "PENDING": ("blue", "·", "."),
}


def clean_lines(text: object) -> str:
    """Return text without anything that steers a terminal; line breaks and tabs stay."""
    plain = str(text).replace("\r\n", "\n")
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", _SEQUENCE.sub("", plain)))


def clean(text: object) -> str:
    """Return text on one line, without anything that steers a terminal."""
    return " ".join(clean_lines(text).split())


def shorten(text: str, width: int) -> str:
    """Return text cut to so many terminal columns, with an ellipsis."""
    if cells(text) <= width:
        return text
    kept, room = [], width - 1
    for character in text:
        room -= _cell(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def cells(text: str) -> int:
    """Return how many terminal columns a text takes, colours left out."""
    plain = click.unstyle(text)
    return len(plain) if plain.isascii() else sum(_cell(character) for character in plain)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def terminal_width() -> int:
    """Return the width to lay out for."""
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if sys.stdout.isatty() else DEFAULT_WIDTH


def shows_unicode(stream: IO[str]) -> bool:
    """Tell whether block characters and check marks can be written to the stream."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") in ("utf8", "utf16", "cp65001")


def state_mark(state: str, unicode: bool | None = None) -> str:
    """Return the one-character sign of a state, so that colour is never the only sign. Default: as stdout can show."""
    _, mark, plain = _STATES.get(state, ("white", "?", "?"))
    return mark if (shows_unicode(sys.stdout) if unicode is None else unicode) else plain


def state_text(state: str, name: str) -> str:
    """Return a state for people: sign and name, coloured."""
    return click.style(f"{state_mark(state)} {clean(name)}", fg=state_color(state))


def state_color(state: str) -> str:
    """Return the colour of a state."""
    return _STATES.get(state, ("white", "?", "?"))[0]


def instant_text(text: str | None) -> str:
    """Return an instant of the journal to the second, its zone (UTC) shown: '2026-11-22 15:30:50Z'."""
    return "" if text is None else second_text(clean(text))


def ago_text(text: str | None) -> str:
    """Return how long ago an instant of the journal was; the text itself if it is no instant."""
    if text is None:
        return ""
    try:
        seconds = int(SystemClock().wall_seconds() - seconds_from_text(text))
    except ValueError:
        return clean(text)
    return f"{seconds} s ago" if 0 < seconds < 60 else f"{duration_text(seconds)} ago" if seconds > 0 else "now"


def write(text: str = "") -> None:
    """Write a line of data to stdout."""
    click.echo(guarding.hide(text))


def say(text: str) -> None:
    """Write a line of talk to stderr."""
    click.echo(guarding.hide(text), err=True)


def write_json(command: str, fields: Mapping[str, object]) -> None:
    """Write the one JSON object of a command to stdout."""
    write(json_text({"schema_version": SCHEMA_VERSION, "command": command, **fields}))


def json_text(value: object) -> str:
    """Return readable JSON in which no character can steer a terminal. Infinity, which JSON lacks, becomes text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_json_default)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, default=_json_default)
    # Such characters stand inside strings only, where an escape means the same.
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _json_default(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)


def _finite(value: object) -> object:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def json_value(text: str | None) -> object:
    """Return what a JSON text of the journal holds; the text itself when it is a preview and not JSON."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Lay cells out in columns, those in `right` to the right; the last column is cut to the terminal's width."""
    body = [list(row) for row in rows]
    widths = [max([cells(column), *(cells(row[i]) for row in body)]) for i, column in enumerate(columns)]
    limit = terminal_width() - sum(widths[:-1]) - 2 * (len(widths) - 1)
    lines = []
    for number, row in enumerate([list(columns), *body]):
        if cells(row[-1]) > max(limit, 20):
            row[-1] = shorten(click.unstyle(row[-1]), max(limit, 20))
        padded = [_padded(cell, widths[i], i in right) for i, cell in enumerate(row)]
        line = "  ".join(padded).rstrip()
        lines.append(click.style(line, bold=True) if number == 0 else line)
    return lines


def _padded(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cells(cell))
    return space + cell if right else cell + space
