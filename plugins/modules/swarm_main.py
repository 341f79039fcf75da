#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""The machine that manages the swarm, and the network of its runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_main
short_description: A swarm of one's own, with the network of its runs
version_added: 1.1.0
description:
  - Makes the machine the manager of a swarm of its own, with an overlay network that containers outside the swarm can
    attach to, and gives the machine labels. One remote task.
  - A machine that is in another swarm is refused before anything is touched.
  - Needs the standard library and the engine's socket only. No token passes through here;
    M(dataops.dagster_gce.swarm_info) reads it.
author: dataops (@dataops)
extends_documentation_fragment:
  - dataops.dagster_gce.attributes
options:
  address:
    description: The private address that workers reach. Empty takes that of the default route.
    type: str
    default: ''
  address_pool:
    description: Where the networks of the swarm take their ranges from. Counts when the swarm is made.
    type: str
    default: 10.64.0.0/16
  network:
    description: Name of the overlay network.
    type: str
    default: dagster-swarm
  encrypted:
    description: Whether what runs and stack say to each other over that network is encrypted (IPsec).
    type: bool
    default: false
  mtu:
    description: Largest packet, in bytes, of the network below. V(0) takes that of the default route's interface.
    type: int
    default: 0
  labels:
    description: The machine's labels in the swarm, all of them.
    type: dict
    default: {}
  autolock:
    description: Whether a restarted manager waits for O(unlock_key) before it goes on.
    type: bool
    default: false
  unlock_key:
    description: Opens a manager that waits for it.
    type: str
    default: ''
  adopt:
    description: Whether a swarm that somebody else has made on this machine may be used.
    type: bool
    default: false
  rotate_tokens:
    description: Whether tokens for joining become new ones, so that the old ones are of no use.
    type: bool
    default: false
  shared_path:
    description: The folder that all machines share; it gets a file by which a worker knows it.
    type: path
  uid:
    description: Owner of O(shared_path), the user in Dagster's images.
    type: int
    default: 10001
  socket:
    description: The engine's socket.
    type: path
    default: /var/run/docker.sock
attributes:
  idempotent:
    support: partial
    details: O(rotate_tokens) makes new ones each time.
"""

EXAMPLES = r"""
- name: A swarm
  dataops.dagster_gce.swarm_main:
    labels: {dagster.worker: "true"}
"""

RETURN = r"""
address:
  description: The private address.
  returned: success
  type: str
node_id:
  description: The machine's id in the swarm; empty where check mode would make it.
  returned: success
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dataops.dagster_gce.plugins.module_utils import engine_api, files, swarm_members

MTU = "com.docker.network.driver.mtu"


# A machine that misses three is down for Swarm, which then ends its runs, also where it was only starved: seen with
# Docker's 5 s on a main machine with a load of 50 a processor.
HEARTBEAT_SECONDS = 15


