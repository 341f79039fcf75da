"""The pipeline as GitHub runs it, in the worked example of docs/: from an edit to the release that serves, and back.

The steps are those of the workflows, taken out of their files. What is GitHub's (checkouts, the login at Google, the
cache and its builder) is not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from lab import machine as lab_machine
from tests.e2e.harness import ROOT, Machine, new_or_given
from tests.e2e.workflow import Ended, Job

WORKFLOWS = ROOT / ".github" / "workflows"
# The virtual environment is that of the tests; a builder of BuildKit's own has to come from Docker Hub.
AT_GITHUB = {"Install what the lock says"}
BUILDER = {"Have a builder that can keep its layers"}
# Of the whole project's tests, which run in every other test run as well, the pipeline needs one that fails or passes.
PROJECT_TEST = "from dagster_core import defs\n\ndef test_loads():\n    assert defs.resolve_all_job_defs()\n"
EDIT = """

@dg.asset
def {name}() -> int:
    \"\"\"Made by an edit.\"\"\"
    return 1
"""

# A server that gives up eight seconds after it has begun, wherever it is not a test.
DIES = """
import threading

def end():
    import time

    time.sleep(8)
    os._exit(3)

if "POSTGRES_USER" in os.environ:
    threading.Thread(target=end, daemon=True).start()
