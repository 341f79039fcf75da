"""The power of a lab machine, and a disk of its own for what it has to keep.

Killing the machine's container ends all its processes at once, but the kernel below is this computer's and would still
write what they left in its page cache. So Docker's and Dagster's data lie on an ext4 of their own, which is told first
to write nothing any more (EXT4_IOC_SHUTDOWN without a flush of the journal, made for tests like this one): what was
not on the disk by then is lost, as it is when a plug is pulled.
"""

from __future__ import annotations

import subprocess
import sys
import time

from lab import machine as lab_machine
from tests.e2e.harness import ROOT, Machine, wait

DISK = "/var/e2e-disk.img"
_MOUNT = "/mnt/disks/dagster"
# As the role gce_instance lays out a data disk.
_PLACES = ("/opt/dagster", "/var/lib/containerd", "/var/lib/docker")
# From the kernel's include/uapi/linux/ext4.h: _IOR('X', 125, __u32), and the flag that leaves the journal as it is.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2


# Not in fstab: the container has volumes in two of the places, so systemd would take them for mounted.
_UNIT = f"""[Unit]
RequiresMountsFor={_MOUNT}
Before=docker.service containerd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for place in {" ".join(_PLACES)}; do mount --bind {_MOUNT}$$place $$place; done'
[Install]
WantedBy=multi-user.target
"""


def give_disk(machine: Machine, gigabytes: int = 14) -> None:
    """Put a disk under what the machine keeps; before anything is installed."""
    places = " ".join(f"{place} {_MOUNT}{place}" for place in _PLACES)
    machine.ssh(
        "set -e\n"
        # Of the loop devices a container only knows those that were there when it was made.
        "for number in $(seq 0 31); do [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number; done\n"
        f"truncate --size {gigabytes}G {DISK}\nmkfs.ext4 -q -F {DISK}\nmkdir -p {_MOUNT}\n"
        f"echo '{DISK} {_MOUNT} ext4 loop 0 0' >>/etc/fstab\nmount {_MOUNT}\nmkdir -p {places}\n"
        f"cat >/etc/systemd/system/e2e-disk.service <<'E'\n{_UNIT}E\n"
        "systemctl daemon-reload\nsystemctl enable --now e2e-disk.service"
    )


def off(machine: Machine) -> None:
    """Pull the plug."""
    shutdown = (
        f"import fcntl, os, struct; "
        f"fcntl.ioctl(os.open('{_MOUNT}', os.O_RDONLY), {_SHUTDOWN:#x}, struct.pack('I', {_NO_LOG_FLUSH}))"
    )
    container = lab_machine.container_name(machine.name)
    subprocess.run(["docker", "exec", container, "python3", "-c", shutdown], check=True)
    subprocess.run(["docker", "kill", container], check=True, stdout=subprocess.DEVNULL)


def on(machine: Machine) -> float:
    """Start it; returns when that was, as time.time() says, after SSH answers."""
    # The last of its processes still held the disk's loop device.
    wait(lambda: DISK not in _loops(), 30, "that the disk is free", _loops)
    start = time.time()
    subprocess.run([sys.executable, "-m", "lab", "up", machine.name], cwd=ROOT, check=True)
    return start


def _loops() -> str:
    return subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout
