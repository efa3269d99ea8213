"""What the methods of the API's client are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

Answer = dict[str, Any]


class ApiCalls:
    """How an operation is asked for: its path, and its arguments by where they go. `api_client` does it."""

    def _ask(
        self, method: str, path: str, places: Mapping[str, object], query: Mapping[str, object], body: Mapping[str, object]
    ) -> Answer:
        """Return the JSON that is answered."""
        raise NotImplementedError

    def _fetch(self, path: str, places: Mapping[str, object], query: Mapping[str, object]) -> IO[bytes]:
        """Return the file that is answered, open."""
        raise NotImplementedError
