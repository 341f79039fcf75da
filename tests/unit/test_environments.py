"""dev, staging and prod next to each other; what they make at Google is tests/e2e/test_environments.py."""

from __future__ import annotations

import ipaddress
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_inventories import provisioned, variables

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ["dev", "staging", "prod"]


@pytest.fixture
def given(ansible_environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The variables of each environment's first host."""
    return {name: next(iter(variables(name, ansible_environment).values())) for name in ENVIRONMENTS}


def test_what_is_shared_is_one_file() -> None:
    for name in ENVIRONMENTS:
        link = ROOT / "inventory" / name / "group_vars/dagster/common.yml"
        assert link.is_symlink()
        assert link.resolve() == ROOT / "inventory/common/dagster.yml"
        # Read after the shared file, so it wins.
        assert sorted(path.name for path in link.parent.iterdir()) == ["common.yml", "this.yml"]


def test_a_host_is_named_after_its_environment(ansible_environment: dict[str, str]) -> None:
    for name in ENVIRONMENTS:
        for host, found in variables(name, ansible_environment).items():
            assert found["dagster_environment"] == name
            assert host == f"dagster-{name}" or host.startswith(f"dagster-{name}-")


def test_ranges_of_addresses_do_not_overlap(given: dict[str, dict[str, Any]]) -> None:
    """Equal or nested: two networks that overlap can never be connected, with a VPN or with each other."""
    default = yaml.safe_load((ROOT / "roles/gce_network/defaults/main.yml").read_text())["gce_network_cidr"]
    ranges = {
        name: ipaddress.ip_network(found.get("gce_network_cidr", default)) for name, found in given.items()
    }  # fmt: skip
    for (one, first), (two, second) in itertools.combinations(ranges.items(), 2):
        assert not first.overlaps(second), f"{one} and {two}"


def test_projects_are_separate_by_default(ansible_environment: dict[str, str]) -> None:
    hosts = provisioned(ansible_environment)
    projects = {name: {found["gcp_project"] for found in hosts[name].values()} for name in ENVIRONMENTS}
    assert all(len(found) == 1 for found in projects.values())
    assert len(set.union(*projects.values())) == len(ENVIRONMENTS)


def test_the_article_s_names(given: dict[str, dict[str, Any]]) -> None:
    """What the sequel of the article proposes: the resource, its type, and the environment last."""
    for role, variable in (("gce_network", "gce_network_name"), ("gce_project", "gce_project_service_account_name")):
        default = yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text())[variable]
        assert default.endswith(f"-{{{{ {role}_environment }}}}")
    assert {name: found["dagster_environment"] for name, found in given.items()} == {
        name: name for name in ENVIRONMENTS
    }
