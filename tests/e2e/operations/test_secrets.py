"""New secrets while everything runs: nothing is lost, and one that was killed is ended by the next."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.bench.measure import launches
from tests.e2e.harness import LONG, Machine, long_form, wait
from tests.e2e.load import Load
from tests.e2e.redeploy.user_code import UserCode

ROTATE = "playbooks/rotate_secrets.yml"
FOLDER = "/opt/dagster/dagster_home/database"
KEY = "/opt/dagster/dagster_home/secrets/service-account.json"
STACK = "docker ps --no-trunc --format '{{.ID}} {{.Names}}' | grep -E ' (docker_)?dagster' | sort"
# From the container's own address, for which PostgreSQL asks for a password as for everybody's.
LOGIN = (
    'docker exec -e PGPASSWORD="$p" dagster-postgres sh -c \'psql -w -h $(hostname -i) -U dagster -d dagster -Atc'
    ' "select 1"\' 2>&1'
)
# A new connection as Dagster itself makes it.
OPEN = (
    "docker exec dagster-daemon python3 -c 'from dagster import DagsterInstance as D; print(D.get().get_runs_count())'"
)
ROUNDS = 5 if LONG else 1
PHASES = ["pending", "altered", "files", "commit", "changed"] if LONG else ["altered", "commit"]


def password(machine: Machine) -> str:
    """What `.env` and both files hold, which is one thing."""
    text = machine.ssh(
        f"sed -nE \"s/^POSTGRES_PASSWORD='?([^']*)'?$/\\1/p\" /opt/dagster/.env; cat {FOLDER}/password; echo"
    )
    environment, plain = text.splitlines()
    assert environment == plain
    assert machine.ssh(f"cat {FOLDER}/pgpass") == f"*:*:*:*:{plain}\n"
    return plain


def test_new_passwords_under_load_lose_nothing(machine: Machine) -> None:
    before, containers = password(machine), machine.ssh(STACK)
    # Connections of the webserver that an earlier test has cut with PostgreSQL fail once more when they are used.
    wait(lambda: launches(machine), 60, "a launch")
    with Load(machine, long_runs=2, long_seconds=30 * ROUNDS) as load:
        for _ in range(ROUNDS):
            played = machine.play(ROTATE, "-vvv", "--diff").ok()
            assert played.changed == 1
            # With the new password; one may have been on its way.
            load.wait_for_launches(2)
    after = password(machine)
    lost = load.lost_runs()
    print(
        f"rotations: {ROUNDS}; queries: {load.queries}, failed {len(load.failed_queries)}; "
        f"launches: {len(load.launched)}, failed {len(load.failed_launches)}; "
        f"runs: {len(load.launched + load.long)}, lost {len(lost)}"
    )
    assert after != before
    assert (load.failed_queries, load.failed_launches, lost) == ([], [], {})
    assert machine.ssh(STACK) == containers, "a container was replaced"
    assert "password authentication failed" in machine.ssh(f"p={before}; {LOGIN}", check=False)
    assert machine.ssh(f"p={after}; {LOGIN}").strip() == "1"
    for secret in (before, after):
        assert secret not in played.output
    logs = machine.ssh(
        f"(docker logs dagster-postgres; journalctl --no-pager --since -10m) 2>&1 | grep -cF {after}", check=False
    )
    assert logs.strip() == "0"


@long_form
def test_site_changes_nothing_after_it(machine: Machine) -> None:
    containers = machine.ssh(STACK)
    played = machine.play("site.yml", "--check", dagster_core_dir="tests/fixtures/dagster_core_load").ok()
    assert played.changed == 0, played.output[-6000:]
    assert machine.ssh(STACK) == containers


def test_one_killed_in_any_phase_is_ended_by_the_next(machine: Machine) -> None:
    machine.send_plugins(Path(__file__).parent / "rotate_at.py")
    waiting = ""
    for phase in PHASES:
        said = machine.ssh(
            f"cd /root/e2e; export PYTHONPATH=.; python3 rotate_at.py {phase}; echo $?; "
            "cat /opt/dagster/.env.rotation; echo; python3 rotate_at.py none; echo $?; "
            "ls -A /opt/dagster | grep -c rotation$",
            check=False,
        )
        killed, waiting, ended, left = said.splitlines()
        assert (killed, ended, left) == ("137", "0", "0"), (phase, said)
        # What the killed one had decided on, and no third one.
        assert password(machine) == waiting
    assert machine.ssh(f"p={waiting}; {LOGIN}").strip() == "1"
    assert int(machine.ssh(OPEN)) >= 0


def test_a_given_password_with_every_character(machine: Machine) -> None:
    given = r"""p$a#s"s \w`ö!$${x}%=;&|:'"""
    machine.play(ROTATE, dagster_postgres_password=given).ok()
    assert machine.ssh(f"cat {FOLDER}/password") == given
    assert int(machine.ssh(OPEN)) >= 0
    assert machine.play(ROTATE, dagster_postgres_password=given).ok().changed == 0
    machine.play(ROTATE).ok()
    assert password(machine) != given


