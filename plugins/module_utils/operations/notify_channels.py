# SPDX-License-Identifier: Apache-2.0
"""The ways to tell somebody: a webhook, a mail, and the sign of life to an outside service.

Addresses are secrets (a chat's webhook is one), so errors name the host and nothing else of them.
"""

from __future__ import annotations

import email.message
import email.utils
import http.client
import json
import smtplib
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

TIMEOUT = 10.0
SECURITIES = ("starttls", "tls", "none")


class ChannelError(Exception):
    """A message could not be delivered; the text says what was found and what to look at."""


@dataclass(frozen=True)
class Message:
    """What a channel sends: one line, all of it as text, and the same for programs."""

    subject: str
    text: str
    content: Mapping[str, Any] = field(default_factory=dict)


class _Refuse(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET without its content."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Webhook:
    """JSON by POST. ``form`` is ``full`` (for programs, with ``text`` for chats) or ``text`` (that alone)."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    form: str = "full"
    name: str = "webhook"

    def send(self, message: Message) -> None:
        """Deliver it, or raise a `ChannelError`."""
        content = {"text": message.text, **(message.content if self.form == "full" else {})}
        headers = {"Content-Type": "application/json; charset=utf-8", **self.headers}
        request(self.url, json.dumps(content, ensure_ascii=False).encode(), headers)


def request(url: str, body: bytes | None, headers: Mapping[str, str] | None = None) -> None:
    """GET, or POST where there is a body.

    Raises:
        ChannelError: no answer with a status of 2xx.
    """
    host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2] or "the address"
    opener = urllib.request.build_opener(_Refuse)
    try:
        asked = urllib.request.Request(url, data=body, headers={"User-Agent": "dagster-gce", **(headers or {})})
        with opener.open(asked, timeout=TIMEOUT) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        said = error.read(300).decode("utf-8", "replace").strip()
        raise ChannelError(f"{host} answered {error.code} {error.reason}: {said or 'nothing more'}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ChannelError(f"{host} cannot be reached: {reason}") from error


@dataclass(frozen=True)
class Mail:
    """SMTP. ``security``: ``starttls`` (refuses to go on without), ``tls`` from the start, or ``none``."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    security: str = "starttls"
    user: str = ""
    password: str = ""
    ca_file: str = ""
    name: str = "mail"

    def send(self, message: Message) -> None:
        """Deliver it, or raise a `ChannelError`."""
        mail = email.message.EmailMessage()
        mail["Subject"] = " ".join(message.subject.split())
        mail["From"], mail["To"] = self.sender, ", ".join(self.to)
        mail["Date"], mail["Message-ID"] = email.utils.formatdate(), email.utils.make_msgid(domain="dagster-gce")
        # Who is on holiday need not answer a machine.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        try:
            self._deliver(mail)
        except ssl.SSLError as error:
            self._fail(
                f"TLS failed ({error.reason or error}); look at its certificate, dagster_monitoring_mail_ca_file"
            )
        except smtplib.SMTPAuthenticationError as error:
            self._fail(f"refused the login ({error.smtp_code}); look at dagster_monitoring_mail_user and _password")
        except smtplib.SMTPException as error:
            self._fail(f"refused the mail: {error}")
        except OSError as error:
            self._fail(f"cannot be reached: {error}")

    def _deliver(self, mail: email.message.EmailMessage) -> None:
        trust = ssl.create_default_context(cafile=self.ca_file or None)
        connection: smtplib.SMTP
        if self.security == "tls":
            connection = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT, context=trust)
        else:
            connection = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT)
        with connection:
            if self.security == "starttls":
                # Raises where the server does not offer it: a password never goes in the clear.
                connection.starttls(context=trust)
            if self.user:
                connection.login(self.user, self.password)
            refused = connection.send_message(mail)
        if refused:
            raise smtplib.SMTPRecipientsRefused(refused)

    def _fail(self, text: str) -> NoReturn:
        raise ChannelError(f"{self.host}:{self.port} {text}")


Channel = Webhook | Mail


def of(settings: Mapping[str, Any]) -> list[Channel]:
    """The channels that the settings of part ``monitoring`` name."""
    channels: list[Channel] = []
    webhook, mail = settings.get("webhook") or {}, settings.get("mail") or {}
    if webhook.get("url"):
        headers = {str(name): str(text) for name, text in (webhook.get("headers") or {}).items()}
        channels.append(Webhook(str(webhook["url"]), headers, str(webhook.get("form") or "full")))
    if mail.get("host"):
        channels.append(
            Mail(
                host=str(mail["host"]),
                sender=str(mail.get("from") or ""),
                to=tuple(map(str, mail.get("to") or ())),
                port=int(mail.get("port") or 587),
                security=str(mail.get("security") or "starttls"),
                user=str(mail.get("user") or ""),
                password=str(mail.get("password") or ""),
                ca_file=str(mail.get("ca_file") or ""),
            )
        )
    return channels
