#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The APIs that a project may call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gcp_services
short_description: APIs of a Google Cloud project
description:
  - Enables the APIs that a project needs, in one go, and waits until they answer, which can be a minute or two after
    Google reports them enabled.
  - Never disables one, unless O(state=absent) asks for it.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes, dataops.dagster_gce.google]
attributes:
  idempotent:
    details: A run that changes nothing is one GET (one for every 30 APIs).
options:
  services:
    description: The APIs, for example V(compute.googleapis.com).
    type: list
    elements: str
    required: true
  state:
    description:
      - Whether they have to be enabled.
      - V(absent) disables them. Google refuses while another enabled API depends on one; nothing is forced.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Enable what the machine needs
  dataops.dagster_gce.gcp_services:
    project: example-project
    services:
      - compute.googleapis.com
      - iam.googleapis.com
      - artifactregistry.googleapis.com
"""

RETURN = r"""
changed_services:
  description: The APIs that were enabled or disabled, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import (
    PROJECT,
    fail,
    require_libraries,
)

API = "serviceusage"
SERVICE = re.compile(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)+")
# A read that changes nothing, to see whether an API answers: 404 is an answer, SERVICE_DISABLED is none yet.
PROBES = {
    "artifactregistry.googleapis.com": ("artifactregistry", "GET", "locations/us/repositories/probe"),
    "cloudresourcemanager.googleapis.com": ("cloudresourcemanager", "GET", ""),
    "compute.googleapis.com": ("compute", "GET", "global/networks/probe"),
    "iam.googleapis.com": ("iam", "GET", "serviceAccounts/probe@{project}.iam.gserviceaccount.com"),
    "iap.googleapis.com": ("iap", "POST", "iap_tunnel:getIamPolicy"),
    "secretmanager.googleapis.com": ("secretmanager", "GET", "secrets/probe"),
}
PROBE_SECONDS = 300.0
PROBE_PAUSE = 5.0
# Google's own limits for one call.
READ_AT_ONCE = 30
ENABLE_AT_ONCE = 20


def chunks(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """The values in parts of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class Services:
    """The APIs of one project."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.parent = f"projects/{client.project}"

    def states(self, names: Sequence[str]) -> dict[str, str]:
        """ENABLED or DISABLED for each API."""
        found: dict[str, str] = {}
        for part in chunks(names, READ_AT_ONCE):
            answer = self.client.call(
                API,
                "GET",
                f"{self.parent}/services:batchGet",
                query={"names": [f"{self.parent}/services/{name}" for name in part]},
                what=f"read the APIs of project {self.client.project}",
            )
            # Google answers with the project's number; the last part is the API's name.
            found |= {
                str(item["name"]).rsplit("/", 1)[-1]: item.get("state", "") for item in answer.get("services", [])
            }
        return {name: found.get(name, "DISABLED") for name in names}

    def enable(self, names: Sequence[str]) -> None:
        """Enable the APIs and wait."""
        deadline = time.monotonic() + min(PROBE_SECONDS, self.client.timeout)
        for part in chunks(names, ENABLE_AT_ONCE):
            while True:
                try:
                    self.client.change(
                        API,
                        "POST",
                        f"{self.parent}/services:batchEnable",
                        body={"serviceIds": list(part)},
                        what=f"enable {', '.join(part)} in project {self.client.project}",
                    )
                    break
                except GoogleError as error:
                    # Somebody else enables one of them at this moment.
                    busy = error.code in (400, 409) and "in progress" in error.message
                    if not busy or time.monotonic() + PROBE_PAUSE > deadline:
                        raise
                    time.sleep(PROBE_PAUSE)

    def wait_until_usable(self, names: Iterable[str]) -> None:
        """Wait until the APIs that were just enabled answer; one that does not in time is a warning."""
        deadline = time.monotonic() + min(PROBE_SECONDS, self.client.timeout)
        for name in names:
            if name not in PROBES:
                continue
            while not self.answers(name):
                if time.monotonic() + PROBE_PAUSE > deadline:
                    self.client.warnings.append(f"{name} is enabled, but does not answer yet; what follows may fail")
                    break
                time.sleep(PROBE_PAUSE)

    def answers(self, name: str) -> bool:
        """Whether the API knows that it is enabled."""
        api, verb, path = PROBES[name]
        path = f"{self.parent}/{path.format(project=self.client.project)}".rstrip("/")
        try:
            self.client.call(api, verb, path, body={} if verb == "POST" else None, what=f"see whether {name} answers")
        except GoogleError as error:
            return error.reason not in ("SERVICE_DISABLED", "accessNotConfigured")
        return True

    def disable(self, names: Iterable[str]) -> None:
        """Disable the APIs one by one; what depends on them is never disabled with them."""
        for name in names:
            self.client.change(
                API,
                "POST",
                f"{self.parent}/services/{name}:disable",
                body={"disableDependentServices": False},
                what=f"disable {name} in project {self.client.project}",
            )


def mistakes(project: str, services: Sequence[str]) -> list[str]:
    """What Google would refuse."""
    found = [
        f"services: found {name!r}; expected an API's name such as compute.googleapis.com"
        for name in services
        if not SERVICE.fullmatch(name)
    ]
    if not re.fullmatch(PROJECT, project):
        found.append(f"project: found {project!r}; expected a project's id")
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **google_auth.argument_spec(),
            "services": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    require_libraries(module)
    names = list(dict.fromkeys(module.params["services"]))
    if wrong := mistakes(module.params["project"], names):
        module.fail_json(msg="\n".join(wrong))
    wanted = "ENABLED" if module.params["state"] == "present" else "DISABLED"
    client: Client | None = None
    try:
        client = Client(module.params)
        services = Services(client)
        before = services.states(names)
        differ = [name for name in names if (before[name] == "ENABLED") != (wanted == "ENABLED")]
        if differ and not module.check_mode:
            if wanted == "ENABLED":
                services.enable(differ)
                services.wait_until_usable(differ)
            else:
                services.disable(differ)
    except GoogleError as error:
        fail(module, error, client)
    for warning in services.client.warnings:
        module.warn(warning)
    header = f"APIs of project {module.params['project']}"
    after: dict[str, Any] = {**before, **dict.fromkeys(differ, wanted)}
    module.exit_json(
        changed=bool(differ),
        changed_services=differ,
        diff={"before_header": header, "after_header": header, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
