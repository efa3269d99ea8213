"""`concurrency` and `rate_limit` for sync code; see `wfengine.concurrency`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from wfengine.concurrency.acquiring import checked_ask, enter_steps, enter_there, leave, leave_there, rate_steps, rate_there
from wfengine.runners.away import ERRAND
from wfengine.steps import drive
from wfengine_journal.errors import AcquireConcurrencySlotTimeoutError, ConcurrencySlotAcquisitionError

__all__ = ["AcquireConcurrencySlotTimeoutError", "ConcurrencySlotAcquisitionError", "concurrency", "rate_limit"]


@contextmanager
def concurrency(
    names: str | Iterable[str],
    occupy: int = 1,
    timeout_seconds: float | None = None,
    max_retries: int | None = None,
    lease_duration: float = 300,
    strict: bool = False,
    holder: object = None,
) -> Iterator[None]:
    """Let only so many into the block at a time, over all processes that use this journal.

    - `names`: of one limit or several; of several, all places are taken together, or none.
    - `occupy`: so many places of each. `timeout_seconds`: AcquireConcurrencySlotTimeoutError when it passes; None: no limit.
    - A name without a limit lets everybody in; with `strict=True` it is a ConcurrencySlotAcquisitionError.

    Works in tasks, in the body of a flow, and outside of any run, where the process holds the places. They are free as soon
    as the process is dead. Inside a block, the same thread takes places of the same name only once. The wait counts against
    the `timeout_seconds` of the task it happens in. `max_retries`, `lease_duration` and `holder` are there for Prefect's sake,
    and do nothing: nothing is leased, and who holds a place is known.
    """
    ask, errand = checked_ask("concurrency", names, occupy, timeout_seconds, strict), ERRAND.get()
    if errand is not None:
        number = errand.do(enter_there, (ask,), {})
        try:
            yield
        finally:
            errand.do(leave_there, (number,), {})
        return
    around = drive(enter_steps(ask))
    try:
        yield
    finally:
        leave(around)


def rate_limit(names: str | Iterable[str], occupy: int = 1, timeout_seconds: float | None = None, strict: bool = False) -> None:
    """Return when a start may be made by the rates of these limits, and count it: `occupy` starts at once.

    Missing limits and `strict` as in `concurrency`; when `timeout_seconds` pass: AcquireConcurrencySlotTimeoutError, and
    nothing is counted. What the body of a flow has counted is not counted again when the run is resumed.
    """
    ask, errand = checked_ask("rate_limit", names, occupy, timeout_seconds, strict), ERRAND.get()
    if errand is not None:
        errand.do(rate_there, (ask,), {})
    else:
        drive(rate_steps(ask))