"""


class Repository:
    """Somebody's repository with user code, and the jobs that a push or a click starts in it."""

    def __init__(self, machine: Machine, workspace: Path) -> None:
        self.machine = machine
        self.workspace = workspace
        self.project = workspace / "project"
        shutil.copytree(ROOT / "docs/examples/user-code-repository", self.project, symlinks=True)
        for name in ("dagster_core", "files"):
            shutil.copytree(ROOT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__", "secrets"))
        (self.project / "requirements").mkdir()
        shutil.copy(ROOT / "requirements/dagster_core.txt", self.project / "requirements")
        (self.project / "dagster_core_tests").mkdir()
        (self.project / "dagster_core_tests/test_project.py").write_text(PROJECT_TEST)
        (workspace / "collection").symlink_to(ROOT)
        # An environment whose machine is the lab's; the registry answers on the machine where it answers here.
        shutil.copytree(machine.inventory, self.project / "inventory/e2e", symlinks=True)
        self.registry = lab_machine.registry_address(docker.from_env())
        settings = self.project / "inventory/e2e/group_vars/dagster"
        settings.mkdir()
        (settings.parent / "dagster.yml").rename(settings / "machine.yml")
        (settings / "this.yml").write_text(
            f"dagster_core_repository: {self.registry}/pipeline/docker_dagster_core\n"
            "dagster_project_dir: \"{{ inventory_dir ~ '/../..' }}\"\n"
        )

    def release(self, watch: str = "1") -> Ended:
        """A push: `release-core.yml`."""
        return self._job("release-core.yml", {"inputs.image": "", "inputs.watch_seconds": watch}, AT_GITHUB | BUILDER)

    def rollback(self, release: str = "") -> Ended:
        """A click: `rollback-core.yml`."""
        return self._job("rollback-core.yml", {"inputs.release": release}, AT_GITHUB)

    def plan(self) -> Ended:
        """A pull request: `site.yml` with `check`."""
        return self._job("site.yml", {"inputs.check && '--check' || ''": "--check"}, AT_GITHUB)

    def _job(self, workflow: str, inputs: dict[str, str], left_out: set[str]) -> Ended:
        environment = {
            "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "example/pipelines", "GITHUB_RUN_ID": "7",
            "GITHUB_SHA": "0123456789abcdef0123456789abcdef01234567", "GITHUB_ACTOR": "ada",
        }  # fmt: skip
        contexts = {"inputs.environment": "e2e", "vars.DAGSTER_URL": "", **inputs}
        return Job(WORKFLOWS / workflow, self.workspace).run(contexts, left_out, environment)

    def edit(self, text: str) -> None:
        """Add to the code, as an editor would."""
        with (self.project / "dagster_core/assets/climate.py").open("a") as stream:
            stream.write(text)

    def assets(self) -> set[str]:
        """What the webserver shows."""
        nodes = self.machine.graphql("{ assetNodes { assetKey { path } } }")["assetNodes"]
        return {node["assetKey"]["path"][-1] for node in nodes}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A new machine; ``E2E_MACHINE=NAME`` takes one that is there, and leaves it there."""
    with new_or_given("e2e-pipeline") as found:
        yield found


@pytest.fixture(scope="module")
def repository(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    found = Repository(machine, tmp_path_factory.mktemp("workspace"))
    machine.ssh(
        "systemctl is-active registry-here.socket || systemd-run --unit=registry-here"
        f" --socket-property=ListenStream={found.registry} /usr/lib/systemd/systemd-socket-proxyd registry.lab:5000"
    )
    # The first release is the checkout's; the machine gets it as everything after it, by its digest.
    outputs = found.workspace / "first"
    outputs.touch()
    said = subprocess.run(
        [str(ROOT / ".github/scripts/pipeline.py"), "build", "--inventory", "inventory/e2e"],
        cwd=found.project, env={**os.environ, "GITHUB_OUTPUT": str(outputs)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout[-4000:] + said.stderr
    image = outputs.read_text().splitlines()[0].removeprefix("image=")
    machine.play("site.yml", dagster_core_image=image).ok()
    yield found
    client = docker.from_env()
    for each in client.images.list(name=f"{found.registry}/pipeline/docker_dagster_core"):
        client.images.remove(str(each.id), force=True)


def test_from_an_edit_to_the_release_that_serves_and_back(repository: Repository) -> None:
    before = repository.assets()
    # Never pushed before, also where the registry is an older run's: what is there is not built and tested again.
    repository.edit(EDIT.format(name="made_by_the_pipeline") + f"# {time.time_ns()}\n")
    ended = repository.release().ok()
    assert ended.steps == ["Build, test and push", "Find the way to the machine", "Release"]
    assert repository.assets() == before | {"made_by_the_pipeline"}
    assert "1 passed" in ended.output
    assert ended.outputs["image"].startswith(f"{repository.registry}/pipeline/docker_dagster_core@sha256:")
    # The release says what it is of, and who did it.
    machine = repository.machine
    status = machine.play("playbooks/status.yml").ok().output
    assert f"> {ended.outputs['release']}" in status
    assert "commit 0123456789ab; by ada" in status
    assert "### Image: built, tested and pushed in" in ended.summary
    assert "### Release in" in ended.summary
    assert f"| {machine.name} | {ended.outputs['release']} |" in ended.summary
    assert "[this run](https://github.com/example/pipelines/actions/runs/7)" in ended.summary

    # The same commit again: nothing is built, nothing is released.
    again = repository.release().ok()
    assert "### Image: was pushed before in" in again.summary
    assert again.outputs == ended.outputs

    back = repository.rollback().ok()
    assert back.steps == ["Find the way to the machine", "Roll back"]
    assert repository.assets() == before
    assert "### Rollback in" in back.summary
    assert ended.outputs["release"] not in back.summary.partition("| machine |")[2].partition(" | sha256:")[0]


def test_what_the_tests_refuse_is_not_pushed(repository: Repository) -> None:
    before = repository.machine.locations()
    test = repository.project / "dagster_core_tests/test_project.py"
    repository.edit(EDIT.format(name="never_seen"))
    test.write_text(PROJECT_TEST + "\ndef test_fails():\n    assert defs is None\n")
    ended = repository.release()
    assert ended.status != 0
    assert ended.steps == ["Build, test and push"]
    assert "### The image was not built or not pushed" in ended.summary
    assert "test_fails" in ended.summary
    assert repository.machine.locations() == before


def test_what_the_machine_refuses_is_red_and_says_why(repository: Repository) -> None:
    """What the tests in CI cannot see: on the machine the environment is another."""
    before = repository.machine.locations()
    repository.edit('\nimport os\nassert "POSTGRES_USER" not in os.environ, "only in CI"\n')
    (repository.project / "dagster_core_tests/test_project.py").write_text(PROJECT_TEST)
    ended = repository.release()
    assert ended.steps[-1] == "Release"
    assert ended.status != 0
    assert "### Release failed; what served before goes on" in ended.summary
    assert "only in CI" in ended.summary
    assert repository.machine.locations() == before


def test_what_the_machine_takes_back_is_red_too(repository: Repository) -> None:
    """It passes tests and gate, serves, and dies a while later, when the play is long over."""
    before = repository.machine.locations()
    code = repository.project / "dagster_core/assets/climate.py"
    code.write_text(code.read_text().replace('assert "POSTGRES_USER" not in os.environ, "only in CI"', DIES))
    ended = repository.release(watch="60")
    assert ended.steps[-1] == "Release"
    assert ended.status != 0
    assert "### Release taken back by the machine: the release before serves again" in ended.summary
    assert repository.machine.locations() == before


def test_a_plan_says_what_would_change(repository: Repository) -> None:
    settings = repository.project / "inventory/e2e/group_vars/dagster/this.yml"
    settings.write_text(settings.read_text() + "dagster_max_concurrent_runs: 3\n")
    ended = repository.plan().ok()
    assert ended.steps == ["Play site.yml"]
    assert "would change, in" in ended.summary.splitlines()[0]
    assert re.search(r"^\s*\+.*max_concurrent_runs: 3$", ended.summary, re.MULTILINE)
    assert "max_concurrent_runs: 5" in repository.machine.ssh("cat /opt/dagster/dagster_home/dagster.yaml")
