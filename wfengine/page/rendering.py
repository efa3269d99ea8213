"""Templates: every text is escaped, nothing is ever marked as safe, and what steers a terminal or hides is dropped."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wfengine._version import __version__
from wfengine.wording import duration_text, second_text, size_text
from wfengine_journal.clock import SystemClock, seconds_from_text

_FOLDER = Path(__file__).parent / "templates"

#: Characters of one text on a page, and of one in a cell.
TEXT = 100_000
CELL = 160

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

#: The sign of a state beside its colour, which is never the only one.
MARKS = {
    "COMPLETED": "✓", "FAILED": "✗", "CRASHED": "!", "CANCELLED": "⊘", "CANCELLING": "⊘", "PAUSED": "‖", "RUNNING": "▶",
    "SCHEDULED": "◷", "PENDING": "○", "INTERRUPTED": "!",
}  # fmt: skip


def text(value: object, limit: int = TEXT) -> str:
    """Return a text for people; what is not one as JSON."""
    if value is None:
        return ""
    found = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    found = _CONTROL.sub("", found)
    return found if len(found) <= limit else found[: limit - 1] + "…"


def cell(value: object) -> str:
    """Return a text on one line, cut."""
    return text(" ".join(text(value, CELL * 4).split()), CELL)


def pretty(value: object) -> str:
    """Return a JSON value over several lines."""
    if value is None:
        return ""
    return text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str))


def json_text(value: object) -> str:
    """Return a JSON text that means exactly the value, what steers or hides written as an escape: for a field of a form."""
    found = json.dumps(value, ensure_ascii=False, default=str)
    return _CONTROL.sub(lambda letter: f"\\u{ord(letter.group()):04x}", found)


def instant(value: str | None) -> str:
    """Return an instant to the second, its zone shown."""
    return "" if value is None else second_text(text(value))


def ago(value: str | None) -> str:
    """Return how long ago an instant was, or in how long it will be."""
    if value is None:
        return ""
    try:
        seconds = SystemClock().wall_seconds() - seconds_from_text(value)
    except ValueError:
        return text(value)
    if abs(seconds) < 1:
        return "now"
    length = abs(round(seconds))
    said = duration_text(length) if length >= 3600 else f"{length // 60} min" if length >= 60 else f"{length} s"
    return f"{said} ago" if seconds > 0 else f"in {said}"


def clock_text(seconds: float) -> str:
    """Return an instant given in seconds, for the head of a page."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%SZ")


def address(path: str, **query: object) -> str:
    """Return an address with the parameters that are not empty."""
    given = {name: value for name, value in query.items() if value not in (None, "", False)}
    return path + (f"?{urlencode(given)}" if given else "")


def environment() -> Environment:
    """Return the environment of all templates."""
    found = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {
        "text": text, "cell": cell, "pretty": pretty, "duration": duration_text, "instant": instant, "ago": ago,
        "bytes": size_text, "mark": lambda state: MARKS.get(state, "?"), "segment": lambda value: quote(str(value), safe=""),
        "number": lambda value: f"{value:,}", "tojson_text": json_text,
    }  # fmt: skip
    found.globals |= {"address": address, "version": __version__}
    return found


def render(templates: Environment, name: str, **values: Any) -> str:
    """Return a page as text."""
    return templates.get_template(name).render(now=clock_text(SystemClock().wall_seconds()), **values)
