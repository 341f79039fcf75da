"""Operations: look, wait, list, forget."""

from __future__ import annotations

from ..handlers import Call, handles
from ..state import Thing
from .common import check_scope_exists, listing

KINDS = ("compute.zoneOperations", "compute.regionOperations", "compute.globalOperations")


@handles(*(f"{kind}.{verb}" for kind in KINDS for verb in ("get", "wait")))
def look(call: Call) -> Thing:
    """Each look brings an operation further; ``wait`` has waited before this is called."""
    return call.google.operations.look(call)


@handles(*(f"{kind}.list" for kind in KINDS))
def list_operations(call: Call) -> Thing:
    """All of a scope."""
    check_scope_exists(call)
    return listing(call, "compute#operationList", call.children(call.request_path), call.request_path)


@handles(*(f"{kind}.delete" for kind in KINDS))
def delete_operation(call: Call) -> Thing:
    """Only the record goes."""
    call.thing()
    call.delete(call.target)
    return {}
