"""What the tests of the page run: each flow is started with its name and, as JSON, its parameters."""

from __future__ import annotations

import json
import sys
import time
from enum import Enum
from pathlib import Path

from pydantic import BaseModel

from wfengine import flow, get_run_logger, pause_flow_run, suspend_flow_run, task
from wfengine.artifacts import create_markdown_artifact, create_table_artifact
from wfengine.input import RunInput


class Approval(RunInput):
    """What somebody has to say."""

    approved: bool
    note: str = ""


@task
def load(number: int) -> int:
    """Give a number, and log it."""
    get_run_logger().info("loading %s", number)
    return number


@task
def check(number: int, worst: int) -> int:
    """Fail for one number, unless the file 'mended' is there."""
    if number == worst and not Path("mended").exists():
        raise ValueError(f"{number} is the worst")
    return number


@task
def wait_for(name: str) -> str:
    """Wait until a file is there."""
    while not Path(name).exists():
        time.sleep(0.01)
    return name


@task(on_interrupt="ask")
def send_once() -> str:
    """Begin, and never end."""
    Path("begun").touch()
    while True:
        time.sleep(1)


@flow
def doubtful() -> str:
    """Call what cannot be run again without somebody's word."""
    return send_once()


@flow
def fine(count: int = 3) -> list[int]:
    """Complete."""
    return [load(number) for number in range(count)]


@flow
def failing(worst: int = 2, day: str = "2026-11-22") -> int:
    """Fail, until it is mended."""
    return sum(check(load(number), worst) for number in range(worst + 1))


@flow
def parent(count: int = 2) -> list[int]:
    """Call a flow."""
    return fine(count)


@flow
def waiting(name: str = "go") -> str:
    """Wait for a file between two tasks."""
    load(1)
    get_run_logger().warning("waiting for %s", name)
    wait_for(name)
    load(2)
    return "done"


class Colour(Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Box(BaseModel):
    """An object."""

    width: int
    label: str = "box"


@flow
def choosing(
    count: int = 2, colour: Colour = Colour.RED, is_loud: bool = False, note: str | None = None, box: Box | None = None,
    day: str = "2026-11-22",
) -> list[object]:  # fmt: skip
    """Give back what was chosen.

    Args:
        count: How many.
    """
    get_run_logger().info("%s of %s", count, colour.value)
    return [load(number) for number in range(count)] + [colour.value, is_loud, note, None if box is None else box.width, day]


REPORT = """# Report

- one
- two

Something **bold** with `code` and a [link](https://example.org/a?b=c), <script>alert(1)</script>.

| a | b |
|---|---|
| 1 | 2 |
"""


@flow
def making() -> None:
    """Make things for people to look at."""
    create_markdown_artifact(REPORT, key="report")
    create_table_artifact([{"day": "2026-11-22", "count": 3}], key="numbers")


@flow
def asking() -> str:
    """Ask a person, and end until it is answered."""
    answer = suspend_flow_run(wait_for_input=Approval, key="approval", timeout=86400)
    return "yes" if answer.approved else "no"


@flow
def asking_here() -> str:
    """Ask a person, and wait for it."""
    return pause_flow_run(wait_for_input=str, key="word", timeout=600)


@task
def show(value: object) -> object:
    """Log what it is given, and give it."""
    get_run_logger().info("%s", value)
    return value


@task
def fail_with(text: str) -> None:
    """Fail with a message."""
    raise RuntimeError(text)


@flow
def telling(texts: list[str]) -> list[str]:
    """Put each text wherever a text can be: name, parameter, input, result, log, message of an error, tag."""
    for text in texts:
        show.with_options(task_run_name=text.replace("{", "{{").replace("}", "}}"), tags={text})(text)
        fail_with.with_options(name=text)(text, return_state=True)
    return texts


if __name__ == "__main__":
    chosen = {each.name: each for each in (fine, failing, parent, waiting, asking, asking_here, doubtful, telling, making)}
    for word in sys.argv[1:]:
        name, _, parameters = word.partition("=")
        chosen[name](**json.loads(parameters or "{}"), return_state=True)
