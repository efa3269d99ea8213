"""The page on secrets and variables is a test: its programs are written, and every line prints what the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import assert_page_is_true

PAGE = Path(__file__).parents[2] / "docs" / "secrets-and-variables.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WFENGINE_SECRETS_KEY", "WFENGINE_SECRETS_KEYRING", "WFENGINE_SECRETS_KEY_FILE", "API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert assert_page_is_true(PAGE, tmp_path) == 18
    assert not any(b"horse" in file.read_bytes() for file in (tmp_path / ".wfengine").glob("journal.db*"))
