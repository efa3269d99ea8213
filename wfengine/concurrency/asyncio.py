"""`concurrency` and `rate_limit` for async code; see `wfengine.concurrency`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from wfengine.concurrency.acquiring import checked_ask, enter_steps, enter_there, leave, leave_there, rate_steps, rate_there
from wfengine.runners.away import ERRAND
from wfengine.steps import drive_async
from wfengine_journal.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError

__all__ = ["AcquireConcurrencySlotTimeoutError", "ConcurrencySlotAcquisitionError", "concurrency", "rate_limit"]


@asynccontextmanager
async def concurrency(
    names: str | Iterable[str],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    max_retries: int | None = None,
    lease_duration: float = 300,
    strict: bool = False,
    holder: object = None,
) -> AsyncIterator[None]:
    """Do what `wfengine.concurrency.sync.concurrency` does, while the event loop goes on with other work: `async with`.

    Inside a block, the same asyncio task takes places of the same name only once.
    """
    ask, errand = checked_ask("concurrency", names, occupy, timeout_seconds, strict), ERRAND.get()
    if errand is not None:
        number = await errand.later(lambda: errand.do(enter_there, (ask,), {}))
        try:
            yield
        finally:
            await errand.later(lambda: errand.do(leave_there, (number,), {}))
        return
    around = await drive_async(enter_steps(ask))
    try:
        yield
    finally:
        leave(around)


async def rate_limit(
    names: str | Iterable[str], occupy: int = 1, timeout_seconds: float | None = None, strict: bool = False
) -> None:
    """Do what `wfengine.concurrency.sync.rate_limit` does, while the event loop goes on with other work."""
    ask, errand = checked_ask("rate_limit", names, occupy, timeout_seconds, strict), ERRAND.get()
    if errand is not None:
        await errand.later(lambda: errand.do(rate_there, (ask,), {}))
    else:
        await drive_async(rate_steps(ask))
