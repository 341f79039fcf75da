"""What the role leaves on the machine, what it refuses, and that no secret is seen anywhere."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from tests.scenario import Role

ROOT = "/opt/dagster"
HOME = f"{ROOT}/dagster_home"
KEY = f"{HOME}/secrets/service-account.json"
CANARY = "c4n4ry $HOME ${X} #'\"\\é"
OTHER = {"grpc_server": {"host": "other", "port": 4001, "location_name": "other"}}


def password(host: Host) -> str:
    """The generated password: letters and digits, so that it needs no quotes in .env."""
    return str(host.check_output(f"sed -n s/^POSTGRES_PASSWORD=//p {ROOT}/.env"))


def state(host: Host) -> str:
    """Everything below /opt/dagster: paths, owners, modes, times of change, contents."""
    listed = f"find {ROOT} ! -name '.*.lock' -printf '%p %u:%g %m %T@\\n' | sort"
    return str(host.check_output(f"{listed}; find {ROOT} -type f -exec sha256sum {{}} + | sort"))


def image(host: Host) -> str:
    """Id of the webserver's image."""
    listed = host.check_output("docker image ls --filter reference=dagster_daemon_webserver --format '{{.ID}}'")
    return str(listed.split()[0])


def dagster_yaml(host: Host) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(host.file(f"{HOME}/dagster.yaml").content_string)
    return document


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        (ROOT, 0, 0o755),
        (f"{ROOT}/.env", 0, 0o600),
        (HOME, 0, 0o755),
        (f"{HOME}/dagster.yaml", 0, 0o644),
        (f"{HOME}/workspace.yaml", 0, 0o644),
        (f"{HOME}/secrets", 10001, 0o700),
    ],
)
def test_the_layout(host: Host, path: str, owner: int, mode: int) -> None:
    file = host.file(path)
    assert (file.uid, file.gid, file.mode) == (owner, owner, mode)


def test_the_article_s_settings_hold(host: Host) -> None:
    found = dagster_yaml(host)
    assert found["concurrency"]["runs"]["max_concurrent_runs"] == 5
    assert found["telemetry"] == {"enabled": False}
    assert found["storage"]["postgres"]["postgres_db"]["params"] == {"passfile": f"{HOME}/database/pgpass"}
    assert found["run_launcher"]["class"] == "DockerRunLauncher"
    assert found["run_monitoring"]["enabled"] is True
    assert yaml.safe_load(host.file(f"{HOME}/workspace.yaml").content_string) == {"load_from": []}
    assert len(password(host)) == 40
    assert not host.file(KEY).exists


def test_a_second_run_changes_nothing_and_asks_little(host: Host, role: Role) -> None:
    before = state(host)
    done = role("-v")
    assert "changed=0" in done.stdout, done.stdout
    assert state(host) == before
    remote = ["Write .env", "Place or remove the service account's key", "Write dagster.yaml", "Write workspace.yaml"]
    tasks = [line for line in done.stdout.splitlines() if line.startswith("TASK [dataops.dagster_gce.dagster_home")]
    local = [line for line in tasks if not any(name in line for name in remote)]
    assert len(tasks) - len(local) == 4
    assert all("alidat" in line or "Publish" in line for line in local), "every other task runs on the controller"


def test_the_webserver_s_dagster_starts_with_these_files(host: Host) -> None:
    """Not our validation's word: the program itself, as the container's user, with the folder mounted as it will be."""
    program = (
        "from dagster._core.instance.ref import InstanceRef\n"
        f"ref = InstanceRef.from_dir('{HOME}')\n"
        "ref.run_launcher, ref.run_coordinator, ref.scheduler, ref.compute_log_manager"
    )
    confined = f"--rm --network none --volume {HOME}:{HOME}:ro --volume /opt/dagster/storage --entrypoint python3"
    host.check_output(f"docker run {confined} {image(host)} -c {shlex.quote(program)}")


