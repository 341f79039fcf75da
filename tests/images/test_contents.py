"""What is in the images, and what is not."""

from __future__ import annotations

import json
import subprocess
import uuid

import pytest

from tests.images.support import HARDENING, PREFIX, ROOT, docker

BOTH = pytest.mark.parametrize("which", [0, 1], ids=["dagster_core", "daemon_webserver"])


def shell(image: str, script: str, *arguments: str) -> str:
    """Output of a script in a fresh, hardened container."""
    return docker("run", "--rm", *HARDENING, *arguments, "--entrypoint", "sh", image, "-c", script).strip()


@BOTH
def test_the_user_owns_nothing_but_the_storage(images: tuple[str, str], which: int) -> None:
    script = (
        "id -u; id -g; pwd; find / -xdev -user 10001 2>/dev/null; find / -xdev -perm -o+w -type f 2>/dev/null; true"
    )
    lines = shell(images[which], script).splitlines()
    assert lines == ["10001", "10001", "/opt/dagster/dagster_home", "/opt/dagster/storage"]


@BOTH
def test_a_new_volume_takes_the_owner_over(images: tuple[str, str], which: int) -> None:
    assert (
        shell(images[which], "touch /opt/dagster/storage/x && echo written", "-v", "/opt/dagster/storage") == "written"
    )


@BOTH
def test_no_build_tools_and_no_caches(images: tuple[str, str], which: int) -> None:
    script = """exec 2>/dev/null
for tool in gcc cc make ld git; do command -v $tool; done
ls /opt/venv/bin | grep -E '^(pip|uv|wheel)[0-9.]*$'
find / -xdev -name '*.whl' -not -path '/usr/share/python-wheels/*'
find /root/.cache /var/lib/apt/lists -type f
find /opt/venv -name '*.map' -path '*webapp*'
true"""
    assert shell(images[which], script, "-u", "0") == ""


def test_an_index_with_a_password_is_used_and_not_stored() -> None:
    """The layers, the configuration and the history of the final image are searched for it."""
    canary = f"canary{uuid.uuid4().hex}"
    script = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    index = docker("run", "--rm", "python:3.13-slim", "python", "-c", script).strip()
    assert "://" in index
    tag = f"{PREFIX}:canary"
    try:
        argument = f"PIP_INDEX_URL={index.replace('://', f'://user:{canary}@')}"
        dockerfile = str(ROOT / "files/docker/dockerfile_dagster_core")
        log = docker("build", "--progress", "plain", "--build-arg", argument, "-f", dockerfile, "-t", tag, str(ROOT))
        # Masked by pip, which names the index that it was given.
        assert "Looking in indexes: " in log
        assert "user:****@" in log
        saved = subprocess.run(["docker", "save", tag], capture_output=True, check=True).stdout
        assert len(saved) > 100_000_000
        assert canary.encode() not in saved
        assert canary not in docker("history", "--no-trunc", tag)
    finally:
        docker("rmi", "-f", tag, check=False)


@BOTH
def test_settings_of_the_image(images: tuple[str, str], which: int) -> None:
    config = json.loads(docker("image", "inspect", images[which]))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert config["Labels"]["org.opencontainers.image.title"] in {"docker_dagster_core", "dagster_daemon_webserver"}
    assert isinstance(config["Cmd"], list)
    assert config["Cmd"][0].startswith("dagster")
    environment = dict(item.split("=", 1) for item in config["Env"])
    # The user code's image has none: its server would open an SQLite instance there.
    assert environment.get("DAGSTER_HOME") == (None if which == 0 else "/opt/dagster/dagster_home")


@BOTH
def test_everything_is_compiled(images: tuple[str, str], which: int) -> None:
    """What is not compiled is compiled again at each start, since the root is read-only."""
    folder = "/opt/dagster/dagster_home/dagster_core" if which == 0 else "/usr/local/lib/dagster-gce"
    script = f"""
import importlib.util, marshal, pathlib, sys
sources = [*pathlib.Path("/opt/venv/lib").rglob("*.py"), *pathlib.Path("{folder}").rglob("*.py")]
bad = []
for path in sources:
    code = pathlib.Path(importlib.util.cache_from_source(str(path)))
    if not code.exists():
        try:
            compile(path.read_bytes(), path, "exec")
        except SyntaxError:
            continue  # a library's template
        bad.append(str(path))
    elif marshal.loads(code.read_bytes()[16:]).co_filename != str(path):
        bad.append(f"{{path}}: compiled as another path")
print(len(sources) > 1000, bad)
"""
    assert docker("run", "--rm", *HARDENING, images[which], "python", "-W", "ignore", "-c", script).strip() == "True []"


def test_the_user_code_is_the_checkouts(images: tuple[str, str]) -> None:
    root = ROOT / "dagster_core"
    expected = sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    found = shell(images[0], "cd dagster_core && find . -type f -not -path '*/__pycache__/*' | sed 's,^./,,'")
    assert sorted(found.splitlines()) == expected


def test_a_start_is_not_held_up_by_looking_for_garbage(images: tuple[str, str]) -> None:
    assert shell(images[0], "python -c 'import gc; print(gc.get_threshold())'").strip() == "(50000, 20, 100)"


def test_the_helpers_are_there(images: tuple[str, str]) -> None:
    helpers = shell(images[1], "ls /usr/local/lib/dagster-gce").split()
    expected = {path.name for path in (ROOT / "files/docker").glob("*.py")}
    assert set(helpers) - {"__pycache__"} == expected
    assert {"healthcheck_daemon.py", "healthcheck_webserver.py"} <= expected


def test_google_libraries_are_there_when_they_are_needed(images: tuple[str, str]) -> None:
    script = "from google.cloud import bigquery, storage; print(bigquery.Client.__name__, storage.Client.__name__)"
    assert docker("run", "--rm", *HARDENING, images[0], "python", "-c", script).strip() == "Client Client"
