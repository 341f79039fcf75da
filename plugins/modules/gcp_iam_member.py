#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Who holds which roles on a project, or on one thing in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_iam_member
short_description: Grant IAM roles on a project or on one thing in it
description:
  - Gives members roles, or takes them away, and leaves everybody else's as they are.
  - A policy is read once and written once, whatever the number of roles and members. Where somebody else was faster, it
    is read again and the change made anew.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
options:
  kind:
    description:
      - What the roles are for.
      - V(project) is the whole project, V(service_account) is who may act as one, V(repository) is one of Artifact
        Registry, V(secret) of Secret Manager, V(bucket) one of Cloud Storage.
      - V(tunnel) is who may reach machines through Identity-Aware Proxy, one of them (O(name), O(zone)), all of a zone
        (O(zone)) or all of the project.
    type: str
    choices: [project, service_account, repository, secret, bucket, tunnel]
    default: project
  name:
    description: Name of the service account (its address), repository, secret, bucket or machine.
    type: str
  location:
    description: The repository's location; a secret's, if it is a regional one.
    type: str
  zone:
    description: The machines' zone.
    type: str
  members:
    description:
      - "Who, as IAM has it: C(user:…), C(group:…), C(serviceAccount:…), C(domain:…), C(principal://…), C(principalSet://…)."
    type: list
    elements: str
    required: true
  roles:
    description:
      - Which roles, C(roles/…), or C(projects/…/roles/…) for one of your own. Each of the members gets each of them.
    type: list
    elements: str
    required: true
  condition:
    description:
      - When they count. Grants with another condition, or with none, are other grants.
    type: dict
    suboptions:
      title:
        description: Its name.
        type: str
        required: true
      expression:
        description: In the Common Expression Language, for example C(request.time < timestamp("2027-01-01T00:00:00Z")).
        type: str
        required: true
      description:
        description: Text for people.
        type: str
  state:
    description: Whether the members have the roles.
    type: str
    choices: [present, absent]
    default: present
  member_timeout:
    description:
      - Seconds to go on when Google does not know a service account among O(members), as one that was just made.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Let the machine write logs and metrics
  dataops.dagster_gce.gcp_iam_member:
    project: example-project
    members: ["serviceAccount:dagster-vm-prod@example-project.iam.gserviceaccount.com"]
    roles: [roles/logging.logWriter, roles/monitoring.metricWriter]

- name: Let it pull
  dataops.dagster_gce.gcp_iam_member:
    project: example-project
    kind: repository
    location: europe-west1
    name: dagster-core-prod
    members: ["serviceAccount:dagster-vm-prod@example-project.iam.gserviceaccount.com"]
    roles: [roles/artifactregistry.reader]

- name: Let it keep its backups
  dataops.dagster_gce.gcp_iam_member:
    project: example-project
    kind: bucket
    name: example-project-dagster-backups
    members: ["serviceAccount:dagster-vm-prod@example-project.iam.gserviceaccount.com"]
    roles: [roles/storage.objectUser]

- name: Let the team reach the machine, until the project ends
  dataops.dagster_gce.gcp_iam_member:
    project: example-project
    kind: tunnel
    zone: europe-west1-b
    name: dagster-prod
    members: ["group:data-engineers@example.com"]
    roles: [roles/iap.tunnelResourceAccessor]
    condition:
      title: until-2027
      expression: request.time < timestamp("2027-01-01T00:00:00Z")
"""

RETURN = r"""
target:
  description: What the roles are for.
  returned: success
  type: str
  sample: projects/example-project/locations/europe-west1/repositories/dagster-core-prod
granted:
  description: Grants that were (or in check mode would be) added.
  returned: success
  type: list
  elements: str
revoked:
  description: Grants that were (or would be) taken away.
  returned: success
  type: list
  elements: str
