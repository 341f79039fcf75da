"""check_inputs in a real ansible-playbook, since what it must survive is Ansible's own templating."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Play = Callable[..., "Outcome"]


class Outcome:
    """The end of a play: its status, all it printed, and the lines of the error list."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.output = done.stdout + done.stderr
        lines = [line.strip() for line in self.output.splitlines()]
        self.errors = list(dict.fromkeys(line[2:] for line in lines if line.startswith("- ") and ": found " in line))


@pytest.fixture
def play(tmp_path: Path, ansible_environment: dict[str, str]) -> Play:
    """Run tasks on a host that does not exist: a connection would be an error of its own."""

    def run(tasks: list[dict[str, Any]], variables: dict[str, Any], *arguments: str, **environment: str) -> Outcome:
        # In a file of their own, since Ansible prints the lines of a play around a task that fails.
        (tmp_path / "vars.yml").write_text(yaml.safe_dump(variables, sort_keys=False), encoding="utf-8")
        head = {"hosts": "nowhere", "gather_facts": False, "vars_files": ["vars.yml"]}
        text = yaml.safe_dump([{**head, "tasks": tasks}], sort_keys=False)
        (tmp_path / "play.yml").write_text(text, encoding="utf-8")
        return Outcome(
            subprocess.run(
                [str(shutil.which("ansible-playbook")), "-i", "nowhere,", *arguments, str(tmp_path / "play.yml")],
                env={**ansible_environment, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
        )

    return run


def check(**checks: dict[str, Any]) -> dict[str, Any]:
    return {"dataops.dagster_gce.check_inputs": {"checks": checks}}


def test_all_mistakes_come_at_once_and_without_a_connection(play: Play) -> None:
    outcome = play(
        [
            check(
                port={"rule": "port"},
                image={"rule": "image_reference"},
                undefined={"rule": "nonempty"},
                chained={"rule": "mapping"},
                nested={"rule": "mapping"},
                broken={"rule": "positive_integer"},
                unset={"rule": "choice", "choices": ["docker", "distro"]},
                omitted={"rule": "nonempty"},
                optional={"rule": "port", "required": False},
                left_out={"rule": "port", "required": False},
                templated={"rule": "positive_integer"},
            )
        ],
        {
            "port": 70000,
            "image": "postgres",
            "undefined": "{{ nowhere_set }}",
            "chained": "{{ undefined }}",
            "nested": {"a": [1, "{{ nowhere_set.b }}"]},
            "broken": "{{ 'x' | from_json }}",
            "omitted": "{{ omit }}",
            "optional": "",
            "templated": "{{ 1 + 1 }}",
        },
    )

    assert outcome.status == 2
    assert [line.split(":")[0].split(" (from ")[0] for line in outcome.errors] == [
        "port",
        "image",
        "undefined",
        "chained",
        "nested",
        "broken",
        "unset",
        "omitted",
    ]
    assert "8 inputs are wrong" in outcome.output
    assert "unset: found nothing (it is not set); expected one of docker, distro" in outcome.errors
    assert "undefined: found a template that needs something undefined: 'nowhere_set' is undefined; " in outcome.output
    assert "UNREACHABLE" not in outcome.output
    assert "Traceback" not in outcome.output


def test_good_inputs_pass_in_check_mode_too(play: Play) -> None:
    for arguments in ([], ["--check", "--diff"]):
        outcome = play([check(port={"rule": "port"})], {"port": "3000"}, *arguments)
        assert outcome.status == 0, outcome.output
        assert "changed=0" in outcome.output


def test_no_secret_is_printed_however_verbose(play: Play, tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text('{"type": "service_account", "private_key": "CANARY-file"}', encoding="utf-8")
    outcome = play(
        [
            check(
                password={"rule": "dotenv_value", "secret": True},
                template={"rule": "dotenv_value", "secret": True},
                short={"rule": "regex", "pattern": "x{64}", "secret": True},
                good={"rule": "dotenv_value", "secret": True},
                key={"rule": "service_account"},
                key_text={"rule": "service_account"},
                key_user={"rule": "service_account"},
                key_elsewhere={"rule": "service_account"},
            )
        ],
        {
            "password": "CANARY-1\nCANARY-2",
            "template": "{{ 'CANARY-3' | from_json }}",
            "short": "CANARY-4",
            "good": "CANARY-5",
            "key": str(tmp_path / "key.json"),
            "key_text": "-----BEGIN PRIVATE KEY-----\nCANARY-6",
            "key_user": json.dumps({"type": "authorized_user", "refresh_token": "CANARY-7"}),
            "key_elsewhere": "CANARY-8=",
        },
        "-vvvv",
        "--diff",
    )

    assert outcome.status == 2
    assert len(outcome.errors) == 7, outcome.output
    assert "CANARY" not in outcome.output


def test_what_is_encrypted_is_secret(play: Play, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x", encoding="utf-8")
    password = f"--vault-password-file={tmp_path / 'password'}"
    command = ["ansible-vault", "encrypt_string", password, "--name", "vaulted", "CANARY"]
    encrypted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (tmp_path / "secrets.yml").write_text(encrypted, encoding="utf-8")

    tasks = [check(vaulted={"rule": "port"}, through={"rule": "port"})]
    outcome = play(tasks, {"through": "{{ vaulted }}"}, "-e", f"@{tmp_path / 'secrets.yml'}", password, "-vvv")
    assert outcome.errors == [
        "vaulted: found a text (hidden); expected a port from 1 to 65535",
        "through (from vaulted): found a text (hidden); expected a port from 1 to 65535",
    ]
    assert "CANARY" not in outcome.output

    outcome = play(tasks, {"through": "{{ vaulted }}"}, "-e", f"@{tmp_path / 'secrets.yml'}")
    assert "no vault secrets found" in outcome.errors[0]


def test_service_account_is_read_from_a_file_next_to_the_play(play: Play, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/key.json").write_text('{"type": "authorized_user"}', encoding="utf-8")
    checks = check(key={"rule": "service_account"}, gone={"rule": "service_account"})
    outcome = play([checks], {"key": "key.json", "gone": "/nowhere/key.json"})

    assert "key: found a user's own credential" in outcome.output
    assert "gone: found '/nowhere/key.json', which is neither JSON nor on the controller" in outcome.output


def test_project_is_taken_from_a_variable_even_from_a_broken_one(play: Play) -> None:
    key = dict.fromkeys(("private_key_id", "private_key"), "x")
    key |= {"type": "service_account", "project_id": "b", "client_email": "a@b", "token_uri": "https://t"}
    checks = check(key={"rule": "service_account", "project_variable": "project"}, project={"rule": "nonempty"})

    assert "expected a key of the project 'a'" in play([checks], {"key": json.dumps(key), "project": "a"}).output

    outcome = play([checks], {"key": json.dumps(key), "project": "{{ nowhere_set }}"})
    assert [line.split(":")[0] for line in outcome.errors] == ["key", "project"]
    assert "a private_key that cannot be read" in outcome.errors[0]


def test_collected_mistakes_are_reported_once_in_one_list(play: Play) -> None:
    report = {"dataops.dagster_gce.check_inputs": {"report": True}}
    tasks = [
        check(one={"rule": "port"}),
        check(good={"rule": "port"}),
        check(one={"rule": "port"}, two={"rule": "url"}),
    ]
    variables = {"check_inputs_collect": True, "one": 0, "two": "x", "good": 1}

    outcome = play([*tasks, report], variables)
    assert outcome.status == 2
    assert "failed=1" in outcome.output
    assert "ok=3" in outcome.output
    assert "2 inputs are wrong" in outcome.output

    put_right = [check(one={"rule": "port"}), {**check(one={"rule": "port"}), "vars": {"one": 1}}]
    assert play([*put_right, report], variables).status == 0
    assert play([check(good={"rule": "port"}), report], variables).status == 0
    assert play([report], {}).status == 0


def test_what_an_earlier_run_left_in_a_fact_cache_is_not_reported(play: Play, tmp_path: Path) -> None:
    cache = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path / "cache")}
    assert play([check(one={"rule": "port"})], {"check_inputs_collect": True, "one": 0}, **cache).status == 0
    assert "check_inputs_errors" in next((tmp_path / "cache").iterdir()).read_text(encoding="utf-8")

    report = {"dataops.dagster_gce.check_inputs": {"report": True}}
    assert play([report], {"check_inputs_collect": True}, **cache).status == 0


def test_mistake_of_the_roles_author_fails_at_once(play: Play) -> None:
    outcome = play([check(port={"rule": "prot"})], {"check_inputs_collect": True, "port": 1})
    assert outcome.status == 2
    assert "check_inputs is used wrongly" in outcome.output
    assert "port: unknown rule 'prot'" in outcome.output