class SwarmMain:
    """The module's work."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.engine = engine_api.Engine(self.options["socket"], timeout=120)
        self.changes: list[str] = []

    def run(self) -> dict[str, Any]:
        """Bring everything to what the options say; nothing is touched before every look has passed."""
        address = self.options["address"] or swarm_members.own_address()
        now = swarm_members.member(self.engine)
        if now.state == "pending":
            # The engine has just been started.
            now = swarm_members.wait_until_member(self.engine)
        network = self._look(now, address)
        if now.state == "locked":
            self._unlock()
            if self.module.check_mode:
                # A locked one tells nothing of itself.
                return {"address": address, "node_id": ""}
            now = swarm_members.member(self.engine)
            network = self._look(now, address)
        if now.state == "inactive":
            self._init(address)
        elif not swarm_members.has_address(now.address):
            self._move(now, address)
            network = None
        elif now.autolock != self.options["autolock"]:
            self._autolock()
        if self.options["rotate_tokens"] and now.state == "active":
            self._rotate()
        if network is None:
            self._make_network()
        now = swarm_members.member(self.engine)
        if now.node_id:
            self._label(now.node_id)
        self._mark(now)
        return {"address": address, "node_id": now.node_id}

    def _look(self, now: swarm_members.Member, address: str) -> Any:
        """Refuse what this module must not touch; returns the network that is there."""
        if not swarm_members.has_address(address):
            raise swarm_members.SwarmError(
                f"dagster_swarm_address: found {address}, which this machine does not have; expected its private "
                "address"
            )
        if now.state == "error":
            raise swarm_members.SwarmError(
                f"this machine is part of a swarm that does not work ({now.error or 'no reason given'}); "
                "repair it, or leave it with `docker swarm leave --force`. Nothing was changed"
            )
        if now.state == "active" and not now.manages:
            raise swarm_members.SwarmError(
                "this machine is a worker of another swarm (its managers: "
                f"{', '.join(now.managers) or 'unknown'}); expected none, or one that it manages itself: leave it with "
                "`docker swarm leave`. Nothing was changed"
            )
        if now.state == "active" and swarm_members.LABEL not in now.labels and not self.options["adopt"]:
            raise swarm_members.SwarmError(
                f"this machine manages another swarm ({now.swarm_id}), which the collection has not made; "
                "expected none: "
                "leave it with `docker swarm leave --force`, or set dagster_swarm_adopt: true. Nothing was changed"
            )
        if now.state == "inactive" and now.live_restore:
            raise swarm_members.SwarmError(
                "the engine runs with live-restore, which Docker refuses on a node of a swarm; expected "
                "docker_engine_live_restore: false, as dagster_run_launcher: swarm has it. Nothing was changed"
            )
        network = self.engine.find(f"/networks/{engine_api.part(self.options['network'])}")
        if network is not None:
            self._check_network(network)
        return network

    def _check_network(self, network: dict[str, Any]) -> None:
        found = {
            "driver": network.get("Driver"),
            "attachable": bool(network.get("Attachable")),
            "encrypted": "encrypted" in (network.get("Options") or {}),
        }
        wanted = {"driver": "overlay", "attachable": True, "encrypted": self.options["encrypted"]}
        if found != wanted:
            differing = ", ".join(f"{key} {_word(found[key])}" for key in wanted if found[key] != wanted[key])
            expected = ", ".join(f"{key} {_word(wanted[key])}" for key in wanted if found[key] != wanted[key])
            raise swarm_members.SwarmError(
                f"network {self.options['network']}: found {differing}; expected {expected}. Docker cannot change it: "
                f"stop what is attached, `docker network rm {self.options['network']}`, and run this again. "
                "Nothing was "
                "changed"
            )

    def _unlock(self) -> None:
        if not self.options["unlock_key"]:
            raise swarm_members.SwarmError(
                "the swarm is locked, as dagster_swarm_autolock asks for after a restart; expected its key in "
                "dagster_swarm_unlock_key. Nothing was changed"
            )
        self.changes.append("unlocks the swarm")
        if not self.module.check_mode:
            self.engine.call("POST", "/swarm/unlock", {"UnlockKey": self.options["unlock_key"]})
            swarm_members.wait_until_member(self.engine)

    def _init(self, address: str) -> None:
        self.changes.append(f"makes a swarm on {address}")
        if self.module.check_mode:
            return
        body = {
            "ListenAddr": f"0.0.0.0:{swarm_members.PORT}",
            "AdvertiseAddr": address,
            "DataPathAddr": address,
            "DefaultAddrPool": [self.options["address_pool"]],
            "SubnetSize": 20,
            "Spec": {
                "Labels": {swarm_members.LABEL: "swarm"},
                "EncryptionConfig": {"AutoLockManagers": self.options["autolock"]},
                "Dispatcher": {"HeartbeatPeriod": HEARTBEAT_SECONDS * 10**9},
            },
        }
        self.engine.call("POST", "/swarm/init", body)
        swarm_members.wait_until_member(self.engine)

    def _move(self, now: swarm_members.Member, address: str) -> None:
        """The data of the old main machine, on a new one with another address: a new swarm, which workers join anew.

        `docker swarm init --force-new-cluster` would keep the swarm, but go on telling workers the old address.
        """
        self.changes.append(f"leaves the swarm of {now.address}, an address that this machine does not have any more")
        if not self.module.check_mode:
            self._remove_attached()
            self.engine.call("POST", "/swarm/leave", query={"force": "true"})
        self._init(address)

    def _remove_attached(self) -> None:
        """Containers that would look for the old network for ever; the role dagster_stack makes them anew."""
        filters = {"network": [self.options["network"]], "label": [swarm_members.LABEL]}
        for each in self.engine.call("GET", "/containers/json", query={"all": "true", "filters": filters}):
            path = f"/containers/{each['Id']}"
            # PostgreSQL writes what it has.
            self.engine.call("POST", f"{path}/stop", query={"t": "90"})
            self.engine.call("DELETE", path)

    def _autolock(self) -> None:
        wanted = self.options["autolock"]
        self.changes.append("switches autolock " + ("on" if wanted else "off"))
        if not self.module.check_mode:
            self._update({"EncryptionConfig": {"AutoLockManagers": wanted}})

    def _rotate(self) -> None:
        self.changes.append("makes new tokens for joining")
        if not self.module.check_mode:
            self._update({}, {"rotateWorkerToken": "true", "rotateManagerToken": "true"})

    def _update(self, spec: dict[str, Any], query: dict[str, str] | None = None) -> None:
        found = self.engine.call("GET", "/swarm")
        version = {"version": str(found["Version"]["Index"])}
        self.engine.call("POST", "/swarm/update", {**found["Spec"], **spec}, {**version, **(query or {})})

    def _make_network(self) -> None:
        self.changes.append(f"makes the network {self.options['network']}")
        if self.module.check_mode:
            return
        # The network below; Docker takes off what its own headers need.
        options = {MTU: str(self.options["mtu"] or _mtu())}
        if self.options["encrypted"]:
            options["encrypted"] = ""
        self.engine.call(
            "POST",
            "/networks/create",
            {
                "Name": self.options["network"],
                "Driver": "overlay",
                "Attachable": True,
                "Options": options,
                "Labels": {swarm_members.LABEL: "swarm"},
            },
        )

    def _label(self, node_id: str) -> None:
        wanted = {name: str(value) for name, value in self.options["labels"].items()}
        found = next(each for each in swarm_members.nodes(self.engine) if each.id == node_id)
        # A drained main machine stays drained: somebody has said so.
        if dict(found.labels) != wanted:
            self.changes.append("labels: " + (", ".join(f"{name}={value}" for name, value in sorted(wanted.items()))))
            if not self.module.check_mode:
                swarm_members.set_node(self.engine, node_id, wanted)

    def _mark(self, now: swarm_members.Member) -> None:
        folder = self.options["shared_path"]
        if not folder:
            return
        owner = files.Owner(self.options["uid"], self.options["uid"], 0o755)
        path = os.path.join(folder, swarm_members.MARKER)
        content = f"{now.swarm_id}\n".encode()
        wrong = files.differs(folder, owner)
        if not wrong and files.read(path) == content:
            return
        self.changes.append(f"marks {folder}")
        if self.module.check_mode:
            return
        try:
            if wrong:
                files.make_folder(folder, owner)
            files.replace(path, content, files.Owner(0, 0, 0o644))
        except OSError as error:
            raise swarm_members.SwarmError(f"dagster_storage_path: cannot write {path}: {error.strerror}") from error


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mtu() -> int:
    """The largest packet of the default route's interface; Docker's own 1500 at most."""
    try:
        with open("/proc/net/route", encoding="ascii") as stream:
            routes = [line.split() for line in stream][1:]
        name = next(route[0] for route in routes if route[1] == "00000000")
        with open(f"/sys/class/net/{name}/mtu", encoding="ascii") as stream:
            return min(int(stream.read()), 1500)
    except (OSError, StopIteration, ValueError, IndexError):
        return 1500


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "address": {"type": "str", "default": ""},
            "address_pool": {"type": "str", "default": "10.64.0.0/16"},
            "network": {"type": "str", "default": "dagster-swarm"},
            "encrypted": {"type": "bool", "default": False},
            "mtu": {"type": "int", "default": 0},
            "labels": {"type": "dict", "default": {}},
            "autolock": {"type": "bool", "default": False},
            "unlock_key": {"type": "str", "default": "", "no_log": True},
            "adopt": {"type": "bool", "default": False},
            "rotate_tokens": {"type": "bool", "default": False, "no_log": False},
            "shared_path": {"type": "path"},
            "uid": {"type": "int", "default": 10001},
            "socket": {"type": "path", "default": engine_api.SOCKET},
        },
        supports_check_mode=True,
    )
    task = SwarmMain(module)
    try:
        found = task.run()
    except (swarm_members.SwarmError, engine_api.EngineError) as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{each}\n" for each in task.changes)}
    module.exit_json(changed=bool(task.changes), diff=diff, **found)


if __name__ == "__main__":
    main()
