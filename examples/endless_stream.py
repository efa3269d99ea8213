"""Every line of a file that grows for ever, handled once, in order: here the temperatures of a cold store.

    python examples/endless_stream.py                       serve it, until Ctrl-C; the stream begins by itself
    echo 4.5 >> feed.txt                                    a reading; one above 8 raises an alarm
    wfengine follow @last readings                          read along, from any process
    wfengine runs ls                                        how far it is

Each line is recorded before the flow is given it. Whatever becomes of the process, the next one goes on at the line that comes
next. After a hundred lines the run goes on as a new one, so that none grows for ever: as one transaction, so never as two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from wfengine import check_cancelled, continue_as_new, flow, task
from wfengine.deployments import run_deployment

FEED, ALARMS = Path("feed.txt"), Path("alarms.txt")
LINES_OF_A_RUN = 100


@task
def readings(offset: int) -> Iterator[dict[str, float]]:
    """Hand out the lines from that byte on as they come, each with the byte after it."""
    with FEED.open("rb") as file:
        for _ in range(LINES_OF_A_RUN):
            file.seek(offset)
            while not (line := file.readline()).endswith(b"\n"):  # not there yet, or not all of it
                check_cancelled()
                time.sleep(0.1)
                file.seek(offset)
            offset += len(line)
            yield {"celsius": float(line), "offset": offset}


@task
def alarm(celsius: float) -> None:
    """Stand for a message to somebody. A real one hands `current_task_run().idempotency_key` to its service."""
    with ALARMS.open("a", encoding="utf-8") as file:
        file.write(f"{celsius:g} degrees\n")


@flow
def cold_store(offset: int = 0) -> None:
    """Watch the temperatures, for ever."""
    for reading in readings(offset):
        if reading["celsius"] > 8:
            alarm(reading["celsius"])
        offset = int(reading["offset"])
    continue_as_new(offset=offset)


if __name__ == "__main__":
    FEED.touch()
    cold_store.deploy("feed")
    run_deployment("cold-store/feed", timeout=0, idempotency_key="the one stream")  # asked again, it is the same run
    cold_store.serve(name="feed", stop_timeout=1)  # it does not end by itself
