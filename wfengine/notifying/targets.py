"""Whom notifications go to: what may be said of a target, checked before anything is written.

A URL is kept in the journal as it was given, so nothing in it may be secret: what is stands there as a reference.
"""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import urlsplit

from wfengine.concurrency.limits import checked_rate
from wfengine.references import filled_text
from wfengine.secret_sources import checked_name as checked_secret
from wfengine_journal.errors import NotFoundError, NotificationError, SecretError
from wfengine_journal.notifications import SetTarget, TargetRow, UnsetTarget, find_target
from wfengine_journal.quotas import KEEP
from wfengine_journal.secrets import find_secret
from wfengine_journal.store import Journal
from wfengine_journal.tickets import WriteRefused

#: Characters of a name and of a URL.
NAME_LIMIT = 100
URL_LIMIT = 4000
#: The longest time that a digest gathers for, in seconds: a week.
LONGEST_DIGEST_SECONDS = 7 * 86400.0
#: What a target takes unless its author says otherwise: a storm of alerts becomes some messages of several.
DEFAULT_RATE = "20/min"
#: Services whose URLs need no secret: what others have in theirs is a key.
_OPEN = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})
#: Names of options that hold a key wherever they stand.
_KEY = re.compile(r"pass|token|key|secret|sig|auth|cred", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FILLED = "wfengine-secret"


def checked_name(name: object) -> str:
    """Return the name of a target. Raises NotificationError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        raise NotificationError(
            f"{ascii(name)[:80]} cannot name a notification target: a name has letters, digits, dashes and underscores, and at "
            f"most {NAME_LIMIT} of them."
        )
    return name


def target_row(
    name: object,
    *,
    url: object,
    url_secret: object,
    rate: str | tuple[int, timedelta] | None,
    digest_seconds: object,
    allow_private: object,
    at: str,
) -> TargetRow:
    """Return the row of a target. Raises NotificationError, UsageError or SecretError for what makes no sense."""
    name = checked_name(name)
    if (url is None) == (url_secret is None):
        raise NotificationError(
            f"Notification target '{name}' is given its URL either as a secret, --url-secret NAME (url_secret='NAME'), or as a "
            "text with references, --url 'mailto://user:{{ secrets.NAME }}@mail.example.com'."
        )
    text = f"{{{{ secrets.{checked_secret(url_secret)} }}}}" if url is None else _checked_url(name, url)
    counted = checked_rate(rate, name)
    assert counted is not KEEP
    if isinstance(digest_seconds, bool) or not isinstance(digest_seconds, int | float):
        raise NotificationError(f"`digest_seconds` of notification target '{name}' is a number, and not {digest_seconds!r}.")
    if not 0 <= digest_seconds <= LONGEST_DIGEST_SECONDS:
        raise NotificationError(
            f"`digest_seconds` of notification target '{name}' is from 0 to {LONGEST_DIGEST_SECONDS:g}, not {digest_seconds!r}."
        )
    if not isinstance(allow_private, bool):
        raise NotificationError(f"`allow_private` of notification target '{name}' is true or false, not {allow_private!r}.")
    count, seconds = (None, None) if counted is None else counted
    return TargetRow(name, text, count, seconds, float(digest_seconds), int(allow_private), None, at, at)


def _checked_url(name: str, url: object) -> str:
    if not isinstance(url, str) or not 3 <= len(url) <= URL_LIMIT or not url.isprintable() or "://" not in url:
        raise NotificationError(
            f"The URL of notification target '{name}' is a text as 'mailto://user:{{{{ secrets.NAME }}}}@mail.example.com', of "
            f"at most {URL_LIMIT} characters on one line."
        )
    filled = filled_text(url, lambda _: _FILLED)
    if "{{" in filled or "{{ variables" in url.replace("{{variables", "{{ variables"):
        raise NotificationError(
            f"The URL of notification target '{name}' holds a reference that cannot be read. Write {{{{ secrets.NAME }}}}."
        )
    try:
        parts = urlsplit(filled)
        password = parts.password
    except ValueError as error:
        raise NotificationError(f"The URL of notification target '{name}' cannot be read: {error}.") from None
    open_key = any(
        _KEY.search(pair.partition("=")[0]) and pair.partition("=")[2] not in ("", _FILLED) for pair in parts.query.split("&")
    )
    if (password not in (None, _FILLED)) or open_key or (_FILLED not in filled and parts.scheme.lower() not in _OPEN):
        raise NotificationError(
            f"The URL of notification target '{name}' holds a key or password in the clear, and was not recorded. Keep it as a "
            f"secret: wfengine secrets set {name}_url; then wfengine notifications set {name} --url-secret {name}_url"
        )
    return url


def put_target(journal: Journal, row: TargetRow, *, overwrite: bool, synced: bool) -> None:
    """Record a target. Raises SecretError where a secret it names is not there, NotificationError where its name is taken."""
    named: list[str] = []
    filled_text(row.url, lambda name: named.append(name) or "")  # type: ignore[func-returns-value]  # it returns None, so ''
    for secret in named:
        if journal.records.read(lambda connection, secret=secret: find_secret(connection, secret)) is None:  # type: ignore[misc]
            raise SecretError(f"There is no secret '{secret}'. Set it: wfengine secrets set {secret}")
    try:
        journal.write(SetTarget(row, overwrite=overwrite), synced=synced)
    except WriteRefused:
        raise NotificationError(
            f"Notification target '{row.name}' exists already. To change it: --overwrite, or overwrite=True"
        ) from None


def delete_target(journal: Journal, name: str, *, synced: bool) -> bool:
    """Delete a target; tell whether there was one."""
    change = UnsetTarget(checked_name(name))
    journal.write(change, synced=synced)
    return change.existed


def get_target(journal: Journal, name: str) -> TargetRow:
    """Return the target of that name. Raises NotFoundError."""
    row = journal.records.read(lambda connection: find_target(connection, name))
    if row is None:
        raise NotFoundError(f"There is no notification target {name!r}. See them with: wfengine notifications ls")
    return row
