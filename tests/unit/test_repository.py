"""Things that no file of the repository may hold, and things that have to agree between files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# In pieces, so that this file does not find itself.
REGISTRIES = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "deb.debian" + ".org",
    "archive.ubuntu" + ".com",
]
LARGEST_BYTES = 1_000_000


def files() -> list[Path]:
    """The files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def configured_hosts() -> set[str]:
    """The hosts of the registries that this very machine is set up for: a mirror's name leaks most easily."""
    sources = [Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".npmrc"]
    sources += sorted(Path("/etc/apt").glob("sources.list*")) + sorted(Path("/etc/apt/sources.list.d").glob("*"))
    content = [text(path) for path in sources if path.is_file() and os.access(path, os.R_OK)]
    content += [value for name, value in os.environ.items() if re.search(r"(INDEX_URL|REGISTRY)$", name)]
    urls = re.findall(r"https?://\S+", "\n".join(content))
    hosts = {urlsplit(url).hostname or "" for url in urls}
    # Hosts that documentation and defaults name with good reason.
    return {host for host in hosts if "." in host} - {"download.docker.com", "packages.cloud.google.com"}


def test_no_file_names_a_package_registry() -> None:
    hosts = re.compile("|".join(re.escape(host) for host in sorted({*REGISTRIES, *configured_hosts()})))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}" for path in files() for match in [hosts.search(text(path))] if match
    ]
    assert not found


def test_no_file_names_a_path_of_this_machine() -> None:
    # A folder above the checkout is as telling as the checkout, unless every machine has it.
    everywhere = {
        Path(name) for name in ("/", "/builds", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/tmp")
    }
    places = [str(place) for place in (ROOT, *ROOT.parents) if place not in everywhere]
    pattern = re.compile(rf"(?<![\w.$}}])({'|'.join(map(re.escape, places))})(?![\w-])") if places else None
    found = [str(path.relative_to(ROOT)) for path in files() if pattern and pattern.search(text(path))]
    assert not found


def test_no_file_holds_a_private_key() -> None:
    begin = re.compile(r"^-----BEGIN [A-Z ]*PRIVATE KEY-----$", re.MULTILINE)
    assert not [str(path.relative_to(ROOT)) for path in files() if begin.search(text(path))]


def test_no_file_is_large() -> None:
    assert not [str(path.relative_to(ROOT)) for path in files() if path.stat().st_size > LARGEST_BYTES]


def test_collections_are_the_same_in_both_lists() -> None:
    galaxy = yaml.safe_load(text(ROOT / "galaxy.yml"))["dependencies"]
    requirements = yaml.safe_load(text(ROOT / "requirements.yml"))["collections"]
    assert {item["name"]: item["version"] for item in requirements} == galaxy


def test_collections_in_use_are_declared() -> None:
    """Every FQCN in roles and playbooks belongs to Ansible, to us, or to a declared dependency."""
    declared = set(yaml.safe_load(text(ROOT / "galaxy.yml"))["dependencies"]) | {
        "ansible.builtin",
        "dataops.dagster_gce",
    }
    # Not the names of kernel parameters.
    fqcn = re.compile(r"^\s*(?:- )?((?!kernel\.|net\.)[a-z_]+\.[a-z_]+)\.[a-z_0-9]+:", re.MULTILINE)
    ours = [
        path for path in files() if path.suffix == ".yml" and path.relative_to(ROOT).parts[0] in ("roles", "playbooks")
    ]
    used = {name for path in ours for name in fqcn.findall(text(path))}
    assert used <= declared
    assert "ansible.builtin" in used


def test_versions_agree() -> None:
    galaxy = str(yaml.safe_load(text(ROOT / "galaxy.yml"))["version"])
    project = re.search(r'^version = "(.+)"$', text(ROOT / "pyproject.toml"), re.MULTILINE)
    assert project
    assert project[1] == galaxy


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    makefile = text(ROOT / "Makefile")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    described = set(re.findall(r"^([a-z][a-z-]*):.*## \S", makefile, re.MULTILINE))
    assert targets == described
