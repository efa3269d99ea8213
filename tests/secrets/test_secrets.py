"""Secrets: kept encrypted, passed as references, read where they are used, hidden everywhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import re
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pydantic import BaseModel, SecretBytes, SecretStr

from tests.engine.conftest import Program, Rows
from tests.secrets.conftest import Written
from wfengine import State, artifacts, flow, get_run_logger, secrets, task
from wfengine.cache_policies import INPUTS
from wfengine.events import emit_event
from wfengine.references import holds_late
from wfengine.secrets import Secret
from wfengine.variables import Variable
from wfengine_journal.codec import decode
from wfengine_journal.errors import InvalidValueError, ParameterError, ParameterTypeError, SecretError, ValueNotStorableError
from wfengine_journal.store import Journal

VALUE = 'h4rd-to"guess\\ü'


@task
def length_of(secret: Secret[str]) -> int:
    return len(secret.get())


def test_a_secret_is_read_as_it_was_set_and_the_file_does_not_hold_it(written: Written, rows: Rows) -> None:
    secrets.set("db", VALUE)
    assert Secret("db").get() == secrets.get("db") == VALUE
    assert rows("SELECT name, version, source FROM secrets") == [("db", 1, None)]
    assert "h4rd-to" not in written


@pytest.mark.parametrize("value", ["text", 5, 1.5, True, [], {"user": "u", "password": "p" * 9}, ["a", None]])
def test_every_json_value_can_be_kept(value: object) -> None:
    secrets.set("s", value)
    assert secrets.get("s") == value


@pytest.mark.parametrize("value", ["", None, object(), "x" * 100_001, float("nan")])
def test_a_value_that_cannot_be_kept_is_refused_without_being_shown(value: object, rows: Rows) -> None:
    with pytest.raises(SecretError, match=r"Secret 's' was not set") as error:
        secrets.set("s", value)
    assert "xxxxx" not in str(error.value)
    assert rows("SELECT count(*) FROM secrets") == [(0,)]


def test_an_existing_secret_is_changed_only_when_asked(rows: Rows) -> None:
    secrets.set("db", VALUE)
    with pytest.raises(SecretError, match=r"Secret 'db' exists already.*--overwrite"):
        secrets.set("db", "other")
    assert secrets.get("db") == VALUE
    secrets.set("db", "other", overwrite=True)
    assert secrets.get("db") == "other"
    assert rows("SELECT version FROM secrets") == [(2,)]


def test_a_secret_can_be_unset() -> None:
    secrets.set("db", VALUE)
    assert (secrets.unset("db"), secrets.unset("db")) == (True, False)
    with pytest.raises(SecretError, match=r"There is no secret 'db'.*wfengine secrets set db"):
        Secret("db").get()


@pytest.mark.parametrize("name", ["", "a b", "a.b", "x" * 256, 5, "a\n", "nonsense:x", "env:", "keyring:x", "file:\0"])
def test_a_name_that_is_not_allowed_is_refused(name: Any) -> None:
    with pytest.raises(SecretError):
        Secret(name)
    with pytest.raises(SecretError):
        secrets.set(name, "v")


def test_a_secret_shows_its_name_and_asterisks() -> None:
    secrets.set("db", VALUE)
    secret = Secret[str]("db")
    assert (repr(secret), str(secret), f"{secret}") == ("Secret('db')", "**********", "**********")
    assert "h4rd" not in repr(Secret(value=VALUE))
    assert secret == Secret("db") != Secret("other")
    assert pickle.loads(pickle.dumps(secret)) == secret


def test_an_argument_is_journaled_as_a_reference(rows: Rows, written: Written) -> None:
    secrets.set("db", VALUE)

    @flow
    def main(secret: Secret[str]) -> int:
        return length_of(secret)

    assert main(Secret("db")) == len(VALUE)
    ((inputs,),) = rows("SELECT inputs FROM tasks")
    assert re.fullmatch(r'\{"secret":"Secret\(\'db\'\) #[0-9a-f]{8}"\}', str(inputs))
    assert rows("SELECT parameters FROM runs") == [('{"secret":"Secret(\'db\')"}',)]
    assert "h4rd-to" not in written


def test_a_secret_with_a_value_that_was_not_saved_is_no_argument() -> None:
    @flow
    def main(secret: Secret[str]) -> None: ...

    with pytest.raises(ParameterError, match=r"a secret with a value was not saved: call its save\(NAME\) first"):
        main(Secret(value=VALUE))


def test_a_new_value_is_no_new_input_and_a_resumed_run_goes_on_with_it(program: Program, rows: Rows, written: Written) -> None:
    program.write("""
        from wfengine.secrets import Secret

        @task
        def first(secret):
            note(f"first {secret.get()[:3]}")

        @task
        def raw(text):
            note("raw")

        @task
        def second(secret):
            note(f"second {secret.get()[:3]}")

        @flow
        def main(secret=Secret("db")):
            first(secret)
            raw("Bearer " + secret.get())
            if first_time():
                kill()
            second(secret)

        if __name__ == "__main__":
            main()
    """)
    secrets.set("db", "old-secret-value")
    program.run_and_be_killed()
    secrets.set("db", "new-secret-value", overwrite=True)
    done = program.resume()
    assert done["state"] == "COMPLETED", done
    assert (program.folder / "effects.txt").read_text().split("\n")[:-1] == ["first old", "raw", "second new"]
    assert '{"text":"Bearer {{ secrets.db }}"}' in [row[0] for row in rows("SELECT inputs FROM tasks")]
    assert "secret-value" not in written


def test_different_secrets_are_different_inputs_for_the_cache() -> None:
    calls: list[object] = []

    @task(cache_policy=INPUTS)
    def ask(key: object) -> None:
        calls.append(key)

    @flow
    def main() -> None:
        for value in (
            Secret("a"),
            Secret("b"),
            Secret("a"),
            SecretStr("one-token"),
            SecretStr("two-token"),
            SecretStr("one-token"),
        ):
            ask(value)

    secrets.set("a", "value-a")
    secrets.set("b", "value-b")
    main()
    assert len(calls) == 4


def test_a_result_that_holds_a_secret_is_given_again_and_written_encrypted(
    program: Program, rows: Rows, written: Written
) -> None:
    secrets.set("db", VALUE)
    program.write("""
        from wfengine.secrets import Secret

        @task
        def bare():
            note("bare")
            return Secret("db").get()

        @task
        def inside():
            note("inside")
            return {"url": "postgres://u:" + Secret("db").get() + "@h", "pair": (1, Secret("db").get())}

        @task
        def use(text, values):
            note(len(text) + len(values["url"]))
            return values["pair"]

        @flow
        def main():
            text, values = bare(), inside()
            if first_time():
                kill()
            return use(text, values)

        if __name__ == "__main__":
            main()
    """)
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert (program.folder / "effects.txt").read_text().split() == ["bare", "inside", str(2 * len(VALUE) + 15)]
    shown = [row[0] for row in rows("SELECT result FROM tasks ORDER BY id")]
    assert shown == ["'***'", "{'url': 'postgres://u:***@h', 'pair': (1, '***')}", "(1, '***')"]
    assert '{"text":"{{ secrets.db }}"' in str(rows("SELECT inputs FROM tasks")[-1][0])
    assert "h4rd-to" not in written


def test_what_a_task_raises_and_logs_and_prints_has_no_secret_in_it(
    rows: Rows, written: Written, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    secrets.set("db", VALUE)

    @task(log_prints=True)
    def leak(secret: Secret[str]) -> None:
        print("printed", secret.get())
        get_run_logger().warning("logged %s", secret.get())
        try:
            raise KeyError(secret.get())
        except KeyError:
            get_run_logger().exception("caught")
        logging.getLogger("some.library").warning("a library says %s", secret.get())
        raise RuntimeError(f"cannot log in with {secret.get()}")

    @flow
    def main() -> object:
        return leak(Secret("db"), return_state=True)

    with pytest.raises(RuntimeError, match="cannot log in"):
        main()
    ((message, traceback),) = rows("SELECT message, traceback FROM failures WHERE task = 'leak'")
    assert message == "cannot log in with ***"
    assert "cannot log in with ***" in str(traceback)
    lines = [str(row[0]) for row in rows("SELECT message FROM logs")]
    assert "printed ***" in lines
    assert "logged ***" in lines
    assert any("KeyError" in line and "***" in line for line in lines)
    assert "h4rd-to" not in caplog.text
    assert "a library says ***" in caplog.text
    assert "h4rd-to" not in written


def test_an_exception_with_a_secret_keeps_its_class_on_resume(program: Program, written: Written) -> None:
    secrets.set("db", VALUE)
    program.write("""
        from wfengine.secrets import Secret

        class LoginFailed(Exception):
            pass

        @task
        def login():
            raise LoginFailed(Secret("db").get())

        @flow
        def main():
            try:
                login()
            except LoginFailed as error:
                if first_time():
                    kill()
                return len(error.args[0])

        if __name__ == "__main__":
            main()
    """)
    program.run_and_be_killed()
    assert program.resume() == {"state": "COMPLETED", "result": str(len(VALUE)), "type": "int"}
    assert "h4rd-to" not in written


def test_events_artifacts_and_variables_do_not_take_a_secret(rows: Rows, written: Written) -> None:
    secrets.set("db", VALUE)
    value = Secret[str]("db").get()
    emit_event("order.placed", resource={"wfengine.resource.id": f"order.{value}"}, payload={"key": value})
    artifacts.create_markdown_artifact(f"password: {value}", key="report", description=value)
    artifacts.create_table_artifact([{"password": value}])
    with pytest.raises(InvalidValueError, match=r"holds the value of a secret"):
        Variable.set("v", [value])
    assert rows("SELECT resource, payload FROM events WHERE name = 'order.placed'") == [("order.***", '{"key":"***"}')]
    assert ("password: ***", "***") in rows("SELECT data, description FROM artifacts")
    assert "h4rd-to" not in written


class Login(BaseModel):
    user: str
    password: SecretStr


def test_hidden_texts_of_pydantic_are_written_encrypted_and_come_back(program: Program, rows: Rows, written: Written) -> None:
    program.write("""
        from pydantic import BaseModel, SecretBytes, SecretStr

        class Login(BaseModel):
            user: str
            password: SecretStr

        @task
        def use(login, raw):
            note(login.password.get_secret_value()[:4] + raw.get_secret_value().decode()[:4])
            return login

        @flow
        def main(login: Login, raw: SecretBytes):
            back = use(login, raw)
            if first_time():
                kill()
            note(back.password.get_secret_value()[:4] + raw.get_secret_value().decode()[:4])

        if __name__ == "__main__":
            main({"user": "u", "password": "".join(["sstr", "-canary"])}, "".join(["byte", "-canary"]))
    """)
    program.run_and_be_killed()
    assert program.resume()["state"] == "COMPLETED"
    assert (program.folder / "effects.txt").read_text().split() == ["sstrbyte"] * 2
    assert "**********" in str(rows("SELECT parameters FROM runs"))
    assert "sstr-canary" not in written
    assert "byte-canary" not in written
    assert rows("SELECT count(*) > 0 FROM value WHERE codec LIKE 'sealed:%'") == [(1,)]


def test_a_sealed_result_needs_its_key_and_says_so(key_file: Path, rows: Rows) -> None:
    secrets.set("db", VALUE)

    @task
    def bare() -> str:
        return Secret[str]("db").get()

    @flow
    def main() -> State[str]:
        return bare(return_state=True)

    main()
    key_file.unlink()
    ((codec, hash_, data),) = rows("SELECT result_codec, result_hash, result FROM task_run")
    assert str(codec).startswith("sealed:")
    with pytest.raises(ValueNotStorableError, match=r"encrypted with key [0-9a-f]{16}, and that is not in the key file"):
        decode(str(codec), data, hash_, "the result")  # type: ignore[arg-type]  # as SQLite gives them


def test_a_flow_is_given_the_kind_of_value_that_its_hint_asks_for() -> None:
    secrets.set("db", VALUE)
    secrets.set("port", "5432")
    seen: list[object] = []

    @flow
    def main(
        as_it_is: Secret[str],
        plain,
        text: str,
        number: int,
        hidden: SecretStr,
        many: dict[str, str],
        either: Secret[str] | None,
    ) -> None:  # type: ignore[no-untyped-def]  # one has no hint on purpose
        seen.extend([as_it_is, plain, text, number, hidden.get_secret_value(), many, either])

    db = Secret[str]("db")
    main(db, db, db, Secret("port"), db, {"password": db}, db)  # type: ignore[arg-type]  # what it is given stands for the value
    assert seen == [db, db, VALUE, 5432, VALUE, {"password": VALUE}, db]


def test_a_value_that_does_not_fit_the_hint_fails_the_run_without_being_shown(written: Written) -> None:
    secrets.set("db", VALUE)

    @flow
    def main(number: int) -> None: ...

    with pytest.raises(ParameterTypeError, match=r"'number' = '\*\*\*' does not fit int"):
        main(Secret("db"))  # type: ignore[arg-type]  # as above
    assert "h4rd-to" not in written


def test_in_async_code_load_is_awaited() -> None:
    secrets.set("db", VALUE)

    @flow
    async def main() -> int:
        secret = await Secret.load("db")  # type: ignore[misc]  # awaited in async code
        return len(secret.get())

    assert asyncio.run(main()) == len(VALUE)


def test_short_values_are_not_looked_for() -> None:
    from wfengine_journal.guarding import hide

    secrets.set("pin", "123")
    assert secrets.get("pin") == "123"
    assert hide("2123-01-23") == "2123-01-23"


def test_nothing_is_looked_for_before_a_secret_is_known() -> None:
    from wfengine import redaction
    from wfengine_journal.guarding import POST

    entered: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename == redaction.__file__:
            entered.add(frame.f_code.co_name)

    @task
    def work(text: str, pair: tuple[int, int]) -> tuple[int, int]:
        get_run_logger().info("working %s", text)
        return pair

    @flow
    def main() -> object:
        return work("text", (1, 2))

    main()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        main()
        assert entered <= {"hiding"}  # it stays where a test before this one knew a secret, and returns at once
        assert POST.is_alert is False
        secrets.set("db", VALUE)
        main()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # typeshed does not know that it takes None
    assert entered > {"hiding"}


@pytest.mark.parametrize("kind", [SecretStr, SecretBytes])
def test_a_hidden_text_in_a_preview_is_asterisks(kind: Any) -> None:
    from wfengine_journal.previews import preview

    assert "canary" not in preview({"a": kind("a-canary" if kind is SecretStr else b"a-canary")})


def test_a_parameter_that_holds_a_known_secret_is_written_encrypted(written: Written, rows: Rows) -> None:
    secrets.set("db", VALUE)

    @flow
    def main(url: str) -> int:
        return len(url)

    main("postgres://u:" + str(secrets.get("db")) + "@h")
    assert rows("SELECT parameters FROM runs") == [('{"url":"\'postgres://u:***@h\'"}',)]
    assert "h4rd-to" not in written


def test_a_value_goes_by_the_name_under_which_it_was_read_last(rows: Rows) -> None:
    @task
    def use(text: object) -> None: ...

    @flow
    def main() -> None:
        for name in ("one", "two", "one"):
            use(secrets.get(name))

    for name in ("one", "two"):
        secrets.set(name, "shared-value")
    main()
    expected = ["{{ secrets.one }}", "{{ secrets.two }}", "{{ secrets.one }}"]
    assert [json.loads(str(row[0]))["text"] for row in rows("SELECT inputs FROM tasks ORDER BY id")] == expected


@pytest.mark.parametrize("serializer", ["json", "pickle", "compressed/json", "compressed/pickle"])
@pytest.mark.parametrize("where", ["journal", "folder"])
def test_what_a_serializer_writes_and_a_storage_keeps_is_encrypted(
    tmp_path: Path, serializer: str, where: str, rows: Rows, journal: Journal
) -> None:
    secrets.set("db", VALUE)

    @task(result_serializer=serializer, result_storage=tmp_path / "results" if where == "folder" else None)
    def bare() -> dict[str, str]:
        return {"password": Secret[str]("db").get()}

    @flow
    def main() -> dict[str, str]:
        return bare()

    assert main() == {"password": VALUE}
    journal.flush()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    data = b"".join(file.read_bytes() for file in files)
    assert b"h4rd-to" not in data
    ((codec, hash_, result),) = rows("SELECT result_codec, result_hash, result FROM task_run")
    assert "sealed:" in f"{codec} {result!r}"
    assert decode(str(codec), result, hash_, "the result") == {"password": VALUE}  # type: ignore[arg-type]  # as SQLite gives them


def test_a_list_that_holds_itself_is_looked_through_once() -> None:
    knot: list[object] = []
    knot.extend([knot, knot, {"a": knot}])
    assert holds_late(knot) is False
    knot.append((Secret("db"),))
    assert holds_late(knot) is True


def test_a_flow_whose_code_holds_a_secret_is_not_stored_by_value(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    secrets.set("db", VALUE)
    value = Secret[str]("db").get()

    @flow
    def local() -> int:
        return len(value)

    assert local() == len(VALUE)
    assert "it holds the value of a secret" in caplog.text
    assert "h4rd-to" not in written
