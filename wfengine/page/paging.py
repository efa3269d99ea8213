"""Where a page of a list ends, and from where the next one goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Place = TypeVar("Place")


def page_of(found: Sequence[Row], limit: int, place: Callable[[Row], Place]) -> tuple[Sequence[Row], Place | None]:
    """Return the rows of a page, and the place of the last one if there are more. `found`: one row more was asked for."""
    return found[:limit], place(found[limit - 1]) if len(found) > limit else None
