"""What the cases let runners run: tasks and classes of a module that workers can import."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path

from wfengine import flow, get_run_logger, task


class OddError(Exception):
    """Its __init__ cannot be called with its args."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")
        self.left = left


class PlainError(ValueError):
    """An error of a module."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A value of a class of a module."""

    x: int
    y: int


@task
def double(number: int) -> int:
    """Return twice the number."""
    return number * 2


@task
async def double_async(number: int) -> int:
    """Return twice the number."""
    return number * 2


@task
def where() -> int:
    """Return the process it runs in."""
    return os.getpid()


@task
def give_back(value: object) -> object:
    """Return what it is given."""
    return value


@task
def length(value: bytes) -> int:
    """Return the length of what it is given."""
    return len(value)


@flow
def doubles(count: int) -> list[int]:
    """Double the first numbers."""
    return [double(number) for number in range(count)]


@task(log_prints=True)
def talk(text: str) -> None:
    """Print, and log at several levels."""
    print("said", text)
    logger = get_run_logger()
    logger.debug("debug %s", text)
    logger.warning("warning %s", text)
    try:
        raise PlainError("in the log")
    except PlainError:
        logger.exception("caught")


def touch(folder: str, name: str) -> None:
    """Leave a trace in a folder."""
    (Path(folder) / name).touch()


def wait_for_file(folder: str, name: str, seconds: float = 60) -> None:
    """Wait until a trace is there."""
    turns, woken = 0, threading.Event()
    while not (Path(folder) / name).exists():
        woken.wait(0.005)
        turns += 1
        if turns * 0.005 > seconds:
            raise TimeoutError(name)
