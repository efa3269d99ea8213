"""Messages, events and inputs survive a kill at every statement of who sends and who receives: each once, none lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.harness import Case, Checks, all_violations, chosen, kill_at_every_statement

pytestmark = pytest.mark.crash


@pytest.mark.timeout(600)
def test_each_message_is_received_once_wherever_the_kill_comes(tmp_path: Path) -> None:
    expected = Case(tmp_path / "uninterrupted", "posted").run().result
    assert expected == [3, 3000, 1, [True, False], "none", 7, [True, False]]
    kills = kill_at_every_statement(
        lambda number: Case(tmp_path / str(number), "posted"), expected, Checks(is_ordered=False),
        numbers=chosen(Case(tmp_path / "listed", "posted").with_schema()),
    )  # fmt: skip
    print(f"{len(kills)} kills")
    assert all_violations(kills) == []
    assert len(kills) > 60
    for kill in kills:
        rows = kill.case.query("SELECT topic, received_by_task_id FROM messages ORDER BY id")
        takers = [taker for _, taker in rows]
        assert [topic for topic, _ in rows][:3] == ["post"] * 3, kill
        assert len(rows) == 4, kill
        assert len(set(takers)) == 4, kill
        assert None not in takers, kill
