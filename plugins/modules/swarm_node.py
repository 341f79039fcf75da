#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""What the main machine says of a worker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_node
short_description: Labels of a machine of the swarm, and its drain and removal
version_added: 1.1.0
description:
  - Runs on the machine that manages the swarm.
  - O(state=drained) gives the machine no new runs, waits until those that it has are finished, and only then drains it,
    which in Docker ends everything at once.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
options:
  node:
    description: The machine, by its id or by its name in the inventory.
    type: str
    required: true
  state:
    description: What the machine is to be.
    type: str
    choices: [active, drained, absent]
    default: active
  labels:
    description: Its labels, all of them, with O(state=active).
    type: dict
    default: {}
  drain_seconds:
    description:
      - How long runs get to finish, with O(state=drained). What goes on then is ended, and started again elsewhere.
    type: int
    default: 3600
  socket:
    description: The engine's socket.
    type: path
    default: /var/run/docker.sock
"""

EXAMPLES = r"""
- name: Take runs
  dataops.dagster_gce.swarm_node:
    node: dagster-worker-1
    labels: {dagster.worker: "true"}

- name: No more runs
  dataops.dagster_gce.swarm_node:
    node: dagster-worker-1
    state: drained
"""

RETURN = r"""
ended:
  description: Names of the services whose container was ended at the deadline.
  returned: success
  type: list
  elements: str
found:
  description: Whether the swarm knows the machine.
  returned: success
  type: bool
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import engine_api, swarm_members


class SwarmNode:
    """The module's work."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.engine = engine_api.Engine(self.options["socket"])
        self.changes: list[str] = []
        self.ended: list[str] = []

    def run(self, node: swarm_members.Node | None) -> None:
        """Bring the machine to its state."""
        state = self.options["state"]
        if state == "active":
            self._active(node)
        elif node is not None and node.manages:
            raise swarm_members.SwarmError(f"{node.name} is the main machine; expected a worker. Nothing was changed")
        elif state == "drained":
            self._drained(node)
        elif node is not None:
            self._absent()

    def _active(self, node: swarm_members.Node | None) -> None:
        if node is None:
            if self.module.check_mode:
                self.changes.append("labels the machine that joins")
                return
            raise swarm_members.SwarmError(
                f"the swarm knows no machine {self.options['node']!r}; expected it to have joined"
            )
        wanted = {name: str(value) for name, value in self.options["labels"].items()}
        if dict(node.labels) != wanted:
            self.changes.append("labels: " + ", ".join(f"{name}={value}" for name, value in sorted(wanted.items())))
        if node.availability != "active":
            self.changes.append(f"{node.availability} → active")
        if self.changes and not self.module.check_mode:
            swarm_members.set_node(self.engine, node.id, wanted, "active")
        self._remove_former(node, wanted.get(swarm_members.HOST_LABEL, node.name))

    def _remove_former(self, node: swarm_members.Node, name: str) -> None:
        """Nodes that the machine was before it joined anew."""
        for each in swarm_members.nodes(self.engine):
            if each.name == name and each.id != node.id and each.state == "down" and not each.manages:
                self.changes.append(f"removes {each.id}, which {name} was before")
                if not self.module.check_mode:
                    self.engine.call("DELETE", f"/nodes/{engine_api.part(each.id)}", query={"force": "true"})

    def _drained(self, node: swarm_members.Node | None) -> None:
        if node is None or node.availability == "drain":
            return
        self.changes.append(f"{node.availability} → drain")
        if self.module.check_mode:
            return
        # What runs on a machine that is down will not finish there.
        seconds = self.options["drain_seconds"] if node.state == "ready" else 0
        self.ended = [each["service"] for each in swarm_members.drain(self.engine, node.id, seconds)]

    def _absent(self) -> None:
        """Also what is left of its former lives: each time that a machine joins makes a node of the same name."""
        self.changes.append("known → removed")
        if self.module.check_mode:
            return
        name = self.options["node"]
        for each in swarm_members.nodes(self.engine):
            if name in (each.id, each.name) and not each.manages:
                self._wait_until_down(each.id)
                self.engine.call("DELETE", f"/nodes/{engine_api.part(each.id)}", query={"force": "true"})

    def _wait_until_down(self, node_id: str) -> None:
        """One that has just left is known as ready for some seconds."""
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if any(each.id == node_id and each.state == "down" for each in swarm_members.nodes(self.engine)):
                return
            time.sleep(0.5)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "node": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["active", "drained", "absent"], "default": "active"},
            "labels": {"type": "dict", "default": {}},
            "drain_seconds": {"type": "int", "default": 3600},
            "socket": {"type": "path", "default": engine_api.SOCKET},
        },
        supports_check_mode=True,
    )
    task = SwarmNode(module)
    try:
        node = swarm_members.find(task.engine, module.params["node"]) if module.params["node"] else None
        task.run(node)
    except (swarm_members.SwarmError, engine_api.EngineError) as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{each}\n" for each in task.changes)}
    module.exit_json(changed=bool(task.changes), ended=task.ended, found=node is not None, diff=diff)


if __name__ == "__main__":
    main()
