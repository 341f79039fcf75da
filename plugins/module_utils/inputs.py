# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Rules for a role's inputs.

A rule takes a value and its options, and returns None for a good value, or a Problem. It never raises on a value,
whatever its type, and never puts a value into a Problem except through `describe`, which masks secrets.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    image_reference,
    inputs_certificate,
    inputs_service_account,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.inputs_postgres import QUOTED_WORDS, TAKEN_NAMES


@dataclass(frozen=True)
class Problem:
    """What a value should have been, and what it was where that says more than the value itself."""

    expected: str
    found: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Options:
    """The options of one check; `given` holds those that belong to the rule."""

    secret: bool = False
    given: dict[str, t.Any] = field(default_factory=dict)

    def get(self, name: str, default: t.Any = None) -> t.Any:
        """One option of the rule."""
        return self.given.get(name, default)


Rule = t.Callable[[t.Any, Options], Problem | None]

# Ansible's own words for booleans: `-e x=true` arrives as a text.
BOOLEAN_WORDS = frozenset(("true", "false", "yes", "no", "on", "off", "1", "0", "y", "n", "t", "f"))
UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def describe(value: t.Any, secret: bool = False) -> str:
    """Name a value in an error: short, on one line, and only its kind if it is secret."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, str):
        if not value:
            return "an empty text"
        if secret:
            return "a text (hidden)"
        return repr(str(value)) if len(value) <= 80 else f"{str(value)[:60]!r}… ({len(value)} characters)"
    if isinstance(value, bool):
        return "a boolean (hidden)" if secret else f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return "a number (hidden)" if secret else f"the number {value}"
    if isinstance(value, (list, tuple)):
        return "an empty list" if not value else f"a list of {len(value)}"
    if isinstance(value, dict):
        if not value:
            return "an empty mapping"
        keys = ", ".join(str(key)[:30] for key in list(value)[:5])
        return "a mapping (hidden)" if secret else f"a mapping with {keys}{', …' if len(value) > 5 else ''}"
    return f"a value of the type {type(value).__name__}"


def size_in_bytes(text: str) -> int | None:
    """Bytes of a size as Docker writes it (`512m`, `1.5g`, `1GiB`; units are powers of 1024), or None."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(?:([kmgt])i?)?b?", text.lower(), re.ASCII)
    return int(float(match[1]) * UNITS[match[2] or ""]) if match else None


