"""gcloud, Google's own command, led to the lab's Google: it knows nothing of this collection, and its word counts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lab.google import Google

# A call is half a second of work, and as long again it waits for an operation.
AT_ONCE = 4
URL_SAFE = str.maketrans("+/", "-_")


class Gcloud:
    """gcloud in a folder of its own, so that nobody's settings or credentials are read or changed."""

    def __init__(self, google: Google, folder: Path, project: str, zone: str) -> None:
        self.folder = folder
        token = folder / "token"
        folder.mkdir(parents=True, exist_ok=True)
        token.write_text(google.token())
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSDK_")}
        self.environment = {
            **kept,
            **google.environment(),
            "CLOUDSDK_CONFIG": str(folder / "config"),
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(token),
            "CLOUDSDK_CORE_ACCOUNT": google.owner,
            "CLOUDSDK_CORE_PROJECT": project,
            "CLOUDSDK_COMPUTE_ZONE": zone,
            "CLOUDSDK_COMPUTE_REGION": zone[:-2],
            "CLOUDSDK_ARTIFACTS_LOCATION": zone[:-2],
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
            "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "true",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "true",
        }

    @staticmethod
    def there() -> bool:
        """Whether this machine has it."""
        return shutil.which("gcloud") is not None

    def call(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, given without the word gcloud."""
        return subprocess.run(
            ["gcloud", *shlex.split(command)], env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def __call__(self, command: str) -> str:
        """What a command that succeeds prints."""
        done = self.call(command)
        assert done.returncode == 0, f"gcloud {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, command: str) -> str:
        """What a command that fails says."""
        done = self.call(command)
        assert done.returncode != 0, f"gcloud {command}\nexpected an error, found none:\n{done.stdout}"
        return " ".join(done.stderr.split())

    def read(self, *commands: str) -> list[Any]:
        """What commands answer, as data, in the commands' order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [json.loads(text) for text in pool.map(self, [f"{command} --format=json" for command in commands])]

    def together(self, *commands: str) -> None:
        """Run commands that do not depend on each other."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self, commands))


def as_gcloud_says(value: Any) -> Any:
    """An answer of Google's as gcloud prints it: bytes (fingerprints) in base64's other alphabet."""
    if isinstance(value, dict):
        return {
            name: item.translate(URL_SAFE) if name.lower().endswith(("fingerprint", "etag")) else as_gcloud_says(item)
            for name, item in value.items()
        }
    return [as_gcloud_says(item) for item in value] if isinstance(value, list) else value
