"""What the tests of plugins share: modules run in this process, and Google without pauses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_client
from lab.google import Google

RunModule = Callable[..., dict[str, Any]]
Converge = Callable[..., dict[str, Any]]


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> RunModule:
    """Run a module's main(); returns its result, with `text` holding all that it printed."""

    def run(main: Callable[[], None], check: bool = False, **arguments: Any) -> dict[str, Any]:
        capsys.readouterr()
        # Ansible says a warning once in a process; here a process runs many modules.
        warnings._global_warnings.clear()
        settings = {"_ansible_check_mode": check, "_ansible_diff": True}
        with patch_module_args({**arguments, **settings}), pytest.raises(SystemExit):
            main()
        printed = capsys.readouterr()
        result: dict[str, Any] = json.loads(printed.out)
        # Where another test has loaded the controller's code, warnings go to its display: standard error, folded.
        text = printed.out + " ".join(printed.err.split())
        return {"failed": False, **result, "text": text}

    return run


@pytest.fixture
def google(google: Google, monkeypatch: pytest.MonkeyPatch) -> Google:
    """The lab's Google, with a client that does not pause."""
    monkeypatch.setattr(google_client, "PAUSES", (0.0,))
    monkeypatch.setattr(google_client, "POLL_PAUSES", (0.0,))
    # Without pauses, what a test has not foreseen would spin for as long as a user waits.
    monkeypatch.setattr(google_client, "RETRY_SECONDS", 5.0)
    return google


def is_read(method: str) -> bool:
    return method.rsplit(".", 1)[-1] in ("get", "list", "batchGet", "aggregatedList")


@pytest.fixture
def converge(google: Google, run_module: RunModule) -> Converge:
    """Run a module three times: check mode foretells and touches nothing, the run does it, the next one reads once."""

    def run(main: Callable[[], None], changes: bool = True, **arguments: Any) -> dict[str, Any]:
        options = {"project": "example-project", **arguments}
        google.calls.clear()
        predicted = run_module(main, check=True, **options)
        assert predicted["failed"] is False, predicted["msg"]
        assert [method for method in google.calls if not is_read(method)] == []
        applied = run_module(main, **options)
        assert applied["failed"] is False, applied["msg"]
        assert (predicted["changed"], predicted["diff"]) == (applied["changed"], applied["diff"])
        assert applied["changed"] is changes
        google.calls.clear()
        again = run_module(main, **options)
        assert (again["failed"], again["changed"]) == (False, False), again
        assert len(google.calls) == 1
        assert is_read(google.calls[0])
        assert again["diff"]["before"] == again["diff"]["after"]
        assert "warnings" not in applied
        return applied

    return run
