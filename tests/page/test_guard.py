"""Who is answered: one test for each way around it."""

from __future__ import annotations

import itertools
import re
import socket
from pathlib import Path

import httpx
import pytest
from serving_page import TOKEN, Page, page_over
from starlette.routing import Route

from wfengine.page.guard import BODY_LIMIT

NONSENSE = "not-the-token-not-the-token"


def every_route(page: Page) -> list[tuple[str, str]]:
    """Return a method and a path for each route that there is, streams included."""
    found = []
    for route in page.server.application.starlette.routes:
        assert isinstance(route, Route), f"{route} is not looked at by these tests"
        path = re.sub(r"\{(\w+)(:\w+)?\}", lambda part: "1" if "id" in part[1] else "word", route.path)
        found += [(method, path) for method in route.methods or ()]
    return found


def raw(page: Page, text: str) -> str:
    """Return the first line of the answer to a request that is sent as it stands."""
    with socket.create_connection(("127.0.0.1", page.server.port), timeout=60) as connection:
        connection.sendall(text.encode("latin-1"))
        return connection.makefile("rb").readline().decode().strip()


def test_every_route_answers_401_without_the_token_and_with_a_wrong_one(page: Page) -> None:
    routes = every_route(page)
    assert len(routes) > 40
    assert {"/events", "/runs/1/logs/stream"} < {path for _, path in routes}
    headers = [{}, {"authorization": f"Bearer {NONSENSE}"}, {"authorization": "Bearer"}, {"authorization": f"Basic {TOKEN}"}]
    for method, path in routes:
        for given in headers if path == "/runs" else headers[:2]:
            answer = page.stranger.request(method, path, headers=given)
            assert answer.status_code == 401, (method, path, given)
            assert TOKEN not in answer.text


@pytest.mark.parametrize("path", ["/health", "/ready", "/x/health", "/api/v1/ready", "/static/", "//", "/%2e%2e/", "/nothing"])
def test_no_path_is_exempt_whatever_it_is_called(page: Page, path: str) -> None:
    assert page.stranger.get(path).status_code == 401


def test_a_cookie_of_another_page_or_with_a_wrong_token_is_no_token(page: Page) -> None:
    link = page.stranger.get("/", params={"token": TOKEN})
    name = link.headers["set-cookie"].partition("=")[0]
    for cookie in (f"{name}={NONSENSE}", f"{name}x={TOKEN}", f"{name}=", "=;=;", f'{name}="', "a" * 10_000):
        assert page.stranger.get("/runs", headers={"cookie": cookie}).status_code == 401
    assert page.stranger.get("/runs", headers={"cookie": f"{name}={TOKEN}"}).status_code == 200


def test_the_link_gives_a_cookie_that_scripts_and_other_sites_do_not_get_and_goes_on_without_the_token(page: Page) -> None:
    answer = page.stranger.get("/runs", params={"q": "state:failed", "token": TOKEN})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/runs?q=state%3Afailed"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert page.stranger.get("/runs", params={"token": NONSENSE}).status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example", "/%0d%0aset-cookie:a=b", "///evil.example"])
def test_the_link_never_leads_elsewhere(page: Page, path: str) -> None:
    answer = page.stranger.get(f"{page.base}{path}?token={TOKEN}")
    location = answer.headers.get("location", "/")
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert "\n" not in location


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "2130706433", "0x7f000001", "localhost.", "127.1", "", "[::2]", "a:b:c"]
)  # fmt: skip
def test_a_host_that_is_not_this_machine_is_refused_though_the_token_is_right(page: Page, host: str) -> None:
    request = f"GET /events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    assert raw(page, request).split()[1] in ("400", "421")


def test_a_request_with_no_host_or_two_is_refused(page: Page) -> None:
    line = f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n"
    assert raw(page, f"GET / HTTP/1.1\r\n{line}\r\n").split()[1] == "400"
    assert raw(page, f"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n{line}\r\n").split()[1] == "400"
    assert raw(page, f"GET / HTTP/1.0\r\n{line}\r\n").split()[1] == "400"


def test_a_host_that_was_allowed_is_served(filled: Path) -> None:
    with page_over(filled, hosts=["flows.example.org"]) as served:
        assert served.client.get("/runs", headers={"host": "flows.example.org"}).status_code == 200
        assert served.client.get("/runs", headers={"host": "flows.example.org:443"}).status_code == 200
        assert served.client.get("/runs", headers={"host": "flows.example.com"}).status_code == 421


