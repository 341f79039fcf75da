"""Docker on the machine pulls with what the metadata server gives, and with nothing else."""

from __future__ import annotations

import json
import re

from testinfra.host import Host

from tests.scenario import Role

from .conftest import KEY

IMAGE = "127.0.0.1:5000/team/core:1"
KEY_FILE = "/opt/dagster/dagster_home/secrets/service-account.json"


def docker_config(host: Host) -> dict[str, object]:
    content: dict[str, object] = json.loads(host.file("/root/.docker/config.json").content_string)
    return content


def test_what_is_there(host: Host) -> None:
    for path, mode in (
        ("/usr/local/bin/docker-credential-gce-metadata", 0o755),
        ("/etc/docker/credential-gce-metadata.json", 0o644),
        ("/root/.docker/config.json", 0o600),
    ):
        file = host.file(path)
        assert (file.user, file.group, file.mode) == ("root", "root", mode), path
    hosts = ["127.0.0.1:5000", "europe-west1-docker.pkg.dev"]
    assert docker_config(host) == {"credHelpers": dict.fromkeys(hosts, "gce-metadata")}


def test_pull(host: Host) -> None:
    try:
        host.check_output(f"docker pull --quiet {IMAGE}")
    finally:
        host.run(f"docker image rm {IMAGE}")
    # No token on the machine.
    assert host.run("grep -rl ya29 /root/.docker /etc/docker").stdout == ""


def test_a_pull_without_a_metadata_server_says_why(host: Host) -> None:
    failed = host.run(f"GCE_METADATA_HOST=127.0.0.1:1 docker pull {IMAGE}")
    assert failed.rc != 0
    assert "docker-credential-gce-metadata: the metadata server 127.0.0.1:1 does not answer" in failed.stderr


def test_entries_of_others_stay(host: Host, role: Role) -> None:
    before = host.file("/root/.docker/config.json").content_string
    theirs = {"auths": {"registry.example.com": {"auth": "YTpi"}}, "credHelpers": {"other.example.com": "pass"}}
    host.check_output("printf %s %s > /root/.docker/config.json", "%s", json.dumps(theirs))
    done = role()
    assert done.returncode == 0, done.stdout + done.stderr
    after = docker_config(host)
    assert after["auths"] == theirs["auths"]
    assert {"other.example.com", "127.0.0.1:5000"} < set(after["credHelpers"])  # type: ignore[call-overload]
    host.check_output("printf %s %s > /root/.docker/config.json", "%s", before)


def test_no_registry_is_no_remote_task(role: Role) -> None:
    done = role("-vvv", registry_login_hosts=[], registry_login_images=["dagster_core:1", ""])
    assert re.search(r"changed=0 .*failed=0", done.stdout), done.stdout + done.stderr
    assert "SSH: EXEC" not in done.stdout


def test_a_run_without_a_change_is_one_task(role: Role) -> None:
    done = role()
    assert re.search(r"changed=0 .*failed=0", done.stdout), done.stdout + done.stderr


def test_with_a_key(host: Host, role: Role) -> None:
    image = IMAGE.replace("5000", "5001")
    host.check_output("mkdir -p -m 0755 /opt/dagster/dagster_home/secrets && printf %s %s > " + KEY_FILE, "%s", KEY)
    # Google's own form of a key is checked on the controller; this registry only compares.
    settings = {"mode": "key", "key_file": KEY_FILE, "hosts": ["127.0.0.1:5001"]}
    config = {"credHelpers": {"127.0.0.1:5001": "gce-metadata"}}
    host.check_output("printf %s %s > /etc/docker/credential-gce-metadata.json", "%s", json.dumps(settings))
    host.check_output("printf %s %s > /root/.docker/config.json", "%s", json.dumps(config))
    try:
        host.check_output(f"docker pull --quiet {image}")
        bad = role(registry_login_mode="key", registry_login_service_account='{"type": "authorized_user"}')
        assert "registry_login_service_account: found a user's own credential" in " ".join(bad.stdout.split())
    finally:
        host.run(f"docker image rm {image}; rm -r {KEY_FILE}; rm /root/.docker/config.json")
        done = role()
        assert done.returncode == 0, done.stdout + done.stderr
