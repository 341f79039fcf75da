"""A real project at Google with the methods that the tests of tests/e2e/test_provision.py ask of the lab's.

Everything goes to Google's own endpoints (or wherever ``HTTPS_PROXY`` leads), with the caller's application default
credentials.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import google.auth
import google.auth.exceptions
from google.auth.transport.requests import AuthorizedSession

from lab.google import Google, discovery
from tests.e2e.cloud import READS, Cloud

PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
# That of the tests in tests/e2e: its things are named after it, so that both lanes can run the same ones.
ENVIRONMENT = "e2e"
HOST = "dagster-e2e"
ID = r"[a-z][-a-z0-9]{4,28}[a-z0-9]"
# Others need an address or a host that this lane knows nothing of.
WAYS = ("iap", "internal")
# More would be somebody's mistake.
LONGEST_WAIT_SECONDS = 600


class LaneError(Exception):
    """Why nothing was begun, or what could not be done; for whoever started it."""


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    Attributes:
        project: ``GCP_TEST_PROJECT``, without which nothing is done. No other source of a project counts.
        zone: ``GCP_TEST_ZONE``.
        ssh_via: ``GCP_TEST_SSH_VIA``, the way to the machine for ``site.yml``.
        operator: ``GCP_TEST_OPERATOR``, a member of IAM who gets what an operator needs; empty: nobody.
        clean: ``GCP_TEST_CLEAN=yes``: remove first what an interrupted run has left.
    """

    project: str
    zone: str = "europe-west3-c"
    ssh_via: str = "iap"
    operator: str = ""
    clean: bool = False

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises LaneError where something is missing or wrong."""
        project = environment.get("GCP_TEST_PROJECT", "")
        if not project:
            raise LaneError(
                "GCP_TEST_PROJECT: not set; expected the id of a project that is there for tests. They make and delete "
                "things in it, and Google charges for them. gcloud's own project is not taken."
            )
        mistakes = []
        if not re.fullmatch(ID, project):
            mistakes.append(f"GCP_TEST_PROJECT: found {project!r}; expected a project's id, not its number or title")
        zone = environment.get("GCP_TEST_ZONE") or cls.zone
        if not re.fullmatch(r"[a-z]+(-[a-z]+)+[0-9]+-[a-z]", zone):
            mistakes.append(f"GCP_TEST_ZONE: found {zone!r}; expected a zone such as {cls.zone}")
        ssh_via = environment.get("GCP_TEST_SSH_VIA") or cls.ssh_via
        if ssh_via not in WAYS:
            mistakes.append(f"GCP_TEST_SSH_VIA: found {ssh_via!r}; expected one of {', '.join(WAYS)}")
        clean = environment.get("GCP_TEST_CLEAN", "")
        if clean not in ("", "yes"):
            mistakes.append(f"GCP_TEST_CLEAN: found {clean!r}; expected yes, or nothing")
        if mistakes:
            raise LaneError("\n".join(mistakes))
        return cls(project, zone, ssh_via, environment.get("GCP_TEST_OPERATOR", ""), clean == "yes")


class RealGoogle:
    """Google itself, as far as tests ask it: what a thing is, and what somebody else does to it."""

    def __init__(self) -> None:
        try:
            credentials, _ = google.auth.default(scopes=[PLATFORM])
        except google.auth.exceptions.DefaultCredentialsError as error:
            raise LaneError(f"{error}\nexpected: gcloud auth application-default login") from None
        self.session = AuthorizedSession(credentials)

    def environment(self) -> dict[str, str]:
        """Playbooks need no other variables than this process has."""
        return {}

    def request(self, method_id: str, parameters: Mapping[str, str] | None = None, body: Any = None) -> dict[str, Any]:
        """Call a method by its id in Google's documents; returns the answer. Raises LaneError with Google's words."""
        document, method = discovery.method(method_id)
        given = dict(parameters or {})
        (host,) = {host for host, names in discovery.DOCUMENTS.items() if document.name in names} - {
            "www.googleapis.com"
        }
        queries = {name: value for name, value in given.items() if name not in discovery.path_names(method)}
        answer = self.session.request(
            method.http,
            f"https://{host}/{discovery.expand(method, given)}",
            params=queries,
            json=body,
            timeout=LONGEST_WAIT_SECONDS,
        )
        if not answer.ok:
            raise LaneError(f"{method_id}: {answer.status_code} {answer.text}")
        return cast("dict[str, Any]", answer.json())

    def call(self, method_id: str, parameters: Mapping[str, str] | None = None, body: Any = None) -> dict[str, Any]:
        """The same, and wait for compute's operation. Raises LaneError if it ends in an error."""
        answer = self.request(method_id, parameters, body)
        while answer.get("kind") == "compute#operation" and answer["status"] != "DONE":
            place = next(place for place in ("zone", "region", "global") if place in answer or place == "global")
            where: dict[str, str] = {} if place == "global" else {place: answer[place].rsplit("/", 1)[1]}
            project = (parameters or {})["project"]
            answer = self.request(
                f"compute.{place}Operations.wait", {"project": project, "operation": answer["name"], **where}
            )
        if "error" in answer:
            raise LaneError(f"{method_id}: {answer['error']}")
        return answer

    def thing(self, path: str) -> dict[str, Any] | None:
        """What compute has at a path, or None."""
        answer = self.session.request("GET", f"https://compute.googleapis.com/compute/v1/{path}", timeout=60)
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise LaneError(f"{path}: {answer.status_code} {answer.text}")
        return cast("dict[str, Any]", answer.json())

    def is_there(self, url: str) -> bool:
        """Whether an API other than compute has something at a URL."""
        answer = self.session.request("GET", url, timeout=60)
        # An API that nobody has enabled yet has nothing.
        if answer.status_code == 404 or (answer.status_code == 403 and "SERVICE_DISABLED" in answer.text):
            return False
        if not answer.ok:
            raise LaneError(f"{url}: {answer.status_code} {answer.text}")
        return True


