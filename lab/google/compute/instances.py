"""Instances."""

from __future__ import annotations

import copy
from functools import partial

from .. import drivers, permissions
from ..errors import Refusal, invalid
from ..handlers import Call, handles
from ..state import Thing, fingerprint, new_id, timestamp
from . import disks, instance_disks, instance_network
from .common import (
    aggregated,
    all_of,
    check_fingerprint,
    check_labels,
    check_scope_exists,
    last,
    listing,
    new_path,
    operation,
    path_of,
    put_labels,
    ready,
    refer,
    scope_of,
    self_link,
    set_labels,
)

KIND = "compute#instance"
OFF, ON = "TERMINATED", "RUNNING"
SHIELDED = {"enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True}


@handles("compute.instances.insert")
def insert(call: Call) -> Thing:
    """An instance; nothing is left of one that is refused."""
    check_scope_exists(call)
    path = f"{call.request_path}/{call.body['name']}"
    new_path(call, path)
    kept = call.state.copy()
    try:
        return _insert(call, path)
    except Refusal:
        call.state.restore(kept)  # nothing is made of an instance that is refused
        raise


def _insert(call: Call, path: str) -> Thing:
    zone = call.path["zone"]
    body = {name: value for name, value in call.body.items() if value is not None}
    instance: Thing = {
        "kind": KIND,
        "id": new_id(),
        "creationTimestamp": timestamp(),
        "selfLink": self_link(path),
        "zone": self_link(scope_of(path)),
        "status": "STAGING",
        "canIpForward": False,
        "deletionProtection": False,
        "startRestricted": False,
        "cpuPlatform": "Intel Broadwell",
        **body,
        "machineType": machine_type(call, body.get("machineType", ""), zone),
        "shieldedInstanceConfig": {**SHIELDED, **body.get("shieldedInstanceConfig", {})},
        "shieldedInstanceIntegrityPolicy": {"updateAutoLearnPolicy": True},
        "scheduling": scheduling(body.get("scheduling", {})),
        "metadata": metadata(body.get("metadata", {})),
        "tags": tags(body.get("tags", {})),
    }
    check_labels(body.get("labels"))
    put_labels(instance, body.get("labels"))
    if "serviceAccounts" in body:
        instance["serviceAccounts"] = [service_account(call, account) for account in body["serviceAccounts"]]
    if "resourcePolicies" in body:
        instance["resourcePolicies"] = [
            self_link(refer(call, value, "resourcePolicies", f"resource.resourcePolicies[{number}]")[0])
            for number, value in enumerate(body["resourcePolicies"])
        ]
    wanted = body.get("networkInterfaces", [])
    instance["networkInterfaces"] = instance_network.interfaces(call, path, zone, wanted)
    instance["disks"], steps = instance_disks.attachments(call, path, body.get("disks", []))
    stamp(instance)
    call.put(path, instance)
    driver = drivers.of(call.google)
    steps += [partial(driver.create, path), partial(status, call, path, ON)]
    return operation(call, path, "insert", work=drivers.work(call, *steps))


def stamp(instance: Thing) -> None:
    """A new fingerprint, and the time of the last start."""
    instance["lastStartTimestamp"] = timestamp()
    instance["fingerprint"] = fingerprint(instance)


def status(call: Call, path: str, word: str) -> None:
    """Set an instance's status when the driver is through."""
    with call.state.lock:
        instance = call.find(path)
        if instance is not None:
            instance["status"] = word
            if word == ON:
                stamp(instance)
            else:
                instance["lastStopTimestamp"] = timestamp()


def machine_type(call: Call, value: str, zone: str) -> str:
    """The full link of a machine type that the zone has."""
    name = last(value)
    try:
        if f"zones/{zone}/" not in value:
            raise Refusal(404, "another zone's")
        disks.ask(call, "compute.machineTypes.get", zone=zone, machineType=name)
    except Refusal:
        why = f"Machine type with name '{name}' does not exist in zone '{zone}'."
        raise invalid("resource.machineType", value, why) from None
    return self_link(f"projects/{call.project}/zones/{zone}/machineTypes/{name}")


def scheduling(given: Thing) -> Thing:
    """With what Google fills in. A spot instance cannot migrate and is not started again by itself."""
    spot = given["provisioningModel"] == "SPOT" if "provisioningModel" in given else given.get("preemptible", False)
    result: Thing = {"onHostMaintenance": "MIGRATE", "automaticRestart": True, **given}
    if spot:
        result |= {"onHostMaintenance": "TERMINATE", "automaticRestart": False}
    model = "SPOT" if spot else given.get("provisioningModel", "STANDARD")
    return result | {"preemptible": spot, "provisioningModel": model}


def metadata(given: Thing) -> Thing:
    """Metadata with its fingerprint. Raises Refusal for a key that stands there twice."""
    items = list(given.get("items") or [])
    keys = [item["key"] for item in items]
    for key in keys:
        if keys.count(key) > 1:
            raise invalid("resource.metadata", key, "Metadata has duplicate keys.")
    result: Thing = {"kind": "compute#metadata", "fingerprint": fingerprint(items)}
    if items:
        result["items"] = items
    return result


def tags(given: Thing) -> Thing:
    """Network tags with their fingerprint."""
    items = sorted(set(given.get("items") or []))
    for item in items:
        if not disks.NAME.fullmatch(item):
            raise invalid("resource.tags.items", item, f"Must be a match of regex '{disks.NAME.pattern}'")
    return {"fingerprint": fingerprint(items), **({"items": items} if items else {})}


def service_account(call: Call, given: Thing) -> Thing:
    """A service account that is there and that the caller may attach."""
    email = given.get("email") or "default"
    if email == "default":
        number = call.state.note("projects")[call.project]["number"]
        return {"email": f"{number}-compute@developer.gserviceaccount.com", "scopes": given.get("scopes", [])}
    project = email.partition("@")[2].partition(".")[0]
    if call.state.get(f"iam/projects/{project}/serviceAccounts/{email}") is None and "developer." not in email:
        message = f"The resource '{email}' of type 'serviceAccount' was not found."
        raise Refusal(400, message, "invalid")
    # Whoever is on the machine acts as its account.
    policies = [f"cloudresourcemanager/projects/{project}", f"iam/projects/{project}/serviceAccounts/{email}"]
    if not permissions.has(call.google, call.caller.member, "iam.serviceAccounts.actAs", policies):
        message = (
            f"The user does not have access to service account '{email}'.  User: '{call.caller.email}'.  "
            "Ask a project owner to grant you the iam.serviceAccountUser role on the service account"
        )
        raise Refusal(403, message, "forbidden")
    return {"email": email, "scopes": sorted(given.get("scopes", []))}


@handles("compute.instances.get")
def get(call: Call) -> Thing:
    """One instance."""
    return shown(call, call.thing())


def shown(call: Call, instance: Thing) -> Thing:
    """An instance as it is answered."""
    view = copy.deepcopy(instance)
    if call.google.operations.busy(path_of(instance["selfLink"])):
        view["status"] = "STAGING"
    return view


@handles("compute.instances.list")
def list_(call: Call) -> Thing:
    """The instances of a zone."""
    check_scope_exists(call)
    things = [shown(call, thing) for thing in call.children(call.request_path)]
    return listing(call, f"{KIND}List", things, call.request_path)


@handles("compute.instances.aggregatedList")
def aggregated_list(call: Call) -> Thing:
    """The instances of all zones."""
    things = [shown(call, thing) for thing in all_of(call, "instances")]
    return aggregated(call, "instances", f"{KIND}AggregatedList", things)


@handles("compute.instances.delete")
def delete(call: Call) -> Thing:
    """With the disks that are to go with it."""
    path, instance = call.target, call.thing()
    ready(call, path)
    if instance["deletionProtection"]:
        why = "Resource cannot be deleted if it's protected against deletion."
        raise Refusal(400, f"Invalid resource usage: '{why}'.", "invalidResourceUsage")
    driver = drivers.of(call.google)
    steps = [partial(driver.delete, path, copy.deepcopy(instance))]
    for entry in instance["disks"]:
        instance_disks.leave(call, path, entry)
        disk = path_of(entry["source"])
        if entry["autoDelete"] and call.find(disk) is not None:
            steps.append(disks.remove(call, disk))
    instance_network.release(call, path, instance_network.addresses(instance))
    call.delete(path)
    return operation(call, path, "delete", target_id=instance["id"], work=drivers.work(call, *steps))


@handles("compute.instances.start")
def start(call: Call) -> Thing:
    """Boot what is off."""
    return _power(call, "start", (OFF,), "STAGING", ON)


@handles("compute.instances.stop")
def stop(call: Call) -> Thing:
    """Shut down what runs."""
    return _power(call, "stop", (ON,), "STOPPING", OFF)


@handles("compute.instances.reset")
def reset(call: Call) -> Thing:
    """Off and on, without a shutdown."""
    instance = call.thing()
    if instance["status"] != ON:
        raise Refusal(400, f"The instance '{call.target}' is not running.", "resourceNotReady")
    return _power(call, "reset", (ON,), ON, ON)


def _power(call: Call, verb: str, from_: tuple[str, ...], meanwhile: str, after: str) -> Thing:
    instance = call.thing()
    ready(call, call.target)
    if instance["status"] not in from_:
        return operation(call, call.target, verb)
    instance["status"] = meanwhile
    steps = [
        partial(getattr(drivers.of(call.google), verb), call.target),
        partial(status, call, call.target, after),
    ]
    return operation(call, call.target, verb, work=drivers.work(call, *steps))


def must_be_off(instance: Thing, what: str) -> None:
    """400 for what Google does to a stopped instance only."""
    if instance["status"] != OFF:
        raise Refusal(400, f"The instance must be stopped before the {what} can be changed.", "invalidUsage")


@handles("compute.instances.setMetadata")
def set_metadata(call: Call) -> Thing:
    """All of it, from the state that the fingerprint names."""
    instance = call.thing()
    check_fingerprint(call.body.get("fingerprint"), instance["metadata"]["fingerprint"])
    instance["metadata"] = metadata(call.body)
    return operation(call, call.target, "setMetadata")


@handles("compute.instances.setTags")
def set_tags(call: Call) -> Thing:
    """All network tags."""
    instance = call.thing()
    check_fingerprint(call.body.get("fingerprint"), instance["tags"]["fingerprint"])
    instance["tags"] = tags(call.body)
    return operation(call, call.target, "setTags")


handles("compute.instances.setLabels")(set_labels)


@handles("compute.instances.setMachineType")
def set_machine_type(call: Call) -> Thing:
    """While the instance is stopped."""
    instance = call.thing()
    must_be_off(instance, "machine type")
    instance["machineType"] = machine_type(call, call.body["machineType"], call.path["zone"])
    return operation(call, call.target, "setMachineType")


@handles("compute.instances.setServiceAccount")
def set_service_account(call: Call) -> Thing:
    """While the instance is stopped; without an email: none."""
    instance = call.thing()
    must_be_off(instance, "service account")
    instance.pop("serviceAccounts", None)
    if call.body.get("email"):
        instance["serviceAccounts"] = [service_account(call, call.body)]
    return operation(call, call.target, "setServiceAccount")


@handles("compute.instances.setScheduling")
def set_scheduling(call: Call) -> Thing:
    """What Google does at maintenance; the provisioning model only while stopped."""
    instance = call.thing()
    changed = scheduling({**instance["scheduling"], **call.body})
    if any(changed.get(name) != instance["scheduling"].get(name) for name in ("preemptible", "provisioningModel")):
        must_be_off(instance, "provisioning model")
    instance["scheduling"] = changed
    return operation(call, call.target, "setScheduling")


@handles("compute.instances.setDeletionProtection")
def set_deletion_protection(call: Call) -> Thing:
    """On, unless the query says ``false``."""
    call.thing()["deletionProtection"] = call.query("deletionProtection", "true").lower() == "true"
    return operation(call, call.target, "setDeletionProtection")


@handles("compute.instances.updateShieldedInstanceConfig")
def update_shielded_instance_config(call: Call) -> Thing:
    """While the instance is stopped."""
    instance = call.thing()
    changed = {**instance["shieldedInstanceConfig"], **call.body}
    if changed != instance["shieldedInstanceConfig"]:
        must_be_off(instance, "shielded instance configuration")
    instance["shieldedInstanceConfig"] = changed
    return operation(call, call.target, "updateShieldedInstanceConfig")


@handles("compute.instances.addAccessConfig")
def add_access_config(call: Call) -> Thing:
    """An external address."""
    interface = _interface(call)
    if interface.get("accessConfigs"):
        message = "At most one access config currently supported."
        raise Refusal(400, message, "invalid")
    interface["accessConfigs"] = [
        instance_network.access_config(call, call.target, call.path["zone"], call.body, "resource")
    ]
    return operation(call, call.target, "addAccessConfig")


@handles("compute.instances.updateAccessConfig")
def update_access_config(call: Call) -> Thing:
    """All but the address."""
    config = _interface(call).get("accessConfigs", [None])[0]
    if config is None or config["name"] != call.body.get("name", config["name"]):
        raise invalid("resource.name", call.body.get("name", ""), "The instance has no such access config.")
    if call.body.get("natIP", config["natIP"]) != config["natIP"]:
        raise invalid("resource.natIP", call.body["natIP"], "The address of an access config cannot be updated.")
    config.update(call.body)
    return operation(call, call.target, "updateAccessConfig")


@handles("compute.instances.deleteAccessConfig")
def delete_access_config(call: Call) -> Thing:
    """The external address goes."""
    interface = _interface(call)
    name = call.query("accessConfig")
    found = [config for config in interface.get("accessConfigs", []) if config["name"] == name]
    if not found:
        raise invalid("accessConfig", name, "The instance has no such access config.")
    instance_network.release(call, call.target, {found[0]["natIP"]})
    del interface["accessConfigs"]
    return operation(call, call.target, "deleteAccessConfig")


def _interface(call: Call) -> Thing:
    name = call.query("networkInterface")
    for interface in call.thing()["networkInterfaces"]:
        if interface["name"] == name:
            found: Thing = interface
            return found
    raise invalid("networkInterface", name, "The instance has no such network interface.")


@handles("compute.instances.getSerialPortOutput")
def get_serial_port_output(call: Call) -> Thing:
    """The console, from a byte on."""
    call.thing()
    text = drivers.of(call.google).serial(call.target) if call.query("port", "1") == "1" else ""
    start = int(call.query("start", "0"))
    return {
        "kind": "compute#serialPortOutput",
        "selfLink": f"{self_link(call.target)}/serialPort",
        "contents": text[start:],
        "start": str(start),
        "next": str(len(text)),
    }


@handles("compute.instances.getGuestAttributes")
def get_guest_attributes(call: Call) -> Thing:
    """What the machine has said about itself: one value, a namespace, or all."""
    call.thing()
    held = call.state.note("guest attributes").get(call.target, {})
    wanted = call.query("queryPath") or call.query("variableKey")
    found = {
        key: value
        for key, value in sorted(held.items())
        if key == wanted or key.startswith(wanted.rstrip("/") + "/") or not wanted.strip("/")
    }
    if not found:
        raise Refusal(404, f"The resource '{wanted}' of type 'Guest Attribute' was not found.", "notFound")
    answer: Thing = {"kind": "compute#guestAttributes", "selfLink": f"{self_link(call.target)}/guestAttributes"}
    if call.query("variableKey"):
        return {**answer, "variableKey": wanted, "variableValue": next(iter(found.values()))}
    items = [
        dict(zip(("namespace", "key", "value"), (*key.split("/", 1), value), strict=True))
        for key, value in found.items()
    ]
    return {**answer, "queryPath": wanted, "queryValue": {"items": items}}
