"""A clock for tests: it stands still, and jumps where somebody waits."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from wfengine_journal.clock import text_from_seconds
from wfengine_journal.errors import UsageError

#: Where a clock stands that was not told: a test that prints an instant prints the same one in each run.
DEFAULT_START = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A clock that only moves when somebody waits on it, or a test moves it; give it to `temporary_journal`.

    Whoever waits moves the time on to the instant it waits for, at once and for everybody: a wait takes no real time. Of two
    that wait at the same time, in threads or asyncio tasks, each does so; so an instant is never earlier than what was waited
    for, but may be later. All methods may be called from any thread.
    """

    def __init__(self, start: datetime | float = DEFAULT_START) -> None:
        """`start`: an aware datetime, or seconds since 1970-01-01 UTC."""
        self._lock = threading.Lock()
        self._wall = _seconds(start)
        self._monotonic = 0.0
        self._slept = 0.0

    def __repr__(self) -> str:
        return f"<VirtualClock {self.now_text()}>"

    @property
    def now(self) -> datetime:
        """Return the present instant."""
        return datetime.fromtimestamp(self._wall, UTC)

    @property
    def slept_seconds(self) -> float:
        """Return how long all waits together would have taken."""
        return self._slept

    def advance(self, seconds: float) -> None:
        """Move the time on, as if so much had passed."""
        if seconds < 0:
            raise UsageError(f"Time that passes goes forward, not {seconds} s. To set the clock back: set(instant)")
        with self._lock:
            self._move(seconds)

    def set(self, instant: datetime | float) -> None:
        """Set the wall clock, also back, as a person or a time server does; what measures durations does not notice."""
        with self._lock:
            self._wall = _seconds(instant)

    def _move(self, seconds: float) -> None:
        self._wall += seconds
        self._monotonic += seconds

    # ---- what the engine asks

    def now_text(self) -> str:
        """Return the present instant as the text that the journal stores."""
        return text_from_seconds(self._wall)

    def wall_seconds(self) -> float:
        """Return the present instant in seconds since 1970-01-01 UTC."""
        return self._wall

    def monotonic_seconds(self) -> float:
        """Return a reading that `set` does not change."""
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Move the time on and return at once."""
        with self._lock:
            self._move(max(seconds, 0.0))
            self._slept += max(seconds, 0.0)

    async def sleep_async(self, seconds: float) -> None:
        """Move the time on and return in the next turn of the event loop, so that others get theirs."""
        import asyncio

        self.sleep(seconds)
        await asyncio.sleep(0)


def _seconds(instant: datetime | float) -> float:
    if not isinstance(instant, datetime):
        return float(instant)
    if instant.tzinfo is None:
        raise UsageError(f"{instant!r} has no time zone. Give it one: datetime(..., tzinfo=UTC)")
    return instant.timestamp()
