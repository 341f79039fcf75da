# SPDX-License-Identifier: Apache-2.0
"""The gateway's part of a machine: nginx of the distribution, its files, its users, its certificate.

The role dagster_gateway makes the texts; here they are put in place so that nginx serves the old ones or the new ones,
and never something that it refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files, hardening
from ansible_collections.dataops.dagster_gce.plugins.module_utils.operations import gateway_place

FOLDER = gateway_place.FOLDER
CERTIFICATE = f"{FOLDER}/certificate.pem"
KEY = f"{FOLDER}/key.pem"
# What the service dagster-gce-gateway gets from systemd: how to judge, and the users' hashes.
LOGIN = f"{FOLDER}/login"
STATE = gateway_place.STATE
SITE = "/etc/nginx/conf.d/dagster-gateway.conf"
# The distribution's nginx.conf reads this folder at the outermost level, conf.d inside `http`.
TOP = "/etc/nginx/modules-enabled/90-dagster-gateway.conf"
DROP_IN = "/etc/systemd/system/nginx.service.d/dagster-gateway.conf"
NGINX = "nginx.service"
# The distribution's welcome page, which would take the ports.
DEFAULT_SITE = "/etc/nginx/sites-enabled/default"
DEFAULT_TARGET = "/etc/nginx/sites-available/default"
POLICY = "/usr/sbin/policy-rc.d"

RENEWAL = "certbot.timer"
# For an authority that only a company trusts: the timer's certbot has to know it, too.
RENEWAL_DROP_IN = "/etc/systemd/system/certbot.service.d/dagster-gateway.conf"
ACME_NAME = "dagster-gateway"
ACME_FOLDER = "/var/lib/dagster-gce/acme"
ACME_LIVE = f"/etc/letsencrypt/live/{ACME_NAME}"

# Each user's old hash stays where it is still that of the password: a second run changes nothing.
_HASH = """
import bcrypt, json, sys
given = json.load(sys.stdin)
def hashed(password, old):
    word = password.encode()
    if old and int(old.split("$")[2]) == given["cost"] and bcrypt.checkpw(word, old.encode()):
        return old
    return bcrypt.hashpw(word, bcrypt.gensalt(given["cost"])).decode()
