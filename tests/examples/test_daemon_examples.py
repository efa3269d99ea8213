"""The examples that are daemons: each does its work once when the daemon is killed in the middle of it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from programs import EXAMPLES, environment, query, shell

from tests.daemons import DaemonProcess
from wfengine_journal import store

pytestmark = pytest.mark.crash

JOURNAL = Path(".wfengine") / "journal.db"

#: Runs an example as a user does, in a process that kills itself once so many calls of one task are completed and committed.
KILLED = """
import os, runpy, signal, sys
from wfengine.listeners import add_listener

example, task, limit = sys.argv[1:]
done = []

def kill(event):
    if event.name == task and event.state == "COMPLETED":
        done.append(event)
        if len(done) == int(limit):
            os.kill(os.getpid(), signal.SIGKILL)

add_listener(kill)
sys.argv = [example]
runpy.run_path(example, run_name="__main__")
"""


def serving(folder: Path, *arguments: object) -> DaemonProcess:
    return DaemonProcess(folder, *map(str, arguments), environment=environment())


def wait_for_runs(folder: Path, completed: int) -> None:
    """Wait until so many runs have completed."""
    wait_for(folder, "SELECT 1 FROM runs WHERE state = 'COMPLETED'", completed)


def wait_for(folder: Path, sql: str, count: int = 1) -> None:
    """Wait until a question has so many answers; the time limit of the test is the bound."""
    journal = store.open_journal(folder / JOURNAL)
    while True:
        mark = journal.changes.mark()
        if len(query(folder / JOURNAL, sql)) >= count:
            return
        journal.changes.wait(mark, 1.0)


def test_a_report_whose_daemon_is_killed_is_written_by_the_next_one(tmp_path: Path) -> None:
    example = EXAMPLES / "scheduled_report.py"
    with serving(tmp_path, "-c", KILLED, example, "runs_of", 1) as daemon:
        daemon.wait_until_ready()
        asked = shell(tmp_path, "wfengine deployments run report/mornings -p day=2026-11-27")
        assert asked.returncode == 0, asked.stderr
        assert daemon.wait() == -signal.SIGKILL
    assert not (tmp_path / "reports").exists()
    with serving(tmp_path, example) as daemon:
        daemon.wait_until_ready()
        wait_for_runs(tmp_path, 1)
        assert daemon.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    store.close_all()
    assert (tmp_path / "reports" / "2026-11-27.md").read_text(encoding="utf-8") == "# 2026-11-27\n\nnothing ran\n"
    assert query(tmp_path / JOURNAL, "SELECT attempts FROM tasks WHERE task = 'runs_of'") == [(1,)]


def test_each_page_is_fetched_once_over_a_kill_and_asking_twice(tmp_path: Path) -> None:
    example = EXAMPLES / "rate_limited_queue.py"
    with serving(tmp_path, "-c", KILLED, example, "fetch", 3) as daemon:
        daemon.wait_until_ready()
        for _ in range(2):
            asked = shell(tmp_path, f"python {example} ada 8")
            assert asked.returncode == 0, asked.stderr
        assert daemon.wait() == -signal.SIGKILL
    with serving(tmp_path, example) as daemon:
        daemon.wait_until_ready()
        wait_for_runs(tmp_path, 8)
    store.close_all()
    fetched = (tmp_path / "fetched.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert sorted(set(fetched)) == [f"ada {page}" for page in range(8)]
    # Only what was being fetched when the daemon died may have been asked for twice: two at a time of one customer.
    assert len(fetched) <= 8 + 2
    assert query(tmp_path / JOURNAL, "SELECT count(*) FROM runs") == [(8,)]


def test_a_question_outlives_the_daemon_that_asked_it(tmp_path: Path) -> None:
    example = EXAMPLES / "approval.py"
    asked = "SELECT 1 FROM runs r JOIN tasks t ON t.run_id = r.id WHERE t.task = 'wfengine.pause' AND r.attempt = 1"
    with serving(tmp_path, example) as daemon:
        daemon.wait_until_ready()
        assert shell(tmp_path, "wfengine deployments run refund/desk -p order=A7 -p amount=250").returncode == 0
        wait_for(tmp_path, asked)
        daemon.kill()
    with serving(tmp_path, example) as daemon:
        daemon.wait_until_ready()
        wait_for(tmp_path, "SELECT 1 FROM runs WHERE state = 'RUNNING' AND attempt = 2")
        assert "approved (boolean)" in shell(tmp_path, "wfengine inputs ls").stdout
        answered = shell(tmp_path, "wfengine resume @last --input approved=true --input note=fine")
        assert answered.returncode in (0, 4), answered.stderr
        wait_for_runs(tmp_path, 1)
    store.close_all()
    assert (tmp_path / "paid.txt").read_text(encoding="utf-8") == "order A7 250\n"
    assert query(tmp_path / JOURNAL, "SELECT attempts FROM tasks WHERE task = 'look_up'") == [(1,)]


def test_each_dropped_file_is_booked_once_over_kills_and_a_daemon_that_was_down(tmp_path: Path) -> None:
    example, days = EXAMPLES / "file_drop.py", ["monday", "tuesday", "wednesday", "thursday", "friday"]

    def drop(*names: str) -> None:
        for name in names:
            (tmp_path / f"{name}.part").write_text(f"item,amount\npen,{days.index(name)}\nbook,10\n", encoding="utf-8")
            (tmp_path / f"{name}.part").rename(tmp_path / "incoming" / f"{name}.csv")

    (tmp_path / "incoming").mkdir()
    drop("monday")
    with serving(tmp_path, "-c", KILLED, example, "book", 2) as daemon:
        daemon.wait_until_ready()
        drop("tuesday", "wednesday")
        assert daemon.wait() == -signal.SIGKILL
    drop("thursday")
    with serving(tmp_path, "-c", KILLED, example, "read", 1) as daemon:
        assert daemon.wait() == -signal.SIGKILL
    with serving(tmp_path, example) as daemon:
        daemon.wait_until_ready()
        drop("friday")
        wait_for_runs(tmp_path, len(days))
    store.close_all()
    assert not list((tmp_path / "incoming").iterdir())
    assert {path.stem for path in (tmp_path / "booked").iterdir()} == set(days)
    sales = [sale for day in days for sale in ((f"{day}.csv", "pen", days.index(day)), (f"{day}.csv", "book", 10))]
    assert sorted(query(tmp_path / JOURNAL, "SELECT file, item, amount FROM user_sales")) == sorted(sales)
    assert query(tmp_path / JOURNAL, "SELECT count(*) FROM runs") == [(len(days),)]


def test_an_endless_stream_handles_each_line_once_and_in_order_over_kills(tmp_path: Path) -> None:
    example = EXAMPLES / "endless_stream.py"
    celsius = [number % 10 + number / 1000 for number in range(250)]
    lines = [f"{each}\n" for each in celsius]
    alarms = [f"{each:g} degrees" for each in celsius if each > 8]
    (tmp_path / "feed.txt").write_text("".join(lines[:90]), encoding="utf-8")
    with serving(tmp_path, "-c", KILLED, example, "alarm", 7) as daemon:
        assert daemon.wait() == -signal.SIGKILL
    with (tmp_path / "feed.txt").open("a", encoding="utf-8") as feed:
        feed.write("".join([*lines[90:200], lines[200][:2]]))  # the last one is not whole yet
    with serving(tmp_path, "-c", KILLED, example, "alarm", 30) as daemon:
        assert daemon.wait() == -signal.SIGKILL
    with (tmp_path / "feed.txt").open("a", encoding="utf-8") as feed:
        feed.write("".join([lines[200][2:], *lines[201:]]))
    with serving(tmp_path, example) as daemon:
        daemon.wait_until_ready()
        wait_for(tmp_path, "SELECT 1 FROM tasks WHERE task = 'alarm' AND state = 'COMPLETED'", len(alarms))
        assert daemon.stop() in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        assert "left to the next daemon: flow run 3" in daemon.said
    store.close_all()
    assert (tmp_path / "alarms.txt").read_text(encoding="utf-8").splitlines() == alarms
    recorded = query(tmp_path / JOURNAL, "SELECT json_extract(value, '$.celsius') FROM item ORDER BY flow_run_id, key")
    assert [each for (each,) in recorded] == celsius
    states = [(1, "ContinuedAsNew"), (2, "ContinuedAsNew"), (3, "Crashed")]
    assert query(tmp_path / JOURNAL, "SELECT id, coalesce(state_name, state) FROM runs ORDER BY id") == states
