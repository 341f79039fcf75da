"""Service accounts and their keys."""

from __future__ import annotations

import base64
import datetime
import functools
import json
import re
import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from . import policies
from .errors import Refusal
from .handlers import Call, handles
from .state import Thing, fingerprint, new_id
from .wire import masked, proto, same_bytes

if TYPE_CHECKING:
    from .server import Google

API = "iam.projects.serviceAccounts"
MAXIMUM_KEYS = 10
LIFE = datetime.timedelta(days=3650)


def email_of(name: str, project: str) -> str:
    """The address of a service account."""
    return f"{name}@{project}.iam.gserviceaccount.com"


def path_of(call: Call, path: str | None = None) -> str:
    """The canonical path of the service account that a request names; ``projects/-`` means its own project."""
    path = call.target if path is None else path
    match = re.match(r"projects/([^/]+)/serviceAccounts/([^/]+)", path)
    if not match:
        raise Refusal(400, f"Invalid service account name: {path}")
    project, account = call.google.project_id(match[1]), match[2]
    if "@" not in account:  # by its unique id
        for key, thing in call.state.things.items():
            if key.startswith("iam/projects/") and thing.get("uniqueId") == account:
                return key.removeprefix("iam/")
    if project == "-":
        project = account.partition("@")[2].removesuffix(".iam.gserviceaccount.com")
    return f"projects/{project}/serviceAccounts/{account}"


def account(call: Call) -> Thing:
    """The service account that a request names, or 404."""
    path = path_of(call)
    found = call.state.get(f"iam/{path}")
    if found is None:
        raise Refusal(404, f"Unknown service account: {path.rsplit('/', 1)[-1]}")
    return found


def make(google: Google, project: str, name: str, more: Thing | None = None) -> Thing:
    """Have a new service account."""
    email = email_of(name, project)
    unique = new_id() + "01"
    thing: Thing = {
        "name": f"projects/{project}/serviceAccounts/{email}",
        "projectId": project,
        "uniqueId": unique,
        "email": email,
        "oauth2ClientId": unique,
        **(more or {}),
    }
    thing["etag"] = fingerprint(thing)
    return google.state.put(f"iam/projects/{project}/serviceAccounts/{email}", thing)


@handles(f"{API}.create")
def create(call: Call) -> Thing:
    """A new account, at once."""
    name = call.body["accountId"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]{4,28}[a-z0-9])", name):
        raise Refusal(400, f"The account ID '{name}' is not valid: 6 to 30 lower-case letters, digits and dashes.")
    path = f"projects/{call.project}/serviceAccounts/{email_of(name, call.project)}"
    if call.find(path):
        raise Refusal(409, f"Service account {name} already exists within project projects/{call.project}.")
    given = call.body.get("serviceAccount") or {}
    _check_texts(given)
    more = {field: given[field] for field in ("displayName", "description") if field in given}
    return proto(make(call.google, call.project, name, more))


def _check_texts(given: Thing) -> None:
    if len(given.get("displayName", "")) > 100 or len(given.get("description", "")) > 256:
        raise Refusal(400, "The display name may have 100 characters at most, the description 256.")


@handles(f"{API}.get")
def get(call: Call) -> Thing:
    """One account."""
    return proto(account(call))


@handles(f"{API}.list")
def list_accounts(call: Call) -> Thing:
    """A project's accounts."""
    found = [proto(thing) for thing in call.children(f"projects/{call.project}/serviceAccounts")]
    return {"accounts": found} if found else {}


@handles(f"{API}.patch")
def patch(call: Call) -> Thing:
    """Display name and description; the mask is in the body."""
    thing = account(call)
    given = call.body.get("serviceAccount") or {}
    if not call.body.get("updateMask"):
        raise Refusal(400, "An update mask is required.")
    if given.get("etag") and not same_bytes(given["etag"], thing["etag"]):
        raise Refusal(409, policies.CONFLICT, "aborted", state="ABORTED")
    _check_texts(given)
    changed = masked(thing, given, call.body["updateMask"], {"displayName", "description"})
    changed["etag"] = fingerprint({**changed, "etag": ""})
    call.state.put(f"iam/{path_of(call)}", changed)
    return proto(changed)


@handles(f"{API}.delete")
def delete(call: Call) -> Thing:
    """The account goes, its name stays in policies as a deleted one's."""
    thing = account(call)
    call.state.delete(f"iam/{path_of(call)}")
    member = f"serviceAccount:{thing['email']}"
    for policy in call.state.note("policies").values():
        for binding in policy.get("bindings", ()):
            gone = f"deleted:{member}?uid={thing['uniqueId']}"
            binding["members"] = [gone if found == member else found for found in binding["members"]]
    call.state.note("policies").pop(f"iam/{path_of(call, thing['name'])}", None)
    keys = call.state.note("keys")
    for key in [key for key, known in keys.items() if known["email"] == thing["email"]]:
        del keys[key]
    return {}


@handles(f"{API}.disable", f"{API}.enable")
def switch(call: Call) -> Thing:
    """A disabled account gets no tokens."""
    account(call)["disabled"] = call.method.id.endswith(".disable")
    return {}


