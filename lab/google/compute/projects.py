"""A project as compute sees it."""

from __future__ import annotations

from ..handlers import Call, handles
from ..state import Thing, fingerprint
from .common import check_fingerprint, operation, self_link


def metadata(call: Call, project: str) -> Thing:
    """The metadata that all machines of a project have."""
    known: Thing = call.state.note("common metadata").setdefault(project, {"kind": "compute#metadata"})
    known.setdefault("fingerprint", fingerprint(known.get("items", [])))
    return known


@handles("compute.projects.get")
def get(call: Call) -> Thing:
    """Number, quotas, common metadata."""
    number = call.state.note("projects")[call.project]["number"]
    return {
        "kind": "compute#project",
        "id": number,
        "creationTimestamp": "2020-01-01T00:00:00.000-08:00",
        "name": call.project,
        "selfLink": self_link(f"projects/{call.project}"),
        "commonInstanceMetadata": dict(metadata(call, call.project)),
        "defaultServiceAccount": f"{number}-compute@developer.gserviceaccount.com",
        "defaultNetworkTier": "PREMIUM",
        "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
        "quotas": [{"metric": "NETWORKS", "limit": 15, "usage": 0}, {"metric": "FIREWALLS", "limit": 200, "usage": 0}],
    }


@handles("compute.projects.setCommonInstanceMetadata")
def set_common_instance_metadata(call: Call) -> Thing:
    """Replace the common metadata; the fingerprint must be the current one."""
    known = metadata(call, call.project)
    check_fingerprint(call.body.get("fingerprint", known["fingerprint"]), known["fingerprint"])
    items = call.body.get("items", [])
    known["items"], known["fingerprint"] = items, fingerprint(items)
    driver = call.google.driver
    if driver is not None and hasattr(driver, "common_metadata_changed"):
        driver.common_metadata_changed(call.project)
    return operation(call, f"projects/{call.project}", "setCommonInstanceMetadata")
