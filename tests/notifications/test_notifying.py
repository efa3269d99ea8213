"""Notifications reach Slack, Teams, a mail server and webhooks, once each, and what does not is tried again or says why."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.conftest import FakeClock, Rows
from tests.notifications.conftest import send_all
from tests.notifications.services import SLACK, TEAMS, HttpService, MailService
from wfengine import flow, secrets, task
from wfengine.automations import Automation, EventTrigger, SendNotification
from wfengine.automations.service import Automations
from wfengine.blocks.notifications import SlackWebhook
from wfengine.events import emit_event
from wfengine.journals import default_journal
from wfengine.notifications import notify, notify_hook, set_target, unset_target
from wfengine_journal.errors import NotificationError, SecretError, UsageError

HOSTILE = (
    "<!channel> <@U123> <at>bob</at> @everyone [click](https://evil.example) *bold* & `code` \x1b[31mred\x1b[0m \u202egnp\x00\n"
    ".\n..\nBcc: all@example.com\n" + "x" * 3000 + "\n# heading " + "ä€😀" * 400
)
STATES = "SELECT target, state, attempts, reason FROM notifications ORDER BY id"


def target(name: str, url: str, **options: object) -> None:
    secrets.set(f"{name}_url", url, overwrite=True)
    set_target(name, url_secret=f"{name}_url", allow_private=True, overwrite=True, **options)  # type: ignore[arg-type]


def test_slack_teams_and_mail_take_hostile_text_as_text(
    rows: Rows, clock: FakeClock, service: HttpService, mail: MailService
) -> None:
    target("slack", SLACK)
    target("teams", TEAMS)
    target("mail", mail.url)
    subject = "run '<!channel>' [x](https://evil.example)\r\nBcc: all@example.com \x07"
    notify(["slack", "teams", "mail"], HOSTILE, subject, level="failure")
    send_all()
    assert (service.refused, mail.faults) == ([], [])
    assert rows(STATES) == [(name, "sent", 1, None) for name in ("slack", "teams", "mail")]
    (slack, slack_headers, payload), (teams, _, card) = sorted(service.got, key=lambda each: each[0])
    assert (slack, teams) == ("hooks.slack.com", "prod-161.westeurope.logic.azure.com")
    assert "\u2039!channel\u203a" in payload["attachments"][0]["text"]
    assert payload["attachments"][0]["title"] == "run '\u2039!channel\u203a' [x] (https://evil.example) Bcc: all@example.com"
    ids = [value for (value,) in rows("SELECT message_id FROM notifications ORDER BY id")]
    assert len(set(ids)) == 3
    assert slack_headers["Idempotency-Key"] == ids[0]
    assert str(ids[0]) in payload["attachments"][0]["text"]
    texts = [block["text"] for block in card["attachments"][0]["content"]["body"] if block["type"] == "TextBlock"]
    assert str(ids[1]).replace("-", "\\-") in texts[-1]
    (sent,) = mail.got
    assert sent["Message-ID"] == f"<{ids[2]}@notifications.wfengine>"
    assert sent["Subject"] == "run '<!channel>' [x](https://evil.example) Bcc: all@example.com"
    assert (sent["Bcc"], sent["To"], sent["Auto-Submitted"]) == (None, "ops@example.com", "auto-generated")
    text = sent.get_content().replace("\r\n", "\n")
    assert text.startswith(
        "<!channel> <@U123> <at>bob</at> @everyone [click](https://evil.example) *bold* & `code` red gnp\n.\n"
    )
    assert "ä€😀" in text
    assert not {character for character in text if ord(character) < 32} - {"\n"}


def test_what_a_server_refuses_for_now_is_tried_again_under_the_same_id(
    rows: Rows, clock: FakeClock, service: HttpService
) -> None:
    target("ops", service.url)
    service.answers += [(429, {"Retry-After": "90"}), (503, {}), (200, {}), "reset"]
    notify("ops", "first")
    send_all()
    notify("ops", "second")
    send_all()
    ((_, state, attempts, reason), _) = rows(STATES)
    assert (state, attempts) == ("pending", 1)
    assert reason == "127.0.0.1 answered 429: no, ***"
    assert service.got == []  # the second one waits too: the server asked to be left alone
    assert rows("SELECT held_to > '2025-06-15T15:08' FROM notification_targets") == [(1,)]
    clock.now += 90
    send_all()
    assert rows("SELECT state, attempts, unsure FROM notifications") == [
        ("pending", 2, 1),
        ("sent", 1, 0),
    ]  # 503 may have been done
    clock.now += 8
    send_all()
    clock.now += 30
    send_all()
    assert rows("SELECT state, attempts, unsure FROM notifications") == [("sent", 4, 0), ("sent", 1, 0)]
    first = [(headers, payload) for _, headers, payload in service.got if payload["message"].startswith("first")]
    assert len(first) == 2  # the connection was reset after the server had it: nobody can know
    assert len({headers["X-Wfengine-Delivery"] for headers, _ in first}) == 1
    assert "this may be a repeat" in first[1][1]["message"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [((404, {}), "answered 404: no, ***"), ((302, {"Location": "http://127.0.0.1:9/"}), "redirects are not")],
)
def test_what_a_server_refuses_for_good_fails_at_once_until_a_person_tries_it_again(
    rows: Rows, clock: FakeClock, service: HttpService, answer: tuple[int, dict[str, str]], said: str
) -> None:
    from wfengine.cli.notification_execution import retry

    target("ops", service.url)
    service.answers.append(answer)
    notify("ops", "hello")
    send_all()
    ((_, state, attempts, reason),) = rows(STATES)
    assert (state, attempts) == ("failed", 1)
    assert said in str(reason)
    before = rows("SELECT message_id FROM notifications")
    assert retry(Path(str(default_journal().path)), None, "ops") == [1]
    send_all()
    assert rows(STATES) == [("ops", "sent", 1, None)]
    assert rows("SELECT message_id FROM notifications") == before


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        ("451 4.7.1 come back", "pending", "answered 451"),
        ("554 5.7.1 spam", "failed", "answered 554"),
        ("silence", "pending", "no answer"),
    ],
)
def test_a_mail_server_says_whether_another_try_makes_sense(
    rows: Rows, clock: FakeClock, mail: MailService, answer: str, state: str, said: str
) -> None:
    target("mail", mail.url)
    mail.answers.append(answer)
    notify("mail", "hello")
    send_all()
    ((_, found, _, reason),) = rows(STATES)
    assert found == state
    assert said in str(reason)
    assert rows.value("SELECT unsure FROM notifications") == (answer == "silence")
    assert mail.faults == []


def test_alerts_of_a_storm_become_few_messages_and_none_is_lost(rows: Rows, clock: FakeClock, service: HttpService) -> None:
    target("ops", service.url, rate="2/min")
    for number in range(30):
        notify("ops", f"alert {number}", level="failure" if number == 7 else "info")
    send_all()
    assert [payload["title"] for _, _, payload in service.got] == ["", "29 notifications, 1 of them failures"]
    assert service.got[1][2]["type"] == "failure"
    assert "9 more: wfengine notifications outbox" in service.got[1][2]["message"]
    assert rows("SELECT state, count(*), count(DISTINCT message_id) FROM notifications GROUP BY 1") == [("sent", 30, 2)]
    notify("ops", "later")
    courier = send_all()
    assert len(service.got) == 2
    assert courier._next_due == clock.now + 60
    clock.now += 60
    send_all()
    assert service.got[2][2]["message"].startswith("later")


def test_what_comes_within_the_time_of_a_digest_is_one_message(rows: Rows, clock: FakeClock, service: HttpService) -> None:
    target("ops", service.url, digest_seconds=60)
    notify("ops", "one", "First")
    clock.now += 59
    notify("ops", "two")
    send_all()
    assert service.got == []
    clock.now += 1
    send_all()
    ((_, _, payload),) = service.got
    assert payload["title"] == "2 notifications"
    assert "First\none" in payload["message"]
    assert "two" in payload["message"]


@task
def told(number: int) -> int:
    notify("ops", f"task {number}", key=None)
    return number


def test_a_flow_its_tasks_and_hooks_tell_once_however_often_the_run_is_resumed(rows: Rows, journal: object) -> None:
    set_target("ops", url="json://192.0.2.1/hook")
    fails = [True]

    @task(on_failure=[notify_hook("ops", level="warning")])
    def failing() -> None:
        if fails:
            raise ValueError("no")

    @flow(on_failure=[notify_hook("ops")], on_completion=[notify_hook("ops")])
    def main() -> None:
        notify("ops", "the flow begins")
        told(1)
        notify("ops", "the flow begins")
        failing()

    with pytest.raises(ValueError, match="no"):
        main()
    assert rows("SELECT body, level FROM notifications") == [
        ("the flow begins", "info"),
        ("task 1", "info"),
        ("the flow begins", "info"),
        ("Task run 5 'failing-5' is Failed.\nValueError: no\nLook: wfengine runs show 1", "warning"),
        (
            rows.value("SELECT 'Flow run 1 ''' || name || ''' of main is Failed.' FROM runs")
            + "\nValueError: no\nLook: wfengine runs show 1",
            "failure",
        ),
    ]


def test_an_automation_tells_a_target_with_its_firing(rows: Rows, clock: FakeClock) -> None:
    set_target("ops", url="json://192.0.2.1/hook")
    Automation(
        name="late",
        trigger=EventTrigger(expect={"order.late"}),
        actions=[
            SendNotification(target="ops", subject="Order {{ event.payload.id }}", body="{{ event.payload }}", level="warning"),
            SendNotification(target="gone", body="nobody hears this"),
        ],
    ).create()
    emit_event("order.late", "order.1", payload={"id": 1})
    service = Automations(default_journal())
    while service.step():
        pass
    assert rows("SELECT target, subject, body, level, idempotency_key FROM notifications") == [
        ("ops", "Order 1", '{"id": 1}', "warning", "firing:1:0")
    ]
    ((state, results),) = rows("SELECT state, results FROM firings")
    assert state == "failed"
    assert "There is no notification target 'gone'" in str(results)


@pytest.mark.parametrize(
    "url", ["json://127.0.0.1:{port}/x", "json://localhost:{port}/x", "json://[::1]:{port}/x", "json://2130706433:{port}/x",
            "json://169.254.169.254/latest", "json://10.0.0.1/x", "mailto://u:p@127.0.0.1:{port}?from=a@b.example&to=a@b.example&mode=insecure"],
)  # fmt: skip
def test_an_address_of_this_machine_or_a_private_network_is_not_connected_to(
    rows: Rows, clock: FakeClock, service: HttpService, url: str
) -> None:
    secrets.set("u", url.format(port=service.server_port))
    set_target("ops", url_secret="u")
    notify("ops", "hello")
    send_all()
    ((_, state, _, reason),) = rows(STATES)
    assert state == "failed", reason
    assert "an address of this machine or a private network. If that is meant" in str(reason)
    assert service.got == []


def test_a_target_that_makes_no_sense_is_refused_before_anything_is_written(rows: Rows, journal: object) -> None:
    for options in (
        {"url": "slack://a/b/c"}, {"url": "mailto://me:open@mail.example.com"}, {"url": "json://h/x?token=abc"},
        {"url": "nonsense"},
        {"url": "json://h/{{ secrets.x"}, {}, {"url": "json://h", "url_secret": "x"}, {"url": "json://h", "digest_seconds": -1},
        {"url": "json://h", "allow_private": 1}, {"url": 7},
    ):  # fmt: skip
        with pytest.raises(NotificationError):
            set_target("ops", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        set_target("ops", url="json://h", rate="often")
    with pytest.raises(SecretError, match="wfengine secrets set x"):
        set_target("ops", url_secret="x")
    with pytest.raises(NotificationError, match="wfengine notifications set ops"):
        notify("ops", "hello")
    for arguments in (("ops", ""), ("ops", 7), ("o p s", "x"), ([], "x"), ("ops", "x", 7)):
        with pytest.raises(NotificationError):
            notify(*arguments)  # type: ignore[arg-type]
    with pytest.raises(NotificationError, match="level"):
        notify("ops", "x", level="bad")
    assert rows("SELECT * FROM notification_targets") == rows("SELECT * FROM notifications") == []
    set_target("ops", url="json://h")
    with pytest.raises(NotificationError, match="exists already"):
        set_target("ops", url="json://h")
    assert notify("ops", "x", key="k")[0].is_new
    assert not notify("ops", "y", key="k")[0].is_new
    assert unset_target("ops")
    assert not unset_target("ops")


def test_what_waits_for_a_target_that_is_gone_fails_and_says_so(rows: Rows, clock: FakeClock) -> None:
    set_target("ops", url="json://h")
    notify("ops", "hello")
    unset_target("ops")
    send_all()
    assert rows(STATES) == [("ops", "failed", 1, "there is no notification target 'ops' any more")]


def test_a_block_of_prefects_name_is_a_target(rows: Rows, journal: object) -> None:
    with pytest.raises(NotificationError, match="no notification target 'ops'"):
        SlackWebhook.load("ops")
    set_target("ops", url="json://192.0.2.1/hook")

    @flow
    def main() -> None:
        SlackWebhook.load("ops").notify("hello", subject="Greeting")

    @flow
    async def waits() -> None:
        block = await SlackWebhook.load("ops")  # type: ignore[misc]  # awaited in async code
        await block.notify("hello")  # type: ignore[func-returns-value]

    main()
    asyncio.run(waits())  # type: ignore[arg-type]  # a coroutine
    assert rows("SELECT subject, body, run_id FROM notifications") == [("Greeting", "hello", 1), (None, "hello", 2)]


REBINDING = """
import itertools, socket
from wfengine.automations.outgoing import is_public
from wfengine.notifying.wire import ForbiddenAddress, Wire, watch