"""

import re
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_policy, google_resource
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError

ATTEMPTS = 8
PAUSE_SECONDS = 0.5
MEMBER_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Target:
    """What a policy belongs to: its API and path, and how that API reads and writes policies."""

    api: str
    path: str
    read_verb: str = "POST"
    words: str = ""

    @property
    def bucket(self) -> bool:
        """Cloud Storage is older than the others: a path of its own, and the policy is all of the body."""
        return self.api == "storage"

    def __str__(self) -> str:
        """In words, for messages."""
        return self.words


def target_of(options: dict[str, Any]) -> Target:
    """The thing that the options name.

    Raises:
        ValueError: options that do not fit the kind; the text names them.
    """
    kind, project = options["kind"], options["project"]
    takes = {
        "project": (),
        "service_account": ("name",),
        "repository": ("name", "location"),
        "secret": ("name", "location"),
        "bucket": ("name",),
        "tunnel": ("name", "zone"),
    }[kind]
    given = {option: options.get(option) or "" for option in ("name", "location", "zone")}
    for option, value in given.items():
        if value and option not in takes:
            fitting = f"expected {' and '.join(takes)}" if takes else "expected no such option"
            raise ValueError(f"{option}: found {value!r} with kind={kind}; {fitting}")
    name, location, zone = given["name"], given["location"], given["zone"]
    if kind == "project":
        return Target("cloudresourcemanager", f"projects/{project}", words=f"project {project}")
    if kind == "tunnel":
        if name and not zone:
            raise ValueError("zone: found nothing with kind=tunnel and a name; expected the machine's zone")
        path = (
            f"projects/{project}/iap_tunnel"
            + (f"/zones/{zone}" if zone else "")
            + (f"/instances/{name}" if name else "")
        )
        return Target("iap", path, words=f"IAP tunnel to {name or zone or f'every machine of {project}'}")
    if not name:
        raise ValueError(f"name: found nothing with kind={kind}; expected the name of the {kind.replace('_', ' ')}")
    if kind == "service_account":
        if not re.fullmatch(r"[^@\s/]+@[^@\s/]+", name):
            raise ValueError(f"name: found {name!r}; expected the service account's address")
        return Target("iam", f"projects/{project}/serviceAccounts/{name}", words=f"service account {name}")
    if kind == "bucket":
        return Target("storage", f"b/{name}", "GET", f"bucket {name}")
    if kind == "repository":
        if not location:
            raise ValueError("location: found nothing with kind=repository; expected the repository's location")
        path = f"projects/{project}/locations/{location}/repositories/{name}"
        return Target("artifactregistry", path, "GET", f"repository {name}")
    place = f"projects/{project}" + (f"/locations/{location}" if location else "")
    return Target("secretmanager", f"{place}/secrets/{name}", "GET", f"secret {name}")


class IamMember:
    """The module's work; every method that fails ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        try:
            self.target = target_of(self.options)
        except ValueError as error:
            module.fail_json(msg=str(error))
        self.grants = google_policy.grants(self.options["roles"], self.options["members"], self.options["condition"])
        self.present: bool = self.options["state"] == "present"

    def run(self) -> None:
        """Read, compare, write until nobody is in between."""
        try:
            self.client = Client({**self.options, "api_endpoints": self.endpoints()})
        except GoogleError as error:
            google_resource.fail(self.module, error)
        try:
            policy = self.read()
            due = self.due(policy)
            if due and not self.module.check_mode:
                due = self.write(policy or {}, due)
        except GoogleError as error:
            google_resource.fail(self.module, error, self.client)
        for warning in self.client.warnings:
            self.module.warn(warning)
        self.done(due)

    def endpoints(self) -> dict[str, Any]:
        """Where the APIs are: a regional secret is known in its region only."""
        own: dict[str, Any] = dict(self.options["api_endpoints"])
        if self.options["kind"] == "secret" and (location := self.options["location"]):
            own.setdefault("secretmanager", f"https://secretmanager.{location}.rep.{self.options['universe_domain']}")
        return own

    def due(self, policy: dict[str, Any] | None) -> list[google_policy.Grant]:
        """The grants that differ from what is asked for."""
        return [grant for grant in self.grants if google_policy.holds(policy or {}, grant) != self.present]

    def read(self) -> dict[str, Any] | None:
        """The policy with its conditions; None where its owner is not there yet, which check mode allows."""
        version = google_policy.VERSION
        get = self.target.read_verb == "GET"
        asked = "optionsRequestedPolicyVersion" if self.target.bucket else "options.requestedPolicyVersion"
        query = {asked: version}
        # The method of service accounts takes the version as POST with a query.
        in_body = not get and self.target.api != "iam"
        try:
            return self.client.call(
                self.target.api,
                self.target.read_verb,
                f"{self.target.path}/iam" if self.target.bucket else f"{self.target.path}:getIamPolicy",
                body={"options": {"requestedPolicyVersion": version}} if in_body else None,
                query=None if in_body else query,
                what=f"read the IAM policy of {self.target}",
            )
        except GoogleError as error:
            if self.module.check_mode and error.is_disabled:
                self.client.warnings.append(
                    f"{self.target}: its API is not enabled yet; check mode takes its policy as empty."
                )
                return None
            may_miss = self.module.check_mode or not self.present
            if may_miss and self.options["kind"] != "project" and error.is_absence_of(self.target.path):
                return None
            raise

    def write(self, policy: dict[str, Any], due: list[google_policy.Grant]) -> list[google_policy.Grant]:
        """Write the policy, with what is in it by now; returns the grants that this run has changed."""
        change = google_policy.with_grants if self.present else google_policy.without_grants
        changed = list(due)
        deadline = time.monotonic() + self.options["member_timeout"]
        conflicts = 0
        while due:
            try:
                self.client.call(
                    self.target.api,
                    "PUT" if self.target.bucket else "POST",
                    f"{self.target.path}/iam" if self.target.bucket else f"{self.target.path}:setIamPolicy",
                    body=change(policy, due) if self.target.bucket else {"policy": change(policy, due)},
                    what=f"{'grant' if self.present else 'revoke'} roles on {self.target}",
                )
                return changed
            except GoogleError as error:
                if error.code in (409, 412) and conflicts < ATTEMPTS:
                    time.sleep(PAUSE_SECONDS * conflicts)
                    conflicts += 1
                elif self.unknown_account(error) and time.monotonic() + MEMBER_PAUSE_SECONDS <= deadline:
                    time.sleep(MEMBER_PAUSE_SECONDS)
                elif "permitted customer" in error.message or "constraints/iam" in error.message:
                    self.fail(
                        f"{error} The organisation's policy constraints/iam.allowedPolicyMemberDomains allows members "
                        "of certain domains only: name others, or ask its administrators for an exception."
                    )
                else:
                    raise
            policy = self.read() or {}
            # After a lost answer, the first attempt may have been carried out: then nothing is due any more.
            due = self.due(policy)
        return changed

    def unknown_account(self, error: GoogleError) -> bool:
        """Whether Google does not know a service account that may just have been made."""
        new = any(member.startswith("serviceAccount:") for member in self.options["members"])
        return new and error.code in (400, 404) and "does not exist" in error.message

    def done(self, due: list[google_policy.Grant]) -> NoReturn:
        """End the module."""
        shown = [str(grant) for grant in due]
        rest = [str(grant) for grant in self.grants if grant not in due] if self.present else []
        with_them, without_them = _lines([*rest, *shown]), _lines(rest)
        self.module.exit_json(
            changed=bool(due),
            target=self.target.path,
            granted=shown if self.present else [],
            revoked=[] if self.present else shown,
            diff={
                "before_header": f"IAM policy of {self.target}",
                "after_header": f"IAM policy of {self.target}",
                "before": without_them if self.present else with_them,
                "after": with_them if self.present else without_them,
            },
        )

    def fail(self, message: str) -> NoReturn:
        """End the module with an error."""
        self.module.fail_json(msg=message)


