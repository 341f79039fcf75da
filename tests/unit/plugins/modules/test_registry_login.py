"""registry_login: the helper comes, hosts come and go, and nothing else of Docker's configuration changes."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import registry_login

RunModule = Callable[..., dict[str, Any]]
HOST = "europe-west1-docker.pkg.dev"
OTHER = "us-docker.pkg.dev"


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return {
        "program": "#!/bin/sh\n",
        "folder": str(tmp_path / "bin"),
        "settings": {"mode": "attached"},
        "settings_file": str(tmp_path / "etc/settings.json"),
        "config": str(tmp_path / "root/.docker/config.json"),
    }


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_from_nothing(run_module: RunModule, arguments: dict[str, Any], tmp_path: Path) -> None:
    predicted = run_module(registry_login.main, check=True, hosts=[HOST], **arguments)
    assert (predicted["changed"], list(tmp_path.iterdir())) == (True, [])
    done = run_module(registry_login.main, hosts=[HOST], **arguments)
    assert (done["changed"], done["diff"]) == (True, predicted["diff"])
    program, config = tmp_path / "bin/docker-credential-gce-metadata", tmp_path / "root/.docker/config.json"
    settings = tmp_path / "etc/settings.json"
    assert (mode(program), mode(settings), mode(config)) == (0o755, 0o644, 0o600)
    assert mode(config.parent) == 0o700
    assert json.loads(settings.read_text()) == {"mode": "attached", "hosts": [HOST]}
    assert json.loads(config.read_text()) == {"credHelpers": {HOST: "gce-metadata"}}
    again = run_module(registry_login.main, hosts=[HOST, HOST], **arguments)
    assert again["changed"] is False
    program.chmod(0o700)
    assert run_module(registry_login.main, hosts=[HOST], **arguments)["changed"] is True
    assert mode(program) == 0o755


def test_other_entries_stay(run_module: RunModule, arguments: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "root/.docker/config.json"
    config.parent.mkdir(parents=True)
    login = {"https://index.docker.io/v1/": {"auth": "Yzrhbmpyeq=="}}
    before: dict[str, Any] = {
        "auths": login,
        "credHelpers": {"123.dkr.ecr.example.com": "ecr", OTHER: "gcloud"},
        "proxies": {},
    }
    config.write_text(json.dumps(before))
    done = run_module(registry_login.main, hosts=[HOST], **arguments)
    helpers = {**before["credHelpers"], HOST: "gce-metadata"}
    assert json.loads(config.read_text()) == {**before, "credHelpers": helpers}
    assert "Yzrhbmpyeq" not in done["text"]
    # Its own entries follow the list; a host that was somebody else's before is taken over.
    run_module(registry_login.main, hosts=[OTHER], **arguments)
    assert json.loads(config.read_text())["credHelpers"] == {"123.dkr.ecr.example.com": "ecr", OTHER: "gce-metadata"}
    assert run_module(registry_login.main, hosts=[OTHER], **arguments)["changed"] is False
    run_module(registry_login.main, hosts=[], **arguments)
    assert json.loads(config.read_text())["credHelpers"] == {"123.dkr.ecr.example.com": "ecr"}


@pytest.mark.parametrize("content", ["{", "[]", '{"credHelpers": "gcloud"}'])
def test_a_broken_configuration_is_not_overwritten(
    run_module: RunModule, arguments: dict[str, Any], tmp_path: Path, content: str
) -> None:
    config = tmp_path / "root/.docker/config.json"
    config.parent.mkdir(parents=True)
    config.write_text(content)
    failed = run_module(registry_login.main, hosts=[HOST], **arguments)
    assert failed["failed"] is True
    assert "repair it" in failed["msg"]
    assert config.read_text() == content


@pytest.mark.parametrize("host", ["https://europe-west1-docker.pkg.dev", "europe-west1-docker.pkg.dev/project", ""])
def test_a_host_is_a_host(run_module: RunModule, arguments: dict[str, Any], host: str) -> None:
    failed = run_module(registry_login.main, hosts=[host], **arguments)
    assert failed["msg"].startswith(f"hosts: found {host!r}; expected a registry's host")
