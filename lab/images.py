"""The base images: Docker Hub's where it can be reached, stand-ins made of Debian's packages where it cannot."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import docker
import docker.errors
from docker.models.images import Image

from . import apt, engine
from .shell import LabError, apt_install, run, say

HERE = Path(__file__).parent / "images"
LABEL = "dataops.dagster_gce.lab"
RECIPE = "dataops.dagster_gce.lab.recipe"
DEBIAN = "debian:trixie-slim"
# The last Debian with PostgreSQL 13, the article's.
OLD_DEBIAN = "debian:bullseye-slim"
POSTGRES_13 = "postgres:13"
REGISTRY = "dagster-gce-lab/registry:1"
MACHINE = "dagster-gce-lab/machine:13"
VM = "dagster-gce-lab/vm:13"
# Docker Hub's names -> the folder with the stand-in's Dockerfile, and its build arguments.
STAND_INS: dict[str, tuple[str, dict[str, str]]] = {
    "python:3.13-slim": ("python", {}),
    "postgres:17": ("postgres", {}),
}
# Images that exist in the lab only.
OWN = {REGISTRY: "registry", MACHINE: "machine"}
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def ensure() -> list[str]:
    """Have every base image in the engine; returns the names that machines may pull (Docker Hub's)."""
    client = docker.from_env()
    hub = _hub_is_reachable(client)
    _ensure_debian(client, hub)
    for name, (folder, arguments) in STAND_INS.items():
        if hub:
            _pull(client, name)
        else:
            _build(client, name, folder, arguments)
    for name, folder in OWN.items():
        _build(client, name, folder, {})
    return [DEBIAN, *STAND_INS]


def ensure_postgres_13(client: docker.DockerClient) -> str:
    """Have the article's PostgreSQL; only upgrades need it, and it takes a minute. Returns its name."""
    hub = _hub_is_reachable(client)
    if hub:
        _pull(client, POSTGRES_13)
        return POSTGRES_13
    _ensure_debian(client, hub, OLD_DEBIAN)
    if _find(client, POSTGRES_13) is None:
        say(f"building {POSTGRES_13}")
        # The recipe of the other one, on another base. Version 13 stores passwords as MD5, as its official image does.
        run(
            "docker", "build", "--quiet", "--tag", f"{POSTGRES_13}-scram", "--build-arg", "PG_MAJOR=13",
            "--build-context", f"{DEBIAN}=docker-image://{OLD_DEBIAN}", str(HERE / "postgres"), timeout=1200,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
        )  # fmt: skip
        run(
            "docker", "build", "--quiet", "--tag", POSTGRES_13, "--label", f"{LABEL}=image", "-", timeout=300,
            input=f"FROM {POSTGRES_13}-scram\nENV POSTGRES_HOST_AUTH_METHOD=md5\n".encode(),
        )  # fmt: skip
        run("docker", "rmi", f"{POSTGRES_13}-scram")
    return POSTGRES_13


def ensure_vm(client: docker.DockerClient) -> None:
    """Have the image of virtual machines; only few tests need it, and it takes a minute or two."""
    _ensure_debian(client, _hub_is_reachable(client))
    _build(client, VM, "vm", {})


def _recipe(image: Image) -> str | None:
    return (image.labels or {}).get(RECIPE)


def _find(client: docker.DockerClient, name: str) -> Image | None:
    try:
        return client.images.get(name)
    except docker.errors.ImageNotFound:
        return None


def _hub_is_reachable(client: docker.DockerClient) -> bool:
    """Whether images come from Docker Hub. LAB_BASE_IMAGES=hub|standin answers in place of a try."""
    choice = os.environ.get("LAB_BASE_IMAGES", "auto")
    if choice not in ("auto", "hub", "standin"):
        raise LabError(f"LAB_BASE_IMAGES: found {choice!r}; expected auto, hub or standin")
    if choice != "auto":
        return choice == "hub"
    present = _find(client, DEBIAN)
    if present is not None:
        # What was decided the first time holds: one lab does not mix the two.
        return _recipe(present) is None
    try:
        return subprocess.run(["docker", "pull", "--quiet", DEBIAN], capture_output=True, timeout=120).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _pull(client: docker.DockerClient, name: str) -> None:
    if _find(client, name) is None:
        say(f"pulling {name}")
        run("docker", "pull", "--quiet", name, timeout=900)


def _ensure_debian(client: docker.DockerClient, hub: bool, name: str = DEBIAN) -> None:
    if hub:
        _pull(client, name)
        return
    if _find(client, name) is not None:
        return
    say(f"Docker Hub cannot be reached: making a stand-in for {name} with debootstrap (half a minute)")
    suite = name.rpartition(":")[2].removesuffix("-slim")
    if shutil.which("debootstrap") is None:
        engine_needs_root("debootstrap")
        apt_install(["debootstrap"])
    with tempfile.TemporaryDirectory(prefix="dagster-gce-lab-") as scratch:
        root = Path(scratch) / "root"
        run(
            "debootstrap", "--variant=minbase", "--include=ca-certificates",
            suite, str(root), apt.debian_mirror(), timeout=1200,
        )  # fmt: skip
        _write_sources(root, suite)
        _trust_what_this_computer_trusts(root)
        for junk in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / junk)
            (root / junk / "partial").mkdir(parents=True)
        archive = Path(scratch) / "root.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".")
        run(
            "docker", "import", "--change", 'CMD ["bash"]', "--change", f"LABEL {LABEL}=image {RECIPE}=debootstrap",
            str(archive), name,
        )  # fmt: skip


