"""Service Usage: which APIs a project has switched on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import Refusal
from .handlers import Call, handles
from .permissions import TITLES
from .state import Thing
from .wire import TYPE, looked_at, started

if TYPE_CHECKING:
    from .server import Google

# What can be switched on besides what the lab serves.
OTHERS = [
    "bigquery.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudkms.googleapis.com",
    "containeranalysis.googleapis.com",
    "containerscanning.googleapis.com",
    "dns.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "osconfig.googleapis.com",
    "pubsub.googleapis.com",
    "storage.googleapis.com",
]
MOST = 20  # services in one batchEnable


def _known(name: str) -> bool:
    return name in TITLES or name in OTHERS


def _number(call: Call) -> str:
    return str(call.state.note("projects")[call.project]["number"])


def _enabled(call: Call) -> list[str]:
    settle(call.google)
    services: list[str] = call.state.note("services").setdefault(call.project, [])
    return services


def settle(google: Google) -> None:
    """Switch on what operations that are due were asked for."""
    for note in google.state.note("serviceusage operations").values():
        if note.get("enable") and (note["polls"] <= 0 or time.time() >= note["at"]) and not note.get("stuck"):
            services = google.state.note("services").setdefault(note["project"], [])
            services += [name for name in note.pop("enable") if name not in services]


def _service(call: Call, name: str) -> Thing:
    number = _number(call)
    return {
        "name": f"projects/{number}/services/{name}",
        "config": {"name": name, "title": TITLES.get(name, name)},
        "state": "ENABLED" if name in _enabled(call) else "DISABLED",
        "parent": f"projects/{number}",
    }


def _check(names: list[str]) -> None:
    unknown = [name for name in names if not _known(name)]
    if unknown:
        message = f"Not found or permission denied for service(s): {', '.join(unknown)}."
        info = {"@type": f"{TYPE}google.rpc.ErrorInfo", "reason": "SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED"}
        details = [{**info, "domain": "serviceusage.googleapis.com", "metadata": {"services": ",".join(unknown)}}]
        raise Refusal(403, message, details=details)


@handles("serviceusage.services.get")
def get(call: Call) -> Thing:
    """One service."""
    name = call.target.rsplit("/", 1)[-1]
    _check([name])
    return _service(call, name)


@handles("serviceusage.services.list")
def list_services(call: Call) -> Thing:
    """A project's services, with the one filter that there is."""
    enabled = _enabled(call)
    names = sorted({*TITLES, *OTHERS, *enabled})
    if call.query("filter"):
        if call.query("filter") not in ("state:ENABLED", "state:DISABLED"):
            raise Refusal(400, f"Invalid filter: {call.query('filter')}")
        names = [name for name in names if (name in enabled) == (call.query("filter") == "state:ENABLED")]
    start, size = int(call.query("pageToken") or "0"), int(call.query("pageSize") or "50")
    answer: Thing = {"services": [_service(call, name) for name in names[start : start + size]]}
    if start + size < len(names):
        answer["nextPageToken"] = str(start + size)
    return answer


@handles("serviceusage.services.batchGet")
def batch_get(call: Call) -> Thing:
    """Some services, by their names (``projects/p/services/s``)."""
    names = [name.rsplit("/", 1)[-1] for name in call.queries.get("names", [])]
    if len(names) > 30:
        raise Refusal(400, "At most 30 services can be asked for at once.")
    _check(names)
    return {"services": [_service(call, name) for name in names]}


@handles("serviceusage.services.enable")
def enable(call: Call) -> Thing:
    """Switch one on; it takes a while."""
    name = call.target.rsplit("/", 1)[-1]
    _check([name])
    return _enable(call, [name], "EnableServiceResponse")


@handles("serviceusage.services.batchEnable")
def batch_enable(call: Call) -> Thing:
    """Switch some on, all or none."""
    names = call.body["serviceIds"]
    if len(names) > MOST:
        raise Refusal(400, f"At most {MOST} services can be enabled at once.")
    _check(names)
    return _enable(call, names, "BatchEnableServicesResponse")


def _enable(call: Call, names: list[str], kind: str) -> Thing:
    missing = [name for name in names if name not in _enabled(call)]
    services = [{**_service(call, name), "state": "ENABLED"} for name in names]
    response: Thing = {"@type": f"{TYPE}google.api.serviceusage.v1.{kind}"}
    response.update({"service": services[0]} if kind == "EnableServiceResponse" else {"services": services})
    if not missing:
        return {"name": "operations/noop.DONE_OPERATION", "done": True, "response": response}
    name = f"operations/acat.p2-{_number(call)}"
    return started(call, name, response, project=call.project, enable=missing)


@handles("serviceusage.services.disable")
def disable(call: Call) -> Thing:
    """Switch one off."""
    name = call.target.rsplit("/", 1)[-1]
    enabled = _enabled(call)
    _check([name])
    if name not in enabled:
        raise Refusal(400, f"The service {name} is not enabled.", state="FAILED_PRECONDITION")
    enabled.remove(name)
    response = {"@type": f"{TYPE}google.api.serviceusage.v1.DisableServiceResponse", "service": _service(call, name)}
    return started(call, f"operations/acat.p2-{_number(call)}", response, project=call.project)


@handles("serviceusage.operations.get")
def operation(call: Call) -> Thing:
    """How far it is."""
    answer = looked_at(call, call.target)
    settle(call.google)
    return answer
