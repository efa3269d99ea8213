"""What transactions and cache policies choose from: when a transaction commits, and who may compute one key at a time."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CommitMode", "IsolationLevel"]


class IsolationLevel(StrEnum):
    """Whether two calls with one cache key, or two transactions with one key, may be under way at the same time."""

    READ_COMMITTED = "READ_COMMITTED"  # yes: both compute, the later result stays
    SERIALIZABLE = "SERIALIZABLE"  # no: one at a time, over all threads and processes; the others wait for its result


class CommitMode(StrEnum):
    """When a transaction commits."""

    EAGER = "EAGER"  # at its own end
    LAZY = "LAZY"  # with the transaction around it
    OFF = "OFF"  # only when asked to
