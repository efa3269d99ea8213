"""How a page is served that others may reach: which token it takes, and under which names it is."""

from __future__ import annotations

import os
from collections.abc import Iterable

from wfengine.page.app import app
from wfengine.page.server import PageServer
from wfengine_journal.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERY_ADDRESS = ("0.0.0.0", "::")  # asked for by the user
#: Where the token is taken from, for a page that others reach, or whose link is to stay the same.
TOKEN_VARIABLE = "WFENGINE_UI_TOKEN"


def page_server(
    journal: str | os.PathLike[str] | None, host: str, port: int, *, hosts: Iterable[str] = (), read_only: bool = False,
    base_path: str = "",
) -> PageServer:  # fmt: skip
    """Return the server of a page. Raises UsageError at an address that others reach, unless a token was set for it."""
    token = os.environ.get(TOKEN_VARIABLE) or None
    if host not in LOOPBACK and token is None:
        raise UsageError(
            f"At {host} others can reach the page, so it needs a token that you set: {TOKEN_VARIABLE}=... "
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    named = [] if host in LOOPBACK or host in _EVERY_ADDRESS else [f"[{host}]" if ":" in host else host]
    application = app(journal, token=token, hosts=[*hosts, *named], read_only=read_only, base_path=base_path)
    return PageServer(application, host=host, port=port)