def _lines(entries: list[str]) -> str:
    return "".join(f"{entry}\n" for entry in sorted(entries))


def mistakes(options: dict[str, Any]) -> list[str]:
    """Members and roles that Google would refuse, before any call."""
    found = [
        f"members: found {member!r}; expected user:, group:, serviceAccount: or domain: and a name, or principal://…"
        for member in options["members"]
        if not google_policy.MEMBER.fullmatch(member)
    ]
    found += [
        f"roles: found {role!r}; expected roles/<name>, or projects/<project>/roles/<name>"
        for role in options["roles"]
        if not google_policy.ROLE.fullmatch(role)
    ]
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **google_auth.argument_spec(),
            "kind": {
                "type": "str",
                "choices": ["project", "service_account", "repository", "secret", "bucket", "tunnel"],
                "default": "project",
            },
            "name": {"type": "str"},
            "location": {"type": "str"},
            "zone": {"type": "str"},
            "members": {"type": "list", "elements": "str", "required": True},
            "roles": {"type": "list", "elements": "str", "required": True},
            "condition": {
                "type": "dict",
                "options": {
                    "title": {"type": "str", "required": True},
                    "expression": {"type": "str", "required": True},
                    "description": {"type": "str"},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "member_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    google_resource.require_libraries(module)
    if found := mistakes(module.params):
        module.fail_json(msg="\n".join(found))
    IamMember(module).run()


if __name__ == "__main__":
    main()
