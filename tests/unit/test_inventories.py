"""The example inventories: they load, they hold no secret, and every variable in them means something."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
INVENTORIES = sorted(path.parent.name for path in (ROOT / "inventory").glob("*/hosts.yml"))


def variables(name: str, environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The variables of each host of an inventory, as Ansible sees them."""
    command = ["ansible-inventory", "--inventory", str(ROOT / "inventory" / name), "--list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "WARNING" not in done.stderr, done.stderr
    listed = json.loads(done.stdout)
    assert listed["dagster"]["hosts"]
    return {host: listed["_meta"]["hostvars"][host] for host in listed["dagster"]["hosts"]}


def known_variables() -> set[str]:
    """What the roles take, and what docs/architecture.md gives to the collection as a whole."""
    known = {"gcp_project", "gcp_location", "dagster_postgres_user", "dagster_postgres_db"}
    for page in ("docs/architecture.md", "docs/provisioning.md"):
        known |= set(re.findall(r"^\| `(\w+)`", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    known |= {"gce_region", "gce_zone"}
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for spec in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            known |= set(spec.get("options") or {})
    return known


@pytest.mark.parametrize("name", INVENTORIES)
def test_every_variable_means_something(name: str, ansible_environment: dict[str, str]) -> None:
    for host, given in variables(name, ansible_environment).items():
        unknown = {key for key in given if not key.startswith("ansible_")} - known_variables()
        assert not unknown, host


@pytest.mark.parametrize("name", INVENTORIES)
def test_no_example_holds_a_secret(name: str, ansible_environment: dict[str, str]) -> None:
    for given in variables(name, ansible_environment).values():
        assert not [key for key in given if re.search(r"(password|secret|token|service_account|private_key)$", key)]


def test_environments_differ_only_where_they_must(ansible_environment: dict[str, str]) -> None:
    given = {name: next(iter(variables(name, ansible_environment).values())) for name in ("staging", "prod")}
    differ = {key for key in given["prod"] if given["prod"][key] != given["staging"].get(key)}
    assert given["prod"].keys() == given["staging"].keys()
    assert differ == {"dagster_environment", "gce_network_cidr", "gcp_project"}
    # Each in its own inventory's folder.
    assert {given[name]["gce_ssh_dir"] for name in given} == {"{{ inventory_dir }}/.ssh"}


def provisioned(environment: dict[str, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The hosts that are made at Google, by inventory."""
    found = {name: variables(name, environment) for name in INVENTORIES}
    return {
        name: hosts
        for name, hosts in found.items()
        if any(given.get("gce_provision", False) is True for given in hosts.values())
    }


def names_at_google(host: str, given: dict[str, Any]) -> set[str]:
    """Every name that the roles would give, by their own defaults."""
    names = set()
    for role in ("gce_project", "gce_network", "gce_instance"):
        defaults = yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text(encoding="utf-8"))
        for key, value in defaults.items():
            if isinstance(value, str) and value.startswith("dagster-") and value.endswith("_environment }}"):
                names.add(
                    str(given.get(key, value.replace(f"{{{{ {role}_environment }}}}", given["dagster_environment"])))
                )
    return names | {host, f"{host}-data", f"{host}-address"}


def test_no_two_environments_share_anything_at_google(ansible_environment: dict[str, str]) -> None:
    found = provisioned(ansible_environment)
    assert {"dev", "lab", "prod", "staging"} <= found.keys()
    owner: dict[str, str] = {}
    ranges: dict[str, str] = {}
    for inventory, hosts in found.items():
        for host, given in hosts.items():
            names = names_at_google(host, given)
            assert len(names) >= 10, names
            shared = {name for name in names if owner.setdefault(name, inventory) != inventory}
            assert not shared, f"{inventory} and {[owner[name] for name in shared]}"
            if "gce_network_cidr" in given:
                assert ranges.setdefault(given["gce_network_cidr"], inventory) == inventory
    environments = [given["dagster_environment"] for hosts in found.values() for given in hosts.values()]
    assert len(set(environments)) == len(found), "one inventory is one environment"


def test_this_computer_is_not_provisioned(ansible_environment: dict[str, str]) -> None:
    assert "local" not in provisioned(ansible_environment)
