# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What an instance should be, what it is, and the calls between the two. Nothing here talks to Google.

A setting that was not given is not managed: neither compared nor changed. What Google cannot change in place becomes
a refusal, never a replacement.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_instance_disks, google_instance_network
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import merge_labels
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import (
    MANAGED_BY,
    Place,
    last,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_plan import Call, Json, Plan

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
"""The one scope that Google advises: what the machine may do is then decided by its service account's roles."""

SHIELDED = {
    "secure_boot": "enableSecureBoot",
    "vtpm": "enableVtpm",
    "integrity_monitoring": "enableIntegrityMonitoring",
}
SCHEDULING = {
    "on_host_maintenance": "onHostMaintenance",
    "automatic_restart": "automaticRestart",
    "provisioning_model": "provisioningModel",
    "instance_termination_action": "instanceTerminationAction",
}
# Google takes these two on a running machine, the others only on a stopped one.
SCHEDULING_LIVE = ("on_host_maintenance", "automatic_restart")

# What the API leaves out of an answer when it is off.
SHIELDED_DEFAULTS = {"secure_boot": False, "vtpm": False, "integrity_monitoring": False}
SCHEDULING_DEFAULTS = {
    "on_host_maintenance": "MIGRATE",
    "automatic_restart": True,
    "provisioning_model": "STANDARD",
    "instance_termination_action": None,
}


@dataclass(frozen=True)
class Wanted:
    """The options of the module that describe the instance."""

    place: Place
    name: str
    options: Json

    def get(self, name: str) -> t.Any:
        """An option's value, None if it was not given."""
        return self.options.get(name)

    @property
    def path(self) -> str:
        """The instance's path below the API's version."""
        return self.place.zonal("instances", self.name)


def text(value: t.Any) -> str:
    """A metadata value as Google has it: everything is text, and its own switches are spelled TRUE and FALSE."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return str(value)


def labels_wanted(options: Json, found: dict[str, str]) -> dict[str, str]:
    """The labels as they shall be: ours over those of others, unless `purge_labels`."""
    return merge_labels({**(options.get("labels") or {}), **MANAGED_BY}, found, options)


def metadata_of(instance: Json) -> dict[str, str]:
    """The instance's metadata as a dict."""
    return {item["key"]: item.get("value", "") for item in instance.get("metadata", {}).get("items", [])}


def body(wanted: Wanted) -> Json:
    """The request that makes the instance, with everything in one call."""
    place = wanted.place
    made: Json = {
        "name": wanted.name,
        "machineType": place.zonal("machineTypes", wanted.get("machine_type")),
        "labels": labels_wanted(wanted.options, {}),
        "disks": google_instance_disks.bodies(place, wanted.name, wanted.get("boot_disk"), wanted.get("disks") or []),
        "networkInterfaces": [google_instance_network.body(place, wanted.get("network_interface"))],
    }
    metadata = {key: text(value) for key, value in (wanted.get("metadata") or {}).items() if value is not None}
    if metadata:
        made["metadata"] = {"items": [{"key": key, "value": metadata[key]} for key in sorted(metadata)]}
    if wanted.get("tags"):
        made["tags"] = {"items": sorted(wanted.get("tags"))}
    account = wanted.get("service_account")
    if account and account.get("email"):
        made["serviceAccounts"] = [service_account(account)]
    if wanted.get("shielded") is not None:
        made["shieldedInstanceConfig"] = given(wanted.get("shielded"), SHIELDED)
    if wanted.get("scheduling") is not None:
        made["scheduling"] = scheduling(given(wanted.get("scheduling"), SCHEDULING), {})
    if wanted.get("deletion_protection") is not None:
        made["deletionProtection"] = wanted.get("deletion_protection")
    return merged(made, wanted.get("overrides") or {})


def merged(base: Json, over: Json) -> Json:
    """`base` with `over` laid over it; lists and plain values are taken whole."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def given(options: Json, names: dict[str, str]) -> Json:
    """The options that were given, in the API's spelling."""
    return {api: options[name] for name, api in names.items() if options.get(name) is not None}


def service_account(account: Json) -> Json:
    """A service account as the API has it."""
    if not account.get("email"):
        return {}
    scopes = account.get("scopes")
    return {"email": account["email"], "scopes": sorted([CLOUD_PLATFORM] if scopes is None else scopes)}


def scheduling(ours: Json, found: Json) -> Json:
    """The whole scheduling block: Google replaces it as one, and a model of provisioning brings rules of its own."""
    made = {**found, **ours}
    model = ours.get("provisioningModel")
    if model == "SPOT":
        spot = {"preemptible": True, "automaticRestart": False, "onHostMaintenance": "TERMINATE"}
        return {**made, **{key: value for key, value in spot.items() if key not in ours}}
    if model == "STANDARD":
        made["preemptible"] = False
        if "instanceTerminationAction" not in ours:
            made.pop("instanceTerminationAction", None)
        if found.get("provisioningModel") == "SPOT":
            standard = {"automaticRestart": True, "onHostMaintenance": "MIGRATE"}
            made.update({key: value for key, value in standard.items() if key not in ours})
    return made


def plan(wanted: Wanted, found: Json) -> Plan:
    """What has to happen to the instance that was found."""
    made = Plan()
    _labels(made, wanted, found)
    _metadata(made, wanted, found)
    _tags(made, wanted, found)
    _deletion_protection(made, wanted, found)
    google_instance_network.compare(made, wanted.place, wanted.path, wanted.get("network_interface"), found)
    boot, disks = wanted.get("boot_disk"), wanted.get("disks") or []
    google_instance_disks.compare(made, wanted.place, wanted.path, boot, disks, found)
    _scheduling(made, wanted, found)
    _machine_type(made, wanted, found)
    _service_account(made, wanted, found)
    _shielded(made, wanted, found)
    return made


def _labels(made: Plan, wanted: Wanted, found: Json) -> None:
    before = dict(found.get("labels", {}))
    after = labels_wanted(wanted.options, before)
    request = {"labels": after, "labelFingerprint": found.get("labelFingerprint")}
    made.compare("labels", before, after, lambda: [Call("POST", f"{wanted.path}/setLabels", body=request)])


def _metadata(made: Plan, wanted: Wanted, found: Json) -> None:
    asked = wanted.get("metadata")
    if asked is None:
        return
    have = metadata_of(found)
    ours = {key: text(value) for key, value in asked.items() if value is not None}
    purge = wanted.get("purge_metadata")
    whole = ours if purge else {**{key: value for key, value in have.items() if key not in asked}, **ours}
    before = have if purge else {key: have[key] for key in asked if key in have}
    fingerprint = found.get("metadata", {}).get("fingerprint")
    request = {"items": [{"key": key, "value": whole[key]} for key in sorted(whole)], "fingerprint": fingerprint}
    made.compare("metadata", before, ours, lambda: [Call("POST", f"{wanted.path}/setMetadata", body=request)])


def _tags(made: Plan, wanted: Wanted, found: Json) -> None:
    if wanted.get("tags") is None:
        return
    have = found.get("tags", {})
    after = sorted(wanted.get("tags"))
    request = {"items": after, "fingerprint": have.get("fingerprint")}
    made.compare("tags", sorted(have.get("items", [])), after, lambda: [_post(wanted, "setTags", request)])


def _deletion_protection(made: Plan, wanted: Wanted, found: Json) -> None:
    after = wanted.get("deletion_protection")
    if after is None:
        return
    made.compare(
        "deletion_protection",
        found.get("deletionProtection", False),
        after,
        lambda: [deletion_protection(wanted.path, after)],
    )


def deletion_protection(path: str, on: bool) -> Call:
    """The call that turns it on or off. The value has to be said: the API's default is on."""
    return Call("POST", f"{path}/setDeletionProtection", query={"deletionProtection": "true" if on else "false"})


def _scheduling(made: Plan, wanted: Wanted, found: Json) -> None:
    asked = wanted.get("scheduling")
    if asked is None:
        return
    have = found.get("scheduling", {})
    ours = {name: value for name, value in asked.items() if value is not None}
    before = {name: have.get(SCHEDULING[name], SCHEDULING_DEFAULTS[name]) for name in ours}
    stop = any(before[name] != ours[name] for name in ours if name not in SCHEDULING_LIVE)
    request = scheduling(given(ours, SCHEDULING), have)
    made.compare("scheduling", before, ours, lambda: [_post(wanted, "setScheduling", request, stop)])


def _machine_type(made: Plan, wanted: Wanted, found: Json) -> None:
    after = wanted.get("machine_type")
    if after is None:
        return
    request = {"machineType": wanted.place.zonal("machineTypes", after)}
    before = last(found.get("machineType", ""))
    made.compare("machine_type", before, after, lambda: [_post(wanted, "setMachineType", request, True)])


def _service_account(made: Plan, wanted: Wanted, found: Json) -> None:
    asked = wanted.get("service_account")
    if asked is None:
        return
    after = service_account(asked)
    accounts = found.get("serviceAccounts") or [{}]
    before = service_account({"scopes": [], **accounts[0]})
    made.compare("service_account", before, after, lambda: [_post(wanted, "setServiceAccount", after, True)])


def _shielded(made: Plan, wanted: Wanted, found: Json) -> None:
    asked = wanted.get("shielded")
    if asked is None:
        return
    have = found.get("shieldedInstanceConfig", {})
    ours = {name: value for name, value in asked.items() if value is not None}
    before = {name: have.get(SHIELDED[name], SHIELDED_DEFAULTS[name]) for name in ours}
    path = f"{wanted.path}/updateShieldedInstanceConfig"
    request = given(ours, SHIELDED)
    made.compare("shielded", before, ours, lambda: [Call("PATCH", path, body=request, needs_stop=True)])


def _post(wanted: Wanted, method: str, request: Json, needs_stop: bool = False) -> Call:
    return Call("POST", f"{wanted.path}/{method}", body=request, needs_stop=needs_stop)
