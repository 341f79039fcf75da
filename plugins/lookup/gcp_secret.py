# SPDX-License-Identifier: Apache-2.0
"""A secret's value from Google's Secret Manager."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gcp_secret
short_description: A secret's value from Google's Secret Manager
description:
  - Reads the value of a secret on the controller, as a choice beside ansible-vault.
  - The value is handed to whoever asks and shown nowhere. Give it to options that take secrets
    (C(dagster_postgres_password), C(dagster_home_service_account)), which keep it out of output and logs; anything else
    needs C(no_log).
  - It is asked for whenever a task needs the variable. Within one task, the same version is asked for once.
version_added: 1.0.0
author: dataops (@dataops)
requirements:
  - google-auth
  - requests
options:
  _terms:
    description:
      - Names of the secrets, or full names (C(projects/p/secrets/s), C(projects/p/locations/l/secrets/s), both with or
        without C(/versions/v)).
    type: list
    elements: str
    required: true
  project:
    description: The project of a short name. Default is the variable C(gcp_project).
    type: str
  version:
    description: The version's number, or C(latest).
    type: str
    default: latest
  binary:
    description: Return the value in base 64, for one that is not text.
    type: bool
    default: false
  auth_kind:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: str
    choices: [application, serviceaccount, accesstoken, external]
    default: application
  service_account_file:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: str
  service_account_contents:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: raw
  access_token:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: str
  credentials_file:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: str
  impersonate_service_account:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: str
  impersonate_delegates:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: list
    elements: str
    default: []
  universe_domain:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: str
    default: googleapis.com
  api_endpoints:
    description: As in M(dataops.dagster_gce.gcp_iam_member).
    type: dict
    default: {}
notes:
  - The caller needs C(roles/secretmanager.secretAccessor) on the secret.
  - E(HTTPS_PROXY) and E(REQUESTS_CA_BUNDLE) are those of the environment that Ansible was started in; a task's
    C(environment) does not reach a lookup.
"""

EXAMPLES = r"""
# In group_vars: read when the play needs it, on no disk.
dagster_postgres_password: "{{ lookup('dataops.dagster_gce.gcp_secret', 'dagster-postgres-password-prod') }}"

# The key for `dagster_service_account_mode: key`, in the version that was tested, as somebody else.
dagster_home_service_account: "{{ lookup('dataops.dagster_gce.gcp_secret', 'projects/other-project/secrets/key',
  version='3', impersonate_service_account='deployer@example-project.iam.gserviceaccount.com') }}"
"""

RETURN = r"""
_raw:
  description: The values, as text.
  type: list
  elements: str
"""

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError

_NAME = re.compile(
    r"(?:projects/(?P<project>[^/\s]+)/(?:locations/(?P<location>[a-z0-9-]+)/)?secrets/)?(?P<secret>[A-Za-z0-9_-]{1,255})"
    r"(?:/versions/(?P<version>latest|[A-Za-z0-9_-]+))?"
)
# A worker lives for one task: what is asked for twice in it is read once.
_READ: dict[str, bytes] = {}


class GcpSecretError(AnsibleLookupError):
    """No value, and why; the text never holds one, so that the action check_inputs may show it."""

    holds_no_value = True


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: Sequence[str], variables: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """Read the secrets."""
        if google_auth.IMPORT_ERROR:
            raise GcpSecretError("gcp_secret needs google-auth and requests on the controller")
        self.set_options(var_options=variables, direct=options)
        given: dict[str, Any] = self.get_options()
        if not terms:
            raise GcpSecretError("gcp_secret: found no name; expected the name of a secret")
        if not given["project"]:
            given["project"] = self._variable("gcp_project", variables)
        return [self._value(str(term), given) for term in terms]

    def _value(self, term: str, options: dict[str, Any]) -> str:
        path = path_of(term, options)
        key = json.dumps([path, {name: str(value) for name, value in options.items()}], sort_keys=True)
        if key not in _READ:
            _READ[key] = read(path, options)
        value = _READ[key]
        if options["binary"]:
            return base64.b64encode(value).decode()
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise GcpSecretError(
                f"gcp_secret: {path} holds bytes that are no UTF-8 text; expected text, or binary=true"
            ) from None

    def _variable(self, name: str, variables: dict[str, Any] | None) -> str:
        """A variable's value; empty where it is not set."""
        template = (variables or {}).get(name)
        try:
            return str(self._templar.template(template) or "") if template and self._templar else ""
        except AnsibleError:
            return ""


def path_of(term: str, options: dict[str, Any]) -> str:
    """The version's full name.

    Raises:
        GcpSecretError: not a secret's name, or no project.
    """
    match = _NAME.fullmatch(term)
    if match is None:
        raise GcpSecretError(
            f"gcp_secret: found the name {term!r}; expected letters, digits, - and _, or projects/<id>/secrets/<name>"
        )
    project = match["project"] or options.get("project")
    if not project:
        raise GcpSecretError(
            f"gcp_secret: found no project for {term!r}; expected project=…, or the variable gcp_project"
        )
    place = f"projects/{project}" + (f"/locations/{match['location']}" if match["location"] else "")
    return f"{place}/secrets/{match['secret']}/versions/{match['version'] or options['version']}"


def read(path: str, options: dict[str, Any]) -> bytes:
    """The value of a version.

    Raises:
        GcpSecretError: Google refused it, or what came is damaged.
    """
    secret = path.rpartition("/versions/")[0]
    endpoints = dict(options.get("api_endpoints") or {})
    if "/locations/" in path:
        endpoints.setdefault("secretmanager", regional_endpoint(path.split("/")[3], options["universe_domain"]))
    try:
        client = Client({**options, "project": path.split("/")[1], "timeout": 60, "api_endpoints": endpoints})
        answer = client.call("secretmanager", "GET", f"{path}:access", what=f"read the secret {path}")
    except GoogleError as error:
        hint = ""
        if error.is_absence_of(path):
            hint = f" Is there such a secret, and a version in it? gcloud secrets versions list {secret}"
        elif error.code == 400 and "state" in error.message:
            hint = f" The version is disabled or destroyed; gcloud secrets versions list {secret}"
        raise GcpSecretError(f"gcp_secret: {error}{hint}") from None
    payload = answer.get("payload") or {}
    try:
        value = base64.b64decode(payload.get("data") or "", validate=True)
    except (binascii.Error, ValueError):
        raise GcpSecretError(f"gcp_secret: {path}: Google's answer is not base 64") from None
    if payload.get("dataCrc32c") is not None and int(payload["dataCrc32c"]) != crc32c(value):
        raise GcpSecretError(f"gcp_secret: {path}: the checksum of what came is wrong; run again")
    return value


def regional_endpoint(location: str, universe: str) -> str:
    """A regional secret is known in its region only (https://cloud.google.com/secret-manager/docs/regional-endpoints)."""
    return f"https://secretmanager.{location}.rep.{universe}"


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum (RFC 3720, B.4), which Secret Manager sends along; bit by bit, for 64 KiB at most."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
