"""What the metadata server knows: the state of the lab's Google."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import drivers, permissions
from .compute.common import path_of
from .metadata import Refused, is_on

if TYPE_CHECKING:
    from .server import Google

TOKEN_SECONDS = 3600


class StateSource:
    """See :class:`lab.google.metadata.Source`."""

    def __init__(self, google: Google) -> None:
        self.google = google
        self._tokens: dict[tuple[str, tuple[str, ...]], tuple[str, float]] = {}

    def instance_at(self, address: str) -> dict[str, Any] | None:
        """By the internal address of its first interface."""
        with self.google.state.lock:
            for thing in self.google.state.things.values():
                if thing.get("kind") == "compute#instance" and thing["networkInterfaces"][0]["networkIP"] == address:
                    return copy.deepcopy(thing)
        return None

    def project_of(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        """Number, id and common metadata."""
        name = path_of(str(instance["selfLink"])).split("/")[1]
        with self.google.state.lock:
            common = copy.deepcopy(self.google.state.note("common metadata").get(name, {}))
            number = self.google.state.note("projects")[name]["number"]
        return {"id": number, "name": name, "commonInstanceMetadata": common}

    def network_interfaces(self, instance: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The one that the lab gives a machine."""
        project = self.project_of(instance)
        found = []
        for interface in instance["networkInterfaces"]:
            details = drivers.of(self.google).interface(path_of(str(instance["selfLink"])))
            configs = interface.get("accessConfigs", [])
            found.append(
                {
                    "accessConfigs": [{"externalIp": item["natIP"], "type": "ONE_TO_ONE_NAT"} for item in configs],
                    "dnsServers": ["169.254.169.254"],
                    "forwardedIps": [],
                    "gateway": details["gateway"],
                    "ip": interface["networkIP"],
                    "ipAliases": [],
                    "mac": details["mac"],
                    "mtu": 1460,
                    "network": f"projects/{project['id']}/networks/{interface['network'].rsplit('/', 1)[-1]}",
                    "subnetmask": details["subnetmask"],
                    "targetInstanceIps": [],
                }
            )
        return found

    def access_token(self, email: str, scopes: Sequence[str]) -> tuple[str, int]:
        """The same one until it has five minutes left, as Google does."""
        wanted = (email, tuple(sorted(scopes)))
        token, ends = self._tokens.get(wanted, ("", 0.0))
        if ends - time.time() < 300 or token not in self.google.state.note("tokens"):
            token, ends = self.google.token(email, scopes, TOKEN_SECONDS), time.time() + TOKEN_SECONDS
            self._tokens[wanted] = (token, ends)
            self.google.state.save()
        return token, int(ends - time.time())

    def guest_attributes(self, instance: Mapping[str, Any]) -> dict[str, str]:
        """By namespace/key."""
        with self.google.state.lock:
            return dict(self.google.state.note("guest attributes").get(path_of(str(instance["selfLink"])), {}))

    def set_guest_attribute(self, instance: Mapping[str, Any], name: str, value: str | None) -> None:
        """Kept at once: a machine writes its host keys at its first boot only."""
        with self.google.state.lock:
            held = self.google.state.note("guest attributes").setdefault(path_of(str(instance["selfLink"])), {})
            held.pop(name, None)
            if value is not None:
                held[name] = value
            self.google.state.save()

    def oslogin(self, instance: Mapping[str, Any], kind: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Accounts with their keys, and who may log in, as Google's NSS and PAM modules ask for it."""
        if not is_on(self, instance, "enable-oslogin"):
            raise Refused(404, "Not Found")
        project = self.project_of(instance)["name"]
        emails = list(self.google.state.note("posix accounts"))
        profiles = {
            email: self.google.call("oslogin.users.getLoginProfile", {"name": f"users/{email}"}, email=email)
            for email in emails
        }
        if kind == "authorize":
            wanted = "compute.instances.osAdminLogin" if query.get("policy") == "adminLogin" else ""
            return {"success": any(self._may(email, project, wanted) for email in emails
                                   if query.get("email") in (email, profiles[email]["name"]))}  # fmt: skip
        found = [
            profile
            for profile in profiles.values()
            for account in profile.get("posixAccounts", [])
            if account["accountId"] == project
            and query.get("username", account["username"]) == account["username"]
            and query.get("uid", account["uid"]) == account["uid"]
        ]
        if kind == "groups" or not found:
            raise Refused(404, "Not Found")
        return {"loginProfiles": found, "nextPageToken": "0"}

    def _may(self, email: str, project: str, permission: str) -> bool:
        """Whether somebody may log in; who may be an administrator may log in, too."""
        kind = "serviceAccount" if email.endswith("gserviceaccount.com") else "user"
        policy = [f"cloudresourcemanager/projects/{project}"]
        wanted = [permission] if permission else ["compute.instances.osLogin", "compute.instances.osAdminLogin"]
        return any(permissions.has(self.google, f"{kind}:{email}", name, policy) for name in wanted)
