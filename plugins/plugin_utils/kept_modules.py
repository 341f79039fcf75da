# SPDX-License-Identifier: Apache-2.0
"""The collection's modules kept on the machine, compiled, so that a task need not bring them along.

Ansible packs a module with all that it imports, sends it, and the machine's Python compiles it anew: half a second or
more a task. The first task of a version of the collection leaves all modules in a folder of root's instead, and those
after it name that folder. A folder's name is the checksum of what is in it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from pathlib import Path

import ansible.module_utils
from ansible.release import __version__ as ansible_version

FOLDER = "/var/cache/dagster-gce/modules"
# What a machine prints instead of a result: it has not these modules, or it does not keep any for this user.
ABSENT = "dagster-gce: these modules are not kept here"
REFUSED = "dagster-gce: no modules are kept here"
# Days after which a folder that no task has named is removed.
KEPT_DAYS = 30

_COLLECTION = Path(__file__).parents[2]
_PLACE = "ansible_collections/dataops/dagster_gce"

# Both programs get FOLDER, the folder's name and the module's as arguments. A user runs his own files only, and nobody
# but root makes FOLDER.
_RUN = """\
import os, runpy, stat, sys
parent, name, module = sys.argv[1:4]
folder = os.path.join(parent, name)
def owned(path):
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
def run():
    os.utime(folder)
    sys.path[:] = [folder, *filter(None, sys.path)]
    sys.argv = [module]
    # Compiled is what they are kept for, whatever the environment says.
    sys.dont_write_bytecode = False
    runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
START = f"""\
{_RUN}
if owned(parent) and owned(folder):
    run()
elif owned(parent) or os.geteuid() == 0 and not os.path.lexists(parent):
    print("{ABSENT}")
else:
    print("{REFUSED}")
"""
# On standard input: the length of the archive as a line, the archive, the module's options.
KEEP = f"""\
{_RUN}
import io, shutil, tempfile, time, zipfile
archive = io.BytesIO(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
def keep():
    os.makedirs(parent, mode=0o755, exist_ok=True)
    if not owned(parent):
        return
    old = time.time() - {KEPT_DAYS} * 86400
    for other in os.scandir(parent):
        if other.stat(follow_symlinks=False).st_mtime < old:
            shutil.rmtree(other.path, ignore_errors=True)
    fresh = tempfile.mkdtemp(prefix=".", dir=parent)
    try:
        zipfile.ZipFile(archive).extractall(fresh)
        os.chmod(fresh, 0o755)
        # The name promises the content, also after the power has gone.
        os.sync()
        # Another play may have been first.
        os.rename(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
try:
    keep()
except OSError:
    pass
if owned(parent) and owned(folder):
    run()
else:
    print("{REFUSED}")
"""


def name() -> str:
    """The name of the folder with this very collection and Ansible."""
    digest = hashlib.sha256(ansible_version.encode())
    for path, content in _own_files():
        digest.update(f"\0{path}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


@functools.cache
def archive() -> bytes:
    """A ZIP of the collection's modules and what they import of Ansible's."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as files:
        for path, content in [*_own_files(), *_ansible_files()]:
            files.writestr(path, content)
    return packed.getvalue()


@functools.cache
def _own_files() -> list[tuple[str, bytes]]:
    files = _sources(_COLLECTION / "plugins" / "modules", f"{_PLACE}/plugins/modules")
    files += _sources(_COLLECTION / "plugins" / "module_utils", f"{_PLACE}/plugins/module_utils")
    return files + _packages(f"{_PLACE}/plugins", files)


def _ansible_files() -> list[tuple[str, bytes]]:
    (folder,) = ansible.module_utils.__path__
    files = _sources(Path(folder), "ansible/module_utils")
    return files + _packages("ansible", files)


def _sources(folder: Path, place: str) -> list[tuple[str, bytes]]:
    return [
        (f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes()) for path in sorted(folder.rglob("*.py"))
    ]


def _packages(top: str, files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """An empty ``__init__.py`` for every folder without one: another Ansible of the machine's must not come first."""
    there = {path for path, _ in files}
    folders = {parent.as_posix() for path in [*there, f"{top}/x"] for parent in Path(path).parents} - {"."}
    return [(path, b"") for path in sorted(f"{folder}/__init__.py" for folder in folders) if path not in there]
