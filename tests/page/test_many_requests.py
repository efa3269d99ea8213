"""Whatever the OpenAPI document allows is answered without a fault of the server. The long form is in `many_requests`."""

from __future__ import annotations

import pytest
from managed import manage
from serving_page import Page, run_program

pytest.importorskip("schemathesis", reason="install the extra tests")


def test_no_request_that_the_document_allows_is_a_fault_of_the_server(own_page: Page) -> None:
    from many_requests import ask

    run_program(own_page.folder, "failing", "parent", "asking")
    manage(own_page.folder)
    assert ask(own_page, 10, 20261128, changing=1) > 100


def test_the_document_is_one(page: Page) -> None:
    document = page.json("/api/v1/openapi.json")
    assert document["openapi"] == "3.1.0"
    operations = [entry for path in document["paths"].values() for entry in path.values()]  # type: ignore[attr-defined]
    assert len({entry["operationId"] for entry in operations}) == len(operations) > 20
