"""What the tests of the modules for disks and instances share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
PROJECT, ZONE, REGION = "example-project", "europe-west3-c", "europe-west3"
ZONAL = f"projects/{PROJECT}/zones/{ZONE}"
REGIONAL = f"projects/{PROJECT}/regions/{REGION}"
OURS = {"managed-by": "dataops-dagster-gce"}

Run = Callable[..., Json]


class Task:
    """A module with the options that stay the same in a test.

    `run` is a run, `check` one in check mode, `again` one that must change nothing with a single call.
    """

    def __init__(self, run_module: Run, main: Callable[[], None], google: Any, **options: Any) -> None:
        self.run_module = run_module
        self.main = main
        self.google = google
        self.options = {"project": PROJECT, **options}

    def run(self, check: bool = False, **options: Any) -> Json:
        """A run that succeeds."""
        result = self.run_module(self.main, check=check, **{**self.options, **options})
        assert not result["failed"], result["msg"]
        return result

    def refused(self, check: bool = False, **options: Any) -> str:
        """A run that fails; returns its message."""
        result = self.run_module(self.main, check=check, **{**self.options, **options})
        assert result["failed"], result
        assert "Traceback" not in result["text"]
        return str(result["msg"])

    def changes(self, **options: Any) -> Json:
        """The same change shown by check mode, made, and then no change; returns what the run that made it returned."""
        before = self.stored()
        shown = self.run(check=True, **options)
        assert shown["changed"]
        assert self.stored() == before, "check mode changed something"
        made = self.run(**options)
        assert made["changed"]
        assert shown["diff"] == made["diff"]
        assert made["diff"]["before"] != made["diff"]["after"]
        self.unchanged(**options)
        return made

    def unchanged(self, **options: Any) -> Json:
        """A run that changes nothing, with one call."""
        calls = len(self.google.calls)
        result = self.run(**options)
        assert not result["changed"], result["diff"]
        assert len(self.google.calls) == calls + 1, self.google.calls[calls:]
        return result

    def stored(self) -> Json:
        """Everything that is there but for operations."""
        return {key: value for key, value in self.google.state.things.items() if "/operations/" not in key}
