"""How long a run that is under way may still take: shown by task on its page, and on the overview."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys

from serving_page import LIMIT, Page, environment, until

FLOW = """
import time
from pathlib import Path
from wfengine import flow, task

@task
def step(number):
    while number >= 2 and not Path("go").exists():
        time.sleep(0.01)
    return number

@flow
def stepping():
    return step.map(range(5)).result()

if __name__ == "__main__":
    stepping()
"""


def test_a_map_under_way_shows_how_long_it_may_still_take(own_page: Page) -> None:
    (own_page.folder / "stepping.py").write_text(FLOW)
    (own_page.folder / "go").touch()
    command, place = [sys.executable, "stepping.py"], {"cwd": own_page.folder, "env": environment(own_page.folder)}
    subprocess.run(command, check=True, timeout=LIMIT, capture_output=True, **place)  # type: ignore[call-overload]
    with sqlite3.connect(own_page.folder / "journal.db") as connection:  # as if that had taken a day
        connection.execute("UPDATE flow_run SET started_at = datetime('now', '-1 day') || '.000000Z' WHERE id = 2")
        connection.execute("UPDATE flow_run SET started_at = replace(started_at, ' ', 'T') WHERE id = 2")
    connection.close()
    (own_page.folder / "go").unlink()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **place)  # type: ignore[call-overload]
    try:

        def steps() -> dict[str, object]:
            answer = own_page.client.get("/runs/3.json")
            groups = answer.json()["timeline"]["groups"] if answer.status_code == 200 else []
            return groups[0] if groups else {"completed": 0, "count": 0}

        until(lambda: steps()["completed"] == 2 and steps()["count"] == 5, "two of five calls completed")
        left = steps()["left_s"]
        assert isinstance(left, float)
        assert left > 0
        assert re.search(r'<td class="n">about [0-9.]+ ', own_page.client.get("/runs/3").text)
        (row,) = own_page.json("/overview.json")["running"]  # type: ignore[misc]
        assert 0 < row["seconds_left"] < row["usual_seconds"]  # type: ignore[index]
        (own_page.folder / "go").touch()
        until(lambda: own_page.state(3) == "COMPLETED", "it completed")
        assert steps()["left_s"] is None
    finally:
        process.kill()
        process.wait()
