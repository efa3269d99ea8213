"""The journal that is damaged: a small file with something in every table that a user fills."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLOWS = """
from wfengine import flow, get_run_logger, receive, set_event, task, use_journal
from wfengine.artifacts import create_markdown_artifact, create_table_artifact
from wfengine.cache_policies import INPUTS
from wfengine.events import emit_event
from wfengine.schedules import Cron, Interval
from wfengine.variables import Variable

tried = set()


@task(retries=2)
def flaky(number):
    get_run_logger().info("number %s", number)
    if number % 3 == 0 and number not in tried:
        tried.add(number)
        raise ValueError(f"not yet: {number}")
    return {"number": number, "square": number * number}


@task
def large(number):
    return f"{number}-" * 3000


@task
def pickled(number):
    return (number, {number, number + 1}, complex(number, 1))


@task(cache_policy=INPUTS)
def cached(text):
    return text[::-1]


@flow
def child(number):
    return flaky(number)["square"] + len(large(number))


@flow
def parent(number, label="a label", blob=b"bytes" * 700):
    create_markdown_artifact("# report of the day", key="report")
    create_table_artifact([{"a": 1, "b": "two"}], key="table")
    emit_event("order.placed", resource={"prefect.resource.id": f"order.{number}"}, payload={"amount": number})
    set_event("stage", f"stage {number}")
    cached("text " * 600)
    pickled(number)
    for item in flaky.map(range(number, number + 4)):
        item.result()
    return child(number) + child(number + 10)


@flow
def failing():
    cached("text " * 600)
    pickled(1)
    raise KeyError("failing for good")


@flow
def listening():
    return receive("topic", timeout_seconds=0, default="nothing")


if __name__ == "__main__":
    use_journal("journal.db", durability="process")
    for number in range(3):
        parent(number * 20 + 1)
        try:
            failing()
        except KeyError:
            pass
    listening()
    Variable.set("colour", {"red": 1}, tags=["a"])
    parent.deploy("hourly", schedules=[Cron("0 3 * * *", timezone="Europe/Berlin"), Interval(3600)], parameters={"number": 7})
"""
COMMANDS = (
    *(["limits", "set", "database", "--slots", "2"], ["queues", "set", "default", "--slots", "3"]),
    ["automations", "apply", "automations.toml"],
    ["deployments", "run", "parent/hourly"],
    ["notifications", "set", "ops", "--url", "json://127.0.0.1:9/hook"],
    ["notifications", "notify", "ops", "told", "--subject", "Tell"],
    ["send", "14", '"hello"', "--topic", "later"],
)
AUTOMATIONS = """
[[automations]]
name = "tell"
trigger = {expect = ["order.placed"]}
[[automations.actions]]
type = "pause-automation"
automation = "tell"
"""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a user who set nothing of wfengine but where the journal is."""
    sources = os.pathsep.join(str(ROOT / name) for name in (".", "journal", "scheduler"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WFENGINE_")}
    return {
        **inherited,
        "PYTHONPATH": sources,
        "WFENGINE_JOURNAL": str(folder / "journal.db"),
        "NO_COLOR": "1",
        "WFENGINE_NOTIFICATIONS": "off",
    }


def make_rich(folder: Path) -> Path:
    """Write the journal into a folder; return its path. Its log is empty and gone."""
    (folder / "flows.py").write_text(FLOWS, encoding="utf-8")
    (folder / "automations.toml").write_text(AUTOMATIONS, encoding="utf-8")
    for arguments in (["flows.py"], *(["-m", "wfengine", *command] for command in COMMANDS)):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment(folder), text=True, capture_output=True, check=False,
            stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return folder / "journal.db"
