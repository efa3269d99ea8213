"""The future of a commit that somebody waits for whatever happens. Imports asyncio: not to be loaded with the package."""

from __future__ import annotations

import asyncio


class CommitFuture(asyncio.Future[None]):
    """A future that a cancelled task goes on to wait for. What asyncio keeps of the cancellation it delivers afterwards.

    `asyncio.shield` does the same with a second future for each, which costs as much as all else that asyncio does here.
    """

    def cancel(self, msg: object = None) -> bool:
        """Refuse."""
        return False
