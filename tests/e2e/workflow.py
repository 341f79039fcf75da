"""A job of a GitHub workflow, run here: its `run:` steps in order, with the expressions and files that they get there.

Knows the little that our workflows use; an expression that it does not know is an error, so that nothing is left out
unseen. Actions (`uses:`) are GitHub's own and are not run.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")


@dataclass
class Ended:
    """What came of a job."""

    status: int = 0
    output: str = ""
    summary: str = ""
    steps: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)

    def ok(self) -> Ended:
        """Itself, if every step ended well."""
        assert self.status == 0, self.output[-8000:]
        return self


class Job:
    """The one job of a workflow."""

    def __init__(self, path: Path, workspace: Path) -> None:
        (self.job,) = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        self.workspace = workspace

    def run(self, contexts: Mapping[str, str], left_out: set[str], environment: Mapping[str, str]) -> Ended:
        """Run the steps until one fails.

        :param contexts: what `inputs.x` and `vars.x` are.
        :param left_out: names of steps that only make sense at GitHub.
        """
        steps: list[dict[str, Any]] = self.job["steps"]
        assert left_out <= {step["name"] for step in steps}
        known = dict(contexts)
        ended = Ended()
        temporary = self.workspace / "temporary"
        temporary.mkdir(exist_ok=True)
        summary = temporary / "summary"
        summary.write_text("")
        base = {
            **os.environ, "CI": "true", "GITHUB_WORKSPACE": str(self.workspace), "RUNNER_TEMP": str(temporary),
            "GITHUB_STEP_SUMMARY": str(summary), **environment, **self._values(self.job["env"], known),
        }  # fmt: skip
        for step in steps:
            if "uses" in step or step["name"] in left_out or not self._wanted(step, known):
                continue
            outputs = temporary / "outputs"
            outputs.write_text("")
            done = subprocess.run(
                ["bash", "-e", "-c", step["run"]],
                cwd=self.workspace / step.get("working-directory", "."),
                env={**base, **self._values(step.get("env", {}), known), "GITHUB_OUTPUT": str(outputs)},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            ended.output += done.stdout
            ended.steps.append(step["name"])
            for line in outputs.read_text().splitlines():
                name, _equals, value = line.partition("=")
                known[f"steps.{step['id']}.outputs.{name}"] = value
            ended.status = done.returncode
            if done.returncode:
                break
        ended.summary = summary.read_text()
        if not ended.status:
            ended.outputs = {name: self._value(text, known) for name, text in self.job.get("outputs", {}).items()}
        return ended

    def _wanted(self, step: Mapping[str, Any], known: Mapping[str, str]) -> bool:
        return "if" not in step or self._evaluate(step["if"], known) == "true"

    def _values(self, texts: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
        return {name: self._value(str(text), known) for name, text in texts.items()}

    def _value(self, text: str, known: Mapping[str, str]) -> str:
        return EXPRESSION.sub(lambda found: self._evaluate(found[1], known), text)

    def _evaluate(self, expression: str, known: Mapping[str, str]) -> str:
        """`a`, `a || b` and `a == ''`; another one has to be known. Outputs of steps that did not run are empty."""
        if expression in known:
            return known[expression]
        if " || " in expression:
            return next((value for each in expression.split(" || ") if (value := self._evaluate(each, known))), "")
        if expression.endswith(" == ''"):
            return str(not self._evaluate(expression.removesuffix(" == ''"), known)).lower()
        if expression.startswith("steps."):
            return ""
        raise KeyError(expression)
