# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Checks a role's inputs on the controller. Documented in plugins/modules/check_inputs.py."""

from __future__ import annotations

import os
import re
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleUndefinedVariable, AnsibleValueOmittedError
from ansible.parsing.vault import VaultHelper
from ansible.plugins.action import ActionBase

from ansible_collections.dataops.dagster_gce.plugins.module_utils import inputs

ERRORS_FACT = "check_inputs_errors"
RUN_FACT = "check_inputs_run"
COLLECT_VARIABLE = "check_inputs_collect"


class Unreadable(Exception):
    """A variable that has no value: its text says what was found instead."""


class Unset(Unreadable):
    """A variable that is not there at all."""


class ActionModule(ActionBase):
    """Looks variables up by name, so that one which cannot be templated is one more line and not a crash."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset(("checks", "report"))

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Check, then fail, collect or report."""
        self._variables: dict[str, t.Any] = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, self._variables)
        _validation, args = self.validate_argument_spec(
            {"checks": {"type": "dict", "default": {}}, "report": {"type": "bool", "default": False}}
        )
        mistakes = [line for name, spec in args["checks"].items() for line in inputs.mistakes_of_the_check(name, spec)]
        if mistakes:
            raise AnsibleActionFail("check_inputs is used wrongly:\n" + "\n".join(mistakes))

        errors = [line for name, spec in args["checks"].items() for line in self._check(name, spec)]
        collect = self._flag(COLLECT_VARIABLE)
        result["changed"] = False
        if collect or args["report"]:
            # What was checked again counts as it is now, and the same line is said once.
            again = tuple(f"{name}{end}" for name in args["checks"] for end in (": ", " (from "))
            before = [line for line in self._collected() if not line.startswith(again)]
            errors = list(dict.fromkeys([*before, *errors]))
            if args["report"]:
                errors = inputs.condensed(errors)
            if not (errors and args["report"]):  # a failure shows its whole result: keep it to the message
                result["ansible_facts"] = {ERRORS_FACT: [] if args["report"] else errors, RUN_FACT: _this_run()}
        if errors and (args["report"] or not collect):
            result["failed"] = True
            result["msg"] = _message(errors)
        elif errors:
            result["errors"] = errors
            result["msg"] = f"{len(errors)} collected for the report"
        else:
            result["msg"] = "All inputs are good"
        return result

    def _check(self, name: str, spec: dict[str, t.Any]) -> list[str]:
        secret = bool(spec.get("secret", False)) or spec["rule"] in inputs.SECRET_RULES
        spec = dict(spec)
        for option in [each for each in spec if each.endswith("_variable")]:
            try:
                spec[option.removesuffix("_variable")] = str(self._value(spec.pop(option), secret=False) or "")
            except Unreadable:
                spec[option.removesuffix("_variable")] = ""  # the check of that variable says it
        try:
            value = self._value(name, secret)
            if spec["rule"] == "service_account" and isinstance(value, str) and value:
                value = self._content(value)
        except Unreadable as error:
            if isinstance(error, Unset) and not spec.get("required", True):
                return []
            return [self._named(name, inputs.line(name, str(error), inputs.expectation(spec), spec.get("hint", "")))]
        # What somebody has encrypted is secret, whatever the check says.
        if isinstance(value, str) and VaultHelper.get_ciphertext(value, with_tags=False) is not None:
            spec["secret"] = True
        line = inputs.check(name, value, spec)
        return [self._named(name, line)] if line else []

    def _named(self, name: str, line: str) -> str:
        """The line with the variable that its author set, where that is the collection's and not the role's own."""
        template = self._variables.get(name)
        words = re.findall(r"\w+", template) if isinstance(template, str) and "{{" in template else []
        origins = [word for word in dict.fromkeys(words) if word in self._variables and word != name and word[0] != "_"]
        return line.replace(f"{name}: ", f"{name} (from {', '.join(origins)}): ", 1) if origins else line

    def _value(self, name: str, secret: bool) -> t.Any:
        """The templated value of a variable.

        :raises Unset: if there is none.
        :raises Unreadable: if it cannot be templated.
        """
        if name not in self._variables:
            raise Unset("nothing (it is not set)")
        try:
            return self._templar.template(self._variables[name])
        except AnsibleValueOmittedError:
            raise Unset("nothing (it is not set)") from None
        except AnsibleUndefinedVariable as error:
            raise Unreadable(f"a template that needs something undefined: {_one_line(error)}") from None
        except AnsibleError as error:
            # Such an error may quote the value, unless its author says that it does not, as the lookup gcp_secret's.
            known = next((each for each in _causes(error) if getattr(each, "holds_no_value", False)), None)
            if known is not None:
                raise Unreadable(f"a template that fails: {_one_line(known, 1000)}") from None
            detail = "" if secret else f": {_one_line(error)}"
            raise Unreadable(f"a template that fails ({type(error).__name__}){detail}") from None

    def _content(self, text: str) -> str:
        """The content of a service account: the text itself, or the file on the controller that it names."""
        if text.lstrip().startswith(("{", "[", '"')):
            return text
        if "\n" in text or len(text) > 1024 or "PRIVATE KEY" in text:
            raise Unreadable("a text that is neither JSON nor the name of a file")
        try:
            path = self._find_needle("files", os.path.expanduser(text))
            # Decrypts a file of ansible-vault. (get_text_file_contents, its public form, only exists since 2.20.)
            return str(self._loader._get_file_contents(path)[0].decode())
        except (AnsibleError, OSError, UnicodeDecodeError) as error:
            # A path is worth showing; whatever else was put here may be a secret.
            shown = repr(text) if re.fullmatch(r"[\w./~ -]*[./~][\w./~ -]*", text) else "a text (hidden)"
            reason = "a file that is not text" if isinstance(error, UnicodeDecodeError) else "no file that can be read"
            raise Unreadable(f"{shown}, which is neither JSON nor on the controller ({reason})") from None

    def _flag(self, name: str) -> bool:
        try:
            value = self._value(name, secret=False)
        except Unset:
            return False
        except Unreadable as error:
            raise AnsibleActionFail(f"{name}: found {error}; expected true or false") from None
        return value is True or (isinstance(value, str) and value.lower() in ("true", "yes", "1", "on"))

    def _collected(self) -> list[str]:
        facts = self._variables.get("ansible_facts") or {}
        # A fact cache on disk may still hold what an earlier run, cut short, has collected.
        return [str(line) for line in facts.get(ERRORS_FACT, [])] if facts.get(RUN_FACT) == _this_run() else []


def _this_run() -> str:
    """A name for this run of ansible-playbook: every task's worker is a child of the same process."""
    return str(os.getppid())


def _causes(error: BaseException | None) -> t.Iterator[Exception]:
    """The error and what it was raised from."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__


def _one_line(error: Exception, longest: int = 200) -> str:
    text = " ".join(str(getattr(error, "message", error)).split())
    return text if len(text) <= longest else text[:longest] + "…"


def _message(errors: list[str]) -> str:
    head = "1 input is wrong" if len(errors) == 1 else f"{len(errors)} inputs are wrong"
    return f"{head}:\n" + "\n".join(f"- {line}" for line in errors)
