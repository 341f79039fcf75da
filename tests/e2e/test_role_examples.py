"""The smallest examples in the READMEs of the roles for Google do what they say."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.google import Google
from tests.e2e.cloud import Cloud
from tests.e2e.harness import ROOT

EXAMPLE = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    google = Google().start()
    google.seed_project("example-prod", services=[])
    cloud = Cloud(google, tmp_path_factory.mktemp("inventory"), "dagster-prod", "example-prod")
    # What an example needs stands in it.
    for name in ("dagster_environment", "gcp_project", "gce_zone"):
        del cloud.variables[name]
    cloud.write()
    yield cloud
    assert google.violations == []
    google.stop()


# In this order: the machine is in the network.
@pytest.mark.parametrize("role", ["gce_project", "gce_network", "gce_instance"])
def test_the_example_of_a_role(role: str, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = EXAMPLE.search((ROOT / "roles" / role / "README.md").read_text(encoding="utf-8"))
    assert found
    (tmp_path / "play.yml").write_text(found[1])
    for name, value in cloud.google.environment().items():
        monkeypatch.setenv(name, value)
    played = cloud.play(str(tmp_path / "play.yml"), ansible_python_interpreter=sys.executable).ok()
    assert played.changed >= 3
