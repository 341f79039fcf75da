"""What compute's resources have in common.

A plain resource is a :class:`Collection` and a few lines::

    NETWORKS = Collection("networks", "global", kind="compute#network", defaults={…}, check=check_network)
    NETWORKS.serve("get", "list", "insert", "patch", "delete")

The rest is for handlers with more to them: :func:`operation`, :func:`link`, :func:`refer`, :func:`check_fingerprint`,
:func:`in_use`, :func:`listing`, :func:`zone_of`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from ..errors import Refusal, invalid, not_found
from ..handlers import Call, handles
from ..operations import PREFIX
from ..state import Thing, fingerprint, new_id, texts, timestamp
from .filters import matches

HOST = re.compile(r"^https?://[^/]+/(compute/[^/]+/)?")


def path_of(link: str) -> str:
    """A resource's path (``projects/…``) from any of its full URLs; what is no URL is returned as it is."""
    return HOST.sub("", link).lstrip("/")


def self_link(path: str) -> str:
    """The URL that Google writes for a path."""
    return PREFIX + path


def last(link: str) -> str:
    """The name at a link's end."""
    return link.rstrip("/").rsplit("/", 1)[-1]


def scope_of(path: str) -> str:
    """``projects/p/zones/z``, ``projects/p/regions/r`` or ``projects/p/global`` of a resource's path."""
    parts = path.split("/")
    return "/".join(parts[:3] if parts[2] == "global" else parts[:4])


def zone_of(path: str) -> str:
    """The name of the zone (or region) in a path."""
    return path.split("/")[3]


def region_of_zone(zone: str) -> str:
    """``europe-west1`` for ``europe-west1-b``."""
    return zone.rpartition("-")[0]


def operation(call: Call, target: str, kind: str, **more: Any) -> Thing:
    """An operation on ``target`` (a path); for ``work=``, ``error=``, ``target_id=`` see ``Operations.start``."""
    return call.google.operations.start(call, target, kind, **more)


def link(call: Call, value: str, collection: str, field: str) -> str:
    """A reference in a request as a path.

    Full URLs, ``projects/…``, ``global/…``, ``zones/…`` and ``regions/…`` are taken.

    :param collection: what it must be: ``networks``, ``subnetworks``, ``disks``…
    :param field: the field's name for the error (``resource.network``).
    :raises Refusal: 400, if it is none of these or another kind of thing.
    """
    path = path_of(value)
    if re.match(r"(global|zones|regions)/", path):
        path = f"projects/{call.project}/{path}"
    match = re.fullmatch(rf"projects/([^/]+)/(global|zones/[^/]+|regions/[^/]+)/{collection}/[^/]+", path)
    if not match:
        raise invalid(field, value, "The URL is malformed.")
    return path.replace(f"projects/{match[1]}/", f"projects/{call.google.project_id(match[1])}/", 1)


def refer(call: Call, value: str, collection: str, field: str) -> tuple[str, Thing]:
    """A referenced thing, which must be there and ready: its path and itself.

    :raises Refusal: 400 malformed, 404 notFound, 400 resourceNotReady while it is being made.
    """
    path = link(call, value, collection, field)
    thing = call.find(path)
    if thing is None:
        raise not_found(path)
    ready(call, path)
    return path, thing


def ready(call: Call, path: str) -> None:
    """Refuse the use of a thing whose insert (or delete) is still running."""
    if call.google.operations.busy(path):
        raise Refusal(400, f"The resource '{path}' is not ready", "resourceNotReady")


def check_fingerprint(given: str | None, current: str, what: str = "fingerprint") -> None:
    """412 for a change that was made from an older state."""
    # Bytes in base64: gcloud answers with - and _ where it got + and /.
    if given is None or given.translate(str.maketrans("-_", "+/")) != current:
        word = "Labels" if what == "labelFingerprint" else "Supplied"
        raise Refusal(
            412,
            f"{word} fingerprint either invalid or resource labels have changed"
            if word == "Labels"
            else "Supplied fingerprint does not match current fingerprint.",
            "conditionNotMet",
        )


def set_labels(call: Call, kind: str = "setLabels") -> Thing:
    """The method ``setLabels`` of any resource."""
    thing = call.thing()
    check_fingerprint(call.body.get("labelFingerprint"), thing["labelFingerprint"], "labelFingerprint")
    check_labels(call.body.get("labels"), "labels")
    put_labels(thing, call.body.get("labels"))
    return operation(call, call.target, kind)


def put_labels(thing: Thing, labels: dict[str, str] | None) -> None:
    """Have these labels and their fingerprint; a thing without labels has no field ``labels``."""
    thing.pop("labels", None)
    if labels:
        thing["labels"] = labels
    thing["labelFingerprint"] = fingerprint(labels or {})


