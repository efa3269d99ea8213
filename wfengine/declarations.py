"""Deployments that a file declares: those it would serve or apply if it were run, found while it is only loaded.

A file that is loaded to find its flows writes nothing and serves nothing, whatever it calls at module level. Whoever loads it
in order to serve it wants to know what it would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfengine.deployments import Deployment

_collectors: list[list[Deployment]] = []


@contextmanager
def collecting() -> Iterator[list[Deployment]]:
    """Yield a list to which each deployment is added that is served or applied while a file is loaded in the block."""
    found: list[Deployment] = []
    _collectors.append(found)
    try:
        yield found
    finally:
        _collectors.remove(found)


def note_declared(deployment: Deployment) -> None:
    """Note that a file which is being loaded would serve or apply this deployment."""
    for collector in _collectors:
        if not any(known is deployment for known in collector):
            collector.append(deployment)
