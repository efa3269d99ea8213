"""A small part of Markdown, as blocks and pieces that templates write: no markup of the text is ever taken over.

Headings, paragraphs, lists, quotes, tables, code, emphasis, and links to http and https. Everything else, HTML above all, stays
the text that it is. Each line is looked at once, and no pattern here goes back over what it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

#: Lines that are looked at.
LINES = 5_000

_INLINE = re.compile(
    r"`([^`\n]{1,2000})`|\*\*([^*\n]{1,2000})\*\*|\*([^*\n]{1,2000})\*|\[([^\[\]\n]{1,500})\]\((https?://[^\s()<>]{1,2000})\)"
)
_ITEM = re.compile(r"\s{0,6}(?:[-*+]|(\d{1,9})[.)])\s+(.*)", re.DOTALL)
_HEADING = re.compile(r"(#{1,6})\s+(.*)", re.DOTALL)
_DASHES = re.compile(r"\|?[\s:|-]{3,}\|?")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a line. `kind`: text, code, strong, em or link; `address` of a link."""

    kind: str
    text: str
    address: str = ""


Line = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A block. `kind`: heading, paragraph, quote, list, numbers, code, table or rule; it says which of the others count."""

    kind: str
    level: int = 0
    lines: tuple[Line, ...] = ()
    text: str = ""
    rows: tuple[tuple[Line, ...], ...] = ()


def pieces(text: str) -> Line:
    """Return a line in pieces."""
    found: list[Piece] = []
    last = 0
    for match in _INLINE.finditer(text):
        if match.start() > last:
            found.append(Piece("text", text[last : match.start()]))
        code, strong, em, label, address = match.groups()
        if label is not None:
            found.append(Piece("link", label, address))
        else:
            kind = "code" if code is not None else "strong" if strong is not None else "em"
            found.append(Piece(kind, code or strong or em))
        last = match.end()
    if last < len(text):
        found.append(Piece("text", text[last:]))
    return tuple(found)


def blocks(text: str) -> list[Block]:
    """Return a text in blocks."""
    return list(_blocks(text.replace("\r\n", "\n").split("\n")[:LINES]))


def _blocks(lines: list[str]) -> Iterator[Block]:
    place = 0
    while place < len(lines):
        start, line = place, lines[place]
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            place = _until(lines, place + 1, lambda each, fence=stripped[:3]: each.strip().startswith(fence))  # type: ignore[misc]  # bound per turn
            yield Block("code", text="\n".join(lines[start + 1 : place]))
            place += 1
        elif not stripped:
            place += 1
        elif heading := _HEADING.fullmatch(stripped):
            yield Block("heading", level=len(heading[1]), lines=(pieces(heading[2]),))
            place += 1
        elif len(stripped) > 2 and set(stripped) <= {"-"}:
            yield Block("rule")
            place += 1
        elif _ITEM.fullmatch(line):
            place = _until(lines, place, lambda each: _ITEM.fullmatch(each) is None)
            items = [_ITEM.fullmatch(each) for each in lines[start:place]]
            kind = "numbers" if items[0] and items[0][1] else "list"
            yield Block(kind, lines=tuple(pieces(item[2]) for item in items if item))
        elif stripped.startswith(">"):
            place = _until(lines, place, lambda each: not each.strip().startswith(">"))
            yield Block("quote", lines=tuple(pieces(each.strip()[1:].strip()) for each in lines[start:place]))
        elif (
            "|" in stripped
            and place + 1 < len(lines)
            and "-" in lines[place + 1]
            and _DASHES.fullmatch(lines[place + 1].strip())
        ):
            place = _until(lines, place, lambda each: "|" not in each)
            yield Block("table", rows=tuple(_cells(each) for each in [lines[start], *lines[start + 2 : place]]))
        else:
            place = _until(lines, place + 1, _begins_something)
            yield Block("paragraph", lines=tuple(pieces(each) for each in lines[start:place]))


def _until(lines: list[str], place: int, is_end: Callable[[str], bool]) -> int:
    while place < len(lines) and not is_end(lines[place]):
        place += 1
    return place


def _begins_something(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith(("#", ">", "```", "~~~")) or _ITEM.fullmatch(line) is not None


def _cells(line: str) -> tuple[Line, ...]:
    return tuple(pieces(cell.strip()) for cell in line.strip().strip("|").split("|")[:50])
