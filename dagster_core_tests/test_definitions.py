"""The definitions load, in the way that the image starts them and in the article's way."""

import ast
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dagster_core import defs
from dagster_core.utils.resources import BigQueryPublisher, FilePublisher, resources_for_environment

ROOT = Path(__file__).parent.parent


def test_definitions_validate() -> None:
    dg.Definitions.validate_loadable(defs)


def test_what_the_playbooks_and_the_docs_name_is_there() -> None:
    jobs = {job.name for job in defs.resolve_all_job_defs()}
    assert {"platform_check", "climate_month", "publish_normals"} <= jobs
    repository = defs.get_repository_def()
    assert [schedule.name for schedule in repository.schedule_defs] == ["publish_every_morning"]
    assert [
        sensor.name for sensor in repository.sensor_defs if sensor.name != "default_automation_condition_sensor"
    ] == ["corrected_months"]


@pytest.mark.parametrize(
    "target",
    [["-m", "dagster_core", "-d", str(ROOT)], ["-f", str(ROOT / "dagster_core/__init__.py"), "-d", str(ROOT)]],
    ids=["module", "the article's file"],
)
def test_loads_as_a_code_location(target: list[str], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", *target],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "DAGSTER_HOME": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_google_library_is_imported_without_a_project() -> None:
    script = "import sys, dagster_core; print([name for name in sys.modules if name.startswith('google.cloud')])"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_package_has_no_relative_imports() -> None:
    """`dagster api grpc -f …/__init__.py` cannot resolve them."""
    relative = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "dagster_core").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_the_publisher_follows_the_environment() -> None:
    assert isinstance(resources_for_environment({"GCP_PROJECT": ""})["publisher"], FilePublisher)
    publisher = resources_for_environment({"GCP_PROJECT": "p", "BIGQUERY_PROJECT": "q", "GCP_LOCATION": "EU"})[
        "publisher"
    ]
    assert isinstance(publisher, BigQueryPublisher)
    assert (publisher.project, publisher.location, publisher.bucket) == ("q", "EU", "")