def _integer(value: t.Any) -> int | None:
    """The whole number that a value is or, since `-e x=5` gives a text, spells."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return None


def _between(value: t.Any, options: Options, least: int, most: int | None, what: str) -> Problem | None:
    least, most = options.get("min", least), options.get("max", most)
    number = _integer(value)
    if number is not None and number >= least and (most is None or number <= most):
        return None
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    return Problem(f"{what} {limits}")


def _cidr(value: t.Any, options: Options) -> Problem | None:
    longest = int(options.get("longest", 32))
    expected = f"an IPv4 range such as 10.20.0.0/24, with a prefix of at most /{longest}"
    try:
        network = ipaddress.IPv4Network(value, strict=False) if isinstance(value, str) and "/" in value else None
    except ValueError:
        network = None
    if network is None or network.prefixlen > longest:
        return Problem(expected)
    if str(network) != value:
        return Problem(expected, remark=f"the range that holds this address is {network}")
    return None


def _choice(value: t.Any, options: Options) -> Problem | None:
    choices = options.get("choices")
    if any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices):
        return None
    return Problem("one of " + ", ".join(str(choice) for choice in choices))


def _boolean(value: t.Any, options: Options) -> Problem | None:
    good = isinstance(value, bool) or (isinstance(value, str) and value.lower() in BOOLEAN_WORDS)
    return None if good else Problem("true or false")


def _port(value: t.Any, options: Options) -> Problem | None:
    return _between(value, options, 1, 65535, "a port")


def _positive_integer(value: t.Any, options: Options) -> Problem | None:
    return _between(value, options, 1, None, "a whole number")


def _duration_seconds(value: t.Any, options: Options) -> Problem | None:
    return _between(value, options, 0, None, "a whole number of seconds")


def _uid(value: t.Any, options: Options) -> Problem | None:
    return _between(value, options, 0, 2**31 - 1, "a numeric user or group id")


def _size(value: t.Any, options: Options) -> Problem | None:
    least, most = str(options.get("min", "1")), str(options.get("max", ""))
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    size = size_in_bytes(text)
    if size is not None and size >= (size_in_bytes(least) or 0) and (not most or size <= (size_in_bytes(most) or 0)):
        return None
    limits = "" if least == "1" else f" of at least {least}"
    return Problem(f"a size such as 512m or 2g{limits}{f' and at most {most}' if most else ''}")


def _absolute_path(value: t.Any, options: Options) -> Problem | None:
    expected = "an absolute path without .. or line ends"
    if not isinstance(value, str) or not value.startswith("/") or re.search(r"[\0\r\n]", value):
        return Problem(expected)
    parts = [part for part in value.split("/") if part]
    if not parts or ".." in parts or value != value.strip():
        return Problem(f"{expected}, other than /")
    return None


def _image_reference(value: t.Any, options: Options) -> Problem | None:
    expected = "an image reference with a tag other than latest, or with a digest (name:tag, name@sha256:…)"
    if not isinstance(value, str):
        return Problem(expected)
    reason = image_reference.problem(value)
    return Problem(expected, remark=reason) if reason else None


def _postgres_identifier(value: t.Any, options: Options) -> Problem | None:
    expected = "a PostgreSQL name that needs no quotes: a-z, 0-9 and _, not a digit first, at most 63 characters"
    if not isinstance(value, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value):
        return Problem(expected)
    if value in QUOTED_WORDS:
        return Problem(expected, remark="a reserved word of SQL")
    if value in TAKEN_NAMES or value.startswith("pg_"):
        return Problem(expected, remark="a name that PostgreSQL keeps for itself")
    return None


def _postgres_host(value: t.Any, options: Options) -> Problem | None:
    pattern = "[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?"
    expected = "the name or the address of one machine, without scheme and port"
    return _regex(value, Options(options.secret, {"pattern": pattern, "expected": expected}))


def _postgres_sslmode(value: t.Any, options: Options) -> Problem | None:
    # libpq's, but for `allow`, which tries without TLS first.
    return _choice(value, Options(given={"choices": ["disable", "prefer", "require", "verify-ca", "verify-full"]}))


def _dotenv_value(value: t.Any, options: Options) -> Problem | None:
    expected = "a text on one line"
    if isinstance(value, (bool, int, float)):
        # YAML makes 0123 the number 83 and yes a boolean: what was meant is no longer known.
        return Problem("a text; put the value in quotes")
    if not isinstance(value, str):
        return Problem(expected)
    for character, name in (("\n", "a line end"), ("\r", "a carriage return"), ("\0", "a NUL character")):
        if character in value:
            return Problem(expected, found=f"a text with {name} in it")
    try:
        value.encode()
    except UnicodeEncodeError:
        return Problem(expected, found="a text that is not valid Unicode")
    return None


def _service_account(value: t.Any, options: Options) -> Problem | None:
    project = options.get("project") or ""
    if isinstance(value, dict):
        problem = inputs_service_account.check_mapping(value, project)
    elif isinstance(value, str) and value:
        problem = inputs_service_account.check(value, project)
    else:
        return Problem(inputs_service_account.EXPECTED)
    return Problem(found=problem[0], expected=problem[1]) if problem else None


def _of(found: tuple[str, str] | None) -> Problem | None:
    return Problem(found=found[0], expected=found[1]) if found else None


def _certificate(value: t.Any, options: Options) -> Problem | None:
    return _of(inputs_certificate.check_certificate(value, options.get("name") or ""))


def _private_key(value: t.Any, options: Options) -> Problem | None:
    return _of(inputs_certificate.check_key(value, options.get("certificate")))


def _passwords(value: t.Any, options: Options) -> Problem | None:
    return _of(inputs_certificate.check_passwords(value))


def _host_name(value: t.Any, options: Options) -> Problem | None:
    expected = "a host name such as dagster.example.com, without scheme, port or path"
    label = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
    if isinstance(value, str) and len(value) <= 253 and re.fullmatch(rf"{label}(\.{label})+", value):
        if not value.rpartition(".")[2].isdigit():
            return None
        return Problem(expected, remark="an address, for which no certificate is issued")
    return Problem(expected)


def _mapping(value: t.Any, options: Options) -> Problem | None:
    if isinstance(value, dict) and (value or not options.get("nonempty")):
        return None
    return Problem("a mapping with at least one key" if options.get("nonempty") else "a mapping")


def _google_name(value: t.Any, options: Options) -> Problem | None:
    shortest, longest = int(options.get("shortest", 1)), int(options.get("longest", 63))
    if (
        isinstance(value, str)
        and shortest <= len(value) <= longest
        and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", value)
    ):
        return None
    return Problem(
        "a name that Google takes: lower-case letters, digits and hyphens, a letter first, no hyphen last, "
        f"{shortest} to {longest} characters"
    )


def _list(value: t.Any, options: Options) -> Problem | None:
    kinds = {"text": str, "mapping": dict, "integer": int}
    elements = options.get("elements")
    expected = (
        "a list" + (f" of {elements}s" if elements else "") + (" that is not empty" * bool(options.get("nonempty")))
    )
    if not isinstance(value, (list, tuple)) or (not value and options.get("nonempty")):
        return Problem(expected)
    for position, item in enumerate(value):
        if elements and (not isinstance(item, kinds[elements]) or isinstance(item, bool)):
            return Problem(expected, found=f"{describe(item, options.secret)} at position {position + 1} of the list")
        pattern = options.get("pattern")
        if pattern and not re.fullmatch(pattern, str(item)):
            return Problem(
                f"a list, each of it {options.get('expected') or f'a match of {pattern}'}",
                found=f"{describe(item, options.secret)} at position {position + 1} of the list",
            )
    return None


def _url(value: t.Any, options: Options) -> Problem | None:
    schemes = options.get("schemes", ["http", "https"])
    expected = f"a URL that starts with {' or '.join(f'{scheme}://' for scheme in schemes)} and names a host"
    if not isinstance(value, str):
        return Problem(expected)
    try:
        parts = urlsplit(value)
        # .port raises for a port that is none.
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good and not re.search(r"[\s\0]", value):
        return None
    masked = re.sub(r"//.*@", "//…@", value, flags=re.DOTALL)
    return Problem(expected, found=describe(masked, options.secret))


def _regex(value: t.Any, options: Options) -> Problem | None:
    pattern = options.get("pattern")
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and re.fullmatch(pattern, str(value)):
        return None
    return Problem(options.get("expected") or f"a text that matches {pattern}")


def _nonempty(value: t.Any, options: Options) -> Problem | None:
    bare = value.strip() if isinstance(value, str) else value
    empty = bare is None or (isinstance(bare, (str, list, tuple, dict)) and not bare)
    return Problem("a value that is not empty") if empty else None


# name: (the rule, the options it must have, the options it may have)
RULES: dict[str, tuple[Rule, frozenset[str], frozenset[str]]] = {
    "absolute_path": (_absolute_path, frozenset(), frozenset()),
    "boolean": (_boolean, frozenset(), frozenset()),
    "cidr": (_cidr, frozenset(), frozenset(("longest",))),
    "certificate": (_certificate, frozenset(), frozenset(("name", "name_variable"))),
    "choice": (_choice, frozenset(("choices",)), frozenset()),
    "dotenv_value": (_dotenv_value, frozenset(), frozenset()),
    "duration_seconds": (_duration_seconds, frozenset(), frozenset(("min", "max"))),
    "google_name": (_google_name, frozenset(), frozenset(("shortest", "longest"))),
    "host_name": (_host_name, frozenset(), frozenset()),
    "image_reference": (_image_reference, frozenset(), frozenset()),
    "list": (_list, frozenset(), frozenset(("elements", "nonempty", "pattern", "expected"))),
    "mapping": (_mapping, frozenset(), frozenset(("nonempty",))),
    "nonempty": (_nonempty, frozenset(), frozenset()),
    "passwords": (_passwords, frozenset(), frozenset()),
    "port": (_port, frozenset(), frozenset(("min", "max"))),
    "positive_integer": (_positive_integer, frozenset(), frozenset(("min", "max"))),
    "postgres_host": (_postgres_host, frozenset(), frozenset()),
    "postgres_identifier": (_postgres_identifier, frozenset(), frozenset()),
    "postgres_sslmode": (_postgres_sslmode, frozenset(), frozenset()),
    "private_key": (_private_key, frozenset(), frozenset(("certificate", "certificate_variable"))),
    "regex": (_regex, frozenset(("pattern",)), frozenset(("expected",))),
    "service_account": (_service_account, frozenset(), frozenset(("project", "project_variable"))),
    "size": (_size, frozenset(), frozenset(("min", "max"))),
    "uid": (_uid, frozenset(), frozenset(("min", "max"))),
    "url": (_url, frozenset(), frozenset(("schemes",))),
}
# Whose values are never shown, whatever the check says.
SECRET_RULES = frozenset(("passwords", "private_key", "service_account"))
COMMON_OPTIONS = frozenset(("rule", "required", "secret", "hint"))


def mistakes_of_the_check(name: str, spec: t.Any) -> list[str]:
    """What is wrong with a check itself: a mistake of the role's author, not of its user."""
    if not isinstance(spec, dict) or not isinstance(spec.get("rule"), str):
        return [f"{name}: a check is a mapping with the key rule"]
    if spec["rule"] not in RULES:
        return [f"{name}: unknown rule {spec['rule']!r}; there are {', '.join(RULES)}"]
    _rule, must, may = RULES[spec["rule"]]
    wrong = [f"{name}: the rule {spec['rule']} needs the option {key}" for key in sorted(must - spec.keys())]
    wrong += [f"{name}: unknown option {key!r}" for key in sorted(spec.keys() - must - may - COMMON_OPTIONS)]
    return wrong


