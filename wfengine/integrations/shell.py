"""Tasks that run commands: the output in the run's log as it comes, a time limit, and no process left behind.

    from wfengine.integrations.shell import run_command

    @flow
    def backup(day):
        run_command(["pg_dump", "--file", f"{day}.sql", "shop"], env={"PGPASSWORD": Secret("shop")}, timeout_seconds=600)

A command is a list of words, which no shell reads: nothing in them needs quotes, and no value can become another command. A
value that may begin with a dash comes after "--". Text with pipes and the like is run by the shell only with `shell=True`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from wfengine.halts import check_cancelled
from wfengine.integrations.commands import Command, Output
from wfengine.logging.loggers import get_run_logger
from wfengine.redaction import KEEPER
from wfengine.secrets import Secret
from wfengine.tasks import task
from wfengine_journal.errors import CommandFailedError, TaskTimeoutError, UsageError
from wfengine_journal.guarding import hide

__all__ = ["run_command"]

#: Characters of each of the two outputs that the result has, unless the call says otherwise, and at the most.
KEEP_CHARACTERS = 100_000
MAX_KEEP_CHARACTERS = 50_000_000
#: Characters that the text of an error has of them.
SHOWN_CHARACTERS = 2000
#: What no command is given of this process's environment: the key of all secrets.
_OWN = ("WFENGINE_SECRETS_KEY",)


@task(key="wfengine.integrations.shell.run_command")
def run_command(
    command: Sequence[str] | str,
    *,
    shell: bool = False,
    cwd: str | None = None,
    env: Mapping[str, str | Secret[str]] | None = None,
    stdin: str | Secret[str] | None = None,
    timeout_seconds: float | None = None,
    ok_codes: Sequence[int] = (0,),
    keep_characters: int = KEEP_CHARACTERS,
) -> dict[str, object]:
    """Run a command to its end; return {"exit_code", "output", "errors", "is_cut"}: the last of what it printed.

    Each line is a line of the run's log as it comes, with *** for secrets, in the result too. `env` is added to the environment
    of this process. Another exit code than one of `ok_codes` raises CommandFailedError; a negative one is a signal. Past
    `timeout_seconds`, when the run is cancelled, and when this process dies (on Linux), all that the command started is ended;
    what it leaves in the background ends with it. TaskTimeoutError past the limit. A resumed run starts it anew where it had
    not ended.
    """
    words = _words(command, shell=shell)
    if not 0 <= keep_characters <= MAX_KEEP_CHARACTERS:
        raise UsageError(f"keep_characters must be from 0 to {MAX_KEEP_CHARACTERS:,}, not {keep_characters!r}.")
    environment = _environment(env)
    _refuse_missing(words[0], environment, cwd)
    given = _clear(stdin or "", "stdin").encode("utf-8", "surrogateescape")
    logger = get_run_logger(command=words[0])
    output, errors = (Output(4 * keep_characters, lambda line: logger.info("%s", hide(line))) for _ in range(2))
    started = _started(words, environment, cwd, given)
    try:
        code = started.wait(output, errors, limit_seconds=timeout_seconds, look=check_cancelled)
    finally:
        started.close()
    texts = [hide(each.text) for each in (output, errors)]
    if code is None:
        raise TaskTimeoutError(
            f"The command {words[0]!r} ran longer than its limit of {timeout_seconds} s, and was ended with all that it "
            f"started. Raise timeout_seconds or make it shorter.{_last_words(texts)}"
        )
    shown = [text[-keep_characters:] if keep_characters else "" for text in texts]
    if code not in ok_codes:
        raise CommandFailedError(
            f"The command {words[0]!r} {_ending(code)}; where that is fine: ok_codes=(0, {code}).{_last_words(texts)}",
            exit_code=code, output=shown[0][-SHOWN_CHARACTERS:], errors=shown[1][-SHOWN_CHARACTERS:],
        )  # fmt: skip
    is_cut = any(each.total > len(text.encode()) for each, text in zip((output, errors), shown, strict=True))
    return {"exit_code": code, "output": shown[0], "errors": shown[1], "is_cut": is_cut}


def _words(command: Sequence[str] | str, *, shell: bool) -> list[str]:
    if isinstance(command, str):
        if not shell:
            raise UsageError(
                f"A command is a list of words, such as {command.split()[:3]!r}. Text is read by a shell only with shell=True: "
                "leave values of others out of it, or give them in env."
            )
        words = ["/bin/sh", "-c", command]
    elif shell:
        raise UsageError("With shell=True the command is one text, which the shell reads. Leave shell=True out for a list.")
    else:
        words = [os.fspath(word) if isinstance(word, os.PathLike) else word for word in command]
    for word in words:
        if isinstance(word, Secret):
            raise UsageError(
                "A secret cannot be a word of a command: every user of the machine sees those. Give it in env or stdin."
            )
        if not isinstance(word, str) or "\0" in word:
            raise UsageError(f"A word of a command is text without zero characters, not {word!r}. Use str(...).")
    if not words or not words[0] or words[0].startswith("-"):
        raise UsageError("A command begins with the name of a program.")
    return words


def _environment(env: Mapping[str, str | Secret[str]] | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise UsageError(f"{name!r} cannot be the name of an environment variable.")
        environment[name] = _clear(value, f"env[{name!r}]")
    return environment


def _clear(value: object, what: str) -> str:
    found = value.get() if isinstance(value, Secret) else value
    if not isinstance(found, str) or (what != "stdin" and "\0" in found):
        raise UsageError(f"{what} has to be text or a Secret of text, not a {type(found).__name__}.")
    if isinstance(value, Secret):
        KEEPER.learn(found, value.name)
    return found


def _refuse_missing(program: str, environment: Mapping[str, str], cwd: str | None) -> None:
    if cwd is not None and not Path(cwd).is_dir():
        raise UsageError(f"The folder {cwd} that a command was to run in is not there.")
    if "/" not in program and shutil.which(program, path=environment.get("PATH")) is None:
        raise UsageError(f"The program {program!r} is not on the PATH of this process. Install it, or give its whole path.")


def _started(words: Sequence[str], environment: Mapping[str, str], cwd: str | None, given: bytes) -> Command:
    try:
        return Command(words, environment, cwd, given)
    except (OSError, ValueError) as error:
        raise CommandFailedError(f"The command {words[0]!r} could not be started: {error}", exit_code=126) from error


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"


def _last_words(texts: Sequence[str]) -> str:
    said = (texts[1].strip() or texts[0].strip())[-SHOWN_CHARACTERS:]
    return f" It said: {said.strip()}" if said else ""
