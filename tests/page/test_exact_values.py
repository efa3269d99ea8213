"""What is asked over HTTP is what arrives: texts that look like JSON, and names with letters that steer a path."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import quote, urlencode

import pytest
from serving_page import LIMIT, TOKEN, Page, environment, page_over

from wfengine.api_client import ApiClient
from wfengine_journal.errors import NotFoundError

FLOW = """
from wfengine import flow

@flow
def plain(a, b: str = "", c: int = 0):
    return [a, b, c]

if __name__ == "__main__":
    plain("first")
"""
NAMES = ("a/b", "/", "a//b", "..", ".", "a%2Fb", "a?b#c", "--x", "a\\b", "ü €", "runs/1/pause", "a;b=c", "%", "a+b")


def _run_plain(page: Page) -> None:
    (page.folder / "plain.py").write_text(FLOW)
    command = [sys.executable, "plain.py"]
    subprocess.run(command, cwd=page.folder, env=environment(page.folder), check=True, timeout=LIMIT, capture_output=True)


def _parameters(page: Page, run_id: object) -> object:
    return page.json(f"/api/v1/runs/{run_id}")["run"]["parameters"]  # type: ignore[index]


def test_a_text_of_a_fork_stays_a_text_whatever_it_looks_like(own_page: Page) -> None:
    _run_plain(own_page)
    given = {"a": "5", "b": "5", "c": 5}
    for value in ("5", '"quoted"', "@file", "", 5, [1, "2"]):
        answer = own_page.do("/runs/2/fork", parameters={**given, "a": value})
        assert answer.status_code == 200, answer.text
        assert _parameters(own_page, answer.json()["answer"]["run_id"]) == {**given, "a": value}


def test_what_is_typed_in_the_form_of_a_fork_is_read_by_the_type_of_the_parameter(own_page: Page) -> None:
    _run_plain(own_page)
    headers = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
    for typed, meant in (("5", {"a": 5, "b": "5", "c": 5}), ('"5"', {"a": "5", "b": "5", "c": 5})):
        fields = {"run_id": "2", "param.a": typed, "param.b": typed, "param.c": "5"}
        answer = own_page.client.post("/do/runs.fork", content=urlencode(fields), headers=headers)
        assert answer.status_code == 303, answer.text
        assert _parameters(own_page, answer.headers["location"].rpartition("/")[2]) == meant


@pytest.mark.parametrize("base_path", ["", "/flows/api/v1"])
def test_a_name_with_any_letter_is_reached_in_a_path(own_page: Page, base_path: str) -> None:
    with page_over(own_page.folder, base_path=base_path) as page:
        client = ApiClient(page.base, token=TOKEN)
        for name in NAMES[:3]:
            assert client.limits_set(name, slots=3)["answer"]["limit"]["name"] == name
            assert client.limits_get(name)["limit"]["name"] == name
        for name in NAMES:
            with pytest.raises(NotFoundError, match="variable"):
                client.variables_get(name)
        client.limits_delete(NAMES[0])
        with pytest.raises(NotFoundError):
            client.limits_get(NAMES[0])
        assert page.client.get(f"/api/v1/limits/{quote(NAMES[2], safe='')}").status_code == 200
        assert page.client.get("/api/v1/limits/a//b").status_code == 404
        assert page.client.get("/api/v1/%6cimits").status_code == 200
        assert page.stranger.get("/api/v1/limits/a%2Fb").status_code == 401
