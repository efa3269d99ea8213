"""The golden table: what each rule was due at when the table was made is what it is due at.

A row that fails here is a schedule that moved in people's journals: by a change of ours, of croniter, or of the time zone data
of this machine. The table is made by make_golden.py, which does not use what is tested here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from minutes import text, utc

from wfengine_scheduler.rules import Rule, check_rule, make_rule, next_ticks

TABLE = Path(__file__).with_name("golden.txt")


class Row(NamedTuple):
    kind: str
    rule: str
    zone: str
    options: str
    start: str
    ticks: str

    def make(self) -> Rule:
        anchor = utc(self.options.removeprefix("anchor=")) if self.options.startswith("anchor=") else None
        hash_id = self.options.removeprefix("id=") if self.options.startswith("id=") else ""
        rule = self.rule.replace(" RRULE:", "\nRRULE:")
        check_rule(self.kind, rule, timezone=self.zone, anchor_at=anchor, day_or=self.options != "and", hash_id=hash_id)
        return make_rule(self.kind, rule, timezone=self.zone, anchor_at=anchor, day_or=self.options != "and", hash_id=hash_id)


ROWS = [
    Row(*(column.strip() for column in line.split("|")))
    for line in TABLE.read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def test_the_table_has_its_rows_each_once() -> None:
    assert len(ROWS) == len({row[:5] for row in ROWS}) >= 300
    assert len({row.zone for row in ROWS}) >= 20


@pytest.mark.parametrize("zone", sorted({row.zone for row in ROWS}))
def test_every_row_of_the_zone_is_due_as_in_the_table(zone: str) -> None:
    moved = []
    for row in (row for row in ROWS if row.zone == zone):
        found = " ".join(map(text, next_ticks(row.make(), utc(row.start), 5)))
        if found != row.ticks:
            moved.append(f"{row.kind} {row.rule} {row.options} from {row.start}:\n  table {row.ticks}\n  now   {found}")
    assert not moved, "\n".join(["these schedules moved:", *moved])
