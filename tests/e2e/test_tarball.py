"""The collection as another team gets it: the built tarball, installed offline, its playbooks called by their FQCN."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.google import Google
from tests.e2e.cloud import Cloud
from tests.e2e.harness import ROOT, Machine


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of collections that holds what `ansible-galaxy collection install` makes of the tarball."""
    folder = tmp_path_factory.mktemp("tarball")
    galaxy = str(Path(sys.executable).with_name("ansible-galaxy"))
    environment = {key: value for key, value in os.environ.items() if key != "ANSIBLE_COLLECTIONS_PATH"}
    subprocess.run([galaxy, "collection", "build", "--output-path", folder], cwd=ROOT, env=environment, check=True)
    (tarball,) = folder.glob("dataops-dagster_gce-*.tar.gz")
    subprocess.run(
        [galaxy, "collection", "install", "--offline", "--no-deps", "-p", folder / "collections", tarball],
        cwd=folder, env=environment, check=True,
    )  # fmt: skip
    return folder / "collections"


def test_site_by_its_name_from_the_installed_tarball(machine: Machine, installed: Path, tmp_path: Path) -> None:
    # Outside the checkout: no ansible.cfg and no role but the tarball's.
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    machine.play("dataops.dagster_gce.site", cwd=tmp_path, env=environment).ok()
    assert {name: location.loaded for name, location in machine.locations().items()} == {"dagster_core": True}


def test_the_checkout_has_nothing_to_change_after_the_tarball(machine: Machine) -> None:
    assert machine.play("site.yml").ok().changed == 0


@pytest.fixture
def google() -> Iterator[Google]:
    found = Google().start()
    found.seed_project("example-e2e", services=[])
    yield found
    assert found.violations == []
    found.stop()


def test_provision_and_the_inventory_from_the_installed_tarball(
    installed: Path, google: Google, tmp_path: Path
) -> None:
    cloud = Cloud(google, tmp_path / "inventory")
    environment = {**os.environ, **google.environment(), "ANSIBLE_COLLECTIONS_PATH": str(installed)}
    command = cloud.command("dataops.dagster_gce.provision")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert cloud.instance["status"] == "RUNNING"

    source = {"plugin": "dataops.dagster_gce.gce", "project": cloud.project}
    (tmp_path / "machines.gce.yml").write_text(json.dumps(source))
    program = str(Path(sys.executable).with_name("ansible-inventory"))
    listed = subprocess.run(
        [program, "-i", "machines.gce.yml", "--list"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert list(json.loads(listed.stdout)["_meta"]["hostvars"]) == [cloud.host]
