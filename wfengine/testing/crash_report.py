"""What `crashtest` saw, and how it is told to a person."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wfengine.loading import entrypoint_of
from wfengine_journal.codec import is_json_exact, json_text

if TYPE_CHECKING:
    from wfengine.flows import AnyFlow
    from wfengine.testing.comparing import Ending

#: Kills that went wrong are told one by one, up to so many.
SHOWN_FAILURES = 5

ADVICE = (
    "What a task does outside of the journal and was not recorded as done is done again: make it such that a second time "
    "changes nothing (current_task_run().idempotency_key), or say what is to happen: on_interrupt, once=True."
)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: where it struck, and how the recovered run ended."""

    point: str  # 'before:7': just before the seventh commit from the one that makes the run; 'after:7': just after it
    commit: str  # what that commit records; '' when the run ended without coming to it
    ending: Ending | None  # None: the recovery did not end
    witness: object
    problem: str | None  # what differs from the undisturbed run; None: nothing
    command: str  # what repeats it

    @property
    def struck(self) -> bool:
        """Tell whether the kill happened: where threads commit together, a run may have fewer commits than another."""
        return self.commit != ""

    def __str__(self) -> str:
        moment, _, number = self.point.partition(":")
        return f"killed {moment} commit {number} ({self.commit or 'which did not come'})"


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What `crashtest` saw."""

    flow: str
    commits: int  # of the undisturbed run, from the one that makes the run to the last
    ending: Ending  # of the undisturbed run
    kills: tuple[Kill, ...]

    @property
    def failures(self) -> list[Kill]:
        """Return the kills after which the run did not end as it does undisturbed."""
        return [kill for kill in self.kills if kill.problem is not None]

    def __str__(self) -> str:
        struck = sum(kill.struck for kill in self.kills)
        said = f"flow '{self.flow}' has {self.commits} commits; killed {struck} times around them, it ended "
        bad = len(self.failures)
        return f"{said}{bad} times otherwise than undisturbed" if bad else f"{said}each time as undisturbed"

    def explanation(self) -> str:
        """Return, for a person, each kill that changed what came of the flow, and what repeats it."""
        lines = [f"{self}."]
        for kill in self.failures[:SHOWN_FAILURES]:
            lines += [f"- {kill}:", f"    {kill.problem}", f"    again: {kill.command}"]
        left = len(self.failures) - SHOWN_FAILURES
        if left > 0:
            lines.append(f"... and {left} more")
        return "\n".join([*lines, ADVICE])


def command_of(flow: AnyFlow, arguments: Mapping[str, object], options: list[str] | None) -> str:
    """Return what repeats a crashtest: a command line where it can be typed, else the call; the point is still to follow.

    `options`: those of the command line, None when the call was given what cannot stand there.
    """
    entrypoint = entrypoint_of(flow.fn)
    if entrypoint is None or flow.bound or options is None or not all(map(is_json_exact, arguments.values())):
        return ""
    words = ["wfengine crashtest", shlex.quote(_target(entrypoint)), *_parameters(arguments), *map(shlex.quote, options)]
    return " ".join(words)


def _target(entrypoint: str) -> str:
    """Return an entrypoint as people type it, where that is enough to find the flow again."""
    kind, _, rest = entrypoint.partition(":")
    return rest if kind == "file" or rest.count(":") == 1 else entrypoint


def _parameters(arguments: Mapping[str, object]) -> Iterator[str]:
    for name, value in arguments.items():
        text = value if isinstance(value, str) and not value.startswith("@") else json_text(value)
        yield f"-p {shlex.quote(f'{name}={text}')}"
