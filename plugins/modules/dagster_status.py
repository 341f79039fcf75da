#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: the state of Dagster on this machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dagster_status
short_description: Show releases, daemons, runs, disk and the last deploys
version_added: 1.0.0
description:
  - Gathers the state of the whole. Which release serves is what the webserver says, not what a file says; which one the
    daemon uses is read from its connections.
  - Never fails because something is broken; that is one more line under C(problems).
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes.reads
  - dataops.dagster_gce.dagster
  - dataops.dagster_gce.dagster.root
options:
  deploys:
    description: How many of the last deploys are shown.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Look
  dataops.dagster_gce.dagster_status:
  register: state

- name: Show it
  ansible.builtin.debug:
    msg: "{{ state.text.splitlines() }}"
"""

RETURN = r"""
status:
  description:
    - The state, for programs. C(problems) is empty where everything is well; each has a C(name) that stays the same
      while it lasts, a C(severity) (C(critical) or C(warning)) and a C(text).
  returned: always
  type: dict
text:
  description: The same, for people.
  returned: always
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import code_server, deployment, status, workspace

ARGUMENTS: dict[str, Any] = {
    "root": {"type": "path", "default": "/opt/dagster"},
    "webserver_url": {"type": "str", "default": "http://127.0.0.1:3000"},
    "webserver_container": {"type": "str", "default": "dagster-webserver"},
    "daemon_container": {"type": "str", "default": "dagster-daemon"},
    "location": {"type": "str", "default": "dagster_core"},
    "deploys": {"type": "int", "default": 5},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    if not workspace.available():
        problem = "PyYAML is not installed on the machine; expected the package python3-yaml (role docker_engine)"
        if not module.check_mode:
            module.fail_json(msg=problem)
        # A bare machine, on which the play would have installed it by now.
        missing = {"name": "pyyaml", "severity": "critical", "text": problem}
        module.exit_json(changed=False, status={"problems": [missing]}, text=problem)
    given = module.params
    task = deployment.Deployment(
        deployment.Options(
            root=given["root"],
            webserver_url=given["webserver_url"],
            webserver_container=given["webserver_container"],
            daemon_container=given["daemon_container"],
        ),
        code_server.Settings(location=given["location"]),
    )
    state = status.gather(task, given["deploys"])
    module.exit_json(changed=False, status=state, text=status.render(state))


if __name__ == "__main__":
    main()
