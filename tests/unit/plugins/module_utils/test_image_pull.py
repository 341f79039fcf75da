"""What a pull refuses, with a docker command that says what an engine would."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import image_pull
from ansible_collections.dataops.dagster_gce.plugins.module_utils.image_reference import split_reference

REFERENCE = "registry.example.com/team/core:1"


def test_an_image_for_another_kind_of_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    shown = json.dumps([{"Id": "sha256:1", "Os": "linux", "Architecture": "arm64"}])
    command = tmp_path / "docker"
    # It is asked twice, and for nothing else.
    command.write_text(f"#!/bin/sh\ncase $1 in pull) ;; image) echo '{shown}' ;; *) exit 1 ;; esac\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(image_pull.PullError) as refused:
        image_pull.fetch(REFERENCE, split_reference(REFERENCE), None, 10)
    assert str(refused.value) == (
        f"{REFERENCE}: wrong architecture: found an image for linux/arm64; expected one for linux/amd64, "
        "which this machine is"
    )
