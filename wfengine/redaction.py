"""The secrets that this process knows, and how they are kept out of whatever is written: `MASK` stands in their place.

A secret is known from the moment its value was asked for, or met in a pydantic SecretStr or SecretBytes. Until one is, nothing
here is called. Of each value the forms are looked for in which texts are written: as it is, within JSON and a repr, in a URL,
in base64. A value shorter than `SHORTEST` characters is not looked for: it would blot out what has nothing to do with it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TextIO, cast

from wfengine_journal.codec import register_codec
from wfengine_journal.guarding import MASK, POST, hide

#: Characters that a value has at least to be looked for.
SHORTEST = 4
#: Characters that are looked for of a longer one: enough to find it, and quick.
LONGEST = 4096
#: Values that are remembered; a program that reads a new one for each request would otherwise slow down for ever.
MAX_KNOWN = 10_000
#: Forms up to which looking for each is quicker than one pattern for all of them.
FEW_FORMS = 300
#: Rounds of the hash by which a secret without a name is told from another: each guess of somebody else takes as long.
ROUNDS = 50_000


class Keeper:
    """Knows the secrets of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}  # value: the name that stands for it
        self._forms: dict[str, str] = {}  # form: the name
        self._forms_as_bytes: dict[bytes, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self._bytes: re.Pattern[bytes] | None = None

    def learn(self, value: object, name: str | None = None) -> None:
        """Know a secret from now on: a text, or the texts in a value of lists and dicts.

        Where one value has several names, it goes by that under which it was read last: a resumed flow reads in the same order.
        """
        mark = None if name is None else _mark(name)
        found = [text for text in _texts(value) if len(text) >= SHORTEST and self._is_news(text, mark)]
        if not found:
            return
        with self._lock:
            for text in found:
                if len(self._known) >= MAX_KNOWN and text not in self._known:
                    break
                self._known[text] = mark or _nameless(text)
                self._forms.update(dict.fromkeys(_forms_of(text), self._known[text]))
            ordered = sorted(self._forms, key=lambda form: (-len(form), form))
            self._forms_as_bytes = {_raw(form): self._forms[form] for form in ordered}
            self._pattern = re.compile("|".join(map(re.escape, ordered)))
            self._bytes = re.compile(b"|".join(map(re.escape, self._forms_as_bytes)))
        if not POST.is_alert:
            POST.is_alert = True
            if POST.hides_output:
                sys.stdout, sys.stderr = _hiding(sys.stdout), _hiding(sys.stderr)
            _hide_in_log_records()

    def _is_news(self, text: str, mark: str | None) -> bool:
        known = self._known.get(text)
        return known is None or (mark is not None and known != mark)

    def known_in(self, raw: bytes) -> list[tuple[str, str]]:
        """Return the secrets that bytes hold, each with the name that stands for it."""
        with self._lock:
            known = list(self._known.items())
        return [(text, name) for text, name in known if any(_raw(form) in raw for form in _forms_of(text))]

    def learn_again(self, known: Iterable[tuple[str, str]]) -> None:
        """Know secrets that were sealed with a value, by the names that they had then."""
        for text, name in known:
            if text not in self._known:
                self.learn(text, name)

    def holds(self, data: bytes) -> bool:
        """See `guarding.Guard`."""
        forms = self._forms_as_bytes
        if len(forms) <= FEW_FORMS:
            return any(form in data for form in forms)
        return self._bytes is not None and self._bytes.search(data) is not None

    def hide(self, text: str) -> str:
        """See `guarding.Guard`."""
        return text if self._pattern is None else self._pattern.sub(MASK, text)

    def name(self, data: bytes) -> bytes:
        """See `guarding.Guard`."""
        if self._bytes is None:
            return data
        return self._bytes.sub(lambda found: self._forms_as_bytes[found[0]].encode(), data)

    def note(self, found: list[str | bytes]) -> None:
        """See `guarding.Guard`."""
        for value in found:
            self.learn(value)

    def seal(self, codec: str, raw: bytes, what: str) -> tuple[str, bytes]:
        """See `guarding.Guard`."""
        from wfengine.sealing import seal  # imports what encrypts, which is an extra

        return seal(codec, raw, self.known_in(raw), what)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "surrogateescape")
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _forms_of(text: str) -> set[str]:
    """Return the ways in which a text is written. Lines of a longer one, such as a private key, count by themselves."""
    import base64  # most programs know no secret
    from urllib.parse import quote, quote_plus

    lines = (line.strip()[:LONGEST] for line in text.splitlines() if len(line.strip()) >= 16)
    pieces = {text, *lines} if len(text) <= LONGEST else set(lines)
    forms: set[str] = set()
    for piece in pieces:
        raw = _raw(piece)
        forms |= {
            piece,
            json.dumps(piece)[1:-1],
            json.dumps(piece, ensure_ascii=False)[1:-1],
            repr(piece)[1:-1],
            quote(raw, safe=""),
            quote(raw),
            quote_plus(raw),
            base64.b64encode(raw).decode(),
            base64.urlsafe_b64encode(raw).decode(),
        }
    return {form for form in forms if len(form) >= SHORTEST}


def _raw(text: str) -> bytes:
    """Return a text as bytes: those it was made of, where it was read from bytes that are no UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _mark(name: str) -> str:
    """Return what stands for a secret in what is compared: text that JSON need not escape."""
    if name.startswith("{{"):
        return name  # it was sealed under this mark
    return "{{ secrets." + re.sub(r'[\\"\x00-\x1f]', "_", name) + " }}"


def _nameless(text: str) -> str:
    import hashlib  # as above

    found = hashlib.pbkdf2_hmac("sha256", _raw(text), b"wfengine", ROUNDS)
    return "{{ a secret #" + found.hex()[:16] + " }}"


def _hide_in_log_records() -> None:
    """From now on, what is logged in this process has no secret in it, whoever logs it and wherever it goes."""
    make = logging.getLogRecordFactory()
    if getattr(make, "hides_secrets", False):
        return
    formatter = logging.Formatter()

    def hiding(*args: object, **kwargs: object) -> logging.LogRecord:
        record: logging.LogRecord = make(*args, **kwargs)
        if not POST.is_alert:
            return record
        try:
            before = record.getMessage()
        except Exception:  # its arguments do not fit: logging says so itself
            return record
        after = KEEPER.hide(before)
        if after != before:
            record.msg, record.args = after, None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            before = formatter.formatException(record.exc_info)
            after = KEEPER.hide(before)
            if after != before:
                record.exc_text = after
        return record

    hiding.hides_secrets = True  # type: ignore[attr-defined]  # functions have room for notes
    logging.setLogRecordFactory(hiding)


class HidingStream:
    """A text stream that shows no secret that is known when a text is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; see io.TextIOBase."""
        self._stream.write(hide(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """See io.IOBase."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _hiding(stream: TextIO) -> TextIO:
    return cast(TextIO, HidingStream(stream))


def _unseal(codec: str, data: str | bytes, what: str) -> object:
    from wfengine.sealing import unseal  # as in `Keeper.seal`

    return unseal(codec, data, what)


KEEPER = Keeper()
register_codec("sealed", _unseal)
