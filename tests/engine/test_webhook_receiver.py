"""Webhooks that come in, over real HTTP: what is taken, what is refused, and that one sent again makes no second event."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Rows
from wfengine.automations import Automation, CallWebhook, EventTrigger
from wfengine.automations.service import Automations
from wfengine.automations.signatures import sign
from wfengine.events import emit_event
from wfengine.journals import default_journal
from wfengine.webhook_receiver import BODY_LIMIT, Hook, WebhookReceiver
from wfengine_journal import store
from wfengine_journal.errors import UsageError

SECRET = "a secret that is long enough"


@pytest.fixture
def receiver(journal: store.Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookReceiver]:
    monkeypatch.setenv("ORDERS_SECRET", SECRET)
    found = WebhookReceiver(
        journal, [Hook("orders", "ORDERS_SECRET"), Hook("named", "ORDERS_SECRET", event="order.placed")], port=0
    )
    found.start()
    yield found
    found.stop(10)
    assert found.fault is None


def deliver(
    receiver: WebhookReceiver, body: bytes = b'{"id": 7}', *, path: str = "/hooks/orders", delivery: str = "d1",
    age: float = 0.0, secret: str = SECRET, method: str = "POST", **changed: str | None,
) -> tuple[int, dict[str, object]]:  # fmt: skip
    journal = default_journal()
    timestamp = str(int(journal.clock.wall_seconds() - age))
    headers: dict[str, str | None] = {
        "X-Wfengine-Delivery": delivery,
        "X-Wfengine-Timestamp": timestamp,
        "X-Wfengine-Signature": sign(secret.encode(), delivery, timestamp, body),
        **{f"X-Wfengine-{name.capitalize()}": value for name, value in changed.items()},
    }
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=30)
    try:
        connection.request(method, path, body, {name: value for name, value in headers.items() if value is not None})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else {}
    finally:
        connection.close()


def test_a_signed_delivery_is_an_event_once(receiver: WebhookReceiver, rows: Rows) -> None:
    assert deliver(receiver) == (202, {"event": 1, "is_new": True})
    assert deliver(receiver, age=10) == (202, {"event": 1, "is_new": False})
    assert deliver(receiver, b"plain text", delivery="d2", path="/hooks/named")[0] == 202
    assert rows("SELECT name, resource, payload FROM events") == [
        ("webhook.orders", "webhook.orders", '{"id":7}'),
        ("order.placed", "webhook.named", '"plain text"'),
    ]


def test_what_is_not_signed_rightly_is_refused_and_nothing_written(receiver: WebhookReceiver, rows: Rows) -> None:
    refused = [
        deliver(receiver, secret="another secret, long enough"),
        deliver(receiver, age=301),
        deliver(receiver, age=-3600),
        deliver(receiver, timestamp="1"),
        deliver(receiver, timestamp="x"),
        deliver(receiver, delivery="d1", signature="sha256=0"),
        deliver(receiver, path="/hooks/gone"),
        deliver(receiver, path="/hooks/gone", secret=""),
        *(deliver(receiver, **{name: None}) for name in ("delivery", "timestamp", "signature")),
    ]
    assert {status for status, _ in refused} == {401}
    assert len({str(answer) for _, answer in refused}) == 1
    assert rows("SELECT * FROM events") == []
    assert receiver.report()["refused"] == len(refused)


def test_a_delivery_that_was_caught_cannot_be_sent_again_under_another_id(receiver: WebhookReceiver, rows: Rows) -> None:
    journal = default_journal()
    timestamp = str(int(journal.clock.wall_seconds()))
    caught = sign(SECRET.encode(), "d1", timestamp, b'{"id": 7}')
    assert deliver(receiver, delivery="d2", timestamp=timestamp, signature=caught)[0] == 401
    assert rows("SELECT * FROM events") == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"x" * (BODY_LIMIT + 1), 413), (b"\xff", 400), (b"NaN", 400), (b"[" * 5000 + b"]" * 5000, 400), (b'"\\ud800"', 202),
        (b"", 202), (b"null", 202),
    ],
)  # fmt: skip
def test_hostile_bodies_are_refused_in_our_words_or_taken_as_text(receiver: WebhookReceiver, body: bytes, status: int) -> None:
    try:
        assert deliver(receiver, body)[0] in (status, 202 if body.startswith(b"[") else status)
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413  # the server did not wait for the rest
    assert deliver(receiver, delivery="after")[0] == 202


def test_other_methods_and_paths_do_not_exist(receiver: WebhookReceiver) -> None:
    assert deliver(receiver, method="GET")[0] == 405
    assert deliver(receiver, path="/")[0] == 404
    assert deliver(receiver, path="/hooks/orders/x")[0] == 404


def test_it_listens_on_loopback_and_says_when_the_port_is_taken(receiver: WebhookReceiver, journal: store.Journal) -> None:
    assert receiver.report()["host"] == "127.0.0.1"
    with pytest.raises(UsageError, match="Take another port"):
        WebhookReceiver(journal, [], port=receiver.port).start()


def test_a_hook_needs_a_secret_in_the_environment(journal: store.Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "short"):
        monkeypatch.setenv("WEAK", value)
        with pytest.raises(UsageError, match="at least 16 characters"):
            WebhookReceiver(journal, [Hook("a", "WEAK")])
    with pytest.raises(UsageError, match="letters, digits"):
        Hook("a/b", "WEAK")


def test_one_journal_calls_another(receiver: WebhookReceiver, rows: Rows, journal: store.Journal) -> None:
    assert os.environ["ORDERS_SECRET"] == SECRET
    hook = CallWebhook(url=f"http://127.0.0.1:{receiver.port}/hooks/orders", secret="ORDERS_SECRET", allow_private=True)
    Automation(name="a", trigger=EventTrigger(expect={"e"}), actions=[hook]).create()
    emit_event("e", "r", payload=1)
    service = Automations(journal)
    while service.step():
        pass
    ((payload,),) = rows("SELECT payload FROM events WHERE name = 'webhook.orders'")
    assert json.loads(str(payload))["event"]["payload"] == 1


def test_a_client_that_sends_nothing_holds_up_nobody(receiver: WebhookReceiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port)) as silent:
        silent.sendall(b"POST /hooks/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert deliver(receiver)[0] == 202
