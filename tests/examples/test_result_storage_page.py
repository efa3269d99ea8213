"""The page on results in buckets is a test: its programs run against an S3 server, and every line prints what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import assert_page_is_true

from tests.engine.bucket_server import BucketServer, make_empty_bucket

PAGE = Path(__file__).parents[2] / "docs" / "result-storage.md"


def test_every_line_of_the_page_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = BucketServer()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        make_empty_bucket("my-bucket")
        assert assert_page_is_true(PAGE, tmp_path) == 5
    finally:
        server.stop()