def check(name: str, value: t.Any, spec: dict[str, t.Any]) -> str | None:
    """Check one input.

    :param name: the variable, for the error.
    :param value: what it holds.
    :param spec: ``rule``, ``required`` (default true), ``secret``, ``hint`` and the options of the rule.
    :returns: the error, ``<variable>: found <what>; expected <what>``, or None.
    """
    rule, _must, _may = RULES[spec["rule"]]
    secret = bool(spec.get("secret", False)) or spec["rule"] in SECRET_RULES
    options = Options(secret, {key: item for key, item in spec.items() if key not in COMMON_OPTIONS})
    empty = value is None or (isinstance(value, str) and not value)
    if empty and not spec.get("required", True):
        return None
    problem = rule(value, options)
    if problem is None and empty and spec["rule"] != "choice":
        problem = Problem("a value that is not empty")
    if problem is None:
        return None
    found = problem.found or describe(value, secret)
    if problem.remark:
        found += f" ({problem.remark})"
    return line(name, found, problem.expected, spec.get("hint", ""))


def expectation(spec: dict[str, t.Any]) -> str:
    """What the rule of a check wants, in the words of its error."""
    rule, _must, _may = RULES[spec["rule"]]
    problem = rule(None, Options(given=spec))
    return problem.expected if problem else "a value"


def line(name: str, found: str, expected: str, hint: str = "") -> str:
    """The one form that every error has."""
    return f"{name}: found {found}; expected {expected}" + (f" ({hint})" if hint else "")


LINE = re.compile(r"(?P<name>\w+)(?: \(from (?P<origins>[\w, ]+)\))?: (?P<rest>.*)", re.DOTALL)


def condensed(lines: list[str]) -> list[str]:
    """The errors of several roles without what only follows from another one of them.

    What is made of a variable that is wrong itself says nothing new, and a variable of the whole collection is named
    once, not by every role that takes it.
    """
    parsed = [(text, LINE.fullmatch(text)) for text in lines]
    wrong = {match["name"] for _text, match in parsed if match}
    kept, said = [], set()
    for text, match in parsed:
        if match is None:
            kept.append(text)
            continue
        origins = match["origins"] or ""
        if wrong & set(origins.split(", ")):
            continue
        # A hint, which ends with a parenthesis, names the variable to set where that one is not there at all.
        source = origins or (match["rest"] if match["rest"].endswith(")") else match["name"])
        if (source, match["rest"]) not in said:
            said.add((source, match["rest"]))
            kept.append(text)
    return kept
