"""The texts of notifications: what is kept of what somebody says, and what one message says that carries several.

A run's name or an exception's message may come from anybody. No text of theirs may steer a terminal, begin a new header of a
mail, be markup of the service that shows it, or call everybody in a channel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from wfengine_journal.notifications import NotificationRow

#: Characters of a subject and of a body that are kept.
SUBJECT_CHARACTERS = 200
BODY_CHARACTERS = 8000
#: Of a message of several: notifications that are listed, and characters of each.
LISTED = 20
LISTED_CHARACTERS = 300
#: Characters of a line: RFC 5321 allows 998 octets, and a character has up to four.
LINE_CHARACTERS = 240
#: From harmless to bad.
LEVELS = ("info", "success", "warning", "failure")

# Sequences that steer a terminal; then what is left of control characters, and those that hide or reorder text.
_SEQUENCE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)"
)
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_EVERYBODY = re.compile(r"@(?=(?:everyone|here|channel|all|room|team|online)\b)", re.IGNORECASE)
_WORDS_OF_MARKUP = str.maketrans({"<": "\u2039", ">": "\u203a"})


def plain(text: str) -> str:
    """Return a text of several lines without what steers or hides."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def plain_line(text: str) -> str:
    """Return a text on one line without what steers or hides."""
    return " ".join(plain(text).split())


def kept(text: str, characters: int) -> str:
    """Return a text, cut to so many characters with a note of how much is missing."""
    if len(text) <= characters:
        return text
    note = f"\u2026 ({len(text) - characters + 40:,} characters more)"
    return text[: characters - len(note)] + note


def harmless(text: str) -> str:
    """Return a text in which nothing is a tag, a mention or a link to somebody who shows it with markup."""
    text = text.translate(_WORDS_OF_MARKUP).replace("](", "] (")
    return _EVERYBODY.sub("@\u200b", text)


def wrapped(text: str) -> str:
    """Return a text whose long lines are broken."""
    lines = []
    for line in text.split("\n"):
        lines += [line[at : at + LINE_CHARACTERS] for at in range(0, max(len(line), 1), LINE_CHARACTERS)]
    return "\n".join(lines)


def cut(text: str, room: int, *, weight: int) -> str:
    """Return as much of a text as has room where each character but letters, digits and blanks takes `weight`."""
    used = 0
    for at, character in enumerate(text):
        used += 1 if character.isalnum() or character == " " else weight
        if used > room:
            return text[: max(at - 1, 0)] + "\u2026"
    return text


def composed(rows: Sequence[NotificationRow]) -> tuple[str | None, str, str]:
    """Return (subject, body, level) of the message that carries these notifications."""
    if len(rows) == 1:
        return rows[0].subject, rows[0].body, rows[0].level
    worst = max((row.level for row in rows), key=_rank)
    bad = sum(row.level == worst for row in rows)
    subject = f"{len(rows)} notifications" + (f", {bad} of them {worst}s" if worst in ("warning", "failure") else "")
    parts = []
    for row in rows[:LISTED]:
        head = f"[{row.level}] {row.created_at[:19].replace('T', ' ')}Z {row.subject or ''}".rstrip()
        parts.append(f"{head}\n{kept(row.body, LISTED_CHARACTERS)}")
    if len(rows) > LISTED:
        parts.append(f"{len(rows) - LISTED} more: wfengine notifications outbox")
    return subject, "\n\n".join(parts), worst


def footer(message_id: str, *, may_be_repeat: bool) -> str:
    """Return the last line of a message: its id, and whether it may have arrived before."""
    again = " - this may be a repeat: it is not known whether an earlier try arrived" if may_be_repeat else ""
    return f"wfengine message {message_id}{again}"


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else 0
