#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A machine that takes runs: in the swarm of its main machine, or out of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_worker
short_description: A worker of a swarm
version_added: 1.1.0
description:
  - Joins a swarm through the engine's socket, so that the token stands in no process's arguments; leaves it again.
  - A machine that is in another swarm is refused, unless this module has made it join that one. A worker whose main
    machine was replaced joins the new one.
  - Needs the standard library and the engine's socket only. The token is never shown.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
options:
  state:
    description: Whether the machine is part of the swarm.
    type: str
    choices: [present, absent]
    default: present
  manager:
    description: Address and port of the main machine. Required for O(state=present).
    type: str
  token:
    description: The swarm's token for workers. Required for O(state=present).
    type: str
  nodes:
    description: Ids of the machines that the swarm knows.
    type: list
    elements: str
    default: []
  address:
    description: This machine's private address. Empty takes the one from which it reaches O(manager).
    type: str
    default: ''
  swarm_id:
    description: Id of the swarm, which O(shared_path) has to hold.
    type: str
    default: ''
  shared_path:
    description: The folder that all machines share.
    type: path
  socket:
    description: The engine's socket.
    type: path
    default: /var/run/docker.sock
"""

EXAMPLES = r"""
- name: Join
  dataops.dagster_gce.swarm_worker:
    manager: "{{ main.manager }}"
    token: "{{ main.token }}"
    nodes: "{{ main.nodes }}"

- name: Leave
  dataops.dagster_gce.swarm_worker:
    state: absent
"""

RETURN = r"""
node_id:
  description: The machine's id in the swarm; empty where it is in none, or check mode would make it join.
  returned: success
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import engine_api, files, swarm_members


class SwarmWorker:
    """The module's work."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.engine = engine_api.Engine(self.options["socket"])
        self.changes: list[str] = []

    def present(self) -> str:
        """Be part of the swarm; returns the node's id.

        Raises:
            swarm_members.SwarmError, engine_api.EngineError, OSError
        """
        self._check_shared()
        now = swarm_members.member(self.engine)
        if now.manages:
            raise swarm_members.SwarmError(
                f"this machine manages a swarm itself ({now.swarm_id}); expected a worker: leave it with `docker swarm "
                "leave --force`. Nothing was changed"
            )
        known = now.node_id in self.options["nodes"]
        if now.state == "active" and known:
            if swarm_members.remembered() != now.node_id:
                self.changes.append("remembers its node")
                if not self.module.check_mode:
                    swarm_members.remember(now.node_id)
            return now.node_id
        if now.state == "pending" and known:
            # The main machine is being started.
            return swarm_members.wait_until_member(self.engine).node_id
        if now.state != "inactive":
            self._leave_old(now)
        if now.live_restore:
            raise swarm_members.SwarmError(
                "the engine runs with live-restore, which Docker refuses on a node of a swarm; expected "
                "docker_engine_live_restore: false. Nothing was changed"
            )
        return self._join()

    def _check_shared(self) -> None:
        folder = self.options["shared_path"]
        if not folder:
            return
        path = os.path.join(folder, swarm_members.MARKER)
        found = (files.read(path) or b"").decode("utf-8", "replace").strip()
        if found != self.options["swarm_id"]:
            raise swarm_members.SwarmError(
                f"dagster_storage_path: found {'no' if not found else 'another swarm in'} {path}; expected "
                f"{folder} to be "
                "the same folder on every machine, as a file share mounts it: what runs write here the webserver would "
                "not see. Nothing was changed"
            )

    def _leave_old(self, now: swarm_members.Member) -> None:
        """Leave a swarm that this module has joined, and whose main machine is gone."""
        if swarm_members.remembered() != now.node_id:
            raise swarm_members.SwarmError(
                f"this machine is part of another swarm (its managers: {', '.join(now.managers) or 'unknown'}); "
                "expected "
                "none: leave it with `docker swarm leave`. Nothing was changed"
            )
        self.changes.append("leaves the swarm of a main machine that is gone")
        if not self.module.check_mode:
            self.engine.call("POST", "/swarm/leave", query={"force": "true"})

    def _join(self) -> str:
        manager = self.options["manager"]
        address = self.options["address"] or swarm_members.own_address(manager.rpartition(":")[0])
        if not swarm_members.has_address(address):
            raise swarm_members.SwarmError(
                f"dagster_worker_address: found {address}, which this machine does not have; expected its "
                "private address"
            )
        swarm_members.check_reachable(manager)
        self.changes.append(f"joins the swarm of {manager} as {address}")
        if self.module.check_mode:
            return ""
        body = {
            "ListenAddr": f"0.0.0.0:{swarm_members.PORT}",
            "AdvertiseAddr": address,
            "DataPathAddr": address,
            "RemoteAddrs": [manager],
            "JoinToken": self.options["token"],
        }
        try:
            self.engine.call("POST", "/swarm/join", body)
        except engine_api.EngineError as error:
            # Docker goes on trying in the background when its 20 s are over.
            if "Timeout was reached" not in str(error):
                raise
        joined = swarm_members.wait_until_member(self.engine)
        swarm_members.remember(joined.node_id)
        return joined.node_id

    def absent(self) -> str:
        """Be part of no swarm.

        Raises:
            swarm_members.SwarmError, engine_api.EngineError, OSError
        """
        now = swarm_members.member(self.engine)
        if now.manages:
            raise swarm_members.SwarmError("this machine manages a swarm; expected a worker. Nothing was changed")
        if now.state == "inactive" and not swarm_members.remembered():
            return ""
        self.changes.append("leaves the swarm")
        if not self.module.check_mode:
            if now.state != "inactive":
                self.engine.call("POST", "/swarm/leave", query={"force": "true"})
            swarm_members.forget()
        return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "manager": {"type": "str"},
            "token": {"type": "str", "no_log": True},
            "nodes": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str", "default": ""},
            "swarm_id": {"type": "str", "default": ""},
            "shared_path": {"type": "path"},
            "socket": {"type": "path", "default": engine_api.SOCKET},
        },
        required_if=[("state", "present", ("manager", "token"))],
        supports_check_mode=True,
    )
    task = SwarmWorker(module)
    try:
        node_id = task.present() if module.params["state"] == "present" else task.absent()
    except (swarm_members.SwarmError, engine_api.EngineError, OSError) as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{each}\n" for each in task.changes)}
    module.exit_json(changed=bool(task.changes), node_id=node_id, diff=diff)


if __name__ == "__main__":
    main()