class TestTheServiceAccount:
    def test_from_attached_to_key_and_back(self, host: Host, role: Role, service_account: dict[str, str]) -> None:
        variables = {"dagster_home_service_account_mode": "key", "gcp_project": "a-project"}
        outputs = []
        for given in (json.dumps(service_account), service_account):
            done = role("-vvv", "--diff", **variables, dagster_home_service_account=given)
            assert done.returncode == 0, done.stdout
            outputs.append(done.stdout + done.stderr)
        # As text and as a mapping, it is the same key.
        file = host.file(KEY)
        assert (file.uid, file.gid, file.mode) == (10001, 10001, 0o400)
        assert json.loads(file.content_string) == service_account
        again = role(**variables, dagster_home_service_account=service_account)
        assert "changed=0" in again.stdout

        launcher = dagster_yaml(host)["run_launcher"]["config"]
        assert f"GOOGLE_APPLICATION_CREDENTIALS={KEY}" in launcher["env_vars"]
        assert f"{KEY}:{KEY}:ro" in launcher["container_kwargs"]["volumes"]
        for output in outputs:
            assert "c4n4ry-id" not in output
            assert service_account["private_key"].splitlines()[3] not in output

        assert role().returncode == 0
        assert not host.file(KEY).exists
        assert "GOOGLE_APPLICATION_CREDENTIALS" not in host.file(f"{HOME}/dagster.yaml").content_string

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("", "dagster_home_service_account: found an empty text"),
            ("{not json", "dagster_home_service_account: found a text that is not JSON"),
            ('{"type": "authorized_user", "refresh_token": "c4n4ry"}', "a user's own credential"),
            ("files/secrets/no-such-file.json", "no-such-file.json"),
            ("other-project", "found a key of the project 'a-project'; expected a key of the project 'the-project'"),
        ],
    )
    def test_what_is_no_key_stops_before_anything_is_touched(
        self, host: Host, role: Role, service_account: dict[str, str], given: str, words: str
    ) -> None:
        before = state(host)
        content = json.dumps(service_account) if given == "other-project" else given
        done = role(
            "-vvv",
            dagster_home_service_account_mode="key",
            dagster_home_service_account=content,
            gcp_project="the-project",
        )
        assert done.returncode != 0
        assert words in " ".join((done.stdout + done.stderr).split())
        assert "c4n4ry" not in done.stdout + done.stderr
        assert state(host) == before


class TestThePassword:
    def test_another_one_is_refused_once_there_is_a_database(self, host: Host, role: Role) -> None:
        before = state(host)
        host.check_output("docker volume create dagster-postgres")
        try:
            done = role("-vvv", "--diff", dagster_postgres_password=CANARY)
            assert done.returncode != 0
            assert "dagster_home_postgres_password: differs from POSTGRES_PASSWORD" in done.stdout + done.stderr
            assert "c4n4ry" not in done.stdout + done.stderr
            assert state(host) == before
            done = role(dagster_postgres_user="another")
            assert "dagster_home_postgres_user: differs from POSTGRES_USER" in done.stdout + done.stderr
            assert state(host) == before
            assert role(dagster_postgres_password=password(host)).returncode == 0
            assert state(host) == before
        finally:
            host.check_output("docker volume rm dagster-postgres")

    def test_a_hostile_one_comes_through_and_is_never_seen(self, host: Host, role: Role) -> None:
        old = password(host)
        done = role("-vvv", "--diff", dagster_postgres_password=CANARY, dagster_home_environment={"TOKEN": CANARY})
        assert done.returncode == 0, done.stdout
        assert "(changed, hidden)" in done.stdout
        for secret in ("c4n4ry", old):
            assert secret not in done.stdout + done.stderr
        assert "c4n4ry" not in host.check_output("cat /var/log/syslog 2>/dev/null; journalctl --no-pager --since -5m")
        compose = {"services": {"a": {"image": image(host), "env_file": [f"{ROOT}/.env"], "network_mode": "none"}}}
        program = "import json, os; print(json.dumps([os.environ['POSTGRES_PASSWORD'], os.environ['TOKEN']]))"
        compose["services"]["a"]["entrypoint"] = ["python3", "-c", program]
        quoted = shlex.quote(json.dumps(compose).replace("$", "$$"))
        seen = host.check_output(f"echo {quoted} | docker compose --project-name canary -f - run --rm -T a")
        assert json.loads(seen) == [CANARY, CANARY]
        assert "TOKEN" in dagster_yaml(host)["run_launcher"]["config"]["env_vars"]
        assert "c4n4ry" not in host.file(f"{HOME}/dagster.yaml").content_string
        assert role(dagster_postgres_password=old).returncode == 0

    @pytest.mark.parametrize(
        ("value", "words"), [("c4n4ry\nx", "a text with a line end"), (4711, "put the value in quotes")]
    )
    def test_what_a_file_cannot_hold_is_refused_by_name(self, host: Host, role: Role, value: Any, words: str) -> None:
        before = state(host)
        done = role(dagster_home_postgres_password=value)
        assert done.returncode != 0
        assert "dagster_home_postgres_password" in done.stdout
        assert words in " ".join(done.stdout.split())
        assert "c4n4ry" not in done.stdout + done.stderr
        assert state(host) == before


