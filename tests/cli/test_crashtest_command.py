"""`wfengine crashtest`."""

from __future__ import annotations

import pytest
from command_line import Cli

pytestmark = pytest.mark.crash

SCRIPT = """
from pathlib import Path
from wfengine import flow, task

@task
def charge(amount: int) -> int:
    with Path("ledger.txt").open("a") as ledger:
        ledger.write(f"charged {amount}\\n")
    return amount

@flow
def pay(amount: int) -> int:
    return charge(amount)
"""


def test_the_command_kills_compares_and_says_what_differs(cli: Cli) -> None:
    (cli.folder / "pay.py").write_text(SCRIPT)
    clean = cli("crashtest", "pay.py", "-p", "amount=3", "--kills", "3")
    assert clean.code == 0, clean
    assert "it ended each time as undisturbed" in clean.err
    found = cli("crashtest", "pay.py:pay", "-p", "amount=3", "--witness", "ledger.txt")
    assert found.code == 1, found
    assert "task 'charge' (task run 1) completes" in found.err
    assert f"again: wfengine crashtest {cli.folder / 'pay.py'}:pay -p amount=3 --witness ledger.txt --at before:" in found.err
    assert not (cli.folder / ".wfengine").exists()
    assert not (cli.folder / "ledger.txt").exists()


def test_json_names_each_kill(cli: Cli) -> None:
    (cli.folder / "pay.py").write_text(SCRIPT)
    answer = cli("crashtest", "pay.py:pay", "-p", "amount=3", "--at", "before:1", "--at", "after:1", "--json", "-q")
    assert answer.code == 0, answer
    assert answer.err == ""
    kills = [{"point": point, "commit": "the flow run begins", "problem": None} for point in ("before:1", "after:1")]
    assert answer.object["kills"] == kills


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pay.py:pay",), "amount"),
        (("pay.py:pay", "-p", "amount=3", "--at", "7"), "A point is 'before:N' or 'after:N'"),
        (("pay.py:other",), "There is no 'other' in pay.py"),
        (("pay.py:pay", "-p", "amount=3", "--copy", "gone"), "gone"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_run(cli: Cli, arguments: tuple[str, ...], text: str) -> None:
    (cli.folder / "pay.py").write_text(SCRIPT)
    answer = cli("crashtest", *arguments)
    assert answer.code != 0
    assert text in answer.err