answers = itertools.chain([("93.184.215.14", 80)], itertools.repeat(("127.0.0.1", PORT)))
socket.getaddrinfo = lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", next(answers))]
watch(Wire("id", False))
assert is_public(socket.getaddrinfo("evil.example", 80)[0][4][0])
for connect in (lambda: socket.create_connection(("evil.example", 80)), lambda: socket.socket().connect(("evil.example", 80))):
    try:
        connect()
    except ForbiddenAddress as error:
        print(error)
"""


def test_a_name_that_leads_elsewhere_the_second_time_leads_nowhere(service: HttpService) -> None:
    program = REBINDING.replace("PORT", str(service.server_port))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == 2 * "127.0.0.1 is an address of this machine or a private network\n"


def test_a_proxy_is_not_asked_to_connect_where_nobody_may(rows: Rows, clock: FakeClock, service: HttpService) -> None:
    set_target("ops", url="jsons://192.0.2.1/hook")
    notify("ops", "hello")
    send_all()
    ((_, state, _, reason),) = rows(STATES)
    assert state == "failed"
    assert str(reason).startswith("the URL leads to 192.0.2.1, an address")


def test_a_secret_that_the_process_knows_is_not_told(rows: Rows, clock: FakeClock, service: HttpService) -> None:
    target("ops", service.url)
    secrets.set("db", "hunter2-and-more")
    notify("ops", f"with {secrets.get('db')}", f"It is {secrets.get('db')}")
    send_all()
    assert rows("SELECT subject, body, state FROM notifications") == [("It is ***", "with ***", "sent")]
    assert "hunter2" not in str(service.got)
