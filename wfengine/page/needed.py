"""Which packages the page needs, and what is said where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from wfengine_journal.errors import UsageError

PACKAGES = ("starlette", "uvicorn", "jinja2")


def refuse_without_packages() -> None:
    """Raise UsageError, with what to type, where a package is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(f"The page needs the package {', '.join(missing)}. Install what it needs: pip install 'wfengine[ui]'")
