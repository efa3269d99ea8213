"""Secrets as Prefect's programs write them, with only the import changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.prefect.conftest import Rows
from wfengine import flow, task
from wfengine.blocks.system import Secret
from wfengine.redaction import KEEPER
from wfengine_journal.guarding import POST


@pytest.fixture(autouse=True)
def _key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("WFENGINE_SECRETS_KEY_FILE", str(tmp_path / "secrets.key"))
    yield
    KEEPER.__init__()  # type: ignore[misc]  # as a new process begins
    POST.is_alert = False


def test_a_block_is_saved_and_loaded_and_its_value_got(rows: Rows) -> None:
    assert Secret(value="sk-1234567890").save("api-key") == "api-key"
    with pytest.raises(ValueError, match="exists already"):
        Secret(value="other").save("api-key")
    Secret(value=SecretStr("sk-0987654321")).save("api-key", overwrite=True)

    @task
    def call(api_key: str) -> int:
        return len(api_key)

    @flow
    def main() -> int:
        secret_block = Secret.load("api-key")
        return call(secret_block.get())

    assert main() == 13
    assert rows("SELECT inputs FROM tasks") == [('{"api_key":"{{ secrets.api-key }}"}',)]


def test_in_an_async_flow_load_is_awaited() -> None:
    Secret(value={"user": "u", "password": "p4ssw0rd"}).save("login")

    @flow
    async def main() -> object:
        block = await Secret.load("login")  # type: ignore[misc]  # awaited in async code
        same = await Secret.aload("login")
        return len(block.get()["password"]) + len(same.get()["password"])

    assert asyncio.run(main()) == 16


def test_a_block_that_is_not_there_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"There is no secret 'nothing'"):
        Secret.load("nothing")
