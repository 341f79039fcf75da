"""The controller's half of the export; tests/e2e/operations/test_export.py plays the whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.dataops.dagster_gce.plugins.action import dagster_export
from ansible_collections.dataops.dagster_gce.plugins.plugin_utils import helm_values
from tests.unit.plugins.plugin_utils.test_helm_values import FACTS, INSTANCE

VALUES = helm_values.values(FACTS, INSTANCE, "r.dev/p/d", "")
EXPORT = dagster_export.Export("prod", FACTS, {**INSTANCE, "mail": {"smtp_password": "hidden"}}, VALUES)
DUMP: dict[str, Any] = {
    "path": "/x", "size": 4, "sha256": hashlib.sha256(b"dump").hexdigest(), "schema_revision": "29b539ebc72a",
    "database": {"tables": {"runs": 12, "event_logs": 340}},
}  # fmt: skip


def test_the_values_are_yaml_without_anchors() -> None:
    text = EXPORT.texts({})["values.yaml"]
    assert yaml.safe_load(text) == VALUES
    assert "&id" not in text
    assert text.startswith("# For Dagster's Helm chart, version 1.13.27.\n")


def test_the_machines_file_is_there_without_its_secrets() -> None:
    text = EXPORT.texts({})["dagster.yaml"]
    assert yaml.safe_load(text)["run_monitoring"] == INSTANCE["run_monitoring"]
    assert yaml.safe_load(text)["mail"] == {"smtp_password": helm_values.LEFT_OUT}


def test_the_manifest_tells_programs_what_is_there() -> None:
    found = json.loads(EXPORT.texts(DUMP)["export.json"])
    assert found["versions"] == {"dagster": "1.13.27", "postgres": 17}
    assert found["database"]["tables"]["runs"] == 12
    assert found["dump"]["sha256"] == DUMP["sha256"]
    assert found["images"]["core"]["tag"] == FACTS["core"]["release"]


def test_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "database.dump").write_bytes(b"dump")
    dagster_export._write(tmp_path, EXPORT.texts(DUMP))
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    listed = {line.split()[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in tmp_path.iterdir()} - {"SHA256SUMS"}


def test_what_a_person_has_to_know_is_said() -> None:
    facts = {**FACTS, "database": {**FACTS["database"], "in_flight": 2, "waiting": 3}}
    found = "\n".join(dagster_export.problems(facts, VALUES))
    assert "2 runs were in flight" in found
    assert "3 runs wait in the queue" in found
    assert f"push it as r.dev/p/d/docker_dagster_core:{FACTS['core']['release']}" in found
    assert "has no dagster-k8s" in found


def test_a_folder_that_cannot_be_is_refused_before_the_machine_is_asked(
    tmp_path: Path, ansible_environment: dict[str, str]
) -> None:
    (tmp_path / "file").write_text("")
    options = {"directory": str(tmp_path / "file" / "below")}
    play = {
        "hosts": "nowhere.invalid",
        "gather_facts": False,
        "tasks": [{"dataops.dagster_gce.dagster_export": options}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [str(shutil.which("ansible-playbook")), "-i", "nowhere.invalid,", str(tmp_path / "play.yml")],
        env=ansible_environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is no folder; expected a folder on the controller" in " ".join((done.stdout + done.stderr).split())