class Project(Cloud):
    """The project and the inventory of the one environment in it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.real = RealGoogle()
        # The tests that run here ask no more of a Google than this one has.
        super().__init__(cast("Google", self.real), folder, HOST, settings.project, settings.zone)
        self._known: set[str] = set()
        # Services that somebody has enabled before.
        self.first_changes = 12
        self.write(
            gce_instance_labels={"purpose": "test-gcp"},
            gce_project_operators=[settings.operator] if settings.operator else [],
        )

    def forget_calls(self) -> None:
        self._known = {operation["name"] for operation in self._operations()}

    def writes(self) -> list[str]:
        """The operations of compute that are new; Google keeps them for two weeks."""
        found = []
        for operation in self._operations():
            collection = operation["targetLink"].rsplit("/", 2)[1]
            call = f"compute.{collection}.{operation['operationType']}"
            if operation["name"] not in self._known and call.rsplit(".", 1)[1] not in READS:
                found.append(call)
        return found

    def read_twice(self) -> list[tuple[str, str]]:
        """Nothing: Google does not tell what was read. The lab does."""
        return []

    def _operations(self) -> list[dict[str, Any]]:
        if not self._has_compute():
            return []
        found: list[dict[str, Any]] = []
        for place, where in (("global", {}), ("region", {"region": self.zone[:-2]}), ("zone", {"zone": self.zone})):
            page = ""
            while True:
                parameters = {"project": self.project, **where, **({"pageToken": page} if page else {})}
                answer = self.real.request(f"compute.{place}Operations.list", parameters)
                found += answer.get("items", [])
                page = answer.get("nextPageToken", "")
                if not page:
                    break
        return found

    def _has_compute(self) -> bool:
        """Whether Compute Engine's API is enabled."""
        return self.real.is_there(f"https://compute.googleapis.com/compute/v1/projects/{self.project}")

    def check(self) -> None:
        """Raises LaneError if the machine cannot be reached from here, or the caller cannot read the project."""
        if self.settings.ssh_via == "iap" and not shutil.which("gcloud"):
            raise LaneError("gcloud: not on PATH; expected it for the way through IAP, or GCP_TEST_SSH_VIA=internal")
        url = f"https://cloudresourcemanager.googleapis.com/v3/projects/{self.project}"
        answer = self.real.session.request("GET", url, timeout=60)
        if not answer.ok and "SERVICE_DISABLED" not in answer.text:
            raise LaneError(
                f"GCP_TEST_PROJECT: project {self.project} cannot be read: {answer.status_code} {answer.text}"
            )

    def snapshots(self) -> list[str]:
        """Names of the data disk's snapshots."""
        if not self._has_compute():
            return []
        answer = self.real.request("compute.snapshots.list", {"project": self.project})
        disk = f"/disks/{self.host}-data"
        return [found["name"] for found in answer.get("items", []) if found["sourceDisk"].endswith(disk)]

    def leftovers(self) -> list[str]:
        """What there is of this environment: things that cost money, or that stand in a next run's way."""
        compute = {
            "instances": [self.host],
            "disks": [f"{self.host}-data", self.host],
            "addresses": [f"{self.host}-address"],
            "resourcePolicies": [f"dagster-snapshots-{ENVIRONMENT}"],
            "firewalls": [f"dagster-iap-ssh-{ENVIRONMENT}"],
            "routers": [f"dagster-router-{ENVIRONMENT}"],
            "subnetworks": [f"dagster-subnetwork-{ENVIRONMENT}"],
            "networks": [f"dagster-network-{ENVIRONMENT}"],
        }
        found = []
        if self._has_compute():
            paths = [self.path(kind, name) for kind, names in compute.items() for name in names]
            found = [path for path in paths if self.real.thing(path) is not None]
            found += [f"projects/{self.project}/global/snapshots/{name}" for name in self.snapshots()]
        account = f"dagster-vm-{ENVIRONMENT}@{self.project}.iam.gserviceaccount.com"
        repository = f"projects/{self.project}/locations/{self.zone[:-2]}/repositories/dagster-core-{ENVIRONMENT}"
        for url in (
            f"https://iam.googleapis.com/v1/projects/{self.project}/serviceAccounts/{account}",
            f"https://artifactregistry.googleapis.com/v1/{repository}",
        ):
            if self.real.is_there(url):
                found.append(url.split("/v1/", 1)[1])
        return found

    def clean(self) -> None:
        """Remove all of it, also what a failed test has left. Raises LaneError with what is still there."""
        if not self.leftovers():
            return
        played = self.play(
            "playbooks/destroy.yml",
            gce_destroy=ENVIRONMENT,
            gce_destroy_data=f"{self.host}-data",
            gce_destroy_address=f"{self.host}-address",
            gce_destroy_repository=f"dagster-core-{ENVIRONMENT}",
            gce_destroy_service_account=f"dagster-vm-{ENVIRONMENT}",
            gce_destroy_snapshot=False,
            # A test may have ended between taking the label away and giving it back.
            gce_instance_adopt=True,
        )
        for name in self.snapshots():
            self.real.call("compute.snapshots.delete", {"project": self.project, "snapshot": name})
        left = self.leftovers()
        if left or played.status:
            raise LaneError(
                f"{played.output[-4000:]}\nStill in project {self.project}, and charged for:\n  "
                + ("\n  ".join(left) or "nothing that we know of, but destroy.yml failed")
                + "\nGCP_TEST_CLEAN=yes make test-gcp tries again."
            )
