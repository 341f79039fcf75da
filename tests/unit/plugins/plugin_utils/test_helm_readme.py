"""The README.md of an export."""

from __future__ import annotations

import copy
import re
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.plugin_utils import helm_readme, helm_values
from tests.unit.plugins.plugin_utils.test_helm_values import FACTS, INSTANCE

DUMP = {"database": {"tables": {"runs": 12, "event_logs": 340, "job_ticks": 5}}}


def text(facts: dict[str, Any] = FACTS, **instance: Any) -> str:
    given = {**INSTANCE, **instance}
    return helm_readme.readme("prod", facts, given, helm_values.values(facts, given, "r.dev/p/d", ""), DUMP)


def test_the_commands_stand_in_their_order() -> None:
    order = [
        "create secret generic dagster-postgresql-secret", "create secret generic dagster-core-environment",
        "dagster-gce pause", "docker stop dagster-daemon", "dagster-gce status", "docker stop dagster-webserver",
        "-e dagster_export_final=true", "sha256sum --check SHA256SUMS", "pg_restore", "select count(*) from runs",
        "helm install dagster dagster/dagster --version 1.13.27", "get configmap dagster-instance", "port-forward",
        "**DNS**", "playbooks/destroy.yml",
    ]  # fmt: skip
    commands = text().partition("## The order")[2]
    found = [commands.index(each) for each in order]
    assert found == sorted(found)


def test_names_of_secrets_are_told() -> None:
    assert "`API_TOKEN`" in text()


def test_an_image_that_no_registry_has_comes_with_the_commands_to_push_it() -> None:
    assert "**no registry has it**" in text()
    name = f"r.dev/p/d/docker_dagster_core:{FACTS['core']['release']}"
    assert f"docker tag {FACTS['core']['image']['id']} \\\n    {name}" in text()
    assert f"docker push {name}" in text()
    facts = copy.deepcopy(FACTS)
    facts["core"]["image"]["digest"] = f"r.dev/p/core@sha256:{'1' * 64}"
    assert "no registry has it" not in text(facts)
    assert f"crane copy r.dev/p/core@sha256:{'1' * 64}" in text(facts)


def test_what_does_not_move_is_named() -> None:
    found = text()
    assert "2 of them, 5.0 MB" in found
    assert "**Compute logs** (3 files, 900 B)" in found
    assert "`DockerRunLauncher`" in found
    assert "`other`" in found
    gcs = {"module": "dagster_gcp.gcs.compute_log_manager", "class": "GCSComputeLogManager", "config": {"bucket": "b"}}
    assert "**Compute logs**" not in text(compute_logs=gcs)


def test_tags_of_ours_are_explained() -> None:
    for tag in ("cpu", "memory", "node"):
        assert re.search(rf"dagster_gce/{tag}.*(container_config|pod_spec_config)", text())


def test_a_rehearsal_is_called_one() -> None:
    assert "**A rehearsal**" in text()
    assert "dagsterDaemon.enabled=false" in text()
    assert "**A rehearsal**" not in text({**FACTS, "final": True})


def test_an_outside_database_need_not_be_restored() -> None:
    outside = {"postgres": {"postgres_db": {"hostname": "10.20.0.3", "port": 5432}}}
    assert "leave out steps 3 and 4" in text(storage=outside)
    assert "change-me" not in text(storage=outside)
