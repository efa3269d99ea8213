"""Where secrets are read from: the environment, files, commands, the keyring; with a name for each, and without the extra."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Program, Rows
from wfengine import flow, secrets, task
from wfengine.secrets import Secret
from wfengine_journal.errors import SecretError
from wfengine_journal.guarding import hide

VALUE = "s0urced-value"


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", VALUE)
    assert Secret("env:DB_PASSWORD").get() == VALUE
    assert hide(f"a {VALUE} b") == "a *** b"
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(SecretError, match=r"environment variable DB_PASSWORD, which holds a secret, is not set"):
        Secret("env:DB_PASSWORD").get()


@pytest.mark.parametrize("text", [VALUE, f"{VALUE}\n", f"{VALUE}\r\n"])
def test_a_secret_is_read_from_a_file_without_its_last_line_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "db").write_bytes(text.encode())
    assert Secret(f"file:{tmp_path / 'db'}").get() == VALUE


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"The file .*/missing, which holds a secret, cannot be read: No such file"):
        Secret(f"file:{tmp_path / 'missing'}").get()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SecretError, match=r"is no text in UTF-8"):
        Secret(f"file:{tmp_path / 'binary'}").get()
    (tmp_path / "large").write_bytes(b"x" * 100_002)
    with pytest.raises(SecretError, match=r"more than 100,000 bytes"):
        Secret(f"file:{tmp_path / 'large'}").get()


def test_a_secret_is_what_a_command_prints_and_no_shell_is_asked() -> None:
    assert Secret(f"command:{sys.executable} -c 'print(\"{VALUE}\")'").get() == VALUE
    assert Secret("command:echo $HOME; echo x").get() == "$HOME; echo x"
    with pytest.raises(SecretError, match=r"ended with exit code 3. no such entry"):
        Secret(f"command:{sys.executable} -c 'import sys; sys.exit(print(\"no such entry\", file=sys.stderr) or 3)'").get()
    with pytest.raises(SecretError, match=r"cannot be started"):
        Secret("command:no-such-program-anywhere").get()
    with pytest.raises(SecretError, match=r"cannot be read"):
        Secret("command:'").get()


@pytest.fixture
def keyring_of_the_test() -> Iterator[None]:
    """Put a keyring in memory in the place of the system's."""
    import keyring
    from keyring.backend import KeyringBackend

    class InMemory(KeyringBackend):
        priority = 1  # type: ignore[assignment]  # as its documentation says
        kept: dict[tuple[str, str], str] = {}  # noqa: RUF012 - one of the test

        def get_password(self, service: str, username: str) -> str | None:
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[service, username]

    before = keyring.get_keyring()
    keyring.set_keyring(InMemory())
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("keyring_of_the_test")
def test_a_secret_is_read_from_the_keyring() -> None:
    import keyring

    keyring.set_password("shop/db", "etl", VALUE)
    assert Secret("keyring:shop/db/etl").get() == VALUE
    with pytest.raises(SecretError, match=r"has nothing under service 'shop', user 'other'"):
        Secret("keyring:shop/other").get()


@pytest.mark.usefixtures("keyring_of_the_test")
def test_the_key_can_stand_in_the_keyring(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    monkeypatch.setenv("WFENGINE_SECRETS_KEYRING", "1")
    secrets.set("db", VALUE)
    assert secrets.get("db") == VALUE
    assert not key_file.exists()


def test_a_name_stands_for_a_source(monkeypatch: pytest.MonkeyPatch, rows: Rows, key_file: Path) -> None:
    monkeypatch.setenv("DB_PASSWORD", VALUE)
    secrets.set("db", source="env:DB_PASSWORD")
    assert secrets.get("db") == VALUE
    assert rows("SELECT name, source, key_id FROM secrets") == [("db", "env:DB_PASSWORD", None)]
    assert not key_file.exists()
    for wrong in ("DB_PASSWORD", "text:a", "env:", "nonsense:a"):
        with pytest.raises(SecretError):
            secrets.set("other", source=wrong)


@pytest.mark.parametrize("runner", ["ThreadTaskRunner", "ProcessTaskRunner"])
def test_a_task_on_a_worker_reads_it_in_the_flows_process(program: Program, runner: str, rows: Rows) -> None:
    program.write(f"""
        from wfengine import get_run_logger
        from wfengine.runners.processes import ProcessTaskRunner
        from wfengine.runners.threads import ThreadTaskRunner
        from wfengine.secrets import Secret

        @task(log_prints=True)
        def use(secret):
            os.environ.pop("DB_PASSWORD", None) if {runner == "ProcessTaskRunner"} else None
            value = secret.get()
            print("printed", value)
            get_run_logger().warning("logged %s", value)
            if value.startswith("s0"):
                raise ValueError("raised " + value)

        @flow(task_runner={runner}(1))
        def main():
            return use.submit(Secret("env:DB_PASSWORD"), return_state=True).wait()

        if __name__ == "__main__":
            try:
                main()
            except ValueError:
                pass
    """)
    program.environment["DB_PASSWORD"] = VALUE
    program.run()
    messages = [row[0] for row in rows("SELECT message FROM logs ORDER BY id")]
    assert messages[:2] == ["printed ***", "logged ***"]
    assert rows("SELECT message FROM failures WHERE task = 'use'") == [("raised ***",)]
    assert not any(VALUE.encode() in file.read_bytes() for file in program.folder.glob("journal.db*"))


WITHOUT_EXTRA = """
import sys
sys.modules["cryptography"] = None
from wfengine import flow, secrets, task, use_journal
from wfengine.secrets import Secret
from wfengine_journal.errors import SecretError, ValueNotStorableError

use_journal(sys.argv[1])

@task
def use(secret):
    return len(secret.get())

@task
def bare(secret):
    return secret.get()

@flow
def main(secret=Secret("env:DB_PASSWORD")):
    return use(secret)

@flow
def leaks(secret=Secret("env:DB_PASSWORD")):
    return bare(secret)

print(main())
for attempt in (lambda: secrets.set("db", "a-value"), leaks):
    try:
        attempt()
    except (SecretError, ValueNotStorableError) as error:
        print(type(error).__name__, "pip install 'wfengine[secrets]'" in str(error))
"""


def test_without_the_extra_other_sources_work_and_the_error_names_what_to_install(program: Program) -> None:
    program.environment["DB_PASSWORD"] = VALUE
    done = program.python("-c", WITHOUT_EXTRA, str(program.folder / "journal.db"))
    assert done.out.splitlines() == [str(len(VALUE)), "SecretError True", "ValueNotStorableError True"], done
    assert not any(VALUE.encode() in file.read_bytes() for file in program.folder.glob("journal.db*"))


def test_secrets_are_read_from_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        secrets.set(f"s{number}", f"value-of-{number}")
    wrong: list[object] = []

    @task
    def read(number: int) -> None:
        found = {Secret(f"s{number}").get() for _ in range(20)}
        wrong.extend(found - {f"value-of-{number}"})

    @flow
    def main() -> None:
        read.map(list(range(8))).result()

    main()
    assert wrong == []
