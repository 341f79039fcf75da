# Copyright (c) 2026, the dataops.dagster_gce authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Brings one instance to what is wanted: reads it, plans, and carries the plan out, stopped where Google needs that.

What fails half-way says what was done before, and a machine that was stopped for a change is started again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ansible_collections.dataops.dagster_gce.plugins.module_utils import (
    google_instance,
    google_instance_disks,
    google_owned,
)
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_client import Client
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_errors import GoogleError
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_instance import Wanted
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_instance_power import UNSETTLED, Power
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_links import image_path
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_plan import Call, Json, Plan
from ansible_collections.dataops.dagster_gce.plugins.module_utils.google_resource import Refused

POLL_SECONDS = 2.0
# A service account that was just made is not known everywhere for a minute or so.
ACCOUNT_SECONDS = 90.0
ACCOUNT_PAUSE_SECONDS = 5.0


@dataclass
class Result:
    """What was done, or in check mode what would be."""

    instance: Json | None = None
    changes: list[str] = field(default_factory=list)
    before: Json = field(default_factory=dict)
    after: Json = field(default_factory=dict)
    stopped: bool = False
    warnings: list[str] = field(default_factory=list)

    def note(self, name: str, before: object, after: object) -> None:
        """Note a change that is none of the plan's."""
        self.changes.append(name)
        self.before[name], self.after[name] = before, after


