#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One virtual machine on Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_instance
short_description: One virtual machine on Compute Engine
description:
  - Makes a virtual machine with one request, and later changes in place what Google can change in place.
  - What is not given is not managed. Nothing is replaced to make a change; what Google cannot change is an error that
    names the option, what was found and the choices.
  - Nothing changes means one request.
version_added: 1.0.0
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
  - dataops.dagster_gce.google
  - dataops.dagster_gce.google_owned
attributes:
  check_mode:
    details: Also looks up machine type and image of a machine that is to be made.
  diff_mode:
    details: Shows the whole request that would make a machine.
  idempotent:
    details: O(state=reset) resets each time.
    support: partial
options:
  name:
    description: The machine's name.
    type: str
    required: true
  zone:
    description: The zone that it is in.
    type: str
    required: true
  state:
    description:
      - V(present) makes it (running) and leaves it running or stopped as it is.
      - V(started) and V(stopped) see to that, too; V(stopped) also makes it, then stops it.
      - V(reset) presses the reset button of a running machine.
      - V(absent) removes it. Its boot disk goes as O(boot_disk.auto_delete) says; every other disk stays.
    type: str
    choices: [present, started, stopped, reset, absent]
    default: present
  machine_type:
    description: Its machine type. Google changes it on a stopped machine only, see O(allow_stop).
    type: str
  boot_disk:
    description: The disk that it boots from. Needed to make the machine.
    type: dict
    suboptions:
      image:
        description:
          - What the disk is made of, C(project/family) for a family's newest image, or the path of one image.
          - Not compared afterwards, since families move on.
        type: str
      snapshot:
        description: A snapshot instead of an image.
        type: str
      source:
        description: A disk that is there already, by name or path, instead of an image.
        type: str
      size_gb:
        description: Its size in GB. It can be raised, online, and never lowered.
        type: int
      type:
        description: Its type, for example V(pd-balanced). Given when it is made.
        type: str
      auto_delete:
        description: Whether it goes with the machine. A new one does, one of O(boot_disk.source) does not.
        type: bool
      device_name:
        description: The name under which the machine sees it.
        type: str
      labels:
        description: Labels of the disk, given when it is made.
        type: dict
        default: {}
      kms_key:
        description: Path of a Cloud KMS key that encrypts it, given when it is made.
        type: str
  disks:
    description: Disks of their own that it borrows. They never go with the machine. Others are left alone.
    type: list
    elements: dict
    suboptions:
      source:
        description: The disk, by name or path.
        type: str
        required: true
      device_name:
        description:
          - The name under which the machine sees it (C(/dev/disk/by-id/google-NAME)).
          - The disk's name if it is not given.
        type: str
      mode:
        description: Whether it can be written.
        type: str
        choices: [READ_WRITE, READ_ONLY]
        default: READ_WRITE
      state:
        description: V(absent) detaches it; unmount it first.
        type: str
        choices: [present, absent]
        default: present
  network_interface:
    description:
      - Its first network interface. Needed to make the machine.
      - Only the external address can be changed afterwards.
    type: dict
    suboptions:
      network:
        description: The network, by name or path. With O(network_interface.subnetwork) it is not needed.
        type: str
      subnetwork:
        description: The subnetwork, by name or path.
        type: str
      internal_address:
        description: The internal address; Google chooses one if it is not given.
        type: str
      external_address:
        description:
          - V(none), V(ephemeral), or a reserved address.
          - Not managed if it is not given; then a new machine has none.
        type: str
      network_tier:
        description: The tier of the external address.
        type: str
        choices: [PREMIUM, STANDARD]
  service_account:
    description: The account that programs on it act as. Google changes it on a stopped machine only, see O(allow_stop).
    type: dict
    suboptions:
      email:
        description: The account's e-mail address; empty for no account.
        type: str
        required: true
      scopes:
        description: Scopes of its tokens. What it may do is better said by its roles.
        type: list
        elements: str
        default: ['https://www.googleapis.com/auth/cloud-platform']
  metadata:
    description:
      - Metadata by key. C(true) and C(false) become V(TRUE) and V(FALSE); a key that is null is removed.
      - Keys that are not mentioned are left alone.
      - Every program on the machine can read them, so secrets do not belong here.
    type: dict
  purge_metadata:
    description: Whether keys that O(metadata) does not mention are removed.
    type: bool
    default: false
  tags:
    description: Its network tags, all of them, since each may open it to a firewall rule.
    type: list
    elements: str
  shielded:
    description: Options of Shielded VM. Google changes them on a stopped machine only, see O(allow_stop).
    type: dict
    suboptions:
      secure_boot:
        description: Whether it boots signed software only.
        type: bool
      vtpm:
        description: Whether it has a virtual TPM.
        type: bool
      integrity_monitoring:
        description: Whether its boot is measured and watched.
        type: bool
  scheduling:
    description: What Google may do with it.
    type: dict
    suboptions:
      on_host_maintenance:
        description: What happens when its host is serviced.
        type: str
        choices: [MIGRATE, TERMINATE]
      automatic_restart:
        description: Whether Google starts it again after a failure of its host.
        type: bool
      provisioning_model:
        description:
          - V(SPOT) is cheaper, and Google may take the machine away at any time.
          - Changed on a stopped machine only, see O(allow_stop).
        type: str
        choices: [STANDARD, SPOT]
      instance_termination_action:
        description: What is done to a V(SPOT) machine that is taken away. Changed on a stopped machine only.
        type: str
        choices: [STOP, DELETE]
  deletion_protection:
    description: Whether Google refuses to delete it.
    type: bool
  overrides:
    description:
      - Fields of the API's instance that no option here has, laid over the request that makes the machine.
      - Google checks them. They are not compared with a machine that is there.
    type: dict
    default: {}
  allow_stop:
    description:
      - Whether a running machine may be stopped for a change that Google makes on a stopped one only, and then started.
      - If not, such a change is an error.
    type: bool
    default: false
  lift_deletion_protection:
    description: Whether O(state=absent) may turn deletion protection off first.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A machine with a data disk
  dataops.dagster_gce.gce_instance:
    project: example-project
    zone: europe-west3-c
    name: dagster-prod
    machine_type: e2-standard-4
    boot_disk:
      image: debian-cloud/debian-13
      size_gb: 20
      type: pd-balanced
    disks:
      - source: dagster-prod-data
        device_name: data
    network_interface:
      subnetwork: dagster-subnetwork-prod
    service_account:
      email: dagster-vm-prod@example-project.iam.gserviceaccount.com
    metadata:
      enable-oslogin: true
      enable-guest-attributes: true
    tags: [dagster]
    deletion_protection: true

