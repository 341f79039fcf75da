#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""What a worker needs from the main machine, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_info
short_description: What a worker needs from the main machine
version_added: 1.1.0
description:
  - Reads, on the machine that manages the swarm, the token for workers, the machines that it knows, and files.
  - What it returns is secret, so the task needs C(no_log). It never fails, since its message would be hidden too; what
    is wrong stands in C(problem).
author: dataops (@dataops)
extends_documentation_fragment: dataops.dagster_gce.attributes.reads
options:
  files:
    description: Files to read.
    type: list
    elements: path
    default: []
  socket:
    description: The engine's socket.
    type: path
    default: /var/run/docker.sock
"""

EXAMPLES = r"""
- name: What the workers need
  dataops.dagster_gce.swarm_info:
    files: [/opt/dagster/dagster_home/database/pgpass]
  register: main
  no_log: true
"""

RETURN = r"""
problem:
  description: Why the machine cannot take workers; empty where it can.
  returned: always
  type: str
manager:
  description: Address and port that workers join.
  returned: always
  type: str
swarm_id:
  description: The swarm's id.
  returned: always
  type: str
token:
  description: The token for workers.
  returned: always
  type: str
nodes:
  description: Ids of the machines that the swarm knows.
  returned: always
  type: list
  elements: str
files:
  description: Content of each file of O(files), base64; empty where there is no such file.
  returned: always
  type: dict
"""

import base64
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import engine_api, files, swarm_members


def look(engine: engine_api.Engine) -> dict[str, Any]:
    """Manager, token and machines.

    Raises:
        swarm_members.SwarmError: there is no swarm here that takes workers.
        engine_api.EngineError
    """
    now = swarm_members.member(engine)
    if now.state != "active" or not now.manages:
        raise swarm_members.SwarmError(
            f"the main machine manages no swarm (found {now.state}); expected dagster_run_launcher: swarm and a run of "
            "site.yml for it, without --limit"
        )
    return {
        "manager": f"{now.address}:{swarm_members.PORT}",
        "swarm_id": now.swarm_id,
        "token": engine.call("GET", "/swarm")["JoinTokens"]["Worker"],
        "nodes": [each.id for each in swarm_members.nodes(engine)],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "files": {"type": "list", "elements": "path", "default": []},
            "socket": {"type": "path", "default": engine_api.SOCKET},
        },
        supports_check_mode=True,
    )
    found: dict[str, Any] = {"problem": "", "manager": "", "swarm_id": "", "token": "", "nodes": [], "files": {}}
    try:
        found.update(look(engine_api.Engine(module.params["socket"])))
        for path in module.params["files"]:
            found["files"][path] = base64.b64encode(files.read(path) or b"").decode()
    except (swarm_members.SwarmError, engine_api.EngineError, OSError) as error:
        found["problem"] = str(error)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
