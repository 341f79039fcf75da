# SPDX-License-Identifier: Apache-2.0
"""The engine of the modules: read, compare, plan, apply.

A module is a table. It names the kind of thing and its fields (:class:`google_fields.Field`), and calls :func:`run`:

    KIND = Kind(
        name="network",
        collection="projects/{project}/global/networks",
        fields=(
            Field("description", "description", default="", change=Fixed("…")),
            Field("routing_mode", "routingConfig.routingMode"),
        ),
    )

    def main() -> None:
        run(KIND, {"routing_mode": {"type": "str", "choices": ["REGIONAL", "GLOBAL"]}, …})

`name` and `state` are options of every such module, as are those of :func:`google_auth.argument_spec`. What a table
cannot say goes into a subclass of :class:`Resource` (``run(KIND, SPEC, resource=Router)``).

Rules
- A run that changes nothing is one GET. Check mode, the diff and the work come from the same :class:`Plan`.
- An option that is not given is not managed. What Google's answer lacks, and ``Field.default`` does not explain, is a
  difference.
- Nothing is deleted or replaced to make a change; what cannot be changed in place is an error that names the option,
  what is there, what was asked for, and the choices.
- A creation that finds its name taken (two operators, or our own answer that got lost) reads again and goes on from
  there.
- A fingerprint that is out of date is read again once, and the plan made anew.
- After a change the thing is read back. What Google has not taken over is a warning, since the next run will report it
  again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_auth, google_kind
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_kind import (
    PROJECT,
    REGION,
    ZONE,
    Kind,
    Plan,
    Refused,
    Step,
    bad_names,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import NAME, NAME_WORDS
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_thing import Resource

# What modules need of the engine, in one place.
__all__ = [
    "NAME",
    "NAME_WORDS",
    "PROJECT",
    "REGION",
    "ZONE",
    "Kind",
    "Plan",
    "Refused",
    "Resource",
    "Step",
    "bad_names",
    "fail",
    "require_libraries",
    "run",
    "work",
]


def run(
    kind: Kind,
    spec: Mapping[str, Mapping[str, Any]],
    *,
    resource: Callable[[Kind, Mapping[str, Any], Client], Resource] = Resource,
    states: Sequence[str] = ("present", "absent"),
    check: Callable[[Mapping[str, Any]], Sequence[str]] | None = None,
    **limits: Any,
) -> None:
    """A module's main: options in, ``exit_json`` or ``fail_json`` out.

    Args:
        kind: the table.
        spec: the module's own options (``name``, ``state`` and the shared ones are added).
        resource: class with what the table cannot say.
        states: values of ``state``; the first is the default.
        check: mistakes in the options that need no call; each one a line ``option: found …; expected …``.
        limits: for AnsibleModule (``required_if``, ``mutually_exclusive``…).

    Returns to Ansible: ``changed``, ``diff`` (managed options before and after) and ``resource`` (Google's own, in
        check mode as it would be).
    """
    module = AnsibleModule(
        argument_spec={
            **google_auth.argument_spec(),
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": list(states), "default": states[0]},
            **{name: dict(rules) for name, rules in spec.items()},
        },
        supports_check_mode=True,
        **limits,
    )
    require_libraries(module)
    mistakes = [*bad_names(module.params, kind), *(check(module.params) if check else ())]
    if mistakes:
        module.fail_json(msg="\n".join(mistakes))
    work(module, lambda client: resource(kind, module.params, client))


def work(module: AnsibleModule, make: Callable[[Client], Resource]) -> NoReturn:
    """Read, plan, apply and end the module; for modules that make their AnsibleModule themselves."""
    try:
        client = Client(module.params)
    except GoogleError as error:
        fail(module, error)
    thing = make(client)
    try:
        found = _read(module, thing)
        plan = thing.plan(found)
        if not module.check_mode:
            # Also where nothing changes: what is there may not be ready yet.
            result = thing.apply(plan, found)
        else:
            result = thing.predicted(plan, found) if plan.changed else found or {}
    except (GoogleError, Refused) as error:
        fail(module, error, client)
    for warning in client.warnings:
        module.warn(warning)
    module.exit_json(changed=plan.changed, diff=google_kind.diff(str(thing), plan), resource=result, **thing.results())


def _read(module: AnsibleModule, thing: Resource) -> dict[str, Any] | None:
    """What is there; in check mode the API may be one that the run itself would enable."""
    try:
        return thing.read()
    except GoogleError as error:
        if not (module.check_mode and error.is_disabled):
            raise
        thing.client.warnings.append(f"{thing}: its API is not enabled yet; check mode takes it as not there.")
        return None


def fail(module: AnsibleModule, error: GoogleError | Refused, client: Client | None = None) -> NoReturn:
    """End the module with Google's refusal or ours; code and reason stand in fields of their own as well.

    Args:
        module: it ends.
        error: why.
        client: has what was done and warned of before.
    """
    done, warnings = (client.done, client.warnings) if client else ([], [])
    for warning in warnings:
        module.warn(warning)
    message = str(error)
    if done:
        message += f"{'' if message.endswith('.') else '.'} Done before that, and left as it is: {', '.join(done)}."
    if isinstance(error, GoogleError):
        module.fail_json(msg=message, code=error.code, reason=error.reason, changed=bool(done))
    module.fail_json(msg=message, reason="refused", changed=bool(done))


def require_libraries(module: AnsibleModule) -> None:
    """End the module where google-auth or requests is not installed; let it return what is no secret."""
    if google_auth.IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("google-auth and requests"), exception=google_auth.IMPORT_ERROR)
    module.no_log_values -= google_auth.public_values(module.params)
