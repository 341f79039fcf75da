"""Whether a value fits a schema of Google's discovery documents."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

# Fields that are required although no document says so: method id -> dotted names.
REQUIRED: dict[str, list[str]] = json.loads((Path(__file__).parent / "required.json").read_text())

INTEGER_FORMATS = {"int64", "uint64", "int32", "uint32"}


@dataclass
class Problem:
    """One thing in a request or an answer that does not fit.

    ``rule`` is what was broken: ``unknown``, ``read-only``, ``type``, ``format``, ``enum``, ``pattern``, ``required``.
    """

    rule: str
    field: str
    message: str


class Checker:
    """Walks one value and its schema; ``problems`` has what it found.

    :param schemas: the document's.
    :param method: the id of the method, for what it requires.
    :param strict: an answer: types are exact, and read-only fields are welcome.
    """

    def __init__(self, schemas: dict[str, Schema], method: str, *, strict: bool) -> None:
        self.schemas = schemas
        self.method = method
        self.strict = strict
        self.problems: list[Problem] = []

    def report(self, rule: str, path: str, message: str) -> None:
        self.problems.append(Problem(rule, path, message))

    def value(self, schema: Schema, value: Any, path: str) -> None:
        if "$ref" in schema:
            schema = self.schemas[schema["$ref"]]
        kind = schema.get("type", "any")
        if kind == "any" or (value is None and not self.strict):
            return
        if kind == "object":
            self._object(schema, value, path)
        elif kind == "array":
            if not isinstance(value, list):
                self._wrong_type(path, value, "a list")
                return
            for position, item in enumerate(value):
                self.value(schema["items"], item, f"{path}[{position}]")
        else:
            self._scalar(schema, kind, value, path)

    def _object(self, schema: Schema, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            self._wrong_type(path, value, "an object")
            return
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        for name, item in value.items():
            here = f"{path}.{name}" if path else name
            if name in properties:
                if not self.strict and item is not None and _read_only(properties[name]):
                    self.report("read-only", here, f"Invalid value for field '{here}': it is output only.")
                else:
                    self.value(properties[name], item, here)
            elif extra is not None:
                self.value(extra, item, here)
            else:
                where = f" at '{path}'" if path else ""
                self.report(
                    "unknown", here, f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
                )
        if not self.strict:
            for name, child in properties.items():
                if self.method in child.get("annotations", {}).get("required", ()) and not _given(value, name):
                    self._missing(f"{path}.{name}" if path else name)
            if path in ("", "resource"):
                for dotted in REQUIRED.get(self.method, ()):
                    if not _given_deep(value, dotted.split(".")):
                        self._missing(f"{path}.{dotted}" if path else dotted)

    def _missing(self, path: str) -> None:
        if not any(problem.field == path and problem.rule == "required" for problem in self.problems):
            self.report("required", path, f"Required field '{path}' not specified")

    def _scalar(self, schema: Schema, kind: str, value: Any, path: str) -> None:
        form = schema.get("format", "")
        if kind == "boolean":
            if not isinstance(value, bool):
                self._wrong_type(path, value, "a boolean")
            return
        if form in INTEGER_FORMATS or kind == "integer":
            self._integer(kind, form, value, path)
            return
        if kind == "number":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                self._wrong_type(path, value, "a number")
            return
        if not isinstance(value, str):
            self._wrong_type(path, value, "a string")
            return
        if "enum" in schema and value not in schema["enum"]:
            self.report(
                "enum",
                path,
                f"Invalid value for field '{path}': '{value}'. Must be one of {', '.join(schema['enum'])}.",
            )
        elif "pattern" in schema and not re.fullmatch(schema["pattern"], value) and (value or self.strict):
            self.report("pattern", path, _no_match(path, value, schema["pattern"]))
        elif not _fits(form, value):
            self.report("format", path, f"Invalid value for field '{path}': '{value}'. It is no {form}.")

    def _integer(self, kind: str, form: str, value: Any, path: str) -> None:
        exact = str if kind == "string" else int
        if isinstance(value, bool) or not isinstance(value, (int, str)) or not re.fullmatch(r"-?\d+", str(value)):
            self._wrong_type(path, value, f"{form or 'an integer'}")
        elif self.strict and not isinstance(value, exact):
            self._wrong_type(path, value, f"{form or 'an integer'}, which is written as {exact.__name__}")
        else:
            bits = 63 if form == "int64" else 64 if form == "uint64" else 31 if form in ("int32", "") else 32
            if not (0 if form.startswith("u") else -(2**bits)) <= int(value) < 2**bits:
                self.report("format", path, f"Invalid value for field '{path}': '{value}'. It is no {form}.")

    def _wrong_type(self, path: str, value: Any, expected: str) -> None:
        self.report("type", path, f"Invalid value at '{path}': {json.dumps(value)[:80]} is not {expected}.")


def without_read_only(schemas: dict[str, Schema], schema: Schema, value: Any) -> Any:
    """A value without what only answers have."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"]]
    if isinstance(value, list) and "items" in schema:
        return [without_read_only(schemas, schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    known, extra = schema.get("properties", {}), schema.get("additionalProperties", {})
    return {
        name: without_read_only(schemas, known.get(name, extra), item)
        for name, item in value.items()
        if name not in known or not _read_only(known[name])
    }


def _read_only(schema: Schema) -> bool:
    return bool(schema.get("readOnly")) or str(schema.get("description", "")).lstrip().lower().startswith(
        "[output only]"
    )


def _given(value: dict[str, Any], name: str) -> bool:
    return value.get(name) not in (None, "")


def _given_deep(value: Any, names: list[str]) -> bool:
    if not names:
        return value not in (None, "", [])
    return isinstance(value, dict) and names[0] in value and _given_deep(value[names[0]], names[1:])


def check_text(schema: Schema, value: str, name: str) -> list[Problem]:
    """What is wrong with a parameter in a path or a query."""
    kind = schema["type"]
    if kind == "boolean" and value.lower() not in ("true", "false"):
        return [Problem("type", name, f"Invalid value for field '{name}': '{value}'. It is no boolean.")]
    if (kind in ("integer", "number") or schema.get("format") in INTEGER_FORMATS) and not re.fullmatch(r"-?\d+", value):
        return [Problem("type", name, f"Invalid value for field '{name}': '{value}'. It is no number.")]
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        return [Problem("pattern", name, _no_match(name, value, schema["pattern"]))]
    if "enum" in schema and value not in schema["enum"]:
        return [
            Problem(
                "enum",
                name,
                f"Invalid value for field '{name}': '{value}'. Must be one of {', '.join(schema['enum'])}.",
            )
        ]
    return []


def _no_match(field_: str, value: str, pattern: str) -> str:
    return f"Invalid value for field '{field_}': '{value}'. Must be a match of regex '{pattern}'"


def is_uuid(value: str) -> bool:
    """Whether a text is a UUID, and not the zero one."""
    try:
        return uuid.UUID(value).int != 0
    except ValueError:
        return False


def _fits(form: str, value: str) -> bool:
    try:
        if form == "byte":
            base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
        elif form in ("google-datetime", "date-time"):
            datetime.datetime.fromisoformat(value)
        elif form == "google-duration":
            return re.fullmatch(r"-?\d+(\.\d{1,9})?s", value) is not None
    except (ValueError, binascii.Error):
        return False
    return True