def check_labels(labels: dict[str, str] | None, field: str = "resource.labels") -> None:
    """400 for a label that Google does not take."""
    for name, value in (labels or {}).items():
        if not re.fullmatch(r"[a-z][-_a-z0-9]{0,62}", name) or not re.fullmatch(r"[-_a-z0-9]{0,63}", value):
            raise invalid(
                field, f"{name}: {value}", "Label keys and values can hold lower-case letters, digits, - and _ only."
            )


def in_use(call: Call, path: str, *, ignore: Callable[[str], bool] = lambda _: False) -> None:
    """Refuse to delete a thing that others refer to.

    Fields that only point back (a disk's ``users``, a network's ``subnetworks``) do not count.
    """
    wanted = self_link(path)
    for key, thing in sorted(call.state.things.items()):
        other = key.removeprefix("compute/")
        if not key.startswith("compute/") or "/operations/" in key or other == path or ignore(other):
            continue
        body = {name: value for name, value in thing.items() if name not in ("users", "subnetworks", "sourceDisk")}
        if wanted in texts(body):
            kind = last(path.rsplit("/", 1)[0])
            message = f"The {SINGULAR.get(kind, kind)} resource '{path}' is already being used by '{other}'"
            raise Refusal(400, message, "resourceInUseByAnotherResource")


SINGULAR = {
    "networks": "network",
    "subnetworks": "subnetwork",
    "addresses": "address",
    "resourcePolicies": "resource_policy",
    "disks": "disk",
    "routers": "router",
}


def listing(call: Call, kind: str, things: list[Thing], path: str) -> Thing:
    """A list's answer, with ``filter``, ``maxResults`` and ``pageToken``."""
    wanted = [thing for thing in things if matches(thing, call.query("filter"))]
    start = int(call.query("pageToken", "0"))
    size = int(call.query("maxResults", "500"))
    page = wanted[start : start + size]
    answer: Thing = {"kind": kind, "id": path, "selfLink": self_link(path)}
    if page:
        answer["items"] = page
    if start + size < len(wanted):
        answer["nextPageToken"] = str(start + size)
    return answer


def aggregated(call: Call, collection: str, kind: str, things: list[Thing]) -> Thing:
    """An aggregated list's answer: things by scope; an empty scope has a warning in place of things.

    Scopes that a test wants unreachable (``google.state.note("unreachable")[project] = ["zones/z"]``) are left out and
    named where the client takes partial success; else they fail the whole.
    """
    scopes: dict[str, Thing] = {}
    empty = {
        "warning": {
            "code": "NO_RESULTS_ON_PAGE",
            "message": "There are no results for scope on this page.",
            "data": [],
        }
    }
    for zone in call.google.zones():
        scopes[f"zones/{zone}"] = copy.deepcopy(empty)
    for thing in things:
        if matches(thing, call.query("filter")):
            scope = scope_of(path_of(thing["selfLink"])).split("/", 2)[2]
            entry = scopes.setdefault(scope, {})
            entry.pop("warning", None)
            entry.setdefault(collection, []).append(thing)
    answer: Thing = {"kind": kind, "id": f"projects/{call.project}/aggregated/{collection}", "items": scopes}
    answer["selfLink"] = self_link(answer["id"])
    for scope in call.state.note("unreachable").get(call.project, ()):
        if call.query("returnPartialSuccess") != "true":
            raise Refusal(503, f"The scope '{scope}' cannot be reached.", "backendError")
        scopes.pop(scope, None)
        answer.setdefault("unreachables", []).append(self_link(f"projects/{call.project}/{scope}"))
    return answer


Hook = Callable[[Call, str, Thing], None]


