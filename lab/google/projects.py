"""Resource Manager: projects and their policies, in both versions of the API."""

from __future__ import annotations

from . import policies
from .handlers import Call, handles
from .state import Thing

V1, V3 = "cloudresourcemanager.v1.projects", "cloudresourcemanager.v3.projects"
CREATED = "2020-01-01T00:00:00Z"


@handles(f"{V1}.get")
def get_v1(call: Call) -> Thing:
    """A project, the old way."""
    return {
        "projectNumber": call.state.note("projects")[call.project]["number"],
        "projectId": call.project,
        "lifecycleState": "ACTIVE",
        "name": call.project,
        "createTime": CREATED,
    }


@handles(f"{V3}.get")
def get_v3(call: Call) -> Thing:
    """A project: its name has the number."""
    return {
        "name": f"projects/{call.state.note('projects')[call.project]['number']}",
        "projectId": call.project,
        "state": "ACTIVE",
        "displayName": call.project,
        "createTime": CREATED,
        "updateTime": CREATED,
        "etag": 'W/"lab"',
    }


def _key(call: Call) -> str:
    return f"cloudresourcemanager/projects/{call.project}"


@handles(f"{V1}.getIamPolicy", f"{V3}.getIamPolicy")
def get_policy(call: Call) -> Thing:
    """Who may do what in a project."""
    return policies.read(call, _key(call), policies.requested_version(call))


@handles(f"{V1}.setIamPolicy", f"{V3}.setIamPolicy")
def set_policy(call: Call) -> Thing:
    """Replace a project's policy."""
    return policies.write(call, _key(call), call.body.get("policy"))


@handles(f"{V1}.testIamPermissions", f"{V3}.testIamPermissions")
def test_permissions(call: Call) -> Thing:
    """Which of some permissions the caller has."""
    from .permissions import has

    asked = call.body.get("permissions", [])
    allowed = [name for name in asked if has(call.google, call.caller.member, name, [_key(call)])]
    return {"permissions": allowed} if allowed else {}
