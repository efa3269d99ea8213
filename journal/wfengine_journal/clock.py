"""The only place that asks what time it is, and the only one that sleeps.

Wall time is written into the journal; monotonic time measures durations and delays, so that a clock set back or
forward neither shortens nor lengthens a wait in a living process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio


class Clock(Protocol):
    """The seam through which all time reaches the engine."""

    def now_text(self) -> str:
        """Return the present instant as fixed-width ISO-8601 UTC text, the form the journal stores."""

    def wall_seconds(self) -> float:
        """Return the present instant as seconds since 1970-01-01 UTC."""

    def monotonic_seconds(self) -> float:
        """Return a reading that never goes back; only differences mean anything."""

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for so many seconds."""

    async def sleep_async(self, seconds: float) -> None:
        """Let the calling asyncio task wait for so many seconds, while its event loop goes on with others."""


def text_from_seconds(seconds: float) -> str:
    """Return fixed-width ISO-8601 UTC text (microseconds, `Z`) of seconds since 1970-01-01 UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_from_text(text: str) -> float:
    """Return the seconds since 1970-01-01 UTC that `text_from_seconds` wrote as `text`."""
    return datetime.fromisoformat(text).timestamp()


def instant_from_text(text: str) -> datetime:
    """Return the aware UTC datetime of a text of the journal."""
    return datetime.fromisoformat(text)


def utc_now() -> datetime:
    """Return the present instant by the machine's clock, for what a user makes by hand, outside of any journal."""
    return datetime.now(UTC)


class SystemClock:
    """The machine's own clock."""

    def __init__(self) -> None:
        # Formatting the date costs more than anything else here, so the text up to the second is kept and
        # replaced as one tuple: a reader in another thread sees the old pair or the new one, never a mix.
        self._second: tuple[int, str] = (-1, "")

    def now_text(self) -> str:
        nanoseconds = time.time_ns()
        second, micro = nanoseconds // 1_000_000_000, nanoseconds // 1000 % 1_000_000
        known, prefix = self._second
        if known != second:
            prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = (second, prefix)
        return f"{prefix}{micro:06d}Z"

    def wall_seconds(self) -> float:
        return time.time()

    def monotonic_seconds(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def sleep_async(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)


def sleep_unless(clock: Clock, seconds: float, woken: threading.Event) -> None:
    """Block the calling thread for so many seconds, or until the event is set; by any other clock, as long as it says."""
    if isinstance(clock, SystemClock):
        woken.wait(seconds)
    else:
        clock.sleep(seconds)


async def sleep_unless_async(clock: Clock, seconds: float, woken: asyncio.Event) -> None:
    """Do what `sleep_unless` does in an event loop, which goes on with other work meanwhile."""
    if not isinstance(clock, SystemClock):
        await clock.sleep_async(seconds)
        return
    import asyncio

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()