def engine_needs_root(what: str) -> None:
    """Raise LabError unless this process may install packages."""
    if os.geteuid():
        raise LabError(f"{what} is missing, and installing it needs root: run the same command as root once")


def _write_sources(root: Path, suite: str) -> None:
    """The same mirrors as this computer's, with the updates that a real image has."""
    mirror, security = apt.debian_mirror(), apt.security_mirror()
    lines = [f"deb {mirror} {suite} main"]
    # A suite that is out of support has neither.
    if f"{suite}-slim" in DEBIAN:
        lines.append(f"deb {mirror} {suite}-updates main")
        if security:
            lines.append(f"deb {security} {suite}-security main")
    (root / "etc/apt/sources.list").write_text("\n".join(lines) + "\n")


def _trust_what_this_computer_trusts(root: Path) -> None:
    """Add the certificate authorities that this computer has and Debian does not (a company's proxy, say)."""
    bundle = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    if not bundle.exists():
        return
    known = {"".join(pem.split()) for pem in PEM.findall((root / "etc/ssl/certs/ca-certificates.crt").read_text())}
    extra = [pem for pem in PEM.findall(bundle.read_text()) if "".join(pem.split()) not in known]
    for number, pem in enumerate(extra):
        (root / f"usr/local/share/ca-certificates/computer-{number}.crt").write_text(pem + "\n")
    run("chroot", str(root), "update-ca-certificates")


def _build(client: docker.DockerClient, name: str, folder: str, arguments: dict[str, str]) -> None:
    """Build a lab image unless the one that is there comes from the same recipe on the same base."""
    base = _find(client, DEBIAN)
    digest = hashlib.sha256(f"{base.id if base else ''}{sorted(arguments.items())}".encode())
    for path in sorted(found for found in (HERE / folder).rglob("*") if found.is_file()):
        digest.update(str(path.relative_to(HERE)).encode() + path.read_bytes())
    recipe = digest.hexdigest()[:16]
    present = _find(client, name)
    if present is not None and _recipe(present) in (recipe, None if name not in OWN else recipe):
        return  # ours and up to date, or an image of the user's own that must not be replaced
    say(f"building {name}")
    flags = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    run(
        "docker", "build", "--quiet", "--tag", name, "--label", f"{LABEL}=image", "--label", f"{RECIPE}={recipe}",
        *flags, str(HERE / folder), timeout=1200,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    )  # fmt: skip


def remove() -> None:
    """Remove every image that the lab has made; pulled ones stay."""
    engine.ensure()
    client = docker.from_env()
    for image in client.images.list(filters={"label": LABEL}):
        for tag in image.tags or [str(image.id)]:
            client.images.remove(tag, force=True)
