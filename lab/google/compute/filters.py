"""The ``filter`` of compute's lists, as far as clients use it."""

from __future__ import annotations

import re
from typing import Any

from ..errors import Refusal
from ..state import Thing

TOKEN = re.compile(r'\s*(\(|\)|"(?:[^"\\]|\\.)*"|!=|>=|<=|=|:|>|<|[^\s()=:!<>"]+)')


def matches(thing: Thing, expression: str) -> bool:
    """Whether a thing fits ``(labels.a = b) AND status != "RUNNING"``; an empty expression fits everything.

    Known are ``=``, ``!=``, ``:`` (``labels.a:*`` for "has it"), ``eq`` and ``ne`` with regular expressions, AND, OR,
    NOT and parentheses; terms side by side mean AND.

    :raises Refusal: 400 for what it cannot read.
    """
    if not expression.strip():
        return True
    tokens, position = [], 0
    while position < len(expression.rstrip()):
        found = TOKEN.match(expression, position)
        if not found:
            raise _bad(expression)
        tokens.append(found[1])
        position = found.end()
    parser = _Parser(expression, tokens, thing)
    result = parser.any()
    if parser.tokens:
        raise _bad(expression)
    return result


class _Parser:
    def __init__(self, text: str, tokens: list[str], thing: Thing) -> None:
        self.text, self.tokens, self.thing = text, tokens, thing

    def any(self) -> bool:
        result = self.all()
        while self.tokens and self.tokens[0] == "OR":
            self.tokens.pop(0)
            result = self.all() or result
        return result

    def all(self) -> bool:
        result = self.one()
        while self.tokens and self.tokens[0] not in (")", "OR"):
            if self.tokens[0] == "AND":
                self.tokens.pop(0)
            result = self.one() and result
        return result

    def one(self) -> bool:
        word = self._next()
        if word == "NOT":
            return not self.one()
        if word == "(":
            result = self.any()
            if self._next() != ")":
                raise _bad(self.text)
            return result
        operator, value = self._next(), self._next()
        quoted = value.startswith('"')
        return _compare(_field(self.thing, word), operator, value.strip('"'), quoted, self.text)

    def _next(self) -> str:
        if not self.tokens:
            raise _bad(self.text)
        return self.tokens.pop(0)


def _compare(actual: Any, operator: str, value: str, quoted: bool, text: str) -> bool:
    if operator == "=":
        return _text(actual) == value
    if operator == "!=":
        return _text(actual) != value
    if operator == ":":
        if value == "*" and not quoted:
            return actual is not None
        return actual is not None and value.rstrip("*").lower() in _text(actual).lower()
    if operator in ("eq", "ne"):
        return (re.fullmatch(value, _text(actual)) is not None) == (operator == "eq")
    raise _bad(text)


def _field(thing: Any, name: str) -> Any:
    for part in name.split("."):
        thing = thing.get(part) if isinstance(thing, dict) else None
    return thing


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _bad(expression: str) -> Refusal:
    return Refusal(400, f"Invalid value for field 'filter': '{expression}'. Invalid list filter expression.", "invalid")
