"""The credential helper, called as Docker calls it, and by Docker itself where an engine answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.modules import small_registry
from tests.unit.roles.registry_login import metadata_server

HOST = "europe-west1-docker.pkg.dev"
KEY = json.dumps({"type": "service_account", "private_key": "c4n4ry"}, indent=1)
NOBODY = "127.0.0.1:1"


class Helper:
    """A copy of the program that reads its settings from a folder of the test's own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "settings.json"
        self.program = folder / "docker-credential-gce-metadata"
        source = root / "roles/registry_login/files/docker_credential_gce_metadata.py"
        lines = source.read_text(encoding="utf-8").replace(
            '"/etc/docker/credential-gce-metadata.json"', repr(str(self.settings))
        )
        # The interpreter of the tests, isolated as on the machine.
        self.program.write_text(f"#!{sys.executable} -I\n" + lines.partition("\n")[2], encoding="utf-8")
        self.program.chmod(0o755)
        self.configure()

    def configure(self, **settings: Any) -> None:
        self.settings.write_text(json.dumps({"hosts": [HOST], "mode": "attached", **settings}))

    def __call__(self, action: str, given: str = "", metadata: str = NOBODY) -> subprocess.CompletedProcess[str]:
        # A proxy that nobody answers for: the metadata server must never be asked through one.
        environment = {**os.environ, "GCE_METADATA_HOST": metadata, "http_proxy": f"http://{NOBODY}"}
        return subprocess.run(
            [self.program, action], input=given, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def helper(root: Path, tmp_path: Path) -> Helper:
    return Helper(root, tmp_path)


@pytest.fixture
def metadata() -> Iterator[metadata_server.Metadata]:
    with metadata_server.serving() as server:
        yield server


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What the helper says: to Docker on standard output, to its user on standard error."""
    assert done.returncode == 1
    assert done.stderr.startswith("docker-credential-gce-metadata: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("server", [HOST, f"https://{HOST}", f"https://{HOST}/v2/\n"])
def test_token_of_the_machine(helper: Helper, metadata: metadata_server.Metadata, server: str) -> None:
    done = helper("get", server, metadata.address)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["Username"], answer["Secret"]) == ("oauth2accesstoken", "ya29.machine")
    assert answer["ServerURL"] == server.strip()
    assert len(metadata.asked) == 2


@pytest.mark.parametrize(
    "server", ["https://index.docker.io/v1/", "registry.example.com", f"evil.{HOST}", f"{HOST}.evil"]
)
def test_no_token_for_another_registry(helper: Helper, metadata: metadata_server.Metadata, server: str) -> None:
    done = helper("get", server, metadata.address)
    assert (done.returncode, done.stdout) == (1, "credentials not found in native keychain\n")
    assert (done.stderr, metadata.asked) == ("", [])


def test_a_busy_metadata_server_is_asked_again(helper: Helper, metadata: metadata_server.Metadata) -> None:
    metadata.fail_first = 1
    assert helper("get", HOST, metadata.address).returncode == 0


@pytest.mark.parametrize("scope", ["cloud-platform", "devstorage.read_only"])
def test_scopes_that_may_read(helper: Helper, metadata: metadata_server.Metadata, scope: str) -> None:
    metadata.scopes = [metadata_server.SCOPE + "logging.write", metadata_server.SCOPE + scope]
    assert helper("get", HOST, metadata.address).returncode == 0


def test_scopes_that_may_not(helper: Helper, metadata: metadata_server.Metadata) -> None:
    metadata.scopes = [metadata_server.SCOPE + "logging.write"]
    said = refused(helper("get", HOST, metadata.address))
    assert "(logging.write) allow no reading of images; expected cloud-platform" in said


def test_no_service_account(helper: Helper, metadata: metadata_server.Metadata) -> None:
    metadata.scopes = None
    assert "this machine has no service account" in refused(helper("get", HOST, metadata.address))


def test_not_compute_engine(helper: Helper) -> None:
    assert "does not answer" in refused(helper("get", HOST))


def test_somebody_elses_web_server(helper: Helper, metadata: metadata_server.Metadata) -> None:
    metadata.flavor = "None"
    assert "is not Compute Engine's metadata server" in refused(helper("get", HOST, metadata.address))


def test_key(helper: Helper, tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    helper.configure(mode="key", key_file=str(key))
    assert "cannot read the service account's key" in refused(helper("get", HOST))
    key.write_text('{"type": "authorized_user", "refresh_token": "c4n4ry"}')
    assert "c4n4ry" not in refused(helper("get", HOST))
    key.write_text(KEY)
    answer = json.loads(helper("get", HOST).stdout)
    assert (answer["Username"], answer["Secret"]) == ("_json_key", KEY)


def test_stores_and_erases_nothing(helper: Helper, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    for action in ("store", "erase"):
        done = helper(action, json.dumps({"ServerURL": HOST, "Username": "me", "Secret": "c4n4ry"}))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(tmp_path.iterdir()) == before


def test_lists_its_hosts(helper: Helper) -> None:
    assert json.loads(helper("list").stdout) == {HOST: "oauth2accesstoken"}


def test_bad_settings_and_arguments(helper: Helper) -> None:
    assert "expected one argument" in refused(helper("dance"))
    helper.settings.write_text("{")
    assert "cannot use" in refused(helper("get", HOST))
    helper.settings.unlink()
    assert "cannot use" in refused(helper("get", HOST))


def test_docker_pulls_with_it(helper: Helper, metadata: metadata_server.Metadata, tmp_path: Path) -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers")
    with small_registry.serving() as registry:
        registry.add("team/core:1", "hello")
        registry.user = "oauth2accesstoken:ya29.machine"
        reference = f"{registry.address}/team/core:1"
        helper.configure(hosts=[registry.address])
        config = {"credHelpers": {registry.address: "gce-metadata"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "DOCKER_CONFIG": str(tmp_path)}

        def pull(address: str) -> subprocess.CompletedProcess[str]:
            command = ["docker", "pull", reference]
            env = {**environment, "GCE_METADATA_HOST": address}
            return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

        try:
            without = pull(NOBODY)
            assert without.returncode != 0
            # Docker goes on without a login; the helper's own words are what tells the user.
            assert "docker-credential-gce-metadata: the metadata server" in without.stderr
            done = pull(metadata.address)
            assert done.returncode == 0, done.stderr
        finally:
            subprocess.run(["docker", "image", "rm", reference], capture_output=True, check=False)
    assert json.loads((tmp_path / "config.json").read_text()) == config
