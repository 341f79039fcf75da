"""The workflows: what linters do not know of ours. actionlint, zizmor and GitHub's schema are `make lint-workflows`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.unit import programs

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
EXAMPLES = sorted((ROOT / "docs/examples").rglob(".github/workflows/*.yml"))
ENVIRONMENTS = ["dev", "staging", "prod"]
# What a job may write, and why it may is in its comment.
WRITES = {
    "release-core.yml": {"id-token"},
    "rollback-core.yml": {"id-token"},
    "site.yml": {"id-token"},
    "core.yml": {"id-token"},
    "infrastructure.yml": {"id-token"},
    "docs.yml": {"pages", "id-token"},
    "release.yml": {"contents", "id-token", "attestations"},
}


class Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a boolean, as GitHub has it: ``on`` is a word."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader)
    return found


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(path)["jobs"]
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(path).values():
        yield from job.get("steps", [])


@pytest.fixture(scope="module")
def pipeline() -> ModuleType:
    """The program that the steps call."""
    found: ModuleType = programs.load(ROOT / ".github/scripts/pipeline.py")
    return found


@pytest.mark.parametrize("path", WORKFLOWS + EXAMPLES, ids=lambda path: path.name)
def test_actions_are_pinned_to_commits(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if used := re.match(r"\s*(?:- )?uses: (\S+)(.*)", line):
            local = used[1].startswith("./.github/workflows/") and (ROOT / used[1]).exists()
            ours = path in EXAMPLES and used[1].startswith("dataops/dagster_gce/.github/workflows/")
            pinned = re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", used[1]) and re.match(
                r" # v\d+\.\d+\.\d+$", used[2]
            )
            assert local or ours or pinned, line


def test_an_action_has_one_version_everywhere() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS + EXAMPLES)
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40} # \S+)", text):
        versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
    assert "google-github-actions/auth" in versions


@pytest.mark.parametrize("path", WORKFLOWS + EXAMPLES, ids=lambda path: path.name)
def test_nothing_that_others_write_is_put_into_a_script(path: Path) -> None:
    for step in steps(path):
        assert "${{" not in step.get("run", ""), step["name"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_may_do_what_it_needs_and_no_more(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow["on"]
    # There is no secret to leak: Google takes GitHub's own token.
    assert "secrets." not in path.read_text(encoding="utf-8")
    for name, job in workflow["jobs"].items():
        granted = job["permissions"]
        writes = {what for what, level in granted.items() if level == "write"}
        assert writes <= WRITES.get(path.name, set()), name
        assert granted.get("contents") in ("read", "write", None)
        assert "uses" in job or job["timeout-minutes"] <= 90
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_login_at_google_needs_an_environment(path: Path) -> None:
    """Google trusts `repo:…:environment:<name>` only, so that the environment's protection is Google's as well."""
    for job in jobs(path).values():
        uses = [step.get("uses", "") for step in job.get("steps", [])]
        if any(each.startswith("google-github-actions/auth@") for each in uses):
            assert job["environment"]["name"].startswith("${{ inputs.environment }}")


def test_no_two_jobs_change_an_environment_at_once() -> None:
    groups = {}
    for name in ("release-core.yml", "rollback-core.yml", "site.yml"):
        (job,) = jobs(ROOT / ".github/workflows" / name).values()
        assert job["concurrency"]["cancel-in-progress"] is False
        groups[name] = job["concurrency"]["group"]
    assert groups["release-core.yml"] == groups["rollback-core.yml"] == "dagster-${{ inputs.environment }}"
    assert groups["site.yml"] == "dagster-${{ inputs.check && 'plan-' || '' }}${{ inputs.environment }}"


def test_the_choices_are_the_inventories() -> None:
    assert all((ROOT / "inventory" / name / "hosts.yml").exists() for name in ENVIRONMENTS)
    for name in ("core.yml", "rollback-core.yml"):
        choice = load(ROOT / ".github/workflows" / name)["on"]["workflow_dispatch"]["inputs"]["environment"]
        assert choice["options"] == ENVIRONMENTS


def matches(pattern: str, path: str) -> bool:
    """GitHub's filter for paths, as far as it is used here."""
    regex = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.fullmatch(regex, path) is not None


def test_what_an_image_is_made_of_starts_its_pipeline() -> None:
    """The hash of the user code's image, and the trigger, look at the same files."""
    known = yaml.safe_load((ROOT / "roles/dagster_image/vars/main.yml").read_text())["__dagster_image_known"]
    core, infrastructure = (
        load(ROOT / ".github/workflows" / name)["on"] for name in ("core.yml", "infrastructure.yml")
    )
    for name, patterns in (
        ("docker_dagster_core", core["push"]["paths"]),
        ("dagster_daemon_webserver", infrastructure["push"]["paths"]),
    ):
        for each in [*known[name]["include"], known[name]["dockerfile"]]:
            file = each if (ROOT / each).is_file() else f"{each}/__init__.py"
            assert any(matches(pattern, file) for pattern in patterns), file
    assert infrastructure["push"]["paths"] == infrastructure["pull_request"]["paths"]
    for pattern in core["push"]["paths"] + infrastructure["push"]["paths"]:
        assert list(ROOT.glob(pattern)), pattern


def test_a_fork_plans_nothing() -> None:
    plan = jobs(ROOT / ".github/workflows/infrastructure.yml")["plan"]
    assert "github.event.pull_request.head.repo.full_name == github.repository" in plan["if"]
    assert plan["with"]["check"] is True


def test_prod_gets_what_staging_had() -> None:
    prod = jobs(ROOT / ".github/workflows/core.yml")["prod"]
    assert prod["needs"] == "staging"
    assert prod["with"]["image"] == "${{ needs.staging.outputs.image }}"


def test_the_steps_call_the_program_as_it_is(pipeline: ModuleType) -> None:
    seen = set()
    for path in WORKFLOWS:
        for step in steps(path):
            for line in step.get("run", "").splitlines():
                if "pipeline.py" in line:
                    program, *arguments = shlex.split(re.sub(r'\$\{CHECK:\+"\$CHECK"\}', "--check", line))
                    assert program == "../collection/.github/scripts/pipeline.py"
                    assert step["working-directory"] == "project"
                    parsed = pipeline.parse([re.sub(r"^\$WATCH$", "65", each) for each in arguments])
                    seen.add(parsed.work.__name__)
                    # Whatever a variable holds is one word of the command.
                    assert not re.search(r'(?<!["\w/:+])\$\w', line), line
    assert seen == {"build", "reach", "release", "rollback", "site"}


def test_the_artefacts_of_a_release_are_signed() -> None:
    publish = jobs(ROOT / ".github/workflows/release.yml")["publish"]
    assert publish["environment"] == "release"
    names = [step["name"] for step in publish["steps"]]
    assert names.index("Sign") < names.index("Publish")


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    scripts = "\n".join(step.get("run", "") for path in WORKFLOWS for step in steps(path))
    called = set(re.findall(r"\bmake (?:-C \S+ )?([a-z-]+)", scripts))
    assert {"check", "controller", "test"} <= called
    assert called <= targets
