# SPDX-License-Identifier: Apache-2.0
"""What a registry has under a name, asked without Docker.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md and, for the token that some want first,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import ipaddress
import re
import traceback
from typing import Any
from urllib.parse import urlsplit

IMPORT_ERROR: str | None = None
try:
    import requests
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

# An image for one platform, or the list of several; a registry answers with what it has been given.
ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    )
)
SECONDS = 30


class RegistryError(Exception):
    """The registry does not tell; the text says why."""


class Registry:
    """One registry, with at most one login.

    Args:
        host: with its port, if any.
        login: user and password, or None.
        secure: whether it speaks HTTPS; see :func:`is_secure`.
    """

    def __init__(self, host: str, login: tuple[str, str] | None = None, *, secure: bool = True) -> None:
        self.host = host
        self.login = login
        self.base = f"{'https' if secure else 'http'}://{host}/v2"
        self.session = requests.Session()

    @property
    def who(self) -> str:
        """The login, for messages."""
        return f"as {self.login[0]}" if self.login else "without a login"

    def digest(self, repository: str, tag: str) -> str | None:
        """The digest that a tag names now; None where there is no such tag.

        Args:
            repository: without the host.

        Raises:
            RegistryError: no answer, no right to look, or something that is no registry.
        """
        url = f"{self.base}/{repository}/manifests/{tag}"
        headers = {"Accept": ACCEPT}
        answer = self._ask("HEAD", url, headers, self.login)
        if answer.status_code == 401:
            challenge = answer.headers.get("WWW-Authenticate", "")
            if challenge.lower().startswith("bearer "):
                headers["Authorization"] = f"Bearer {self._token(challenge[7:])}"
                answer = self._ask("HEAD", url, headers, None)
        if answer.status_code == 404:
            return None
        if answer.status_code in (401, 403):
            # An answer to HEAD cannot say why.
            why = _message(self._ask("GET", url, headers, None if "Authorization" in headers else self.login))
            raise RegistryError(
                f"{self.host} does not let us read {repository} {self.who} (HTTP {answer.status_code}){why}"
            )
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status_code != 200 or not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise RegistryError(f"{url} answers HTTP {answer.status_code} without a digest; is it a registry?")
        return digest

    def _token(self, challenge: str) -> str:
        """The token that the registry asks for, from where it says."""
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = parameters.pop("realm", "")
        # The login goes to whom the registry names, but never in the open.
        if urlsplit(realm).scheme != "https" and self.base.startswith("https"):
            raise RegistryError(f"{self.host} names {realm!r} for its tokens; expected an https:// address")
        query = "&".join(f"{name}={value}" for name, value in parameters.items() if name in ("service", "scope"))
        answer = self._ask("GET", f"{realm}?{query}", {}, self.login)
        try:
            content: dict[str, Any] = answer.json()
            return str(content.get("token") or content["access_token"])
        except (ValueError, KeyError, AttributeError):
            why = f"(HTTP {answer.status_code}){_message(answer)}"
            raise RegistryError(f"{self.host} gives no token {self.who} {why}") from None

    def _ask(self, verb: str, url: str, headers: dict[str, str], login: tuple[str, str] | None) -> requests.Response:
        try:
            return self.session.request(verb, url, headers=headers, auth=login, timeout=SECONDS)
        except requests.exceptions.RequestException as error:
            reason = getattr(error.args[0] if error.args else error, "reason", error)
            raise RegistryError(f"no answer from {urlsplit(url).netloc}: {str(reason)[:300]}") from None


def _message(answer: requests.Response) -> str:
    """The registry's own words, after a colon; empty where there are none."""
    try:
        words = str(answer.json()["errors"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return ""
    return f": {words[:300]}"


def is_secure(host: str, engine: dict[str, Any]) -> bool:
    """Whether the engine speaks HTTPS to a registry: the same view for both.

    Args:
        engine: ``RegistryConfig`` of ``docker info``.
    """
    known = (engine.get("IndexConfigs") or {}).get(host)
    if known is not None:
        return bool(known.get("Secure"))
    name = host.rpartition(":")[0] or host
    try:
        address = ipaddress.ip_address("127.0.0.1" if name == "localhost" else name.strip("[]"))
    except ValueError:
        return True
    networks = engine.get("InsecureRegistryCIDRs") or ["127.0.0.0/8"]
    return not any(address in ipaddress.ip_network(network) for network in networks)