class Run:
    """One run for one instance.

    Args:
        client: for Compute Engine.
        wanted: what the instance should be.
        check_mode: whether to plan only.
    """

    def __init__(self, client: Client, wanted: Wanted, *, check_mode: bool) -> None:
        self.client = client
        self.wanted = wanted
        self.check_mode = check_mode
        self.result = Result()
        self.done: list[str] = []
        self.what = f"instance {wanted.name} in {wanted.place.zone}"

    def present(self, state: str) -> Result:
        """See to it that the instance is there, as wanted, and running or not as `state` says.

        Raises:
            Refused: it cannot be done, or not in place.
            GoogleError: Google refuses to read the instance.
        """
        found = self.read()
        if found is None:
            found = self.create(state)
            if found is None:
                return self.result
        self.own(found)
        self.change(found, state)
        return self.result

    def absent(self) -> Result:
        """See to it that the instance is not there; its data disks stay."""
        found = self.read()
        if found is None:
            return self.result
        self.own(found)
        protected = found.get("deletionProtection", False)
        if protected and not self.wanted.get("lift_deletion_protection"):
            raise Refused(
                f"{self.what} has deletion protection; nothing was removed. "
                "If it is really to go: lift_deletion_protection: true"
            )
        self.result.instance = found
        self.result.note("state", "present", "absent")
        calls = [google_instance.deletion_protection(self.wanted.path, False)] if protected else []
        boot = self.wanted.get("boot_disk") or {}
        for disk in found.get("disks", []):
            goes = bool(disk.get("boot")) and boot.get("auto_delete") is not False and disk.get("autoDelete", False)
            if disk.get("autoDelete", False) and not goes:
                calls.append(google_instance_disks.keep_disk(self.wanted.path, disk["deviceName"]))
        if self.check_mode:
            return self.result
        try:
            for call in calls:
                self.send(call, f"keep the disks of {self.what}" if "Disk" in call.path else f"unprotect {self.what}")
            self.send(Call("DELETE", self.wanted.path), f"remove {self.what}")
        except GoogleError as error:
            lifted = " Its deletion protection is off now." if protected else ""
            raise Refused(f"{error}{lifted}") from error
        self.result.instance = None
        return self.result

    def read(self) -> Json | None:
        """The instance, None if there is none; in check mode also where the API is still to be enabled."""
        try:
            return self.client.get("compute", self.wanted.path, what=f"read {self.what}")
        except GoogleError as error:
            if self.check_mode and error.is_disabled:
                self.result.warnings.append(
                    f"{self.what}: its API is not enabled yet; check mode takes it as not there."
                )
                return None
            raise

    def own(self, found: Json) -> None:
        """Refuse what somebody else made."""
        for line in google_owned.refusal(self.what, found.get("labels"), bool(self.wanted.get("adopt"))):
            raise Refused(line)

    def create(self, state: str) -> Json | None:
        """Make the instance; what somebody else makes in the same moment is returned as found."""
        self.complete()
        request = google_instance.body(self.wanted)
        self.result.after = {**request, "status": "TERMINATED" if state == "stopped" else "RUNNING"}
        self.result.changes.append("state")
        if not self.result.warnings:
            self.look_up()
        if self.check_mode:
            return None
        path = self.wanted.path.rsplit("/", 1)[0]
        try:
            self.insert(path, request)
        except GoogleError as error:
            if error.already_exists and (found := self.read()) is not None:
                self.result.after, self.result.changes = {}, []
                return found
            raise Refused(f"{error} {self.leftovers(error)}") from error
        if state == "stopped":
            self.power("stop")
        self.result.instance = self.read()
        return None

    def insert(self, path: str, request: Json) -> None:
        """Send the request, again while Compute Engine does not know a new service account."""
        deadline = time.monotonic() + min(ACCOUNT_SECONDS, self.client.timeout)
        while True:
            try:
                self.client.change("compute", "POST", path, body=request, what=f"make {self.what}")
                return
            except GoogleError as error:
                late = time.monotonic() + ACCOUNT_PAUSE_SECONDS > deadline
                if late or not self.account_is_new(error):
                    raise
            time.sleep(ACCOUNT_PAUSE_SECONDS)

    def account_is_new(self, error: GoogleError) -> bool:
        """Whether the error is about a service account that is there nevertheless."""
        email = (self.wanted.get("service_account") or {}).get("email")
        if not email or email not in error.message or "not found" not in error.message:
            return False
        try:
            return self.client.get("iam", f"projects/-/serviceAccounts/{email}") is not None
        except GoogleError:
            return False

    def complete(self) -> None:
        """Refuse to make an instance of which too little is known."""
        missing = []
        if not self.wanted.get("machine_type"):
            missing.append("machine_type: found nothing; expected a machine type such as 'e2-standard-4'")
        boot = self.wanted.get("boot_disk") or {}
        if sum(1 for name in ("image", "snapshot", "source") if boot.get(name)) != 1:
            missing.append("boot_disk: expected exactly one of image, snapshot and source")
        interface = self.wanted.get("network_interface") or {}
        if not interface.get("network") and not interface.get("subnetwork"):
            missing.append("network_interface: expected a subnetwork or a network")
        if missing:
            raise Refused(
                f"{self.what} does not exist, and to make it there is something missing:\n" + "\n".join(missing)
            )

    def look_up(self) -> None:
        """Say clearly what the zone or the image's project does not have, also in check mode."""
        place, machine_type = self.wanted.place, self.wanted.get("machine_type")
        if self.exists(place.zonal("machineTypes", machine_type)) is False:
            raise Refused(
                f"machine_type: found {machine_type!r}, which {place.zone} does not have; choose one of "
                f"`gcloud compute machine-types list --zones={place.zone} --project={place.project}`, or another zone. "
                "Nothing was made."
            )
        image = self.wanted.get("boot_disk").get("image")
        if image and self.exists(image_path(image)) is False:
            raise Refused(
                f"boot_disk.image: found {image!r}, which does not exist; choose one of `gcloud compute images list` "
                "(project/family, or the path of an image). Nothing was made."
            )

    def exists(self, path: str) -> bool | None:
        """Whether something is there; None if the caller may not know."""
        try:
            return self.client.get("compute", path) is not None
        except GoogleError as error:
            if error.code == 403:
                return None
            if error.code in (400, 404):
                return False
            raise

    def leftovers(self, error: GoogleError) -> str:
        """What a failed creation has left behind."""
        if error.code is not None and error.code < 500 and not error.unanswered and not error.reason.isupper():
            return "Nothing was made."  # it was the request that was refused; operations spell their errors IN_CAPITALS
        try:
            found = self.client.get("compute", self.wanted.path)
        except GoogleError:
            return "Whether anything was made is not known: run again."
        if found is None:
            return "No instance was made."
        return f"The instance is there all the same ({found.get('status')}): run again to have it looked at."

    def change(self, found: Json, state: str) -> None:
        """Carry out what differs."""
        plan = google_instance.plan(self.wanted, found)
        self.show(plan)
        if plan.refusals:
            raise Refused("\n".join([f"{self.what} cannot be changed in place:", *map(str, plan.refusals)]))
        power = Power.of(found["status"], state, bool(plan.needs_stop))
        if state == "reset" and not power.running:
            raise Refused(f"{self.what}: found {found['status']}; only a running machine can be reset")
        if power.stop and plan.needs_stop and state != "stopped" and not self.wanted.get("allow_stop"):
            raise Refused(
                "\n".join(
                    [
                        f"{self.what} is {found['status']}, and Google changes this on a stopped machine only:",
                        *(str(change) for change in plan.changes if change.needs_stop),
                        "Nothing was changed. With allow_stop: true it is stopped, changed and started again.",
                    ]
                )
            )
        self.result.stopped = power.stop and power.start
        if power.after != found["status"]:
            self.result.note("status", found["status"], power.after)
        if state == "reset":
            self.result.note("reset", "running", "reset")
        self.result.instance = found
        if self.check_mode or not self.result.changes:
            return
        self.carry_out(found, plan, power, reset=state == "reset")
        self.result.instance = self.read()
        for change in google_instance.plan(self.wanted, self.result.instance or {}).changes:
            self.result.warnings.append(
                f"{self.what}: Google has accepted {change.name} but still has {change.before!r}; "
                "the next run will report the change again"
            )

    def carry_out(self, found: Json, plan: Plan, power: Power, *, reset: bool) -> None:
        """Change what can be changed live, then, stopped, the rest."""
        down = False
        try:
            self.apply(found, plan, stopped=False)
            if found["status"] in UNSETTLED:
                self.settle()
            if power.stop:
                self.power("stop")
                down = True
            self.apply(found, plan, stopped=True)
        except GoogleError as error:
            words = [str(error), self.progress(plan)]
            if down and power.start:
                words.append(self.back_up())
            raise Refused(" ".join(words)) from error
        try:
            if power.start:
                self.power("resume" if power.suspended and not power.stop else "start")
            if reset:
                self.power("reset")
        except GoogleError as error:
            state = " The machine is stopped." if power.start else ""
            raise Refused(f"{error} {self.progress(plan)}{state}") from error

    def apply(self, found: Json, plan: Plan, *, stopped: bool) -> None:
        """Make the changes of one stage; where somebody else was faster, read again, once."""
        pending = [change for change in plan.changes if change.needs_stop == stopped]
        again = True
        while pending:
            change = pending[0]
            try:
                for call in change.calls:
                    self.send(call, f"change {change.name} of {self.what}")
            except GoogleError as error:
                if not error.is_conflict or not again:
                    raise
                again, latest = False, self.read()
                if latest is None:
                    raise
                self.own(latest)
                fresh = google_instance.plan(self.wanted, latest)
                pending = [change for change in fresh.changes if change.needs_stop == stopped]
                continue
            self.done.append(change.name)
            pending.pop(0)

    def progress(self, plan: Plan) -> str:
        """What was changed before something failed."""
        left = [change.name for change in plan.changes if change.name not in self.done]
        done = f"Changed before: {', '.join(self.done)}." if self.done else "Nothing was changed before."
        return f"{done} Not changed: {', '.join(left)}." if left else done

    def back_up(self) -> str:
        """Start the machine again after a change that failed."""
        try:
            self.power("start")
        except GoogleError as error:
            return f"The machine was stopped for it and does not start: {error}"
        return "The machine was stopped for it and runs again."

    def power(self, action: str) -> None:
        """Start, stop, resume or reset the machine."""
        self.send(Call("POST", f"{self.wanted.path}/{action}"), f"{action} {self.what}")

    def settle(self) -> None:
        """Wait until a machine that goes down is down."""
        deadline = time.monotonic() + self.client.timeout
        while time.monotonic() < deadline:
            found = self.read()
            if found is None or found["status"] not in UNSETTLED:
                return
            time.sleep(POLL_SECONDS)

    def send(self, call: Call, what: str) -> None:
        """Make one call and wait until it is done."""
        self.client.change("compute", call.verb, call.path, body=call.body, query=call.query, what=what)

    def show(self, plan: Plan) -> None:
        """Take the plan over into the result."""
        self.result.before, self.result.after = dict(plan.before), dict(plan.after)
        self.result.changes = [change.name for change in plan.changes]
