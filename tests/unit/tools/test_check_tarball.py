"""The look into the tarball: what must be there, what must not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.tools import check_tarball


def tarball(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_what_is_needed_is_enough(tmp_path: Path) -> None:
    assert check_tarball.problems(tarball(tmp_path / "a.tar.gz", *check_tarball.NEEDED)) == []


@pytest.mark.parametrize("name", check_tarball.NEEDED)
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    others = [needed for needed in check_tarball.NEEDED if needed != name]
    assert check_tarball.problems(tarball(tmp_path / "a.tar.gz", *others)) == [f"missing: {name}"]


@pytest.mark.parametrize(
    "name",
    [
        "files/secrets/service-account.json",
        "tests/unit/test_x.py",
        "molecule/default/create.yml",
        "lab/engine.py",
        ".venv/bin/python",
        ".env",
        "inventory/prod/hosts.yml",
        "roles/x/files/key.pem",
        "plugins/modules/__pycache__/x.pyc",
        "my-service-account.json",
    ],
)
def test_what_must_not_be_shipped_is_named(name: str, tmp_path: Path) -> None:
    found = check_tarball.problems(tarball(tmp_path / "a.tar.gz", *check_tarball.NEEDED, name))
    assert f"must not be shipped: {name}" in found


def test_a_role_is_whole(tmp_path: Path) -> None:
    found = check_tarball.problems(tarball(tmp_path / "a.tar.gz", *check_tarball.NEEDED, "roles/x/tasks/main.yml"))
    assert "missing: roles/x/meta/argument_specs.yml" in found
    assert "missing: roles/x/README.md" in found
