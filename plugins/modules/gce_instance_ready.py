#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Waits until a machine can be reached, and says by which host keys it is known."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_instance_ready
short_description: Waits until a machine on Compute Engine can be reached
description:
  - Waits until the machine runs and has published its SSH host keys as guest attributes, so that nobody has to trust
    the first answer.
  - A machine that does not get there is an error with the last lines of its serial console.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment: [dataops.dagster_gce.attributes.reads, dataops.dagster_gce.google]
attributes:
  check_mode:
    details: Looks once and does not wait; a machine that is not there or not ready is no error then.
options:
  name:
    description: The machine's name.
    type: str
    required: true
  zone:
    description: The zone that it is in.
    type: str
    required: true
  host_keys:
    description:
      - Whether it has to have published its SSH host keys.
      - It only does with the metadata C(enable-guest-attributes=TRUE).
    type: bool
    default: true
  wait:
    description: How many seconds to wait. With 0 it looks once.
    type: int
    default: 300
  known:
    description:
      - The machine as M(dataops.dagster_gce.gce_instance) has just returned it (C(resource)).
      - If it runs, it is not read once more.
    type: dict
  console_lines:
    description: How many lines of the serial console an error shows.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Wait for the machine
  dataops.dagster_gce.gce_instance_ready:
    project: example-project
    zone: europe-west3-c
    name: dagster-prod
  register: machine

- name: Know it by its keys
  ansible.builtin.known_hosts:
    name: "{{ machine.internal_address }}"
    key: "{{ machine.internal_address }} {{ item.type }} {{ item.key }}"
  loop: "{{ machine.host_keys }}"
"""

RETURN = r"""
ready:
  description: Whether it runs and, with O(host_keys), its host keys are known.
  returned: success
  type: bool
exists:
  description: Whether there is such a machine.
  returned: success
  type: bool
id:
  description: Its number, which a machine of the same name made later does not have.
  returned: success
  type: str
status:
  description: Its status, for example C(RUNNING).
  returned: success
  type: str
internal_address:
  description: Its internal address; empty if it has none.
  returned: success
  type: str
external_address:
  description: Its external address; empty if it has none.
  returned: success
  type: str
host_keys:
  description: Its SSH host keys, by type.
  returned: success
  type: list
  elements: dict
  contains:
    type:
      description: The kind of key, for example C(ssh-ed25519).
      type: str
    key:
      description: The key, base64.
      type: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    google_auth,
    google_guest,
    google_instance_network,
    google_resource,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Refused

KIND = google_resource.Kind("instance", "projects/{project}/zones/{zone}/instances", ())
POLL_SECONDS = 2.0
# From these a machine does not come up by itself.
DOWN = ("STOPPING", "PENDING_STOP", "STOPPED", "TERMINATED", "SUSPENDING", "SUSPENDED", "DEPROVISIONING")


class Wait:
    """One wait for one machine."""

    def __init__(self, client: Client, options: dict[str, Any], *, once: bool) -> None:
        self.client = client
        self.options = options
        self.once = once
        self.path = Place(options["project"], options["zone"]).zonal("instances", options["name"])
        self.what = f"instance {options['name']} in {options['zone']}"
        self.may_publish: bool | None = None

    def run(self) -> dict[str, Any]:
        """Wait; returns what the module returns.

        Raises:
            Refused: the machine is not there, does not run, or is not ready in time.
        """
        deadline = time.monotonic() + self.options["wait"]
        known = self.options["known"] or {}
        found = known if known.get("status") == "RUNNING" else self.read()
        while True:
            if not found and not self.once:
                raise Refused(f"{self.what}: there is none")
            status = found.get("status", "")
            if status in DOWN and not self.once:
                raise Refused(f"{self.what} is {status} and does not come up by itself. {self.console()}")
            keys = self.keys(found) if status == "RUNNING" and self.options["host_keys"] else []
            ready = status == "RUNNING" and (bool(keys) or not self.options["host_keys"])
            if ready or self.once:
                return self.result(found, keys, ready=ready)
            if time.monotonic() >= deadline:
                raise Refused(self.late(status))
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            found = self.read()

    def read(self) -> dict[str, Any]:
        """The machine; nothing where there is none, in check mode also where the API is still to be enabled."""
        try:
            return self.client.get("compute", self.path, what=f"read {self.what}") or {}
        except GoogleError as error:
            if not (self.once and error.is_disabled):
                raise
            return {}

    def keys(self, found: dict[str, Any]) -> list[dict[str, str]]:
        """The host keys; refuses to wait for what cannot come."""
        try:
            keys = google_guest.host_keys(self.client, self.path)
        except GoogleError:
            if self.once and not google_guest.publishes(self.client, found):
                return []
            self.expect_keys(found)
            raise
        if not keys and not self.once:
            self.expect_keys(found)
        return keys

    def expect_keys(self, found: dict[str, Any]) -> None:
        """Look once whether guest attributes are switched on."""
        if self.may_publish is None:
            self.may_publish = google_guest.publishes(self.client, found)
        if not self.may_publish:
            raise Refused(
                f"{self.what} does not publish its SSH host keys: neither its metadata nor the project's have "
                f"{google_guest.SWITCH}=TRUE. Set that and reset the machine, or wait without host_keys and verify "
                "the keys by other means"
            )

    def late(self, status: str) -> str:
        """The error for a machine that is not ready in time."""
        wait = self.options["wait"]
        if status != "RUNNING":
            return f"{self.what} is still {status} after {wait} s. {self.console()}"
        return (
            f"{self.what} runs, but has not published its SSH host keys within {wait} s. Either it has not booted (see "
            "below), or its image has no Google guest agent, or guest attributes were switched on after its first boot "
            f"(reset it then). {self.console()}"
        )

    def console(self) -> str:
        """The end of its serial console."""
        return google_guest.console(self.client, self.path, self.options["console_lines"])

    def result(self, found: dict[str, Any], keys: list[dict[str, str]], *, ready: bool) -> dict[str, Any]:
        """What the module returns."""
        internal, external = google_instance_network.addresses(found)
        return {
            "ready": ready,
            "exists": bool(found),
            "id": found.get("id", ""),
            "status": found.get("status", ""),
            "internal_address": internal or "",
            "external_address": external or "",
            "host_keys": keys,
        }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **google_auth.argument_spec(),
            "name": {"type": "str", "required": True},
            "zone": {"type": "str", "required": True},
            "host_keys": {"type": "bool", "default": True, "no_log": False},
            "wait": {"type": "int", "default": 300},
            "known": {"type": "dict"},
            "console_lines": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    google_resource.require_libraries(module)
    if mistakes := google_resource.bad_names(module.params, KIND):
        module.fail_json(msg="\n".join(mistakes))
    try:
        result = Wait(Client(module.params), module.params, once=module.check_mode).run()
    except (GoogleError, Refused) as error:
        google_resource.fail(module, error)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
