"""ssh_host, judged by OpenSSH itself."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dataops.dagster_gce.plugins.modules import ssh_host

RunModule = Callable[..., dict[str, Any]]
KEYS = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4x", "ecdsa-sha2-nistp256 AAAAE2VjZHNh"]
OPTIONS = {"HostName": "203.0.113.7", "User": "ansible", "ProxyCommand": ""}


def arguments(path: Path, name: str = "dagster-prod", alias: str = "gce-1") -> dict[str, Any]:
    return {"path": str(path / ".ssh"), "name": name, "alias": alias, "host_keys": KEYS, "options": OPTIONS}


def effective(config: str, name: str) -> dict[str, str]:
    """What OpenSSH makes of the file."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on PATH")
    done = subprocess.run(["ssh", "-F", config, "-G", name], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_a_host_comes_and_goes(run_module: RunModule, tmp_path: Path) -> None:
    predicted = run_module(ssh_host.main, check=True, **arguments(tmp_path))
    assert (predicted["changed"], (tmp_path / ".ssh").exists()) == (True, False)
    done = run_module(ssh_host.main, **arguments(tmp_path))
    assert done["changed"] is True
    assert [entry["after"] for entry in done["diff"]] == [entry["after"] for entry in predicted["diff"]]
    assert run_module(ssh_host.main, **arguments(tmp_path))["changed"] is False

    found = effective(done["ssh_config"], "dagster-prod")
    assert (found["hostname"], found["user"]) == ("203.0.113.7", "ansible")
    assert (found["hostkeyalias"], found["stricthostkeychecking"]) == ("gce-1", "true")
    assert found["userknownhostsfile"] == str(tmp_path / ".ssh/known_hosts")
    assert "proxycommand" not in found
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / ".ssh", *(tmp_path / ".ssh").iterdir())]
    assert modes == [0o700, 0o600, 0o600]

    gone = run_module(ssh_host.main, state="absent", path=str(tmp_path / ".ssh"), name="dagster-prod")
    assert gone["changed"] is True
    assert "dagster-prod" not in (tmp_path / ".ssh/ssh_config").read_text()
    again = run_module(ssh_host.main, state="absent", path=str(tmp_path / "none"), name="dagster-prod")
    assert (again["changed"], (tmp_path / "none").exists()) == (False, False)


def test_a_key_that_a_new_machine_makes_later_is_no_change(run_module: RunModule, tmp_path: Path) -> None:
    later = "ssh-rsa AAAAB3NzaC1yc2E"
    run_module(ssh_host.main, **arguments(tmp_path))
    file = tmp_path / ".ssh/known_hosts"
    before = file.read_text()
    assert run_module(ssh_host.main, **{**arguments(tmp_path), "host_keys": [*KEYS, later]})["changed"] is False
    assert file.read_text() == before
    # One that is gone was another machine's, or is not to be trusted any more.
    assert run_module(ssh_host.main, **{**arguments(tmp_path), "host_keys": [KEYS[0], later]})["changed"] is True
    assert KEYS[1] not in file.read_text()
    assert f"gce-1 {later}" in file.read_text()


def test_hosts_do_not_touch_each_other(run_module: RunModule, tmp_path: Path) -> None:
    run_module(ssh_host.main, **arguments(tmp_path))
    run_module(ssh_host.main, **arguments(tmp_path, "dagster-prod-2", "gce-2"))
    known_hosts = tmp_path / ".ssh/known_hosts"
    assert known_hosts.read_text().count("ssh-ed25519") == 2
    # A new machine of the same name: its keys replace the old one's, wherever the block stands.
    run_module(ssh_host.main, **arguments(tmp_path, alias="gce-3"))
    assert "gce-1" not in known_hosts.read_text() + (tmp_path / ".ssh/ssh_config").read_text()
    assert "gce-2" in known_hosts.read_text()
    run_module(ssh_host.main, state="absent", path=str(tmp_path / ".ssh"), name="dagster-prod")
    assert "gce-2" in known_hosts.read_text()


def test_modes_are_set_right_again(run_module: RunModule, tmp_path: Path) -> None:
    run_module(ssh_host.main, **arguments(tmp_path))
    config = tmp_path / ".ssh/ssh_config"
    config.chmod(0o644)
    assert run_module(ssh_host.main, **arguments(tmp_path))["changed"] is True
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_a_folder_with_a_space_and_a_percent_sign(run_module: RunModule, tmp_path: Path) -> None:
    done = run_module(ssh_host.main, **arguments(tmp_path / "a b%h"))
    assert "a b%h/.ssh/known_hosts" in effective(done["ssh_config"], "dagster-prod")["userknownhostsfile"]


def test_a_host_in_between(run_module: RunModule, tmp_path: Path) -> None:
    done = run_module(ssh_host.main, **arguments(tmp_path), jump="ada@bastion.example.com:2222")
    assert effective(done["ssh_config"], "dagster-prod")["proxyjump"] == "ada@bastion.example.com:2222"
    # The machine's own settings do not reach the host in between.
    assert effective(done["ssh_config"], "bastion.example.com")["stricthostkeychecking"] == "ask"
    assert "Host bastion.example.com\n  Include ~/.ssh/config" in Path(done["ssh_config"]).read_text()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"host_keys": ["ssh-ed25519 AAAA\nProxyCommand evil"]}, "expected public keys as TYPE BASE64"),
        ({"host_keys": []}, "host_keys: found an empty list"),
        ({"name": "a b"}, "name: found 'a b'"),
        ({"name": "*"}, "name: found '*'"),
    ],
)
def test_bad_input(change: dict[str, Any], expected: str, run_module: RunModule, tmp_path: Path) -> None:
    refused = run_module(ssh_host.main, **{**arguments(tmp_path), **change})
    assert refused["failed"] is True
    assert expected in refused["msg"]
    assert not (tmp_path / ".ssh").exists()
