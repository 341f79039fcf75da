# SPDX-License-Identifier: Apache-2.0
"""The docker command, with errors that say what to do.

Modules run on machines where nothing is installed with pip, so the command stands in for the SDK. Secrets go
through ``env`` or ``input``: a process's arguments are readable by every user of the machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

DOCKER = "docker"
NOT_INSTALLED = "the docker command is not installed; run the role docker_engine first"

# When to ask the registry about a tag, in the command's own words (`--pull`). A digest names one image for ever and is
# pulled only where it is missing.
NEVER = "never"
MISSING = "missing"
ALWAYS = "always"

# Options of `docker run` for a look into an image: no network, no write, no privilege.
CONFINED = ("--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--pull", NEVER)

# The kernel's names of machines, as images spell them.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}

# What the CLI prints for an object that is not there (docker 20.10 to 28, classic and containerd image store).
_NOT_FOUND = ("no such object", "no such image", "no such container", "no such volume", "no such network", " not found")
_UNREACHABLE = ("cannot connect to the docker daemon", "error during connect", "is the docker daemon running")


@dataclass(frozen=True)
class Result:
    """What a command left behind; both streams are text (undecodable bytes are replaced)."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether the command ended at 0."""
        return self.returncode == 0


class DockerError(Exception):
    """A docker command failed; ``result`` is None where it never ran to its end."""

    def __init__(self, message: str, result: Result | None = None) -> None:
        super().__init__(message)
        self.result = result


class DockerMissingError(DockerError):
    """The docker command is not installed."""


class DockerUnreachableError(DockerError):
    """The command is there, the engine does not answer (stopped, starting, or no permission on the socket)."""


class DockerTimeoutError(DockerError):
    """The command did not end in time."""


def run(
    args: Sequence[str],
    *,
    input: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    check: bool = True,
    cwd: str | None = None,
) -> Result:
    """Run ``docker ARGS`` and return what it printed.

    Args:
        args: arguments after ``docker``.
        input: standard input; nothing (not the caller's) when None.
        env: variables added to the caller's environment, for ``-e NAME`` without a value.
        timeout: seconds until the command is killed.
        check: raise when it ends non-zero; otherwise look at ``Result.returncode``.
        cwd: folder to run in.

    Raises:
        DockerMissingError, DockerUnreachableError, DockerTimeoutError: also with ``check=False``.
        DockerError: the command ended non-zero (the message ends with what it printed).
    """
    command = [DOCKER, *args]
    # The arguments may be long (docker run): the first few say which command it was.
    title = " ".join(command[:3])
    try:
        done = subprocess.run(
            command,
            input=input.encode() if isinstance(input, str) else input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            timeout=timeout,
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        if cwd is not None and not os.path.isdir(cwd):
            raise DockerError(f"`{title}`: folder {cwd} does not exist") from error
        raise DockerMissingError(NOT_INSTALLED) from error
    except subprocess.TimeoutExpired as error:
        raise DockerTimeoutError(f"`{title}` did not end within {timeout:g} s") from error
    result = Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
    if result.ok:
        return result
    said = result.stderr.lower()
    if "permission denied" in said and "docker" in said and "sock" in said:
        raise DockerUnreachableError(
            "no permission on Docker's socket; run as root (become: true). Docker said: "
            + last_lines(result.stderr, 2),
            result,
        )
    if any(words in said for words in _UNREACHABLE):
        raise DockerUnreachableError(
            "the Docker engine does not answer; look at `systemctl status docker`. Docker said: "
            + last_lines(result.stderr, 2),
            result,
        )
    if check:
        raise DockerError(
            f"`{title}` failed ({result.returncode}): {last_lines(result.stderr or result.stdout, 15)}", result
        )
    return result


def stream(
    args: Sequence[str],
    *,
    log: str,
    stdin: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 1800,
) -> Result:
    """Run ``docker ARGS`` and write what it prints to the file ``log`` while it runs, so that it can be followed.

    Returns:
        The result; both streams are in ``stdout`` (its last 256 KiB). Never raises for a non-zero end.

    Raises:
        DockerMissingError, DockerTimeoutError.
    """
    title = " ".join([DOCKER, *args[:2]])
    os.makedirs(os.path.dirname(os.path.abspath(log)), exist_ok=True)
    with open(log, "wb") as output:
        try:
            done = subprocess.run(
                [DOCKER, *args],
                stdin=stdin or subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise DockerMissingError(NOT_INSTALLED) from error
        except subprocess.TimeoutExpired as error:
            raise DockerTimeoutError(f"`{title}` did not end within {timeout:g} s; see {log} on the machine") from error
    with open(log, "rb") as output:
        output.seek(max(0, os.path.getsize(log) - (256 << 10)))
        return Result(done.returncode, output.read().decode("utf-8", "replace"), "")


def inspect(kind: str, name: str, *, timeout: float = 60) -> dict[str, Any] | None:
    """``docker KIND inspect NAME`` as a dict (kind: image, container, volume, network); None if there is none."""
    result = run([kind, "inspect", name], timeout=timeout, check=False)
    if result.ok:
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found[0]
    if not_found(result):
        return None
    raise DockerError(f"`docker {kind} inspect {name}` failed: {last_lines(result.stderr, 5)}", result)


def own_platform() -> str:
    """What this machine runs, as images spell it: ``linux/amd64``."""
    return f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"


def platform_problem(image: Mapping[str, Any]) -> str:
    """What was found and expected where an image is built for another kind of machine than this; empty where it is not.

    The engine takes an image of one platform only without a word; it would fail with `exec format error` later.
    """
    built_for, here = f"{image.get('Os')}/{image.get('Architecture')}", own_platform()
    if built_for == here:
        return ""
    return f"found an image for {built_for}; expected one for {here}, which this machine is"


def repository(reference: str) -> str:
    """A reference without its tag or digest, as the engine prints it (`docker.io/library/` is left out)."""
    return _untagged(reference).removeprefix("docker.io/").removeprefix("library/")


def repository_digest(image: Mapping[str, Any], reference: str) -> str:
    """The image's ``repository@sha256:…`` in the repository of a reference; empty where it has none there."""
    if "@" in reference:
        return f"{_untagged(reference)}@{reference.split('@')[1]}"
    digests = [str(each) for each in image.get("RepoDigests") or ()]
    return next((each for each in digests if repository(each) == repository(reference)), "")


def _untagged(reference: str) -> str:
    name = reference.split("@")[0]
    front, slash, last = name.rpartition("/")
    return front + slash + last.split(":")[0]


def not_found(result: Result | None) -> bool:
    """Whether the command failed because what it names is not on the machine."""
    return result is not None and any(words in result.stderr.lower() for words in _NOT_FOUND)


def last_lines(text: str, count: int) -> str:
    """The last ``count`` lines of ``text`` that are not empty."""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-count:])
