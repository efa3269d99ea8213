"""Changes that carry others: what is written in one transaction with a state change, because of it.

A rider may forbid the whole before anything is written (`check`); once the change itself is applied, it writes (`ride`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Protocol


class Carrier(Protocol):
    """A change of a task run: see `transitions`."""

    task_run_id: int

    def apply(self, connection: sqlite3.Connection) -> None:
        """See Change."""

    def landed(self, connection: sqlite3.Connection) -> bool:
        """See Change."""


class Rider(Protocol):
    """What rides along with a change."""

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise WriteRefused where the whole may not be written. Writes nothing."""

    def ride(self, connection: sqlite3.Connection, task_run_id: int) -> None:
        """Write, after the change of that task run was applied. Refuses nothing."""


class WithRiders:
    """A change of a task run and its riders: all of it is committed, or nothing."""

    __slots__ = ("carrier", "riders", "was_checked")

    def __init__(self, carrier: Carrier, riders: Sequence[Rider]) -> None:
        self.carrier = carrier
        self.riders = riders
        self.was_checked = False  # a refusal came from the change itself, not from a rider

    def apply(self, connection: sqlite3.Connection) -> None:
        self.was_checked = False
        for rider in self.riders:
            rider.check(connection)
        self.was_checked = True
        self.carrier.apply(connection)
        for rider in self.riders:
            rider.ride(connection, self.carrier.task_run_id)

    def landed(self, connection: sqlite3.Connection) -> bool:
        return self.carrier.landed(connection)
