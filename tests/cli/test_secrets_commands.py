"""`wfengine secrets`: what it prints, with which exit code, and that it never shows a value."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Answer, environment

CANARY = "c4nary-of-the-command-line"


def run(folder: Path, *arguments: str, stdin: str = "", **changes: str) -> Answer:
    """Run the command line with something on standard input, and a folder of its own for keys."""
    changes = {"XDG_CONFIG_HOME": str(folder / "config"), **changes}
    done = subprocess.run(
        [sys.executable, "-m", "wfengine", *arguments], cwd=folder, env=environment(**changes), input=stdin,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert CANARY not in done.stdout + done.stderr, arguments
    return Answer(done.returncode, done.stdout, done.stderr)


def test_secrets_are_set_listed_checked_and_deleted(tmp_path: Path) -> None:
    done = run(tmp_path, "secrets", "set", "db", stdin=f"{CANARY}\n")
    assert (done.code, done.out, done.err) == (0, "", "Secret 'db' is set.\n")
    assert run(tmp_path, "secrets", "set", "api", "--from", "env:API_KEY").code == 0
    listed = run(tmp_path, "secrets", "ls", "--json").object
    assert [(each["name"], each["version"], each["source"]) for each in listed["secrets"]] == [  # type: ignore[attr-defined]  # JSON
        ("api", 1, "env:API_KEY"),
        ("db", 1, None),
    ]
    lines = run(tmp_path, "secrets", "ls").out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "SET", "KEPT"]
    assert lines[1].endswith("env:API_KEY")
    assert run(tmp_path, "secrets", "check", "db").code == 0
    missing = run(tmp_path, "secrets", "check", "api")
    assert (missing.code, "API_KEY, which holds a secret, is not set" in missing.err) == (2, True)
    assert run(tmp_path, "secrets", "check", "api", API_KEY=CANARY).err == "Secret 'api' can be read.\n"
    assert run(tmp_path, "secrets", "unset", "db").code == 0
    assert run(tmp_path, "secrets", "unset", "db").code == 3
    key_file = tmp_path / "config" / "wfengine" / "secrets.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_an_existing_secret_is_changed_only_with_overwrite(tmp_path: Path) -> None:
    run(tmp_path, "secrets", "set", "db", stdin="first-value")
    assert run(tmp_path, "secrets", "set", "db", stdin=CANARY).code == 2
    assert run(tmp_path, "secrets", "set", "db", "--overwrite", "--value-json", stdin=f'{{"password": "{CANARY}"}}').code == 0
    assert run(tmp_path, "secrets", "set", "db", "--overwrite", "--value-json", stdin=CANARY).code == 2


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("set", "a b"), CANARY),
        (("set", "db"), ""),
        (("set", "db", "--from", "nonsense"), ""),
        (("set", "db", CANARY[:3]), ""),
        (("rotate-key",), ""),
        (("check", "db"), ""),
        (("unset", "../x"), ""),
    ],
)
def test_nonsense_gives_our_errors(tmp_path: Path, arguments: tuple[str, ...], stdin: str) -> None:
    answer = run(tmp_path, "secrets", *arguments, stdin=stdin)
    assert answer.code in (2, 3, 5), answer
    assert "Traceback" not in answer.err


def test_the_key_is_rotated_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    run(tmp_path, "secrets", "set", "db", stdin=CANARY)
    done = run(tmp_path, "secrets", "rotate-key", "--json").object
    assert (done["secrets"], done["kept_keys"], done["sealed"]) == (1, 1, 0)
    assert run(tmp_path, "secrets", "rotate-key", "--forget-old", "--json").object["kept_keys"] == 0
    assert run(tmp_path, "secrets", "check", "db").code == 0


def test_a_new_key_serves_from_the_environment(tmp_path: Path) -> None:
    key = run(tmp_path, "secrets", "new-key").out.strip()
    run(tmp_path, "secrets", "set", "db", stdin=CANARY, WFENGINE_SECRETS_KEY=key)
    assert run(tmp_path, "secrets", "check", "db", WFENGINE_SECRETS_KEY=key).code == 0
    wrong = run(tmp_path, "secrets", "check", "db")
    assert (wrong.code, "cannot be read: it is encrypted with key" in wrong.err) == (2, True)
    assert not (tmp_path / "config").exists()


def test_references_on_the_command_line_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(
        "from wfengine import flow\n\n\n@flow(log_prints=True)\ndef f(password: str, limit: int):\n"
        "    print('the password is', password)\n    return limit + len(password)\n"
    )
    run(tmp_path, "secrets", "set", "db", stdin=CANARY)
    run(tmp_path, "variables", "set", "limit", "500")
    done = run(tmp_path, "run", "f.py", "-p", "password={{ secrets.db }}", "-p", "limit={{ variables.limit }}", "--json")
    printed, answer = done.out.splitlines()
    assert (done.code, printed) == (0, "the password is ***"), done
    assert f'"result": {500 + len(CANARY)}' in answer
    shown = run(tmp_path, "runs", "show", "@last").out
    assert "Secret('db')" in shown
    missing = run(tmp_path, "run", "f.py", "-p", "password={{ secrets.nope }}", "-p", "limit=1")
    assert (missing.code, "There is no secret 'nope'" in missing.err) == (2, True)
    other = run(tmp_path, "run", "f.py", "-p", "password={{ secrets.db }}", "-p", "limit=1", "--journal", "other.db")
    assert (other.code, "other.db, which does not exist yet" in other.err) == (2, True)
    assert not (tmp_path / "other.db").exists()
    assert not any(CANARY.encode() in file.read_bytes() for file in (tmp_path / ".wfengine").glob("journal.db*"))


def test_a_prompt_asks_twice_and_shows_nothing(tmp_path: Path) -> None:
    import pty

    if not hasattr(os, "login_tty"):  # Python 3.11 has it on Linux and macOS
        pytest.skip("no terminals here")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(
            sys.executable, [sys.executable, "-m", "wfengine", "secrets", "set", "db"],
            environment(XDG_CONFIG_HOME=str(tmp_path / "config")),
        )  # fmt: skip
    said = b""
    asked = 0
    while True:
        try:
            chunk = os.read(terminal, 1024)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        said += chunk
        if said.count(b": ") > asked:
            asked = said.count(b": ")
            os.write(terminal, f"{CANARY}\n".encode())
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    assert CANARY.encode() not in said
    assert run(tmp_path, "secrets", "check", "db").code == 0
