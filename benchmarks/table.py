"""One table: the ratio to the reference first, then what was measured, the limit to reach, and what was made durable."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `ours` and `reference` are in the row's unit and pair up by round."""

    name: str
    what: str
    ours: Sequence[float]
    unit: str
    reach: str
    then: str
    durable: str
    reference: Sequence[float] = ()
    reference_name: str = ""
    per_second: str = ""  # of what a rate is shown besides; empty: none (the unit is then not microseconds)


HEADINGS = (
    "", "workload", "ratio (min-max)", "ours (min-max)", "rate", "reference", "Reach", "Then", "durable when the flow goes on",
)  # fmt: skip


def print_table(rows: Sequence[Row]) -> None:
    """Print all rows under one heading."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cells(row: Row) -> tuple[str, ...]:
    ratios = [ours / reference for ours, reference in zip(row.ours, row.reference, strict=False)]
    return (
        row.name,
        row.what,
        _spread(ratios, "x") if ratios else "",
        _spread(row.ours, row.unit),
        f"{1e6 / statistics.median(row.ours):,.0f} {row.per_second}/s" if row.per_second else "",
        f"{row.reference_name} {_number(statistics.median(row.reference))} {row.unit}" if row.reference else "",
        row.reach,
        row.then,
        row.durable,
    )


def _spread(values: Sequence[float], unit: str) -> str:
    return f"{_number(statistics.median(values))} {unit} ({_number(min(values))}-{_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
