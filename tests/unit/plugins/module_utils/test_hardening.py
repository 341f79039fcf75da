"""What the module host_hardening asks of a machine, with what real programs print."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.dataops.dagster_gce.plugins.module_utils import hardening

# `ss --no-header --listening --tcp --numeric --processes` on a machine of the lab, and two programs of a user's own.
SS = """\
LISTEN 0      4096       127.0.0.1:46171      0.0.0.0:*    users:(("containerd",pid=666,fd=10))
LISTEN 0      128          0.0.0.0:22         0.0.0.0:*    users:(("sshd",pid=115,fd=6))
LISTEN 0      4096      127.0.0.11:40705      0.0.0.0:*
LISTEN 0      4096       127.0.0.1:3000       0.0.0.0:*    users:(("docker-proxy",pid=1756,fd=4))
LISTEN 0      128             [::]:22            [::]:*    users:(("sshd",pid=115,fd=7))
LISTEN 0      511                *:443              *:*    users:(("nginx",pid=77,fd=7),("nginx",pid=78,fd=7))
LISTEN 0      5      10.128.0.7%eth0:8443     0.0.0.0:*
LISTEN 0      128            [::1]:6010          [::]:*    users:(("sshd",pid=900,fd=7))
LISTEN 0      50   [::ffff:127.0.0.1]:9200        *:*    users:(("java",pid=5,fd=7))
"""


class Programs:
    """Answers for `hardening.Machine`: program → status, output, errors."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers = answers
        self.called: list[Sequence[str]] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        self.called.append(arguments)
        return self.answers.get(os.path.basename(arguments[0]), (0, "", ""))


def test_programs_that_a_firewall_would_cut_off() -> None:
    machine = hardening.Machine(Programs(ss=(0, SS, "")))
    assert machine.listeners([22]) == ["a program on 10.128.0.7%eth0:8443", "nginx on *:443"]
    assert machine.listeners([22, 443, 8443]) == []


def test_sshds_ports_are_what_it_is_configured_for() -> None:
    assert hardening.Machine(Programs(sshd=(0, "port 22\nport 2222\naddressfamily any\n", ""))).sshd_ports() == [
        22,
        2222,
    ]
    # A port must never be closed because nobody could be asked.
    assert hardening.Machine(Programs(sshd=(255, "", "no such file"))).sshd_ports() == [22]


def test_a_drop_in_that_sshd_would_not_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = tmp_path / "sshd_config"
    monkeypatch.setattr(hardening, "SSH_MAIN", str(main))
    drop_in = hardening.File("/etc/ssh/sshd_config.d/00-dagster-gce.conf", b"PermitRootLogin no\n")
    main.write_text("# Include /etc/ssh/sshd_config.d/*.conf\nPort 22\n")
    with pytest.raises(hardening.HardeningError, match=r"found no `Include /etc/ssh/sshd_config.d/\*.conf`"):
        hardening.Machine(Programs()).check_sshd(drop_in)


def test_files_differ_by_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = hardening.File(str(path), b"text\n", 0o600)
    assert file.differs()
    path.write_bytes(b"text\n")
    path.chmod(0o600)
    assert file.differs() is (os.getuid() != 0)
    path.chmod(0o644)
    assert file.differs()
    part = hardening.Part("journal", [file], present=False)
    assert part.differing() == [file]
    path.unlink()
    assert part.differing() == []


def test_rules_are_known_by_what_they_say() -> None:
    rules = "table inet t {\n chain rules_@STAMP@ { }\n}\n"
    assert hardening.stamp(rules) in hardening.stamped(rules)
    assert hardening.stamp(rules) != hardening.stamp(rules + "# more\n")
    assert "@" not in hardening.stamped(rules)


def test_the_kernels_settings_are_compared_by_their_words() -> None:
    machine = hardening.Machine(Programs())
    now = Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()
    assert machine.sysctl_differs({"net.ipv4.tcp_rmem": " ".join(now), "net.ipv4.no_such_setting": "1"}) == {}
    assert list(machine.sysctl_differs({"net.ipv4.tcp_rmem": "1 2 3"})) == ["net.ipv4.tcp_rmem"]


def test_a_program_that_fails_is_quoted() -> None:
    machine = hardening.Machine(Programs(systemctl=(1, "", "Unit x.service not found.\n")))
    with pytest.raises(
        hardening.HardeningError, match=r"`systemctl --no-pager start x` failed \(1\): Unit x.service not"
    ):
        machine.systemctl("start", "x")