class TestDagsterYaml:
    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            ({"run_monitoring": {"enabeld": True}}, 'unexpected config entry "enabeld" at path root:run_monitoring'),
            ({"run_storage": {"module": "a", "class": "b"}}, "`storage` which is incompatible with `run_storage`"),
            ({"run_queue": {"max_concurrent_runs": 3}}, "incompatible with the `concurrency > runs` config"),
            ({"run_launcher": {"config": {"container_kwargs": {"mem_limt": "1g"}}}}, "'mem_limt'"),
        ],
    )
    def test_what_dagster_refuses_stays_out(
        self, host: Host, role: Role, overrides: dict[str, Any], words: str
    ) -> None:
        before = state(host)
        for options in ([], ["--check"]):
            done = role(*options, dagster_home_dagster_yaml_overrides=overrides)
            assert done.returncode != 0
            assert "refuses dagster.yaml; the file was not touched" in done.stdout + done.stderr
            assert words in " ".join((done.stdout + done.stderr).split())
        assert state(host) == before

    def test_overrides_and_the_default_launcher(self, host: Host, role: Role) -> None:
        overrides = {"nux": None, "run_monitoring": {"poll_interval_seconds": 7}}
        done = role(
            dagster_run_launcher="default",
            dagster_max_concurrent_runs="9",
            dagster_home_dagster_yaml_overrides=overrides,
        )
        assert done.returncode == 0, done.stdout
        found = dagster_yaml(host)
        assert found["run_launcher"] == {"module": "dagster", "class": "DefaultRunLauncher"}
        assert found["concurrency"]["runs"]["max_concurrent_runs"] == 9
        assert found["run_monitoring"]["poll_interval_seconds"] == 7
        assert found["run_monitoring"]["enabled"] is True
        assert "nux" not in found

    def test_the_article_s_own_file(self, host: Host, role: Role) -> None:
        """Three storage blocks and a run coordinator, in place of ours."""
        storage = {"postgres_db": dagster_yaml(host)["storage"]["postgres"]["postgres_db"]}
        blocks = {
            "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage", storage),
            "event_log_storage": ("dagster_postgres.event_log", "PostgresEventLogStorage", storage),
            "schedule_storage": ("dagster_postgres.schedule_storage", "PostgresScheduleStorage", storage),
            "run_coordinator": ("dagster.core.run_coordinator", "QueuedRunCoordinator", {"max_concurrent_runs": 5}),
        }
        article = {name: {"module": block[0], "class": block[1], "config": block[2]} for name, block in blocks.items()}
        done = role(dagster_home_dagster_yaml_overrides={"storage": None, "concurrency": None, **article})
        assert done.returncode == 0, done.stdout
        assert role().returncode == 0

    def test_all_wrong_inputs_are_told_at_once(self, role: Role) -> None:
        done = role(dagster_home_postgres_user="select", dagster_home_root="opt", dagster_home_run_memory="plenty")
        assert done.returncode != 0
        for name in ("dagster_home_postgres_user", "dagster_home_root", "dagster_home_run_memory"):
            assert f"{name}: found" in done.stdout
        done = role(dagster_home_run_launcher="celery")
        assert "dagster_home_run_launcher" in done.stdout

    def test_an_engine_without_a_swarm_is_told_before_anything_is_touched(self, host: Host, role: Role) -> None:
        before = host.check_output(f"cat {ROOT}/.env {HOME}/dagster.yaml | sha256sum")
        done = role(dagster_home_run_launcher="swarm", dagster_home_gcp_project="another")
        assert done.returncode != 0
        assert "dagster_run_launcher: found swarm" in " ".join(done.stdout.split())
        assert host.check_output(f"cat {ROOT}/.env {HOME}/dagster.yaml | sha256sum") == before


class TestWorkspace:
    def test_the_entry_of_the_user_code_is_kept(self, host: Host, role: Role) -> None:
        path = f"{HOME}/workspace.yaml"
        core = {"grpc_server": {"host": "docker_dagster_core_x", "port": 4000, "location_name": "dagster_core"}}
        host.check_output(f"mkdir -p {ROOT}/releases && ln -sfn x {ROOT}/releases/current")
        try:
            assert role(dagster_home_code_locations=[OTHER]).returncode == 0
            assert yaml.safe_load(host.file(path).content_string)["load_from"] == [core, OTHER]
            inode = host.check_output(f"stat -c %i {path}")
            done = role(dagster_home_code_locations=[OTHER, OTHER])
            assert "Cannot have multiple locations with the same name" in done.stdout + done.stderr
            assert host.check_output(f"stat -c %i {path}") == inode
            assert role().returncode == 0
            assert yaml.safe_load(host.file(path).content_string)["load_from"] == [core]
        finally:
            host.check_output(f"rm -r {ROOT}/releases {path}")
            assert role().returncode == 0


def test_check_mode_tells_the_truth(host: Host, role: Role) -> None:
    before = state(host)
    done = role("--check", "--diff", dagster_home_run_max_seconds=4711)
    assert done.returncode == 0
    assert "changed=1" in done.stdout
    assert "max_runtime_seconds: 4711" in done.stdout
    assert state(host) == before