@handles(f"{API}.getIamPolicy")
def get_policy(call: Call) -> Thing:
    """Who may use the account."""
    account(call)
    return policies.read(call, f"iam/{path_of(call)}", policies.requested_version(call))


@handles(f"{API}.setIamPolicy")
def set_policy(call: Call) -> Thing:
    """Replace who may use the account."""
    account(call)
    return policies.write(call, f"iam/{path_of(call)}", call.body.get("policy"))


# -- keys


@functools.cache
def _private_key() -> rsa.RSAPrivateKey:
    """One key pair for all keys of a process: making one costs a tenth of a second, and none guards anything."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _new_key(google: Google, thing: Thing) -> tuple[str, dict[str, str]]:
    """A key of an account: its id, and the file's content."""
    private = _private_key()
    key_id = secrets.token_hex(20)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    now = datetime.datetime.now(datetime.UTC)
    google.state.note("keys")[key_id] = {
        "email": thing["email"],
        "public": public.decode(),
        "after": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "before": (now + LIFE).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key_id, {
        "type": "service_account",
        "project_id": thing["projectId"],
        "private_key_id": key_id,
        "private_key": text.decode(),
        "client_email": thing["email"],
        "client_id": thing["uniqueId"],
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    }


def issue_key(google: Google, email: str) -> dict[str, str]:
    """A key file of an account that owns its project; both are made where they are missing."""
    name, _, domain = email.partition("@")
    project = domain.removesuffix(".iam.gserviceaccount.com")
    if project not in google.state.note("projects"):
        google.seed_project(project)
    thing = google.state.get(f"iam/projects/{project}/serviceAccounts/{email}") or make(google, project, name)
    bindings = google.state.note("policies")[f"cloudresourcemanager/projects/{project}"].setdefault("bindings", [])
    bindings.append({"role": "roles/owner", "members": [f"serviceAccount:{email}"]})
    return _new_key(google, thing)[1]


def _key(email: str, key_id: str, known: Thing) -> Thing:
    project = email.partition("@")[2].removesuffix(".iam.gserviceaccount.com")
    return {
        "name": f"projects/{project}/serviceAccounts/{email}/keys/{key_id}",
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "keyOrigin": "GOOGLE_PROVIDED",
        "keyType": "USER_MANAGED",
        "validAfterTime": known["after"],
        "validBeforeTime": known["before"],
    }


@handles(f"{API}.keys.create")
def create_key(call: Call) -> Thing:
    """A key; its private part is answered once."""
    thing = account(call)
    if call.constraint("iam.disableServiceAccountKeyCreation"):
        constraint = "constraints/iam.disableServiceAccountKeyCreation"
        violation = {
            "type": constraint,
            "subject": thing["name"],
            "description": "Key creation is disabled by an organization policy.",
        }
        details = [{"@type": "type.googleapis.com/google.rpc.PreconditionFailure", "violations": [violation]}]
        message = "Key creation is not allowed on this service account."
        raise Refusal(400, message, "failedPrecondition", state="FAILED_PRECONDITION", details=details)
    if sum(known["email"] == thing["email"] for known in call.state.note("keys").values()) >= MAXIMUM_KEYS:
        raise Refusal(429, "Maximum number of keys on account reached.")
    key_id, content = _new_key(call.google, thing)
    return {
        **_key(thing["email"], key_id, call.state.note("keys")[key_id]),
        "privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE",
        "privateKeyData": base64.b64encode(json.dumps(content, indent=2).encode()).decode(),
    }


@handles(f"{API}.keys.list")
def list_keys(call: Call) -> Thing:
    """An account's keys."""
    email = account(call)["email"]
    keys = call.state.note("keys")
    found = [_key(email, key_id, known) for key_id, known in keys.items() if known["email"] == email]
    return {"keys": found} if found else {}


@handles(f"{API}.keys.delete")
def delete_key(call: Call) -> Thing:
    """A key is worth nothing any more."""
    email = account(call)["email"]
    key_id = call.target.rsplit("/", 1)[-1]
    if call.state.note("keys").get(key_id, {}).get("email") != email:
        raise Refusal(404, f"Service account key {key_id} does not exist.")
    del call.state.note("keys")[key_id]
    return {}


# -- impersonation


@handles("iamcredentials.projects.serviceAccounts.generateAccessToken")
def generate_access_token(call: Call) -> Thing:
    """A token of another account, for who may impersonate it."""
    from . import permissions

    path = path_of(call)
    thing = call.state.get(f"iam/{path}")
    project = path.split("/")[1]
    keys = [f"cloudresourcemanager/projects/{project}", f"iam/{path}"]
    wanted = "iam.serviceAccounts.getAccessToken"
    if thing is None or not permissions.has(call.google, call.caller.member, wanted, keys):
        raise permissions.denied(call, wanted, path)
    permissions.check_enabled(call, project, "iamcredentials.googleapis.com")
    seconds = float(call.body.get("lifetime", "3600s").removesuffix("s"))
    if not 0 < seconds <= 3600:
        raise Refusal(400, "The access token lifetime cannot exceed 1 hour without the constraint that allows it.")
    scopes = call.body.get("scope")
    if not scopes:
        raise Refusal(400, "Scope required.")
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return {
        "accessToken": call.google.token(thing["email"], scopes, seconds),
        "expireTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
