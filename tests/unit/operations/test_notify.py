"""Who is told of what, when and how often: over real HTTP and real SMTP, with a clock of the test's own."""

from __future__ import annotations

import base64
import json
import os
import socketserver
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import (
    command,
    jobs,
    notify,
    notify_channels,
    notify_memory,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations.jobs import CRITICAL, WARNING, Problem
from tests.unit.operations.certificates import certificate
from tests.unit.operations.conftest import Configure

DAEMON = Problem("daemon_sensor", CRITICAL, "daemon SENSOR is not healthy")
DISK = Problem("disk", WARNING, "disk of /opt/dagster: 91 % full")


class Receiver(ThreadingHTTPServer):
    """A web service that keeps what it gets, and answers with ``status``."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Receive)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/services/s3cret"

    def messages(self) -> list[dict[str, Any]]:
        found = [json.loads(body) for _, _, _, body in self.got]
        self.got.clear()
        return found


class _Receive(BaseHTTPRequestHandler):
    server: Receiver

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.got.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"invalid_payload" if self.server.status >= 400 else b"ok")

    do_GET = do_POST = _take

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Looks:
    """A machine whose problems and whose time the test sets."""

    def __init__(self, **settings: Any) -> None:
        self.settings = {"notify": {"machine": "vm-1", "after": 90, "again": 86400}, **settings}
        self.now = 1_000_000.0

    def look(self, *problems: Problem, later: float = 60) -> jobs.Result:
        self.now += later
        return notify.work(self.settings, look=lambda: problems, now=lambda: self.now)


@pytest.fixture(autouse=True)
def state_folder(here: Path) -> None:
    (here / "root/state").mkdir()
    (here / "run").mkdir()


def test_a_problem_is_told_once_when_it_came_and_once_when_it_went(receiver: Receiver) -> None:
    looks = Looks(webhook={"url": receiver.url, "headers": {"Authorization": "Bearer s3cret"}})
    looks.look(DAEMON)
    looks.look(DAEMON)
    assert receiver.messages() == []  # it has not stood for 90 s
    looks.look(DAEMON)
    assert receiver.got[0][2]["Authorization"] == "Bearer s3cret"
    (told,) = receiver.messages()
    assert told["text"] == (
        "Dagster on vm-1, problems: 1 new\nNEW (critical): daemon SENSOR is not healthy (for 2 min)"
    )
    assert told["machine"] == "vm-1"
    assert [each["name"] for each in told["came"]] == ["daemon_sensor"]
    for _ in range(10):
        looks.look(DAEMON)
    looks.look()
    looks.look()
    assert receiver.messages() == []
    looks.look()
    (told,) = receiver.messages()
    assert "OVER (critical): daemon SENSOR is not healthy (it stood for 13 min)" in told["text"]
    looks.look()
    looks.look(later=10 * 86400)
    assert receiver.messages() == []


def test_a_restart_is_no_news_and_flapping_is_one_problem(receiver: Receiver) -> None:
    looks = Looks(webhook={"url": receiver.url})
    looks.look(DAEMON)
    looks.look()
    looks.look(DAEMON)
    looks.look()
    looks.look()
    assert receiver.messages() == []
    for _ in range(3):
        looks.look(DAEMON)
    assert len(receiver.messages()) == 1
    for _ in range(5):  # gone for less than 90 s each time
        looks.look()
        looks.look(DAEMON)
    assert receiver.messages() == []


def test_what_stands_is_told_again_each_day(receiver: Receiver) -> None:
    looks = Looks(webhook={"url": receiver.url})
    for _ in range(3):
        looks.look(DISK)
    receiver.messages()
    looks.look(DISK, later=86000)
    assert receiver.messages() == []
    looks.look(DISK, later=400)
    (told,) = receiver.messages()
    assert "STILL THERE (warning): disk of /opt/dagster" in told["text"]
    looks.look(DISK)
    assert receiver.messages() == []


def test_what_gets_worse_is_told_at_once(receiver: Receiver) -> None:
    looks = Looks(webhook={"url": receiver.url})
    for _ in range(3):
        looks.look(DISK)
    receiver.messages()
    looks.look(Problem("disk", CRITICAL, "disk of /opt/dagster: 96 % full"))
    (told,) = receiver.messages()
    assert told["came"][0]["severity"] == "critical"
    looks.look(DISK)
    assert receiver.messages() == []


def test_a_failure_is_a_problem_and_is_tried_again_until_it_is_delivered(receiver: Receiver) -> None:
    looks = Looks(webhook={"url": receiver.url})
    receiver.status = 500
    for _ in range(3):
        result = looks.look(DAEMON)
    (problem,) = result.problems
    assert problem.name == "notify_webhook"
    assert "answered 500" in problem.text
    assert "s3cret" not in problem.text
    # Over meanwhile, and its own failure is no news for this channel.
    for _ in range(4):
        result = looks.look(problem)
    assert result.problems
    receiver.status = 200
    receiver.messages()
    result = looks.look(problem)
    (told,) = receiver.messages()
    assert "OVER (critical): daemon SENSOR" in told["text"]
    assert (told["came"], result.problems) == ([], [])
    looks.look()
    assert receiver.messages() == []


def test_a_failing_channel_does_not_keep_the_other_from_telling(receiver: Receiver) -> None:
    looks = Looks(
        webhook={"url": "http://127.0.0.1:9/s3cret"},
        mail={"host": "127.0.0.1", "port": 9, "from": "a@b", "to": ["c@d"], "security": "none"},
    )
    for _ in range(3):
        result = looks.look(DAEMON)
    assert sorted(each.name for each in result.problems) == ["notify_mail", "notify_webhook"]
    assert "s3cret" not in str(result.problems)
    looks.settings["webhook"] = {"url": receiver.url}
    looks.look(DAEMON)
    assert len(receiver.messages()) == 1


@pytest.mark.parametrize("status", [302, 400])
def test_an_answer_that_is_no_success_is_a_failure(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(notify_channels.ChannelError, match=f"answered {status}"):
        notify_channels.request(receiver.url, b"{}")
    assert [path for _, path, _, _ in receiver.got] == ["/services/s3cret"]


def test_chats_that_take_text_only_get_text_only(receiver: Receiver) -> None:
    looks = Looks(webhook={"url": receiver.url, "form": "text"})
    for _ in range(3):
        looks.look(DAEMON)
    assert [list(each) for each in receiver.messages()] == [["text"]]


def test_the_sign_of_life_comes_while_nothing_critical_is_wrong(receiver: Receiver) -> None:
    looks = Looks(heartbeat={"url": receiver.url, "every": 300})
    looks.look()
    assert [method for method, _, _, _ in receiver.got] == ["GET"]
    for _ in range(4):
        looks.look()
    assert len(receiver.got) == 1
    looks.look(DISK)
    assert len(receiver.got) == 2
    for _ in range(10):
        looks.look(DAEMON)
    assert len(receiver.got) == 2
    receiver.status = 404
    assert [each.name for each in looks.look().problems] == ["notify_heartbeat"]
    receiver.status = 200
    assert looks.look().problems == []


def test_a_full_disk_does_not_make_one_message_a_minute(receiver: Receiver, here: Path) -> None:
    looks = Looks(webhook={"url": receiver.url})
    (here / "root/state").rmdir()
    for _ in range(6):
        looks.look(DISK)
    assert len(receiver.messages()) == 1


def test_what_is_known_survives_a_broken_file(receiver: Receiver, here: Path) -> None:
    looks = Looks(webhook={"url": receiver.url})
    for _ in range(3):
        looks.look(DISK)
    (here / "root/state/notify_known.json").write_text('{"written": 1, "known": [{"problem": {}}, 3')
    looks.look(DISK)
    assert notify_memory.load().known.keys() == {"disk"}


class Mailbox(socketserver.ThreadingTCPServer):
    """As much of an SMTP server as a client needs: EHLO, STARTTLS, AUTH PLAIN, MAIL, RCPT, DATA."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, trust: ssl.SSLContext | None = None, password: str = "") -> None:
        self.trust, self.password = trust, password
        self.mails: list[str] = []
        self.said: list[str] = []
        super().__init__(("127.0.0.1", 0), _Session)


class _Session(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self._say("220 mailbox")
        encrypted = authenticated = False
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            self.server.said.append(("tls " if encrypted else "") + word)
            if word == "EHLO":
                offers = ["STARTTLS"] if self.server.trust and not encrypted else []
                offers += ["AUTH PLAIN"] if self.server.password else []
                for each in ["mailbox", *offers]:
                    self._say(f"250-{each}")
                self._say("250 OK")
            elif word == "STARTTLS" and self.server.trust:
                self._say("220 go on")
                self.request = self.server.trust.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
                encrypted = True
            elif word == "AUTH":
                given = base64.b64decode(line.split()[2]).decode().split("\0")[1:]
                authenticated = given == ["dagster", self.server.password]
                self._say("235 welcome" if authenticated else "535 wrong password")
            elif word == "MAIL" and self.server.password and not authenticated:
                self._say("530 log in")
            elif word == "RCPT" and "nobody" in line:
                self._say("550 no such user")
            elif word == "DATA":
                self._say("354 go on")
                text = []
                while (part := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    text.append(part)
                self.server.mails.append("\n".join(text))
                self._say("250 taken")
            elif word == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 OK")

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


def serving(mailbox: Mailbox) -> Mailbox:
    threading.Thread(target=mailbox.serve_forever, args=(0.02,), daemon=True).start()
    return mailbox


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A certificate for 127.0.0.1, and the file in which who trusts it finds it."""
    return certificate(tmp_path_factory.mktemp("tls"))


def mail(mailbox: Mailbox, **settings: Any) -> dict[str, Any]:
    address = {"host": "127.0.0.1", "port": mailbox.server_address[1], "from": "dagster@example.com"}
    return {**address, "to": ["ops@example.com"], **settings}


def test_mail_over_starttls_with_a_login(trust: tuple[ssl.SSLContext, str]) -> None:
    with Mailbox(trust[0], "s3cret") as mailbox:
        serving(mailbox)
        looks = Looks(mail=mail(mailbox, user="dagster", password="s3cret", ca_file=trust[1]))
        for _ in range(3):
            result = looks.look(DAEMON, DISK)
        mailbox.shutdown()
    assert result.problems == []
    (text,) = mailbox.mails
    assert "Subject: [Dagster] vm-1: 2 new: daemon SENSOR is not healthy" in text
    assert "To: ops@example.com" in text
    assert "NEW (critical): daemon SENSOR is not healthy" in text
    assert "tls AUTH" in mailbox.said
    assert "AUTH" not in mailbox.said


def refused(mailbox: Mailbox, **settings: Any) -> str:
    serving(mailbox)
    (channel,) = notify_channels.of({"mail": mail(mailbox, **settings)})
    with pytest.raises(notify_channels.ChannelError) as caught:
        channel.send(notify_channels.Message("a", "b"))
    mailbox.shutdown()
    assert "s3cret" not in str(caught.value)
    assert mailbox.mails == []
    return str(caught.value)


def test_a_password_never_goes_in_the_clear() -> None:
    with Mailbox(password="s3cret") as mailbox:
        assert "STARTTLS" in refused(mailbox, user="dagster", password="s3cret")
        assert "AUTH" not in mailbox.said


def test_a_certificate_that_nobody_knows(trust: tuple[ssl.SSLContext, str]) -> None:
    with Mailbox(trust[0]) as mailbox:
        assert "dagster_monitoring_mail_ca_file" in refused(mailbox)


def test_a_wrong_password(trust: tuple[ssl.SSLContext, str]) -> None:
    with Mailbox(trust[0], "another") as mailbox:
        said = refused(mailbox, user="dagster", password="s3cret", ca_file=trust[1])
        assert "dagster_monitoring_mail_user" in said


def test_an_address_that_does_not_exist() -> None:
    with Mailbox() as mailbox:
        assert "no such user" in refused(mailbox, to=["nobody@example.com"], security="none")


def test_a_test_message_on_request(
    receiver: Receiver, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("monitoring", webhook={"url": receiver.url}, mail={"host": "127.0.0.1", "port": 9, "to": ["a@b"]})
    assert command.main(["notify", "--test"]) == 1
    printed = capsys.readouterr().out
    assert "webhook: sent\n" in printed
    assert "mail: 127.0.0.1:9 cannot be reached" in printed
    assert receiver.messages()[0]["test"] is True
    configure("monitoring")
    assert command.main(["notify", "--test"]) == 1
    assert "dagster_monitoring_webhook_url" in capsys.readouterr().out


def test_the_memory_is_for_root_only(receiver: Receiver, here: Path) -> None:
    Looks(webhook={"url": receiver.url}).look(DISK)
    assert os.stat(here / "root/state/notify_known.json").st_mode & 0o777 == 0o640
