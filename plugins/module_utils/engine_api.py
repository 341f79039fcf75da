# SPDX-License-Identifier: Apache-2.0
"""The Engine's HTTP API over its socket, for what the docker command only takes as an argument.

`docker swarm join` has its token in the process's arguments, which every user of the machine can read. Here it goes
through the socket. https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

SOCKET = "/var/run/docker.sock"


class EngineError(Exception):
    """The engine refuses, or does not answer; ``status`` is 0 where there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """The engine behind a socket; ``timeout`` is what one call may take, in seconds."""

    def __init__(self, path: str = SOCKET, timeout: float = 60) -> None:
        self.path = path
        self.timeout = timeout

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """One call; returns what the engine answers, as JSON has it (None where it says nothing).

        Args:
            method: GET, POST, DELETE.
            path: below the root, without a version: the engine takes its newest.
            body: sent as JSON.
            query: values that are no text are sent as JSON, as the API has filters.

        Raises:
            EngineError
        """
        if query:
            path += "?" + urlencode(
                {name: value if isinstance(value, str) else json.dumps(value) for name, value in query.items()}
            )
        connection = _Connection(self.path, self.timeout)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                headers={} if body is None else {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(
                f"the Docker engine does not answer on {self.path} ({error or type(error).__name__}); look at "
                "`systemctl status docker`"
            ) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise EngineError(_message(text) or f"the Docker engine answered {answer.status}", answer.status)
        try:
            return json.loads(text) if text.strip() else None
        except ValueError:
            return text

    def find(self, path: str) -> Any:
        """GET; None where there is no such thing.

        Raises:
            EngineError
        """
        try:
            return self.call("GET", path)
        except EngineError as error:
            if error.status == 404:
                return None
            raise


def part(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return text.strip()
