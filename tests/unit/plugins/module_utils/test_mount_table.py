"""mountinfo as the kernel writes it, and the one block in fstab that is ours."""

from __future__ import annotations

from ansible_collections.dataops.dagster_gce.plugins.module_utils import mount_table

MOUNTINFO = """\
29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
95 29 8:16 / /mnt/disks/dagster rw,relatime shared:47 - ext4 /dev/sdb rw
97 29 8:16 /docker /var/lib/docker rw,relatime shared:47 master:2 - ext4 /dev/sdb rw
98 29 0:41 / /mnt/with\\040space rw - tmpfs tmpfs rw
99 98 0:42 /a /mnt/with\\040space rw - tmpfs other rw
"""
FSTAB = "UUID=1 / ext4 defaults 0 1\n#/dev/sdc /mnt/disks/dagster ext4 defaults 0 2"


def test_mounts_by_path() -> None:
    found = mount_table.mounted(MOUNTINFO)
    assert found["/var/lib/docker"] == mount_table.Mount("/var/lib/docker", (8, 16), "/docker", "/dev/sdb")
    assert found["/mnt/disks/dagster"].root == "/"
    assert found["/mnt/with space"].root == "/a", "the mount on top is the one that is seen"


def test_a_block_is_added_once_and_replaced_in_its_place() -> None:
    once = mount_table.with_block(FSTAB, ["a b c"])
    assert once == f"{FSTAB}\n{mount_table.BEGIN}\na b c\n{mount_table.END}\n"
    assert mount_table.with_block(once, ["a b c"]) == once
    followed = once + "tmpfs /x tmpfs defaults 0 0\n"
    assert mount_table.with_block(followed, ["d\\040e"]) == followed.replace("a b c", "d\\040e")
    assert mount_table.with_block("", ["a"]).startswith(mount_table.BEGIN)


def test_entries_of_others() -> None:
    ours = mount_table.with_block(FSTAB, ["/dev/x /mnt/disks/dagster ext4 defaults 0 2"])
    assert mount_table.foreign_entries(ours, ["/mnt/disks/dagster"]) == []
    theirs = ours + "/dev/y   /mnt/disks/dagster/  ext4 defaults 0 2\n"
    assert mount_table.foreign_entries(theirs, ["/mnt/disks/dagster"]) == [
        "/dev/y   /mnt/disks/dagster/  ext4 defaults 0 2"
    ]


def test_a_path_with_a_space_stays_one_field() -> None:
    assert mount_table.escaped("/a b") == "/a\\040b"
