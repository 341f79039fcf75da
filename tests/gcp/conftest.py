"""The project of the lane: one environment, on which the tests of test_provision.py follow each other."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.gcp.project import LaneError, Project, Settings

pytest.register_assert_rewrite("tests.e2e.test_provision")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project, in which nothing of ours is; whatever happens, nothing of ours is in it afterwards."""
    # A CI that gives up sends this; pytest clears up after a KeyboardInterrupt only.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = Project(Settings.read(), tmp_path_factory.mktemp("inventory"))
        found.check()
        left = found.leftovers()
        if left and not found.settings.clean:
            things = "\n  ".join(left)
            raise LaneError(
                f"project {found.project} has things of an earlier run, or of somebody else:\n  {things}\n"
                "Nothing was changed. GCP_TEST_CLEAN=yes make test-gcp deletes them, WITH ALL DATA, and goes on."
            )
        found.clean()
    except LaneError as error:
        pytest.exit(str(error), returncode=2)
    try:
        yield found
    finally:
        found.clean()


@pytest.fixture
def cloud(project: Project) -> Project:
    """The project as the test before has left it."""
    project.forget_calls()
    return project


@pytest.fixture
def made(cloud: Project) -> Project:
    """The project with all that provision.yml makes, as it makes it."""
    cloud.play("playbooks/provision.yml", gce_instance_allow_stop=True).ok()
    cloud.forget_calls()
    return cloud