def test_what_cannot_be_changed_says_so_and_changes_nothing(machine: Machine) -> None:
    before = password(machine)
    machine.play(ROTATE, dagster_postgres_password="two\nlines").refused(
        "dagster_secrets_postgres_password", "line end"
    )
    machine.play(ROTATE, dagster_service_account_mode="key").refused("dagster_secrets_service_account: found an empty")
    machine.ssh("docker pause dagster-postgres")
    try:
        machine.play(ROTATE).refused("PostgreSQL refused", "paused", "Nothing was changed")
    finally:
        machine.ssh("docker unpause dagster-postgres")
    assert password(machine) == before


@pytest.fixture
def keys() -> list[str]:
    """Two keys of one service account."""
    made = []
    for number in (1, 2):
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        made.append(
            json.dumps(
                {
                    "type": "service_account", "project_id": "a-project", "private_key_id": f"c4n4ry-{number}",
                    "private_key": private.decode(), "client_email": "dagster@a-project.iam.gserviceaccount.com",
                    "token_uri": "http://127.0.0.1:9/token",
                }
            )
        )  # fmt: skip
    return made


def test_a_new_key_gets_a_release_of_the_same_image(machine: Machine, keys: list[str]) -> None:
    variables: dict[str, Any] = {
        "dagster_service_account_mode": "key",
        "dagster_secrets_rotate": ["key"],
        "dagster_core_guard_seconds": 0,
    }
    seen = []
    try:
        machine.play(ROTATE, **variables, dagster_home_service_account=keys[0]).refused("no answer while a token")
        assert machine.ssh(f"ls {KEY} 2>&1", check=False).strip().endswith("No such file or directory")
        for key in keys:
            played = machine.play(
                ROTATE,
                "-vvv",
                "--diff",
                **variables,
                dagster_home_service_account=key,
                dagster_secrets_verify_key=False,
            ).ok()
            assert json.loads(key)["private_key"].splitlines()[3] not in played.output
            host = machine.locations()["dagster_core"].metadata["host"]
            seen.append((host, json.loads(machine.ssh(f"docker exec {host} cat {KEY}"))["private_key_id"]))
        (first, _), (second, _) = seen
        assert first != second
        assert [key for _, key in seen] == ["c4n4ry-1", "c4n4ry-2"]
        # The release before is kept for a rollback, with the key that it began with: nobody may delete that one yet.
        assert json.loads(machine.ssh(f"docker exec {first} cat {KEY}"))["private_key_id"] == "c4n4ry-1"
        if not LONG:
            return
        again = machine.play(
            ROTATE, **variables, dagster_home_service_account=keys[1], dagster_secrets_verify_key=False,
            dagster_secrets_delete_old_key=True,
        ).ok()  # fmt: skip
        assert again.changed == 0
        assert f"{first} may still have it" in again.flat
    finally:
        machine.ssh(f"rm -f {KEY} {os.path.dirname(KEY)}/replaced.json")
        UserCode(machine).deploy("e2e_base:1", dagster_core_guard_seconds=0).ok()
