# SPDX-License-Identifier: Apache-2.0
"""What a hardened machine has besides files: packages, settings of the kernel, sshd, nftables, systemd.

Each part is a set of files with what has to follow when one of them changes. A part that is switched off loses its
files and what they brought, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files

# What the kernel keeps for each network namespace; the rest belongs to the whole computer.
NAMESPACED = ("net.ipv4.", "net.ipv6.")
FIREWALL_UNIT = "dagster-gce-firewall.service"
FIREWALL_RULES = "/etc/dagster-gce/firewall.nft"
FIREWALL_TABLE = ("inet", "dagster_gce")
# In the rules' text; becomes a hash of the text, by which loaded rules are known.
FIREWALL_STAMP = "@STAMP@"
SSH_MAIN = "/etc/ssh/sshd_config"
# Undoes a new sshd configuration unless somebody could log in with it.
UNDO_UNIT = "dagster-gce-ssh-undo"
UNDO_FOLDER = "/run/dagster-gce-ssh-undo"

Runner = Callable[[Sequence[str]], tuple[int, str, str]]


class HardeningError(Exception):
    """The machine refuses something; the message says what was found, what was expected and what is unchanged."""


@dataclass(frozen=True)
class File:
    """A file of a part."""

    path: str
    content: bytes
    mode: int = 0o644

    @property
    def owner(self) -> files.Owner:
        """Root's, always."""
        return files.Owner(0, 0, self.mode)

    def differs(self) -> bool:
        """Whether what stands there is another one."""
        return files.read(self.path) != self.content or files.differs(self.path, self.owner)


@dataclass
class Part:
    """One concern: its files, the packages it needs, and what has to run as ``files`` say."""

    name: str
    files: list[File] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    present: bool = True

    def differing(self) -> list[File]:
        """Files to write; of a part that is switched off, files to remove."""
        if self.present:
            return [each for each in self.files if each.differs()]
        return [each for each in self.files if os.path.lexists(each.path)]


def stamped(rules: str) -> str:
    """The rules with the hash of their text in place of the stamp."""
    return rules.replace(FIREWALL_STAMP, hashlib.sha256(rules.encode()).hexdigest()[:12])


def stamp(rules: str) -> str:
    """The chain's name by which these rules are known."""
    return "rules_" + hashlib.sha256(rules.encode()).hexdigest()[:12]


