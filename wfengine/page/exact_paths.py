"""Routes that take each segment of a path as it was sent: a name with a `/` in it stands in one segment, as `%2F`.

What a server hands on as the path is decoded, and does not tell such a `/` from one between two segments.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.routing import Match, Route
from starlette.types import Scope


class ExactRoute(Route):
    """Matches the path as it was sent, where the server tells it, and the decoded one where it does not."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is for this route, and with which values in its path."""
        sent = _sent(scope) if scope["type"] == "http" else None
        if sent is None:
            return super().matches(scope)
        match, child = super().matches({**scope, "path": sent, "root_path": ""})
        if match is not Match.NONE:
            given = {name: unquote(str(child["path_params"][name])) for name in self.param_convertors}
            child["path_params"] = {**child["path_params"], **given}
        return match, child


def _sent(scope: Scope) -> str | None:
    """Return the path below the application with each segment encoded in the same way; None: it is not known."""
    raw = scope.get("raw_path")
    if not isinstance(raw, bytes):
        return None
    path, root, whole = scope["path"], scope.get("root_path", ""), raw.decode("latin-1").partition("?")[0]
    if root and path.startswith(f"{root}/"):
        path = path[len(root) :]
    for start in (at for at, letter in enumerate(whole) if letter == "/"):
        if unquote(whole[start:]) == path:
            return "/".join(quote(unquote(segment), safe="") for segment in whole[start:].split("/"))
    return None
