"""Folders that the containers read must not depend on root's umask."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files


def test_parents_are_readable_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.make_folder(str(tmp_path / "root" / "home" / "secrets"), files.Owner(os.getuid(), os.getgid(), 0o700))
    finally:
        os.umask(before)
    modes = [(tmp_path / path).stat().st_mode & 0o777 for path in ("root", "root/home", "root/home/secrets")]
    assert modes == [0o755, 0o755, 0o700]


def test_folders_that_are_there_keep_their_mode(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    files.make_folder(str(tmp_path / "root" / "secrets"), files.Owner(os.getuid(), os.getgid(), 0o700))
    assert (tmp_path / "root").stat().st_mode & 0o777 == 0o700
