# SPDX-License-Identifier: Apache-2.0
"""The files from which the containers take the database's password.

libpq reads a password file at each new connection (https://www.postgresql.org/docs/current/libpq-pgpass.html), so
replacing it by rename reaches processes that run already. A variable of the environment reaches none of them. The
folder is what containers mount: a bind-mounted file would keep the old inode.
"""

from __future__ import annotations

import os

from ansible_collections.dataops.dagster_gce.plugins.module_utils import files

# libpq's form, for Dagster; it refuses a file that a group may read.
PGPASS = "pgpass"
# The bare text, for the entry point of PostgreSQL's image, which reads it when it makes a database. Its user is in the
# folder's group.
PLAIN = "password"


def contents(password: str) -> dict[str, bytes]:
    """What each file holds: name → content."""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return {PGPASS: f"*:*:*:*:{escaped}\n".encode(), PLAIN: password.encode()}


def owners(uid: int) -> dict[str, files.Owner]:
    """Owner and mode of each file, and of the folder under the empty name; ``uid`` is the user in Dagster's images."""
    return {
        "": files.Owner(uid, uid, 0o750),
        PGPASS: files.Owner(uid, uid, 0o400),
        PLAIN: files.Owner(uid, uid, 0o440),
    }


def differs(folder: str, password: str, uid: int) -> bool:
    """Whether the folder or a file has another content, owner or mode than it should."""
    return any(files.read(os.path.join(folder, name)) != wanted for name, wanted in contents(password).items()) or any(
        files.differs(os.path.join(folder, name) if name else folder, owner) for name, owner in owners(uid).items()
    )


def write(folder: str, password: str, uid: int) -> None:
    """Put both files there, each in one step.

    Raises:
        OSError
    """
    owner = owners(uid)
    if files.differs(folder, owner[""]):
        files.make_folder(folder, owner[""])
    for name, content in contents(password).items():
        files.replace(os.path.join(folder, name), content, owner[name])
