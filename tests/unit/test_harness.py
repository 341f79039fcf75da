"""What the end-to-end tests send to a machine, with a shell of this computer in the machine's place."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.harness import Machine


class Here(Machine):
    """No machine at all."""

    def __init__(self) -> None:
        pass

    def ssh(self, command: str, check: bool = True, timeout: float = 120) -> str:
        return subprocess.run(["bash", "-s"], input=command, text=True, capture_output=True, check=True).stdout


def test_files_and_folders_are_sent_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "from/deep").mkdir(parents=True)
    (tmp_path / "from/deep/file").write_text("in a folder")
    (tmp_path / "from/run").write_text("#!/bin/sh\n")
    (tmp_path / "from/run").chmod(0o755)
    files: dict[str, bytes | Path] = {"a": tmp_path / "from", "b/bytes": b"\0\xff\n", "empty": b""}
    for _ in range(2):
        Here().send(f"{tmp_path}/to/there", files)
    there = tmp_path / "to/there"
    found = sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file())
    assert found == ["a/deep/file", "a/run", "b/bytes", "empty"]
    assert (there / "a/deep/file").read_text() == "in a folder"
    assert (there / "b/bytes").read_bytes() == b"\0\xff\n"
    assert (there / "a/run").stat().st_mode & 0o777 == 0o755