class Collection:
    """A kind of thing with get, list, insert, patch and delete.

    :param name: ``networks``.
    :param scope: ``global``, ``regions`` or ``zones``.
    :param kind: ``compute#network``.
    :param defaults: what Google fills in where a request says nothing.
    :param references: field -> collection; they must exist, and are stored as full links.
    :param check: ``check(call, path, thing)``: refuse or complete a new thing, before it is kept.
    :param change: the same for a patch, with the merged thing; by default ``check``.
    :param view: ``view(call, path, thing)``: complete a copy that is about to be answered.
    :param has_fingerprint: whether the thing has a ``fingerprint`` that a patch must name.
    """

    def __init__(
        self,
        name: str,
        scope: str,
        *,
        kind: str,
        defaults: Thing | None = None,
        references: dict[str, str] | None = None,
        check: Hook | None = None,
        change: Hook | None = None,
        view: Hook | None = None,
        has_fingerprint: bool = False,
        labels: bool = False,
    ) -> None:
        self.name, self.scope, self.kind = name, scope, kind
        self.defaults = defaults or {}
        self.references = references or {}
        self.check, self.change, self.view = check, change or check, view
        self.has_fingerprint, self.labels = has_fingerprint, labels

    def serve(self, *verbs: str) -> None:
        """Register handlers: get, list, aggregatedList, insert, patch, delete, setLabels."""
        functions = {
            "get": self.get,
            "list": self.list,
            "aggregatedList": self.aggregated_list,
            "insert": self.insert,
            "patch": self.patch,
            "delete": self.remove,
            "setLabels": set_labels,
        }
        for verb in verbs:
            handles(f"compute.{self.name}.{verb}")(functions[verb])

    def shown(self, call: Call, thing: Thing) -> Thing:
        """A copy, as it is answered."""
        result = copy.deepcopy(thing)
        if self.view:
            self.view(call, path_of(thing["selfLink"]), result)
        return result

    def get(self, call: Call) -> Thing:
        return self.shown(call, call.thing())

    def list(self, call: Call) -> Thing:
        check_scope_exists(call)
        things = [self.shown(call, thing) for thing in call.children(call.request_path)]
        return listing(call, f"{self.kind}List", things, call.request_path)

    def aggregated_list(self, call: Call) -> Thing:
        things = all_of(call, self.name)
        return aggregated(call, self.name, f"{self.kind}AggregatedList", [self.shown(call, thing) for thing in things])

    def insert(self, call: Call) -> Thing:
        check_scope_exists(call)
        body = copy.deepcopy(call.body)
        path = f"{call.request_path}/{body['name']}"
        new_path(call, path)
        thing = self.make(call, path, body)
        call.put(path, thing)
        return operation(call, path, "insert")

    def make(self, call: Call, path: str, body: Thing) -> Thing:
        """A new thing from a request's body."""
        thing: Thing = {
            "kind": self.kind,
            "id": new_id(),
            "creationTimestamp": timestamp(),
            "selfLink": self_link(path),
            **copy.deepcopy(self.defaults),
            **{name: value for name, value in body.items() if value is not None},
        }
        if self.scope != "global":
            thing[self.scope[:-1]] = self_link(scope_of(path))
        self._resolve(call, thing)
        if self.labels:
            check_labels(thing.get("labels"))
            put_labels(thing, thing.get("labels"))
        if self.check:
            self.check(call, path, thing)
        if self.has_fingerprint:
            thing["fingerprint"] = fingerprint(thing)
        return thing

    def _resolve(self, call: Call, thing: Thing) -> None:
        for field, collection in self.references.items():
            if thing.get(field):
                path, _ = refer(call, thing[field], collection, f"resource.{field}")
                thing[field] = self_link(path)

    def patch(self, call: Call) -> Thing:
        path, thing = call.target, call.thing()
        ready(call, path)
        if self.has_fingerprint:
            check_fingerprint(call.body.pop("fingerprint", None), thing["fingerprint"])
        merged = merge(thing, call.body)
        self._resolve(call, merged)
        if self.change:
            self.change(call, path, merged)
        if self.has_fingerprint:
            merged["fingerprint"] = fingerprint(merged)
        call.put(path, merged)
        return operation(call, path, "patch")

    def remove(self, call: Call) -> Thing:
        path, thing = call.target, call.thing()
        ready(call, path)
        in_use(call, path)
        call.delete(path)
        return operation(call, path, "delete", target_id=thing["id"])


def new_path(call: Call, path: str) -> None:
    """409 where a thing of that name is there."""
    if call.find(path) is not None:
        raise Refusal(409, f"The resource '{path}' already exists", "alreadyExists")
    ready(call, path)


def merge(thing: Thing, change: Thing) -> Thing:
    """JSON merge patch: objects are merged, null removes, lists are replaced."""
    result = copy.deepcopy(thing)
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merge(result[name], value)
        else:
            result[name] = copy.deepcopy(value)
    return result


def all_of(call: Call, collection: str) -> list[Thing]:
    """Every thing of a collection in the call's project, in all zones and regions."""
    pattern = re.compile(
        rf"compute/projects/{re.escape(call.project)}/(global|zones/[^/]+|regions/[^/]+)/{collection}/[^/]+"
    )
    return [thing for key, thing in sorted(call.state.things.items()) if pattern.fullmatch(key)]


def check_scope_exists(call: Call) -> None:
    """Refuse a zone or region that Google does not have."""
    zone, region = call.path.get("zone"), call.path.get("region")
    # `-` stands for all of them, where a method takes it.
    if zone and zone != "-" and zone not in call.google.zones():
        raise invalid("zone", zone, "Unknown zone.")
    if region and region not in {region_of_zone(known) for known in call.google.zones()}:
        raise invalid("region", region, "Unknown region.")
