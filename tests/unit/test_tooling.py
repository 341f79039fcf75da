"""What other programs read of this repository: Renovate, pre-commit, ansible-builder. Linters hold the schemas."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.unit.test_inventories import known_variables, variables

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/user-code-repository"


def renovate(root: Path = ROOT) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "renovate.json").read_text(encoding="utf-8"))
    return found


def matched(patterns: list[str], root: Path = ROOT) -> set[str]:
    """The files that Renovate's patterns mean, as it writes them: between slashes, on the whole path."""
    files = [
        path for path in root.rglob("*") if path.is_file() and ".venv" not in path.parts and ".lab" not in path.parts
    ]
    names = {str(path.relative_to(root)) for path in files}
    return {name for name in names for pattern in patterns if re.search(pattern.strip("/"), name)}


def test_renovate_sees_every_lock() -> None:
    locks = {str(path.relative_to(ROOT)) for path in (ROOT / "requirements").glob("*.txt")}
    assert matched(renovate()["pip_requirements"]["managerFilePatterns"]) == locks


def test_renovate_sees_images_that_an_inventory_pins() -> None:
    (manager,) = renovate()["customManagers"]
    assert "inventory/prod/group_vars/dagster/this.yml" in matched(manager["managerFilePatterns"])
    pattern = manager["matchStrings"][0].replace("(?<", "(?P<")
    digest = "sha256:" + "0a" * 32
    for line, name in (
        (f"dagster_stack_postgres_image: postgres:17@{digest}", "postgres"),
        (f'dagster_image_build_args: {{PYTHON_IMAGE: "python:3.13-slim@{digest}"}}', "python"),
    ):
        found = re.search(pattern, line)
        assert found, line
        assert (found["depName"], found["currentDigest"]) == (name, digest)


def test_renovate_keeps_the_image_s_limits() -> None:
    """What requirements/*.in forbid, and why, nobody proposes every Monday."""
    limits = {
        name: rule["allowedVersions"]
        for rule in renovate()["packageRules"]
        if "allowedVersions" in rule
        for name in rule["matchPackageNames"]
    }
    asked = (ROOT / "requirements/daemon_webserver.in").read_text(encoding="utf-8")
    assert limits
    for name, limit in limits.items():
        assert f"{name}{limit}" in asked


def test_renovate_moves_the_collection_of_the_example() -> None:
    (manager,) = renovate(EXAMPLE)["customManagers"]
    pattern = manager["matchStrings"][0].replace("(?<", "(?P<")
    version = str(yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"])
    for name in matched(manager["managerFilePatterns"], EXAMPLE):
        text = (EXAMPLE / name).read_text()
        assert set(re.findall(pattern, text)) == {version}
        assert set(re.findall(r"workflows/[\w-]+\.yml@(\S+)", text)) == {version}


def test_pre_commit_runs_what_there_is() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    locked = (ROOT / "requirements/test.txt").read_text()
    for hook in hooks:
        program, *arguments = hook["entry"].split()
        if program == "make":
            assert arguments[-1] in targets
        else:
            assert re.search(rf"^{Path(program).name}==", locked, re.MULTILINE), program


def test_the_execution_environment_has_this_version() -> None:
    environment = yaml.safe_load((ROOT / "execution-environment.yml").read_text())
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    (tarball,) = [each["src"] for each in environment["additional_build_files"]]
    assert tarball == f"build/dataops-dagster_gce-{galaxy['version']}.tar.gz"
    listed = environment["dependencies"]["galaxy"]["collections"]
    assert [each["name"] for each in listed if each.get("type") == "file"] == [f"galaxy/{Path(tarball).name}"]
    collections = {each["name"]: each.get("version") for each in listed}
    assert galaxy["dependencies"].items() <= collections.items()
    needed = {line.split("#")[0].strip() for line in (ROOT / "requirements/controller.in").read_text().splitlines()}
    assert set(environment["dependencies"]["python"]) == {
        name for name in needed if name and not name.startswith("ansible")
    }


def test_the_example_s_inventories_are_understood(ansible_environment: dict[str, str]) -> None:
    for name in ("staging", "prod"):
        for host, given in variables(f"../{EXAMPLE.relative_to(ROOT)}/inventory/{name}", ansible_environment).items():
            assert host == f"dagster-{name}"
            unknown = {key for key in given if not key.startswith("ansible_")} - known_variables()
            assert not unknown