FOREIGN = [
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:1"},
    {"sec-fetch-site": "none"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "https://evil.example"},
    {"sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_nothing_is_changed_for_another_site(page: Page, headers: dict[str, str]) -> None:
    changing = [path for method, path in every_route(page) if method not in ("GET", "HEAD")]
    assert len(changing) > 10
    kinds = itertools.cycle(["application/x-www-form-urlencoded", "text/plain", "application/json", "multipart/form-data"])
    for path, kind in zip(changing, kinds, strict=False):
        answer = page.client.post(path, headers={**headers, "content-type": kind}, content=b"{}")
        assert answer.status_code == 403, path


def test_a_cookie_alone_changes_nothing_where_the_browser_does_not_say_whence(page: Page) -> None:
    name = page.stranger.get("/", params={"token": TOKEN}).headers["set-cookie"].partition("=")[0]
    cookie = {"cookie": f"{name}={TOKEN}"}
    assert page.stranger.post("/do/runs.pause", headers=cookie).status_code == 403
    ours = {**cookie, "sec-fetch-site": "same-origin", "origin": page.base}
    answer = page.stranger.post("/do/runs.pause", headers=ours)
    assert answer.status_code == 400, "it is let through, and is no form"


def test_no_get_changes_anything_and_no_method_is_known_that_was_not_meant(page: Page) -> None:
    for path in ("/do/runs.cancel", "/api/v1/runs/1/cancel", "/api/v1/runs/bulk"):
        assert page.client.get(path).status_code in (404, 405, 400)
    for method in ("PUT", "DELETE", "PATCH", "TRACE"):
        assert page.client.request(method, "/runs/1").status_code == 405


def test_every_answer_forbids_scripts_of_others_and_being_kept_or_framed(page: Page) -> None:
    for path in ("/", "/runs", "/runs/1", "/nothing", "/static/page.js", "/api/v1/runs", "/api/v1/nothing", "/runs.json"):
        headers = page.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    assert page.stranger.get("/").headers["cache-control"] == "no-store"


def test_the_pages_hold_no_script_and_no_style_of_their_own_and_ask_nobody_else(page: Page) -> None:
    for path in ("/", "/runs", "/runs/2", "/runs/2?show=tasks", "/runs/2?show=values", "/runs/5", "/tasks/1", "/sql"):
        html = page.client.get(path).text
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", html), path
        assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", html), path


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(page: Page) -> None:
    large = b"x" * (BODY_LIMIT + 1)
    assert page.do("/runs/1/messages", value="x" * (BODY_LIMIT + 1)).status_code == 413

    def pieces():  # type: ignore[no-untyped-def]
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    try:
        answer = page.client.post("/api/v1/runs/1/messages", content=pieces())
    except httpx.HTTPError:
        return  # it was cut off before it had sent everything
    assert answer.status_code == 413


def test_a_page_that_is_read_only_changes_nothing_and_shows_no_buttons(filled: Path) -> None:
    before = (filled / "journal.db").read_bytes()
    with page_over(filled, read_only=True) as served:
        for method, path in every_route(served):
            if method not in ("GET", "HEAD"):
                assert served.client.request(method, path).status_code == 403, path
        for path in ("/", "/runs", "/runs/2", "/runs/5", "/runs/2?show=values"):
            assert 'method="post" action="/do/' not in served.client.get(path).text.replace("/do/runs.bulk", "")
        assert all("post" not in entry for entry in served.json("/api/v1/openapi.json")["paths"].values())  # type: ignore[attr-defined]
    assert (filled / "journal.db").read_bytes() == before


def test_below_a_base_path_every_link_holds_whether_or_not_the_proxy_takes_it_off(filled: Path) -> None:
    with page_over(filled, base_path="/flows") as served:
        root = served.base.removesuffix("/flows")
        for path in ("/flows/runs", "/runs"):
            answer = httpx.get(f"{root}{path}", headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False)
            assert answer.status_code == 200, path
            links = re.findall(r'(?:href|action|src)="(/[^"]*)"', answer.text)
            assert len(links) > 10
            assert all(link.startswith("/flows/") for link in links)
        link = httpx.get(f"{root}/flows/", params={"token": TOKEN}, trust_env=False)
        assert "Path=/flows;" in link.headers["set-cookie"]


@pytest.mark.parametrize(
    "name",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "....//app.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "page.css%00.html",
        "..\\app.py",
    ],
)
def test_no_file_is_served_but_those_that_are_named(page: Page, name: str) -> None:
    answer = raw(
        page, f"GET /static/{name} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    )
    assert answer.split()[1] == "404"


def test_a_websocket_is_closed_before_it_was_opened(page: Page) -> None:
    request = (
        f"GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert " 101 " not in raw(page, request)
