# SPDX-License-Identifier: Apache-2.0
"""One thing in Google's cloud: read it, plan what has to be done, do it. The rules stand in :mod:`google_resource`."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dataops.dagster_gce.plugins.module_utils import google_client, google_kind
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_fields import Fixed, Method, Patch, pick, place
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_kind import Kind, Plan, Refused, Step


class Resource:
    """One thing of a kind: the default behaviour, which a module may extend.

    Args:
        kind: its table.
        options: the module's options.
        client: for the calls.
    """

    def __init__(self, kind: Kind, options: Mapping[str, Any], client: Client) -> None:
        self.kind = kind
        self.options = options
        self.client = client
        self.name: str = options["name"]
        self.collection = kind.collection.format_map(options)
        self.path = f"{self.collection}/{self.name}"

    # What a module may replace

    def read(self) -> dict[str, Any] | None:
        """The thing as Google has it, None where it is not there."""
        return self.client.get(self.kind.api, self.path, what=f"read {self}")

    def check(self, found: Mapping[str, Any] | None) -> Sequence[str]:
        """Reasons to refuse ``found`` before anything is planned: somebody else's thing, one in use."""
        return ()

    def create_body(self, plan: Plan) -> dict[str, Any]:
        """The body of the insert."""
        body: dict[str, Any] = {} if self.kind.id_parameter else {"name": self.name}
        for step in plan.steps:
            if step.field.on_create:
                place(body, step.field.api, step.wanted)
        return body

    def create(self, plan: Plan) -> None:
        """Make the thing."""
        query = {self.kind.id_parameter: self.name} if self.kind.id_parameter else None
        self.client.change(
            self.kind.api, "POST", self.collection, body=self.create_body(plan), query=query, what=f"create {self}"
        )

    def update(self, plan: Plan, found: Mapping[str, Any]) -> None:
        """Change what differs: one PATCH, then one call a method, in the table's order."""
        done: list[Method] = []
        patched = [step for step in plan.steps if isinstance(step.field.change, Patch)]
        if patched:
            self.patch(patched, found)
        for step in plan.steps:
            method = step.field.change
            if isinstance(method, Method) and method not in done:
                done.append(method)
                shared = [other for other in plan.steps if other.field.change is method]
                self.call_method(method, shared, found)

    def delete(self, found: Mapping[str, Any]) -> None:
        """Delete the thing; one that is gone already is fine."""
        try:
            self.client.change(self.kind.api, "DELETE", self.path, what=f"delete {self}")
        except GoogleError as error:
            if not error.is_absence_of(self.path):
                raise

    def results(self) -> dict[str, Any]:
        """What the module returns beside the resource."""
        return {}

    # The parts

    def patch(self, steps: Sequence[Step], found: Mapping[str, Any]) -> None:
        """One PATCH of the resource with these fields."""
        body: dict[str, Any] = {}
        for step in steps:
            place(body, step.field.api, step.wanted)
        body |= {name: found[name] for name in self.kind.sent_back if name in found}
        query = {"updateMask": ",".join(step.field.api for step in steps)} if self.kind.update_mask else None
        self.client.change(
            self.kind.api,
            "PATCH",
            self.path,
            body=body,
            query=query,
            what=f"change {google_kind.option_names(steps)} of {self}",
        )

    def call_method(self, method: Method, steps: Sequence[Step], found: Mapping[str, Any]) -> None:
        """One call of a method of its own for these fields."""
        wanted = {step.field.api: step.wanted for step in steps}
        self.client.change(
            self.kind.api,
            method.verb,
            f"{self.path}/{method.name}",
            body=method.body(wanted, found, self.options),
            query=method.query(wanted, found, self.options) if method.query else None,
            what=f"change {google_kind.option_names(steps)} of {self}",
        )

    def plan(self, found: Mapping[str, Any] | None) -> Plan:
        """What has to be done.

        Raises:
            Refused: something of it cannot be done.
        """
        present = self.options["state"] != "absent"
        if reasons := self.check(found):
            raise Refused("\n".join(reasons))
        if not present:
            return Plan("none") if found is None else Plan("delete", before=self.shown(found), after=None)
        if found is None:
            steps = tuple(
                Step(part, None, part.form(wanted), wanted)
                for part in self.kind.fields
                if (wanted := part.wanted(self.options, None)) is not None
            )
            return Plan(
                "create", steps, before=None, after={"name": self.name, **google_kind.values(steps, "after", new=True)}
            )
        compared = [
            Step(part, *part.compare(found, wanted), wanted)
            for part in self.kind.fields
            if (wanted := part.wanted(self.options, found)) is not None
        ]
        steps = tuple(step for step in compared if step.before != step.after)
        if refused := [reason for step in steps if (reason := self._refusal(step))]:
            raise Refused("\n".join(refused))
        names = {step.field.option for step in steps}
        return Plan(
            "update" if steps else "none",
            steps,
            before={"name": self.name, **google_kind.values(compared, "before", changed=names)},
            after={"name": self.name, **google_kind.values(compared, "after", changed=names)},
        )

    def shown(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """A resource as the diff shows it: the managed fields only."""
        steps = [
            Step(part, *part.compare(found, wanted), wanted)
            for part in self.kind.fields
            if (wanted := part.wanted(self.options, found)) is not None
        ]
        return {"name": self.name, **google_kind.values(steps, "before")}

    def predicted(self, plan: Plan, found: Mapping[str, Any] | None) -> dict[str, Any]:
        """The resource as check mode returns it: what is there, with what would change."""
        if plan.action == "delete":
            return {}
        body: dict[str, Any] = copy.deepcopy(dict(found)) if found else {"name": self.name}
        if not found and self.kind.api == "compute":
            body["selfLink"] = self.client.url(self.kind.api, self.path)
        for step in plan.steps:
            there = pick(body, step.field.api)
            merged = isinstance(there, dict) and isinstance(step.wanted, dict) and step.field.merge is None
            place(body, step.field.api, {**there, **step.wanted} if merged else step.wanted)
        return body

    def apply(self, plan: Plan, found: dict[str, Any] | None) -> dict[str, Any]:
        """Carry the plan out.

        Returns:
            The resource as Google has it afterwards; empty after a deletion.
        """
        if plan.action == "delete":
            self.delete(found or {})
            return {}
        if plan.action == "create":
            found = self._create(plan)
            # What the insert does not take, and, where somebody else was faster, what they made differently.
            plan = self.plan(found)
        if plan.action == "update":
            found = self._update(plan, found or {})
            left = self.plan(found)
            for step in left.steps:
                self.client.warnings.append(
                    f"{self}: Google has accepted {step.field.option} but still has "
                    f"{google_kind.short(step.before, step.field)}; the next run will report the change again"
                )
        return found or {}

    def _create(self, plan: Plan) -> dict[str, Any]:
        try:
            self.create(plan)
        except GoogleError as error:
            if not error.already_exists:
                raise
            # Somebody else's creation may not be at its end: the name is taken before the thing can be read.
            for pause in google_client.PAUSES:
                found = self.read()
                if found is not None:
                    return found
                time.sleep(pause)
            raise
        found = self.read()
        if found is None:
            raise GoogleError(
                f"create {self}", message="Google reports it done, but it is not there. Did somebody delete it?"
            )
        return found

    def _update(self, plan: Plan, found: dict[str, Any]) -> dict[str, Any]:
        try:
            self.update(plan, found)
        except GoogleError as error:
            if not error.is_conflict:
                raise
            again = self.read()
            if again is None:
                raise
            plan = self.plan(again)
            if plan.action == "update":
                self.update(plan, again)
        return self.read() or {}

    def _refusal(self, step: Step) -> str | None:
        """Why a difference cannot be removed, with all that the user needs to decide."""
        option = step.field.option
        before, after = (google_kind.short(value, step.field) for value in (step.before, step.after))
        values = f"{option}: {self} has {before}, asked for {after}"
        if step.field.refuse is not None and (reason := step.field.refuse(step.before, step.after)):
            return f"{values}; {reason}"
        if isinstance(step.field.change, Fixed):
            return (
                f"{values}; Google cannot change it in place, and nothing is replaced here: {step.field.change.choices}"
            )
        return None

    def __str__(self) -> str:
        """Kind and name, as messages have it."""
        return f"{self.kind.name} {self.name}"
