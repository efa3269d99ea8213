"""How durations, instants and sizes are said to people: the same in a terminal and on a page."""

from __future__ import annotations


def duration_text(seconds: float | None) -> str:
    """Return a duration for people: '340 µs', '12 ms', '3.21 s', '4 min 05 s', '2 h 07 min'."""
    if seconds is None:
        return ""
    if seconds < 0.001:
        return f"{seconds * 1_000_000:.0f} µs" if seconds > 0 else "0 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def second_text(instant: str) -> str:
    """Return an instant of the journal to the second, its zone (UTC) shown: '2026-11-22 15:30:50Z'."""
    return instant[:19].replace("T", " ") + "Z"


def size_text(size: int) -> str:
    """Return a number of bytes for people."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
