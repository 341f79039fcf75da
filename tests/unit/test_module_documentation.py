"""What a module documents, fragments included, is what it takes."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic

ROOT = Path(__file__).resolve().parents[2]
# Written for documentation only: its action takes all of it (`_VALID_ARGS`).
ACTIONS_ONLY = {"check_inputs"}
MODULES = sorted({path.stem for path in (ROOT / "plugins/modules").glob("[!_]*.py")} - ACTIONS_ONLY)


class Taken(Exception):
    """A module's argument spec, at the moment it hands it to Ansible."""


@pytest.fixture(scope="module")
def documented() -> dict[str, dict[str, Any]]:
    """The options of every module, as ansible-doc shows them."""
    done = subprocess.run(
        ["ansible-doc", "--json", *(f"dataops.dagster_gce.{name}" for name in MODULES)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return {name.rpartition(".")[2]: entry["doc"]["options"] for name, entry in found.items()}


def taken(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    module = importlib.import_module(f"ansible_collections.dataops.dagster_gce.plugins.modules.{name}")

    def take(_self: object, argument_spec: dict[str, Any], *_: Any, **__: Any) -> None:
        raise Taken(argument_spec)

    monkeypatch.setattr(basic.AnsibleModule, "__init__", take)
    with pytest.raises(Taken) as caught:
        module.main()
    spec: dict[str, Any] = caught.value.args[0]
    return spec


def described(option: dict[str, Any]) -> dict[str, Any]:
    """What both sides say of an option, with the defaults of Ansible filled in."""
    return {
        "type": option.get("type", "str"),
        "elements": option.get("elements"),
        "required": option.get("required", False),
        "default": option.get("default"),
        "choices": sorted(option["choices"]) if option.get("choices") else None,
    }


@pytest.mark.parametrize("name", MODULES)
def test_the_documented_options_are_those_that_the_module_takes(
    name: str, documented: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(told: dict[str, Any], taken: dict[str, Any], where: str) -> None:
        # An action's own words to its module are no option of a user.
        internal = {key for key in taken if key.startswith("_")}
        assert sorted(told) == sorted(set(taken) - internal), where
        for key, option in told.items():
            assert described(option) == described(taken[key]), f"{where}{key}"
            compare(option.get("suboptions") or {}, taken[key].get("options") or {}, f"{where}{key}.")

    compare(documented[name], taken(name, monkeypatch), "")
