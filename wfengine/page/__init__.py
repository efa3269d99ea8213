"""The page and the API: what is in a journal, in a browser and over HTTP, and everything the command line does about it.

`app(...)` is an ASGI application, to be served by `wfengine ui` or mounted in one of the user's own. Needs the packages
starlette, uvicorn and jinja2. Nothing here is imported, and nothing listens, unless asked for.

    from wfengine.page import app
    application = app("journal.db", token="...", hosts=["flows.example.org"])
"""

from __future__ import annotations

from wfengine.page.needed import refuse_without_packages

refuse_without_packages()

from wfengine.page.app import app  # noqa: E402  # the packages have to be looked for before
from wfengine.page.server import PageServer  # noqa: E402

__all__ = ["PageServer", "app"]