class Machine:
    """What is asked of the machine and done to it through its own programs."""

    def __init__(self, run: Runner) -> None:
        self._run = run

    def call(self, *arguments: str, what: str = "") -> str:
        """Run a program.

        Raises:
            HardeningError: it ended non-zero.
        """
        status, output, errors = self._run(arguments)
        if status:
            raise HardeningError(
                f"{what + ': ' if what else ''}`{' '.join(arguments)}` failed ({status}): {(errors or output).strip()}"
            )
        return output

    def succeeds(self, *arguments: str) -> bool:
        """Whether a program is there and ends at 0."""
        return shutil.which(arguments[0]) is not None and self._run(arguments)[0] == 0

    def in_container(self) -> bool:
        """Whether the kernel is shared with other machines: its settings are then not this one's to make."""
        return self.succeeds("systemd-detect-virt", "--container", "--quiet")

    # --- packages ---

    def missing(self, packages: Sequence[str]) -> list[str]:
        """Packages that are not installed."""
        if not packages or not shutil.which("dpkg-query"):
            return list(packages)
        _, output, _ = self._run(["dpkg-query", "-W", "-f=${db:Status-Abbrev} ${binary:Package}\\n", *packages])
        there = {line.split()[1].split(":")[0] for line in output.splitlines() if line.startswith("ii")}
        return [each for each in packages if each not in there]

    def install(self, packages: Sequence[str]) -> None:
        """Install packages from the distribution."""
        # A machine's first boot runs apt by itself. A service that a package starts is configured by then.
        quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        order = [*quiet, "--no-install-recommends", "--yes", "-o", "Dpkg::Options::=--force-confold", "install"]
        if self._run([*order, *packages])[0]:
            self.call(*quiet, "update", what="host_hardening")
            self.call(*order, *packages, what="host_hardening")

    # --- the kernel's settings ---

    def sysctl_differs(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Settings whose value differs now: name → value now. One that this kernel has not is left out."""
        found = {}
        for name, value in wanted.items():
            now = files.read(_sysctl_path(name))
            if now is not None and now.decode().split() != value.split():
                found[name] = now.decode().strip()
        return found

    def set_sysctl(self, name: str, value: str) -> None:
        """Set one now.

        Raises:
            HardeningError: the kernel does not take it.
        """
        try:
            with open(_sysctl_path(name), "w", encoding="ascii") as stream:
                stream.write(value)
        except OSError as error:
            raise HardeningError(
                f"host_hardening_sysctl: {name}: the kernel refuses {value!r} ({error.strerror})"
            ) from error

    # --- sshd ---

    def check_sshd(self, drop_in: File) -> None:
        """Hold the whole configuration, the new drop-in first, to sshd's own check.

        Raises:
            HardeningError: sshd would not start with it, or does not read drop-ins at all.
        """
        main = (files.read(SSH_MAIN) or b"").decode("utf-8", "replace")
        lines = [line.split() for line in main.splitlines() if line.strip()]
        folder = os.path.dirname(drop_in.path)
        if not any(line[0].lower() == "include" and any(folder in each for each in line[1:]) for line in lines):
            raise HardeningError(
                f"{SSH_MAIN}: found no `Include {folder}/*.conf`; expected it, as Debian and Ubuntu have it. Add it as "
                "the first line, or set host_hardening_ssh: false. Nothing was changed"
            )
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", prefix="sshd-check.") as stream:
            # sshd takes the first value that it meets, and drop-ins by name.
            stream.write(drop_in.content + b"\n" + main.encode())
            stream.flush()
            status, _, errors = self._run(["/usr/sbin/sshd", "-t", "-f", stream.name])
        if status:
            raise HardeningError(
                f"sshd refuses what host_hardening_ssh_options make: {errors.strip()}. Nothing was changed"
            )

    def sshd_ports(self) -> list[int]:
        """The ports that sshd is configured for."""
        status, output, _ = self._run(["/usr/sbin/sshd", "-T"])
        ports = [int(line.split()[1]) for line in output.splitlines() if line.startswith("port ")]
        return sorted(set(ports)) if not status and ports else [22]

    def reload_sshd(self) -> None:
        """Have running daemons read the files; one that a socket starts reads them at each connection."""
        if self.succeeds("systemctl", "is-active", "--quiet", "ssh.service"):
            self.call("systemctl", "reload", "ssh.service")

    def undo_ssh_later(self, drop_in: str, seconds: int) -> None:
        """Put the drop-in that is there now back after so many seconds, unless `keep_ssh` is called before."""
        self.keep_ssh()
        os.makedirs(UNDO_FOLDER, mode=0o700)
        restore = f"rm -f {drop_in}"
        if os.path.exists(drop_in):
            shutil.copy2(drop_in, f"{UNDO_FOLDER}/before")
            restore = f"cp --preserve=all {UNDO_FOLDER}/before {drop_in}"
        self.call(
            "systemd-run",
            "--quiet",
            f"--unit={UNDO_UNIT}",
            f"--on-active={seconds}s",
            "--timer-property=AccuracySec=1s",
            "/bin/sh",
            "-c",
            f"{restore}; rm -rf {UNDO_FOLDER}; systemctl reload ssh.service",
        )

    def keep_ssh(self) -> bool:
        """Cancel what `undo_ssh_later` planned; False where nothing was."""
        planned = os.path.isdir(UNDO_FOLDER)
        self._run(["systemctl", "stop", f"{UNDO_UNIT}.timer"])
        shutil.rmtree(UNDO_FOLDER, ignore_errors=True)
        return planned

    # --- nftables ---

    def check_rules(self, rules: str) -> None:
        """Hold the rules to nft's own check.

        Raises:
            HardeningError: nft refuses them.
        """
        with tempfile.NamedTemporaryFile("w", prefix="firewall-check.", encoding="utf-8") as stream:
            stream.write(rules)
            stream.flush()
            status, _, errors = self._run(["nft", "--check", "--file", stream.name])
        if status:
            raise HardeningError(f"nft refuses the firewall's rules: {errors.strip()}. Nothing was changed")

    def rules_loaded(self, name: str) -> bool:
        """Whether the kernel has the rules with this stamp."""
        return self.succeeds("nft", "list", "chain", *FIREWALL_TABLE, name)

    def listeners(self, but: Sequence[int]) -> list[str]:
        """Programs that accept TCP connections from other machines, on other ports than ``but``."""
        _, output, _ = self._run(["ss", "--no-header", "--listening", "--tcp", "--numeric", "--processes"])
        found = []
        for line in output.splitlines():
            columns = line.split()
            address, _, port = columns[3].rpartition(":")
            plain = address.strip("[]").split("%")[0].removeprefix("::ffff:")
            if not plain.startswith("127.") and plain != "::1" and int(port) not in but:
                program = columns[5].split('"')[1] if len(columns) > 5 and '"' in columns[5] else "a program"
                found.append(f"{program} on {address}:{port}")
        return sorted(set(found))

    # --- systemd ---

    def systemctl(self, *arguments: str) -> None:
        """Run systemctl."""
        self.call("systemctl", "--no-pager", *arguments)

    def enabled(self, unit: str) -> bool:
        """Whether a unit is enabled and active."""
        return self.succeeds("systemctl", "is-enabled", "--quiet", unit) and self.succeeds(
            "systemctl", "is-active", "--quiet", unit
        )


def _sysctl_path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")
