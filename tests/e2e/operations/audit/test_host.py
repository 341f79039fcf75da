"""The machine: accounts, files, sshd, kernel, updates (CIS benchmarks of Debian and Ubuntu, and of Docker, part 1)."""

from __future__ import annotations

from typing import Any

import pytest

ROOT_ONLY = 0o700
# Programs of the distribution that have to be root's while others run them.
SETUID = {
    "chage", "chfn", "chsh", "dbus-daemon-launch-helper", "expiry", "gpasswd", "mount", "newgrp", "passwd", "pkexec",
    "polkit-agent-helper-1", "ssh-keysign", "su", "sudo", "umount", "unix_chkpwd", "crontab", "fusermount3",
}  # fmt: skip


def test_h1_root_is_the_only_account_of_its_kind_and_none_is_without_a_password(found: dict[str, Any]) -> None:
    assert [account[0] for account in found["accounts"] if account[2] == "0"] == ["root"]
    assert [name for name, password in found["passwords"] if password == ""] == []


def test_h2_nobody_is_in_dockers_group(found: dict[str, Any]) -> None:
    """Whoever is may become root with one command."""
    assert found["docker_group"] == ""


@pytest.mark.parametrize(
    ("path", "uid", "most"),
    [
        ("/etc/passwd", 0, 0o644), ("/etc/shadow", 0, 0o640), ("/etc/ssh/sshd_config", 0, 0o644),
        ("/etc/sudoers", 0, 0o440), ("/etc/crontab", 0, 0o644), ("/etc/cron.d", 0, 0o755),
        ("/opt/dagster", 0, 0o755), ("/opt/dagster/.env", 0, 0o600),
        ("/opt/dagster/docker-compose-GCE.yml", 0, 0o644), ("/opt/dagster/dagster_home/database", 10001, 0o750),
        ("/opt/dagster/dagster_home/database/pgpass", 10001, 0o400),
        ("/opt/dagster/dagster_home/secrets", 10001, 0o700),
        ("/opt/dagster/state", 0, 0o750), ("/opt/dagster/releases", 0, 0o755), ("/usr/local/bin/dagster-gce", 0, 0o755),
    ],
)  # fmt: skip
def test_h3_files_belong_to_whom_they_should(found: dict[str, Any], path: str, uid: int, most: int) -> None:
    state = found["paths"][path]
    assert state, f"{path} is not there"
    assert state["uid"] == uid
    assert state["mode"] & ~most == 0, f"{path}: {state['mode']:o}, at most {most:o}"


def test_h4_nobody_owns_what_everybody_may_write(found: dict[str, Any]) -> None:
    assert found["files"]["writable"] == []
    # The user inside the containers has no name here.
    strange = [each for each in found["files"]["unowned"] if not each.startswith("/opt/dagster/dagster_home/")]
    assert strange == []


def test_h5_no_program_of_ours_gives_roots_rights(found: dict[str, Any]) -> None:
    assert {each.rsplit("/", 1)[1] for each in found["files"]["setuid"]} <= SETUID


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("passwordauthentication", "no"), ("kbdinteractiveauthentication", "no"), ("permitemptypasswords", "no"),
        ("permitrootlogin", "no"), ("hostbasedauthentication", "no"), ("ignorerhosts", "yes"),
        ("permituserenvironment", "no"), ("x11forwarding", "no"), ("allowagentforwarding", "no"),
        ("allowtcpforwarding", "local"), ("allowstreamlocalforwarding", "no"), ("gatewayports", "no"),
        ("permittunnel", "no"), ("maxauthtries", "4"), ("logingracetime", "30"), ("clientaliveinterval", "300"),
        ("clientalivecountmax", "3"), ("loglevel", "VERBOSE"), ("usepam", "yes"),
    ],
)  # fmt: skip
def test_h6_sshd_is_set(found: dict[str, Any], option: str, value: str) -> None:
    assert found["sshd"][option] == value


def test_h7_sshd_knows_no_old_algorithm(found: dict[str, Any]) -> None:
    offered = {name: found["sshd"][name].split(",") for name in ("kexalgorithms", "ciphers", "macs")}
    assert all(offered.values())
    assert [each for each in offered["kexalgorithms"] if "sha1" in each or "group14" in each or "nistp" in each] == []
    assert [each for each in offered["ciphers"] if each.endswith("cbc") or "arcfour" in each] == []
    assert [each for each in offered["macs"] if "etm" not in each] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.conf.all.accept_redirects", "0"), ("net.ipv4.conf.default.accept_redirects", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"), ("net.ipv4.conf.all.secure_redirects", "0"),
        ("net.ipv4.conf.all.accept_source_route", "0"), ("net.ipv4.conf.all.rp_filter", "1"),
        ("net.ipv4.conf.all.log_martians", "1"), ("net.ipv4.icmp_echo_ignore_broadcasts", "1"),
        ("net.ipv4.tcp_syncookies", "1"), ("net.ipv6.conf.all.accept_redirects", "0"),
        ("net.ipv6.conf.all.accept_source_route", "0"),
    ],
)  # fmt: skip
def test_h8_the_network_of_the_kernel_is_set(found: dict[str, Any], name: str, value: str) -> None:
    assert found["sysctl"][name] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.randomize_va_space", "2"), ("kernel.dmesg_restrict", "1"), ("kernel.kptr_restrict", "2"),
        ("kernel.unprivileged_bpf_disabled", "1"), ("fs.suid_dumpable", "0"), ("fs.protected_symlinks", "1"),
        ("fs.protected_hardlinks", "1"), ("kernel.core_pattern", "|/bin/false"),
    ],
)  # fmt: skip
def test_h9_the_kernel_itself_is_set(found: dict[str, Any], name: str, value: str) -> None:
    if found["container"]:
        pytest.skip("N10: this machine shares its kernel with the computer that the lab runs on")
    assert found["sysctl"][name] == value


def test_h10_security_updates_come_by_themselves(found: dict[str, Any]) -> None:
    assert found["timers"] == ["enabled", "enabled"]


def test_h11_the_journal_survives_a_reboot(found: dict[str, Any]) -> None:
    assert found["journal"] is True


def test_h12_only_sshd_listens_to_others(found: dict[str, Any]) -> None:
    outside = {each for each in found["listening"] if not each.startswith(("127.", "[::1]"))}
    assert {each.rpartition(":")[2] for each in outside} == {"22"}, outside
    assert "policy drop" in found["rules"]


def test_h13_the_machines_own_jobs_cannot_gain_rights(found: dict[str, Any]) -> None:
    """The endpoint is what somebody could talk to."""
    served = {name: text for name, text in found["units"].items() if name == "dagster-gce-metrics.service"}
    for text in served.values():
        for line in ("NoNewPrivileges=", "ProtectSystem=", "PrivateTmp="):
            assert line in text