print(json.dumps({name: hashed(word, given["old"].get(name)) for name, word in given["passwords"].items()}))
"""


class GatewayError(Exception):
    """The machine refuses something; the message says what was found, what was expected and what is unchanged."""


@dataclass(frozen=True)
class Acme:
    """How to get a certificate by ACME (RFC 8555)."""

    name: str
    directory: str
    mail: str
    ca_file: str


class Machine(hardening.Machine):
    """What is asked of the machine and done to it for the gateway."""

    def install_quietly(self, packages: Sequence[str]) -> None:
        """Install packages whose services stay off: nginx would begin with a welcome page on port 80."""
        ours = not os.path.lexists(POLICY)
        if ours:
            files.replace(POLICY, b"#!/bin/sh\nexit 101\n", files.Owner(0, 0, 0o755))
        try:
            self.install(packages)
        finally:
            if ours:
                os.unlink(POLICY)

    def foreign_listeners(self, ports: Sequence[int]) -> list[str]:
        """Programs other than nginx on these ports."""
        return [each for each in self.listeners([]) if _port(each) in ports and not each.startswith("nginx ")]

    def hashes(self, passwords: Mapping[str, str], old: Mapping[str, str], cost: int) -> dict[str, str]:
        """bcrypt hashes of the users' passwords; an old one that is right stays.

        Raises:
            GatewayError
        """
        if not passwords:
            return {}
        # Not in an argument, which every user of the machine could read.
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", _HASH], text=True, capture_output=True, check=False, timeout=120,
            input=json.dumps({"passwords": dict(passwords), "old": dict(old), "cost": cost}),
        )  # fmt: skip
        if done.returncode:
            raise GatewayError(f"python3-bcrypt: {done.stderr.strip().splitlines()[-1:]}; expected it to make hashes")
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def check(self) -> None:
        """nginx's own check of everything that it would read.

        Raises:
            GatewayError
        """
        status, output, errors = self._run(["nginx", "-t", "-q"])
        if status:
            raise GatewayError(f"nginx refuses its configuration: {(errors or output).strip()}")

    def serves_others(self) -> bool:
        """Whether nginx has sites that are not ours."""
        found = []
        for folder in ("/etc/nginx/conf.d", "/etc/nginx/sites-enabled"):
            with contextlib.suppress(FileNotFoundError):
                found += [os.path.join(folder, name) for name in os.listdir(folder)]
        return any(each not in (SITE, DEFAULT_SITE) for each in found)

    def certify(self, acme: Acme) -> None:
        """Ask the authority for a certificate; certbot's timer renews it from then on.

        Raises:
            GatewayError
        """
        files.make_folder(ACME_FOLDER, files.Owner(0, 0, 0o755))
        contact = ["--email", acme.mail] if acme.mail else ["--register-unsafely-without-email"]
        command = [
            "certbot", "certonly", "--non-interactive", "--agree-tos", "--webroot", "--webroot-path", ACME_FOLDER,
            "--domain", acme.name, "--cert-name", ACME_NAME, "--server", acme.directory, *contact,
            "--deploy-hook", "systemctl reload nginx.service", "--renew-with-new-domains", "--quiet",
            # One that is there is another name's, or another authority's.
            "--force-renewal" if os.path.exists(ACME_LIVE) else "--keep-until-expiring",
        ]  # fmt: skip
        environment = {**os.environ, **({"REQUESTS_CA_BUNDLE": acme.ca_file} if acme.ca_file else {})}
        done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=300, env=environment)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-1500:]
            raise GatewayError(
                f"dagster_gateway_name: found {acme.name}, for which {acme.directory} gives no certificate: {said}."
                " Expected that this name leads to port 80 of this machine"
            )

    def forget_certificate(self) -> None:
        """Remove what ACME brought, the key among it."""
        if os.path.isdir(ACME_LIVE) and shutil.which("certbot"):
            self._run(["certbot", "delete", "--non-interactive", "--cert-name", ACME_NAME])
        shutil.rmtree(ACME_FOLDER, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(ACME_FOLDER))


def _port(listener: str) -> int:
    """The port of a line of `hardening.Machine.listeners`."""
    return int(listener.rpartition(":")[2])


def with_ipv6(text: str) -> str:
    """The configuration without IPv6 on a machine whose kernel has none: nginx would not start."""
    if os.path.exists("/proc/net/if_inet6"):
        return text
    return "".join(line for line in text.splitlines(keepends=True) if "listen [::]" not in line)


@contextlib.contextmanager
def kept(paths: Sequence[str]) -> Iterator[None]:
    """Put these files back as they were if what follows fails."""
    before = {path: (files.read(path), _owner(path)) for path in paths}
    try:
        yield
    except BaseException:
        for path, (content, owner) in before.items():
            if content is not None and owner is not None:
                files.replace(path, content, owner)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        raise


def _owner(path: str) -> files.Owner | None:
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return None
    return files.Owner(state.st_uid, state.st_gid, state.st_mode & 0o7777)


def state() -> dict[str, Any]:
    """What the last run left to be known."""
    return gateway_place.state()


def prove(name: str, port: int, expected: Sequence[int], seconds: float) -> str:
    """Ask the gateway for a page without a login; returns what is wrong, empty if it refuses as it has to."""
    deadline = time.monotonic() + seconds
    while True:
        problem = _ask(name, port, expected)
        if not problem or time.monotonic() > deadline:
            return problem
        time.sleep(0.5)


def _ask(name: str, port: int, expected: Sequence[int]) -> str:
    # Whether the certificate is trusted is a matter of whoever comes; that there is the right one has been checked.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as connection,
        ):
            connection.sendall(f"GET /server_info HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = connection.recv(4096).decode("latin-1")
    except OSError as error:
        return f"found no answer ({error})"
    words = answer.split(" ", 2)
    if len(words) > 1 and words[1].isdigit() and int(words[1]) in expected:
        return ""
    return f"found {answer.splitlines()[0] if answer else 'an empty answer'}"