- name: Another machine type, with a short stop
  dataops.dagster_gce.gce_instance:
    project: example-project
    zone: europe-west3-c
    name: dagster-prod
    machine_type: e2-standard-8
    allow_stop: true
"""

RETURN = r"""
resource:
  description: The machine as Google has it afterwards; in check mode as it is before. Empty if there is none.
  returned: success
  type: dict
id:
  description: Its number, which a machine of the same name made later does not have. Empty if there is none.
  returned: success
  type: str
status:
  description: Its status, for example C(RUNNING). Empty if there is none.
  returned: success
  type: str
internal_address:
  description: Its internal address.
  returned: when it has one
  type: str
external_address:
  description: Its external address.
  returned: when it has one
  type: str
changes:
  description: The options that differed.
  returned: success
  type: list
  elements: str
stopped:
  description: Whether it was stopped and started for a change; in check mode whether it would be.
  returned: success
  type: bool
"""

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    google_auth,
    google_checks,
    google_instance_network,
    google_owned,
    google_resource,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_instance import CLOUD_PLATFORM, Wanted
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_instance_run import Run
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import Place

KIND = google_resource.Kind("instance", "projects/{project}/zones/{zone}/instances", ())


def argument_spec() -> dict[str, dict[str, Any]]:
    """The module's options."""
    return {
        **google_auth.argument_spec(),
        **google_owned.SPEC,
        "name": {"type": "str", "required": True},
        "zone": {"type": "str", "required": True},
        "state": {
            "type": "str",
            "choices": ["present", "started", "stopped", "reset", "absent"],
            "default": "present",
        },
        "machine_type": {"type": "str"},
        "boot_disk": {
            "type": "dict",
            "options": {
                "image": {"type": "str"},
                "snapshot": {"type": "str"},
                "source": {"type": "str"},
                "size_gb": {"type": "int"},
                "type": {"type": "str"},
                "auto_delete": {"type": "bool"},
                "device_name": {"type": "str"},
                "labels": {"type": "dict", "default": {}},
                "kms_key": {"type": "str", "no_log": False},
            },
        },
        "disks": {
            "type": "list",
            "elements": "dict",
            "options": {
                "source": {"type": "str", "required": True},
                "device_name": {"type": "str"},
                "mode": {"type": "str", "choices": ["READ_WRITE", "READ_ONLY"], "default": "READ_WRITE"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            },
        },
        "network_interface": {
            "type": "dict",
            "options": {
                "network": {"type": "str"},
                "subnetwork": {"type": "str"},
                "internal_address": {"type": "str"},
                "external_address": {"type": "str"},
                "network_tier": {"type": "str", "choices": ["PREMIUM", "STANDARD"]},
            },
        },
        "service_account": {
            "type": "dict",
            "options": {
                "email": {"type": "str", "required": True},
                "scopes": {"type": "list", "elements": "str", "default": [CLOUD_PLATFORM]},
            },
        },
        "metadata": {"type": "dict"},
        "purge_metadata": {"type": "bool", "default": False},
        "tags": {"type": "list", "elements": "str"},
        "shielded": {
            "type": "dict",
            "options": {
                "secure_boot": {"type": "bool"},
                "vtpm": {"type": "bool"},
                "integrity_monitoring": {"type": "bool"},
            },
        },
        "scheduling": {
            "type": "dict",
            "options": {
                "on_host_maintenance": {"type": "str", "choices": ["MIGRATE", "TERMINATE"]},
                "automatic_restart": {"type": "bool"},
                "provisioning_model": {"type": "str", "choices": ["STANDARD", "SPOT"]},
                "instance_termination_action": {"type": "str", "choices": ["STOP", "DELETE"]},
            },
        },
        "deletion_protection": {"type": "bool"},
        "overrides": {"type": "dict", "default": {}},
        "allow_stop": {"type": "bool", "default": False},
        "lift_deletion_protection": {"type": "bool", "default": False},
    }


def mistakes(options: dict[str, Any]) -> list[str]:
    """What Google would refuse, found before it is asked."""
    lines = [
        *google_resource.bad_names(options, KIND),
        *google_checks.labels("labels", options["labels"]),
        *google_checks.labels("boot_disk.labels", (options["boot_disk"] or {}).get("labels")),
        *google_checks.tags(options["tags"]),
        *google_checks.metadata(options["metadata"]),
    ]
    email = (options["service_account"] or {}).get("email", "")
    if email and not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        lines.append(f"service_account.email: found {email!r}; expected an e-mail address, or nothing for no account")
    scheduling = options["scheduling"] or {}
    if scheduling.get("instance_termination_action") and scheduling.get("provisioning_model") != "SPOT":
        lines.append("scheduling.instance_termination_action: is for provisioning_model SPOT only")
    return lines


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    google_resource.require_libraries(module)
    options = module.params
    if lines := mistakes(options):
        module.fail_json(msg=google_checks.message(lines))
    wanted = Wanted(Place(options["project"], options["zone"]), options["name"], options)
    try:
        client = Client(options)
        run = Run(client, wanted, check_mode=module.check_mode)
        result = run.absent() if options["state"] == "absent" else run.present(options["state"])
    except (GoogleError, google_resource.Refused) as error:
        google_resource.fail(module, error)
    for warning in [*client.warnings, *result.warnings]:
        module.warn(warning)
    found = result.instance or {}
    internal, external = google_instance_network.addresses(found)
    module.exit_json(
        changed=bool(result.changes),
        changes=result.changes,
        stopped=result.stopped,
        resource=found,
        id=found.get("id", ""),
        status=found.get("status", ""),
        internal_address=internal,
        external_address=external,
        diff={
            "before_header": wanted.path,
            "after_header": wanted.path,
            "before": result.before,
            "after": result.after,
        },
    )


if __name__ == "__main__":
    main()
