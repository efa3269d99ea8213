"""The search box: words and qualifiers, as text of an address.

    quiet-heron                          a word: in id, name, flow, parameters or message
    state:failed,crashed flow:etl        qualifiers; several states are alternatives, everything else has to hold together
    tag:nightly deployment:etl/nightly param.day:2026-11-22 log:"disk full"
    since:2h until:2026-11-22 duration>90s duration<2m is:subflow

Quotes keep blanks together. What a qualifier may be called is fixed, and what it is compared with is always bound.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from wfengine_journal.clock import SystemClock, text_from_seconds
from wfengine_journal.errors import UsageError
from wfengine_journal.page_queries import RunFilter
from wfengine_journal.states import StateType

#: Characters of a search, and qualifiers in it.
SEARCH_CHARACTERS = 1000
SEARCH_WORDS = 30
QUALIFIERS = "state: flow: tag: deployment: param.NAME: log: since: until: duration> duration< is:subflow"

#: A word; what stands between quotes belongs together, and one that begins with a quote is no qualifier.
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d|w)", re.ASCII)
_STATES = {state.value: state.value for state in StateType}


def parse(text: str) -> RunFilter:
    """Return what a search means. Raises UsageError for one that means nothing."""
    if len(text) > SEARCH_CHARACTERS:
        raise UsageError(f"A search has at most {SEARCH_CHARACTERS} characters.")
    if text.count('"') % 2:
        raise UsageError('The search has a " without its second one.')
    words = _WORD.findall(text.replace("\0", " "))
    if len(words) > SEARCH_WORDS:
        raise UsageError(f"A search has at most {SEARCH_WORDS} words.")
    found: dict[str, object] = {}
    parameters: list[tuple[str, str]] = []
    plain: list[str] = []
    for word in words:
        name, sign, value = _split(word)
        value = value.replace('"', "")
        if not sign:
            plain.append(word.replace('"', "").strip())
        elif name.startswith("param.") and sign == ":":
            parameters.append((name.removeprefix("param."), value))
        else:
            found |= _qualified(name, sign, value)
    if any(plain):
        found["text"] = " ".join(plain).strip()
    return RunFilter(parameters=tuple(parameters), **found)  # type: ignore[arg-type]  # each is made by _qualified


def _split(word: str) -> tuple[str, str, str]:
    parted = re.match(r"([a-z_]+(?:\.[^:<>\s]+)?)([:<>])(.*)", word, re.DOTALL)
    return (parted[1], parted[2], parted[3]) if parted else (word, "", "")


def _qualified(name: str, sign: str, value: str) -> dict[str, object]:
    if not value:
        raise UsageError(f"{name}{sign} needs something after it.")
    if name == "duration" and sign in "<>":
        return {"longer_than_s" if sign == ">" else "shorter_than_s": seconds(value)}
    if sign == ":":
        if name in ("flow", "tag", "deployment", "log"):
            return {name: value}
        if name == "state":
            return {"states": states(value)}
        if name in ("since", "until"):
            return {name: instant(value)}
        if (name, value) == ("is", "subflow"):
            return {"subflows": True}
    raise UsageError(f"{name}{sign} is no qualifier. There are: {QUALIFIERS}. Put a word with : in it between quotes.")


def states(text: str) -> tuple[str, ...]:
    """Return the states that a comma-separated text names."""
    chosen = []
    for name in text.upper().split(","):
        if name not in _STATES:
            raise UsageError(f"There is no state {name!r}. There are: {', '.join(_STATES)}.")
        chosen.append(name)
    return tuple(dict.fromkeys(chosen))


def seconds(text: str) -> float:
    """Return the seconds that '90s', '2m', '1.5h' mean."""
    parted = _DURATION.fullmatch(text)
    if parted is None:
        raise UsageError(f"A duration is a number with ms, s, m, h, d or w, and not {text!r}. Example: 90s")
    return float(parted[1]) * (0.001 if parted[2] == "ms" else _UNITS[parted[2]])


def instant(text: str) -> str:
    """Return the instant that is meant, as the journal writes it: so long ago ('2h'), or a date or time; without zone, UTC."""
    if _DURATION.fullmatch(text):
        return text_from_seconds(max(0.0, SystemClock().wall_seconds() - seconds(text)))
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        return text_from_seconds(max(0.0, found.timestamp()))
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"An instant is so long ago (2h, 3d), or a date or time in ISO 8601, and not {text!r}.") from None
