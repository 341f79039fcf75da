# SPDX-License-Identifier: Apache-2.0
"""What a judge of the gateway says to nginx."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

# The header in which nginx finds the user.
USER = "X-Gateway-User"
# What may stand in it: nginx compares it with the names of those who only read.
NAME = re.compile(r"[A-Za-z0-9._@+-]{1,254}")


@dataclass(frozen=True)
class Answer:
    """A status that auth_request knows (204, 401, 403), and headers."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


def welcome(user: str) -> Answer:
    """Let a user in; a name that could mean something else to nginx is refused."""
    return Answer(204, {USER: user}) if NAME.fullmatch(user) else Answer(403)


class Headers(Protocol):
    """The headers of a request, as `http.server` has them, or a dict."""

    def get(self, name: str, /) -> str | None:
        """The value of a header."""


class Judge(Protocol):
    """Looks at the headers of a request."""

    def judge(self, headers: Headers, address: str) -> Answer:
        """Whether the request goes on; ``address`` is the client's."""
