"""OS Login: a user's SSH keys and account on machines."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from .errors import Refusal
from .handlers import Call, handles
from .state import Thing
from .wire import masked

KINDS = {"ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}


def _user(call: Call) -> str:
    """The address of the user that a request names, who must be the caller."""
    email = call.target.split("/")[1]
    if email != call.caller.email:
        raise Refusal(403, "The caller does not have permission")
    return email


def _keys(call: Call) -> dict[str, Thing]:
    keys: dict[str, Thing] = call.state.note("ssh keys").setdefault(_user(call), {})
    return keys


def _profile(call: Call, email: str) -> Thing:
    number = int(hashlib.sha256(email.encode()).hexdigest()[:7], 16) + 1000000
    name = re.sub(r"[^a-z0-9]", "_", email.lower())
    if email.endswith("gserviceaccount.com"):
        account = next((thing for thing in call.state.things.values() if thing.get("email") == email), {})
        name = f"sa_{account.get('uniqueId', number)}"
    profile: Thing = {"name": str(number * 1000003)}
    projects = call.state.note("posix accounts").get(email, [])
    if projects:
        profile["posixAccounts"] = [
            {
                "primary": True,
                "username": name[:32],
                "uid": str(number),
                "gid": str(number),
                "homeDirectory": f"/home/{name[:32]}",
                "shell": "/bin/bash",
                "operatingSystemType": "LINUX",
                "accountId": project,
                "name": f"users/{email}/projects/{project}",
            }
            for project in projects
        ]
    keys = call.state.note("ssh keys").get(email)
    if keys:
        profile["sshPublicKeys"] = keys
    return profile


@handles("oslogin.users.getLoginProfile")
def get_profile(call: Call) -> Thing:
    """Account and keys."""
    return _profile(call, _user(call))


def _key(call: Call, given: Thing) -> Thing:
    text = given.get("key", "").strip()
    parts = text.split()
    try:
        good = len(parts) >= 2 and parts[0] in KINDS and base64.b64decode(parts[1], validate=True)
    except binascii.Error:
        good = False
    if not good:
        raise Refusal(400, "Invalid SSH public key.")
    mark = hashlib.sha256(text.encode()).hexdigest()
    thing: Thing = {"key": text, "fingerprint": mark, "name": f"users/{_user(call)}/sshPublicKeys/{mark}"}
    if given.get("expirationTimeUsec"):
        thing["expirationTimeUsec"] = str(given["expirationTimeUsec"])
    return thing


@handles("oslogin.users.importSshPublicKey")
def import_key(call: Call) -> Thing:
    """Have a key; with ``projectId`` the account for that project's machines, too."""
    thing = _key(call, call.body)
    _keys(call)[thing["fingerprint"]] = thing
    project = call.query("projectId")
    if project:
        if project not in call.state.note("projects"):
            raise Refusal(403, f"Permission denied on project {project}.")
        accounts = call.state.note("posix accounts").setdefault(_user(call), [])
        if project not in accounts:
            accounts.append(project)
    return {"loginProfile": _profile(call, _user(call))}


@handles("oslogin.users.sshPublicKeys.create")
def create_key(call: Call) -> Thing:
    """Have a key."""
    thing = _key(call, call.body)
    if thing["fingerprint"] in _keys(call):
        raise Refusal(409, "The SSH public key already exists.")
    return _keys(call).setdefault(thing["fingerprint"], thing)


def _found(call: Call) -> Thing:
    thing = _keys(call).get(call.target.rsplit("/", 1)[-1])
    if thing is None:
        raise Refusal(404, "Requested entity was not found.")
    return thing


@handles("oslogin.users.sshPublicKeys.get")
def get_key(call: Call) -> Thing:
    """One key."""
    return _found(call)


@handles("oslogin.users.sshPublicKeys.patch")
def patch_key(call: Call) -> Thing:
    """When it expires."""
    changed = masked(_found(call), call.body, call.query("updateMask"), {"expirationTimeUsec"})
    _keys(call)[changed["fingerprint"]] = changed
    return changed


@handles("oslogin.users.sshPublicKeys.delete")
def delete_key(call: Call) -> Thing:
    """The key goes."""
    del _keys(call)[_found(call)["fingerprint"]]
    return {}
